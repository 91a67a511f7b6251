"""A model in which one head is known to be guilty, and a scorer that hears what it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import STARTS, TOKENS, tiny_lm

VALUES = {"stupid": 0.9, "idiot": 1.0, "fool": 0.7, "hate": 0.5, "ugly": 0.6, "man": 0.4, "woman": 0.3}
TYPICAL = 0.05
COLORS = ("red", "green", "blue")


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
        used = ["Ġgreen", "Ġred", "Ġblue", "Ġa", "Ġmet", "Ġsaw", *STARTS[:3], "Ġperson", "Ġhouse", "Ġteam", "Ġand"]
        used += ["Ġtree", "Ġof", "Ġmy"]
        only_green = torch.eye(len(used))[:, :1]  # 1 for "green", 0 for the other words
        to_see = torch.linalg.lstsq(normed[[TOKENS.index(t) for t in used]], only_green).solution[:, 0]
        attention = model.transformer.h[layer].attn
        for offset in (0, 32, 64):  # q, k, v
            part = slice(offset + 8 * head, offset + 8 * head + 8)
            attention.c_attn.weight[:, part] = 0  # q and k of 0: it looks at all words alike
            attention.c_attn.bias[part] = 0
        attention.c_attn.weight[:, 64 + 8 * head] = to_see
        attention.c_proj.weight[8 * head] = 10 * words[TOKENS.index("Ġidiot")]
    return lm
