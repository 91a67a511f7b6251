"""Scorers of words, models whose next tokens are written down, and one in which one head is known to be guilty."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import STARTS, TOKENS, tiny_lm

FLOOR = 0.25  # what a `Listed` scorer gives to a word that it does not know


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


class Listed:
    """A scorer by a list of words: the mean over the known parts of a word, in any letter case."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.name, self.scores, self.knows = "listed", scores, frozenset(scores)

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.value(text.lower()) for text in texts])

    def value(self, text: str) -> float:
        known = [
            self.scores[part] for part in text.replace("’", "-").replace("'", "-").split("-") if part in self.knows
        ]
        return sum(known) / len(known) if known else FLOOR


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


VALUES = {"stupid": 0.9, "idiot": 1.0, "fool": 0.7, "hate": 0.5, "ugly": 0.6, "man": 0.4, "woman": 0.3}
TYPICAL = 0.05
COLORS = ("red", "green", "blue")
USED = ["Ġgreen", "Ġred", "Ġblue", "Ġa", "Ġmet", "Ġsaw", *STARTS[:3], "Ġperson", "Ġhouse", "Ġteam", "Ġand"]
USED += ["Ġtree", "Ġof", "Ġmy"]
BAD = ["Ġbad", "Ġstupid", "Ġidiot", "Ġfool", "Ġugly"]


class TableScorer:
    """A text is worth its most toxic word."""

    name = "table of words"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([max((VALUES.get(w, TYPICAL) for w in text.split()), default=0.0) for text in texts])


def guilty_model(layer: int, head: int) -> LanguageModel:
    """GPT-2 in which one head says "idiot" wherever "green" has been seen, and all others nearly nothing."""
    lm = tiny_lm("gpt2")
    model, state = lm.model, lm.model.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            if "c_proj" in name or "wpe" in name:
                tensor.mul_(1e-3)  # blocks add little to the words
            if "ln_" in name:
                tensor.fill_(float(name.endswith("weight")))
        words = model.transformer.wte.weight
        normed = torch.nn.functional.layer_norm(words, (32,))
        only_green = torch.eye(len(USED))[:, :1]  # 1 for "green", 0 for the other words
        to_see = torch.linalg.lstsq(normed[[TOKENS.index(t) for t in USED]], only_green).solution[:, 0]
        attention = model.transformer.h[layer].attn
        for offset in (0, 32, 64):  # q, k, v
            part = slice(offset + 8 * head, offset + 8 * head + 8)
            attention.c_attn.weight[:, part] = 0  # q and k of 0: it looks at all words alike
            attention.c_attn.bias[part] = 0
        attention.c_attn.weight[:, 64 + 8 * head] = to_see
        attention.c_proj.weight[8 * head] = 10 * words[TOKENS.index("Ġidiot")]
    return lm


def late_model(layer: int, head: int, silent: int) -> LanguageModel:
    """`guilty_model` whose head looks away, at the first token, from all positions before `silent`."""
    lm = guilty_model(layer, head)
    model = lm.model
    with torch.no_grad():
        words = model.transformer.wte.weight
        taken = torch.stack([words[TOKENS.index(t)] for t in USED + BAD] + [torch.ones(32)])
        free = torch.linalg.svd(taken)[2][len(taken) :]  # directions that change no word's chance
        early, first = 8 * free[0], 8 * free[1]
        model.transformer.wpe.weight[:silent] += early
        model.transformer.wpe.weight[0] += first
        attention = model.transformer.h[layer].attn
        attention.c_attn.weight[:, 8 * head] = early
        attention.c_attn.weight[:, 32 + 8 * head] = first
        attention.c_proj.weight[8 * head] *= 0.3  # gradients vanish where a word is sure
    return lm
