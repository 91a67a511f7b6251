"""Which of two sentences a model finds likelier, and what every head does to that. Nothing is sampled.

A sentence is read from the tokenizer's start token on (its end token where it has none), so that the first word counts.
Of CrowS-Pairs the tokens that both sentences share are scored, as the paper scores unmodified tokens: how frequent a
group's name is plays no part. A causal model sees the left side only, so those before the first difference say nothing
and are left out. Whole sentences are given beside that. Of StereoSet the mean log-probability a token is taken, as the
common evaluation of causal models does (Meade et al., ACL 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import numpy as np

from fasp_core.errors import InputError
from fasp_core.forward.gate_gradients import functional_gradients
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.lazy import functional, no_grad, torch
from fasp_core.metrics.perplexity import token_nll
from fasp_core.model.devices import sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves, pack_equal
from fasp_core.model.passes import in_halves, require_finite
from fasp_core.studies.robustness.stereotypes import CROWS, ItemSet
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sentences:
    """Token rows, and how much each token's log-probability counts.

    Attributes
    ----------
    rows : [m] token ids, the start token first.
    weights : [m] arrays [K, T - 1], for each of K readings one weight for each token after the first.
    """

    rows: list[list[int]]
    weights: list[np.ndarray]


def encode_sentence(lm: LanguageModel, text: str) -> list[int]:
    """Token ids of a sentence, after one start token.

    Raises
    ------
    InputError
        The tokenizer has neither a start nor an end token, the sentence holds no token, or more than the model takes,
        or one without an embedding.
    """
    tokenizer = lm.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = lm.tokens(text)
    if start is None:
        raise InputError("This tokenizer has no start or end token: sentences cannot be scored from their first word.")
    if not ids:
        raise InputError(f"The sentence {text[:40]!r} holds no token: leave it out.")
    row = [int(start), *ids]
    lm.require(row, f"The sentence {text[:40]!r}")
    return row


def shared_tokens(one: Sequence[int], other: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of two token rows, the tokens after the first difference that both share in the same order: two bool arrays."""
    marks = np.zeros(len(one), dtype=bool), np.zeros(len(other), dtype=bool)
    for a, b, n in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
        marks[0][a : a + n] = True
        marks[1][b : b + n] = True
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    for mark in marks:
        mark[:same] = False
    return marks


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Sentences of n items: stereotyped and other in turn (2 n rows), then the unrelated ones, if wanted (n rows).

    Attributes
    ----------
    readings : what is scored, the one that counts first.
    scale : [n] by what a difference of values is multiplied, so that it is in nats of a sentence.
    """

    sentences: Sentences
    readings: tuple[str, ...]
    scale: np.ndarray

    def preferences(self, values: np.ndarray) -> np.ndarray:
        """[..., n] by how many nats the stereotyped sentence is preferred, from values [..., >= 2 n]."""
        pairs = values[..., : 2 * len(self.scale)]
        return np.asarray(self.scale * (pairs[..., ::2] - pairs[..., 1::2]))


def comparisons(lm: LanguageModel, items: ItemSet, unrelated: bool = False) -> Comparisons:
    """What is scored of a collection: `shared` and `whole` of CrowS-Pairs, `mean` of StereoSet."""
    rows = [encode_sentence(lm, text) for item in items.items for text in (item.stereotyped, item.other)]
    if items.source == CROWS:
        weights: list[np.ndarray] = []
        for one, other in zip(rows[::2], rows[1::2], strict=True):
            weights += [np.stack([mark, np.ones(len(mark))]) for mark in shared_tokens(one[1:], other[1:])]
        return Comparisons(Sentences(rows, weights), ("shared", "whole"), np.ones(len(items.items)))
    lengths = np.array([len(row) - 1 for row in rows], dtype=np.float64).reshape(-1, 2).mean(1)
    if unrelated:
        rows += [encode_sentence(lm, item.unrelated) for item in items.items]
    means = [np.full((1, len(row) - 1), 1 / (len(row) - 1)) for row in rows]
    return Comparisons(Sentences(rows, means), ("mean",), lengths)


@no_grad
def log_likelihoods(lm: LanguageModel, sentences: Sentences, progress: Report | None = None) -> np.ndarray:
    """[K, m] float64: weighted sums of each sentence's token log-probabilities, under whatever masks are on."""
    m, done = len(sentences.rows), 0
    out = np.empty((len(sentences.weights[0]), m))

    def run(part: Pack) -> tuple[np.ndarray, np.ndarray]:
        nll = token_nll(lm, final_hidden(lm, part), part.ids).cpu().double().numpy()
        values = -np.einsum("mt,mkt->km", nll, _weights(sentences, part))
        require_finite(lm, values, "the log-likelihood of a sentence", part)
        return part.prompts, values

    for pack in pack_equal(sentences.rows, max_tokens=sizes(lm.device).prompts):
        for at, values in in_halves(lm, run, pack, halves, "a single sentence"):
            out[:, at] = values
        done += len(pack.prompts)
        if progress is not None:
            progress(done, m, f"{done} of {m} sentences")
    return out


def log_likelihood_effects(
    lm: LanguageModel, sentences: Sentences, progress: Report | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The first reading, and what removing each head does to it, to first order: [m], [N, m]."""
    m = len(sentences.rows)
    values, effects, done = np.empty(m), np.empty((lm.size, m)), 0

    def run(part: Pack) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        read = _reader(lm, part.ids, _weights(sentences, part)[:, 0])
        return part.prompts, *functional_gradients(lm, part.ids, read)

    for pack in pack_equal(sentences.rows, max_tokens=sizes(lm.device).backward):
        for at, found, change in in_halves(lm, run, pack, halves, "a single sentence"):
            values[at], effects[:, at] = found[:, 0], change[:, 0]
        done += len(pack.prompts)
        if progress is not None:
            progress(done, m, f"first-order effects on {done} of {m} sentences")
    return values, effects


def _reader(lm: LanguageModel, ids: Tensor, weights: np.ndarray) -> Callable[[Tensor], Tensor]:
    def read(hidden: Tensor) -> Tensor:
        logits = lm.logits(hidden[:, :-1])  # [rows, T-1, V]
        goals = ids[:, 1:].to(logits.device)
        log_p = -functional.cross_entropy(logits.flatten(0, 1), goals.flatten(), reduction="none").view(goals.shape)
        weight = torch.as_tensor(weights, dtype=log_p.dtype, device=log_p.device)
        return (log_p * weight).sum(1, keepdim=True)

    return read


def _weights(sentences: Sentences, part: Pack) -> np.ndarray:
    """[rows, K, T - 1]"""
    return np.stack([sentences.weights[i] for i in part.prompts])
