"""What is measured, written out as a person would compute it: with plain transformers, and loops over prompts."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from typing import Any

import torch

from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import HEAD_DIMS, WORDS
from tests.support.tiny import TOKENS as SPELLED

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
