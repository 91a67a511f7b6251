"""What is measured, written out as a person would compute it: with plain transformers, and loops over prompts."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import TokenToxicity
from fasp_core.metrics.token_toxicity import WordValues
from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import HEAD_DIMS, VOCAB, WORDS
from tests.support.tiny import TOKENS as SPELLED

SET = PruneSet.of([(0, 0), (1, 1)])
OUT_PROJ = {
    "gpt2": "transformer.h.{}.attn.c_proj",
    "gpt_neo": "transformer.h.{}.attn.attention.out_proj",
    "gptj": "transformer.h.{}.attn.out_proj",
    "opt": "model.decoder.layers.{}.self_attn.out_proj",
    "opt_post_norm": "model.decoder.layers.{}.self_attn.out_proj",
    "gpt_neox": "gpt_neox.layers.{}.attention.dense",
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3"), "model.layers.{}.self_attn.o_proj"),
}


def without(lm: LanguageModel, heads: Collection[tuple[int, int]]) -> Any:
    """A copy of a tiny model in which no weight leads from these heads to the output."""
    kind, model = lm.name.removeprefix("tiny-"), copy.deepcopy(lm.model)
    for layer, head in heads:
        weight = model.get_submodule(OUT_PROJ[kind].format(layer)).weight.data
        part = slice(head * HEAD_DIMS[kind], (head + 1) * HEAD_DIMS[kind])
        weight[part if kind == "gpt2" else (slice(None), part)] = 0  # Conv1D keeps [in, out]
    return model


@torch.no_grad()
def perplexity_by_hand(model: Any, tokens: Sequence[int], window: int, stride: int) -> float:
    """Window by window: each token is scored once, with what its window holds before it."""
    total, count, scored_to = 0.0, 0, 1
    for start in range(0, len(tokens), stride):
        row = tokens[start : start + window]
        log_p = model(torch.tensor([row])).logits[0].double().log_softmax(-1)
        for t in range(max(1, scored_to - start), len(row)):
            total -= float(log_p[t - 1, row[t]])
            count += 1
        scored_to = start + len(row)
        if scored_to == len(tokens):
            break
    return math.exp(total / count)


@torch.no_grad()
def toxicity_by_hand(model: Any, ids: Sequence[int], values: dict[str, float], typical: float) -> dict[str, float]:
    """Expected value of the next word, counted from the typical word: word -> its part of the sum.

    Parameters
    ----------
    values : what the scorer makes of the words that it knows; all others are worth `typical`.
    """
    p = model(torch.tensor([ids])).logits[0, -1].double().softmax(-1).tolist()
    above = {word: max(0.0, values.get(word, typical) - typical) / (1 - typical) for word in WORDS}
    return {word: p[SPELLED.index(f"Ġ{word}")] * value for word, value in above.items()}


def gap_by_hand(values: Sequence[float], groups: Sequence[Any], weights: Sequence[float] | None = None) -> float:
    """Sum over groups of how far a group's mean is from that of all prompts."""

    def mean(some: list[tuple[float, float]]) -> float:
        return sum(w * v for v, w in some) / sum(w for _, w in some)

    weights = [1.0] * len(values) if weights is None else weights
    pairs = list(zip(map(float, values), map(float, weights), strict=True))
    members = [[pair for pair, g in zip(pairs, groups, strict=True) if g == name] for name in set(groups)]
    return sum(abs(mean(pairs) - mean(mine)) for mine in members)


def worth_of(lm: LanguageModel) -> TokenToxicity:
    """Other numbers in every place, so that a wrong one shows."""
    values = np.random.default_rng(0).random((2, 2, VOCAB)).astype(np.float32)
    return TokenToxicity.of(lm, WordValues(values, 0.0, 0, 0, 0, ""))


@torch.no_grad()
def after(lm: LanguageModel, rows: torch.Tensor, worth: TokenToxicity) -> tuple[np.ndarray, np.ndarray]:
    """Of rows [m, T] in whole passes: probabilities [m, V] of the next word, and its expected toxicity [m, R]."""
    chances = torch.softmax(lm.model(rows).logits[:, -1].double(), -1)
    values = worth.values.double()[: chances.shape[-1]].view(chances.shape[-1], 2, -1)
    place = worth.fresh[rows[:, -1]].long()
    return chances.numpy(), torch.einsum("mv,mvr->mr", chances, values[:, place].movedim(0, 1)).numpy()


def enumerated(lm: LanguageModel, ids: list[int], steps: int, worth: TokenToxicity) -> np.ndarray:
    """[R, steps]: expected toxicity at each step, over every continuation there is."""
    rows, weights = torch.tensor([ids]), np.ones(1)
    found = []
    for _ in range(steps):
        chances, toxicity = after(lm, rows, worth)
        found.append(weights @ toxicity)
        weights = (weights[:, None] * chances).reshape(-1)
        rows = torch.cat([rows.repeat_interleave(VOCAB, 0), torch.arange(VOCAB).repeat(len(rows))[:, None]], 1)
        going = ~np.isin(rows[:, -1].numpy(), list(lm.stops))
        rows, weights = rows[torch.from_numpy(going)], weights[going]
    return np.array(found).T
