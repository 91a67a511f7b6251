"""A scorer of whatever word, and models of a few tokens whose next-token probabilities are written down."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast


class Hashing:
    """A scorer of whatever word; it remembers what it was asked."""

    def __init__(
        self, name: str = "hashing", scores: dict[str, float] | None = None, other: float | None = None
    ) -> None:
        self.name, self.scores, self.other = name, scores or {}, other
        self.asked: list[list[str]] = []

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.asked.append(list(texts))
        return np.array([self.value(text) for text in texts])

    def value(self, text: str) -> float:
        return self.scores.get(text, sum(map(ord, text)) % 97 / 97 if self.other is None else self.other)


def tokenizer_of(tokens: Sequence[str], **options: Any) -> PreTrainedTokenizerFast:
    vocab = {token: i for i, token in enumerate(tokens)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab=vocab, merges=[])), **options)


class Seen:
    """Stands for a cache: all that the next token depends on is the last one."""

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        assert rows.ndim == 1


Follows = dict[str, dict[str, float]]


def table_lm(tokens: Sequence[str], follows: Follows, rows: int | None = None, **options: Any) -> Any:
    """A model whose next-token probabilities are written down; what is not, goes to the token "."."""
    rows = len(tokens) if rows is None else rows
    place = {token: i for i, token in enumerate(tokens)}
    chances = torch.full((rows, rows), 1e-30, dtype=torch.float64)
    for i in range(rows):
        chosen = follows.get(tokens[i] if i < len(tokens) else "", {})
        for token, p in chosen.items():
            chances[i, place[token]] = p
        chances[i, place["."]] += 1 - sum(chosen.values())
    log = chances.log().float()

    def base_model(ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(last_hidden_state=log[ids], past_key_values=Seen())

    model = SimpleNamespace(
        base_model=base_model, get_output_embeddings=lambda: SimpleNamespace(weight=torch.zeros(rows, 1))
    )
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer_of(tokens, **options),
        device=torch.device("cpu"),
        lock=torch.no_grad(),
        logits=lambda hidden: hidden,
        encode=lambda text: [place["."]],
    )
