"""Negative log-likelihood and perplexity, from final hidden states: whole passes or resumed ones look the same.

Perplexity is exp of the token-weighted mean negative log-likelihood. Logits are made in chunks: a [tokens, vocab]
matrix in float32 would be the largest thing in memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.data.text import TextConfig, TokenWindows, file_stamp, fitting, text_digest, token_windows, used_text
from fasp_core.errors import InputError
from fasp_core.forward.next_word import log_loss
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.lazy import no_grad, torch
from fasp_core.model.devices import sizes
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves, pack_rows
from fasp_core.model.passes import in_halves, require_finite

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 64  # consecutive targets summed into one stored number: the unit of resampling


@dataclass(frozen=True)
class Nll:
    """Negative log-likelihoods of a text under one model, in blocks of up to 64 consecutive targets.

    Attributes
    ----------
    sums : [n_blocks] float64, nats summed over the block's targets.
    counts : [n_blocks] number of targets in each block.
    """

    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """Token-weighted mean, in nats a token."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def perplexity(self) -> float:
        """exp of the mean; infinite where that overflows."""
        return math.exp(self.mean) if self.mean < 700 else math.inf

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True)
class PerplexityChange:
    """Perplexity of a base and a pruned model on the same text, with a paired interval.

    `interval` is of the change in nats (mean NLL pruned - base), from the spread over blocks (Student's t, level
    .95); `ppl_interval` is the same interval as perplexities of the pruned model, the base taken as fixed.
    """

    base: float
    pruned: float
    change_nats: float
    interval: tuple[float, float]
    ppl_interval: tuple[float, float]
    tokens: int
    blocks: int

    @property
    def change(self) -> float:
        return self.pruned - self.base

    @property
    def relative(self) -> float:
        """(pruned - base) / base, from the nats so that it stays exact for small changes."""
        return math.expm1(min(self.change_nats, 700.0))


@no_grad
def token_nll(lm: LanguageModel, hidden: Tensor, input_ids: Tensor) -> Tensor:
    """[B, T-1] float32 nats: -log p(token t+1 | tokens up to t).

    Parameters
    ----------
    hidden : [B, T, D] final hidden states of `input_ids` [B, T].
    """
    width = hidden.shape[-1]
    states = hidden[:, :-1].reshape(-1, width)
    targets = input_ids[:, 1:].reshape(-1).to(states.device)
    return log_loss(lm, states, targets).view(hidden.shape[0], -1)


