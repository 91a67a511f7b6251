"""Where a head looks: attention weights of one prompt, and what can be said of them in a few numbers.

A weight says how much of a token's value vector a head takes up, not what that does to the output (Jain and Wallace
2019, "Attention is not Explanation", NAACL). What a head does is measured by removing it, see `fasp_core.scoring`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fasp_core.forward.diffs import token_pieces
from fasp_core.lazy import no_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import encode
from fasp_core.model.passes import in_halves, require_finite

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 64  # of a prompt that are looked at: tokens see only what stands before them, so the rest changes nothing
LABEL = 16  # characters of a token's label
_SEEN = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"})


@dataclass(frozen=True)
class Facts:
    """An attention pattern in numbers, means over the places after the first, which sees itself alone.

    Attributes
    ----------
    on_first : share of attention that lies on the first token, in [0, 1].
    distance : how many tokens back attention reaches.
    entropy, most : in bits, and what it would be if all tokens were looked at alike.
    places : number of places; with none, all else is nan.
    """

    on_first: float
    distance: float
    entropy: float
    most: float
    places: int


@dataclass(frozen=True, eq=False)
class Pattern:
    """Attention of all heads of one layer on one prompt.

    Attributes
    ----------
    labels : [T] token texts with spaces and signs made visible.
    weights : [H, T, T] float32; rows are queries and sum to 1, columns are keys, none after the query.
    tokens : of the whole prompt; more than T if only its beginning was looked at.
    """

    labels: tuple[str, ...]
    weights: NDArray[np.float32]
    tokens: int

    def facts(self, head: int) -> Facts:
        """What the pattern of one head comes to."""
        rows = self.weights[head, 1:].astype(np.float64)  # [T - 1, T]
        if not len(rows):
            return Facts(np.nan, np.nan, np.nan, np.nan, 0)
        query, key = np.indices(rows.shape)
        logs = np.log2(np.where(rows > 0, rows, 1.0))
        return Facts(
            float(rows[:, 0].mean()),
            float((rows * (query + 1 - key)).sum(1).mean()),
            float(-(rows * logs).sum(1).mean()),
            float(np.log2(np.arange(2, len(rows) + 2)).mean()),
            len(rows),
        )


@no_grad
def attentions(lm: LanguageModel, ids: Sequence[int]) -> tuple[Tensor, ...]:
    """For each layer the weights [H, T, T] of one row of tokens, under whatever masks are on, on the model's device."""
    with eager(lm):
        out = lm.model.base_model(torch.tensor([list(ids)], device=lm.device), output_attentions=True, use_cache=False)
    return tuple(layer[0] for layer in out.attentions)


@contextmanager
def eager(lm: LanguageModel) -> Iterator[None]:
    """The model with the one implementation of attention that gives its weights; locked, and left as it was."""
    with lm.lock:
        usual = lm.model.config._attn_implementation
        lm.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            lm.model.set_attn_implementation(usual)


def pattern(lm: LanguageModel, prompt: str, layer: int, limit: int = TOKENS) -> Pattern:
    """Attention of a layer's heads on a prompt, on its first `limit` tokens.

    Raises
    ------
    InputError
        The prompt holds no token.
    """
    (ids,) = encode(lm, [prompt])
    seen = ids[:limit]

    def run(row: Sequence[int]) -> NDArray[np.float32]:
        return np.asarray(attentions(lm, row)[layer].float().cpu().numpy())

    (weights,) = in_halves(lm, run, seen, lambda row: [row], "the attention of a single prompt")
    require_finite(lm, weights, f"the attention of layer {layer}", torch.tensor([seen]))
    return Pattern(token_labels(lm, seen), weights, len(ids))


def token_labels(lm: LanguageModel, ids: Sequence[int]) -> tuple[str, ...]:
    """[T] what each token adds to the text: spaces and line ends as signs, what cannot be printed as its code, and `⋯`
    for what adds nothing, such as the first bytes of a character."""
    return tuple(_label(piece) if piece else "⋯" for piece in token_pieces(lm.tokenizer, ids, special=True))


def _label(text: str) -> str:
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text.translate(_SEEN))
    return shown if len(shown) <= LABEL else shown[: LABEL - 1] + "…"