def block_sums(nll: Tensor, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum per-token values over blocks of `BLOCK` targets of a row, leaving out targets before `first`.

    Parameters
    ----------
    nll : [B, T-1], entry t is the value of target position t + 1.
    first : [B], first target position that is scored.
    """
    values = nll.cpu().double().numpy()  # in this order: MPS has no float64
    sums, counts = [], []
    for row, start in zip(values, first, strict=True):
        scored = row[start - 1 :]
        for i in range(0, len(scored), BLOCK):
            sums.append(scored[i : i + BLOCK].sum())
            counts.append(len(scored[i : i + BLOCK]))
    return np.array(sums), np.array(counts)


def nll_sums(lm: LanguageModel, batch: Pack, hidden: Tensor, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`block_sums` of a pack of windows.

    Raises as `require_finite`.

    Parameters
    ----------
    hidden : [rows, T, D] final hidden states.
    first : of all windows of the text, [n]; the pack's `prompts` say which are in it.
    """
    sums, counts = block_sums(token_nll(lm, hidden, batch.ids), first[batch.prompts])
    require_finite(lm, sums, "the NLL of a text", batch)
    return sums, counts


def ending_nll(
    lm: LanguageModel, batch: Pack, hidden: Tensor, whole: Sequence[Tensor], first: np.ndarray
) -> np.ndarray:
    """[rows] nats of what each row of a pack ends with; its last token was not run.

    Raises as `require_finite`.

    Parameters
    ----------
    hidden : [rows, T, D] final hidden states.
    whole, first : all rows with their last token, and the position [n] from which each is read; the pack's `prompts`
        say which are in it.
    """
    length = hidden.shape[1]
    reads = [range(int(first[p]) - 1, length) for p in batch.prompts]
    places = [row * length + t for row, part in enumerate(reads) for t in part]
    words = torch.cat([whole[p][int(first[p]) :] for p in batch.prompts]).to(hidden.device)
    loss = log_loss(lm, hidden.reshape(-1, hidden.shape[-1])[torch.tensor(places, device=hidden.device)], words)
    starts = np.cumsum([0, *map(len, reads)])[:-1]
    sums: np.ndarray = np.add.reduceat(loss.cpu().double().numpy(), starts)
    require_finite(lm, sums, "the NLL of last words", batch)
    return sums


def window_packs(windows: TokenWindows, rows: int = 1) -> tuple[list[Pack], np.ndarray]:
    """The windows as packs of at most `rows` of one length, and [n] the first target of each window."""
    packs, start = [], 0
    for ids, _ in windows.batches:
        for part in ids.split(rows):
            packs.append(pack_rows(part, np.arange(start, start + len(part))))
            start += len(part)
    return packs, np.concatenate([first for _, first in windows.batches])


def measure_nll(
    lm: LanguageModel,
    windows: TokenWindows,
    progress: Callable[[float, float, str], None] | None = None,
    rows: int | None = None,
) -> Nll:
    """NLL of the text by whole passes, `rows` windows at a time, under whatever masks are on.

    Parameters
    ----------
    rows : None: as many as suit the device.
    """
    sums, counts = [], []
    done = 0
    packs, first = window_packs(windows, rows or sizes(lm.device).windows)

    def run(batch: Pack) -> tuple[np.ndarray, np.ndarray]:
        return nll_sums(lm, batch, final_hidden(lm, batch), first)

    for batch in packs:
        for s, c in in_halves(lm, run, batch, halves, "a single window of text"):
            sums.append(s)
            counts.append(c)
            done += int(c.sum())
            if progress is not None:
                progress(done, windows.n_scored, f"{done} of {windows.n_scored} tokens")
    return Nll(np.concatenate(sums), np.concatenate(counts))


def perplexity_change(
    base: Nll, pruned: Nll, level: float = 0.95, reach: Callable[[int], float] | None = None
) -> PerplexityChange:
    """Paired comparison of two models on the same blocks.

    The interval is a ratio estimate: the spread, over blocks, of the block's summed change minus the mean change
    times the block's size.

    Parameters
    ----------
    reach : half of the interval in standard errors, by the number of blocks; None: Student's t at `level`.
    """
    from scipy import stats  # a second to import: help and choices do without

    if not np.array_equal(base.counts, pruned.counts):
        raise ValueError("the two measurements are of different text")
    change = pruned.mean - base.mean
    se = float(nats_standard_errors(base, pruned.sums[None])[0])
    n = len(base.counts)
    times = stats.t.ppf(0.5 + level / 2, n - 1) if reach is None else reach(n)
    half = float(times) * se if n > 1 else math.inf
    low, high = change - half, change + half
    return PerplexityChange(
        base.perplexity,
        pruned.perplexity,
        change,
        (low, high),
        (_exp(base.mean + low), _exp(base.mean + high)),
        base.tokens,
        n,
    )


def nats_standard_errors(base: Nll, sums: np.ndarray) -> np.ndarray:
    """[N] standard errors of the mean NLL change of N variants, each measured on the base's blocks.

    Parameters
    ----------
    sums : [N, n_blocks] summed nats of each variant.

    nan where the text is a single block: one block has no spread.
    """
    n, tokens = len(base.counts), base.counts.sum()
    if n < 2:
        return np.full(len(sums), np.nan)
    change = sums - base.sums
    residual = change - change.sum(1, keepdims=True) / tokens * base.counts
    return np.asarray(np.sqrt(n / (n - 1) * (residual**2).sum(1)) / tokens)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def ppl_key(text: TextConfig, model_id: ModelId, estimator: str = "exact") -> dict[str, Any]:
    """Everything that shapes z_ppl, for the store: of the text, windows that fit the model."""
    text = fitting(text, model_id.longest)
    cut = {key: value for key, value in asdict(text).items() if key != "source"}
    digest = _text_digest(text, file_stamp(os.path.expanduser(text.source)))
    return {**model_id.key(), "score": "ppl", "estimator": estimator, "text": digest, **cut}


@lru_cache(maxsize=8)
def _text_digest(text: TextConfig, _stamp: tuple[int, int] | None) -> str:
    return text_digest(used_text(text))


def windows_of(lm: LanguageModel, text: TextConfig, key: Mapping[str, Any]) -> TokenWindows:
    """The windows of the text that a key is of, see `ppl_key`.

    Raises
    ------
    InputError
        As `token_windows`, or its file was changed since the key was made.
    """
    windows = token_windows(lm, text)
    if windows.text != key["text"]:
        raise InputError(f"The text '{text.source}' was changed meanwhile: run this again.")
    return windows
