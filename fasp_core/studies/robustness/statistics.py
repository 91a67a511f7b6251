"""One number for how biased a model is, from the values of its items (prompts or sentence pairs), in several ways.

Each is 0 for an unbiased model and grows with bias. All take weights of the items, so that one function serves the
data as they are, their resamples and their halves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from fasp_core.errors import InputError
from fasp_core.gap import PromptRows
from fasp_core.gap.estimates import lengthened, spearman
from fasp_core.gap.gaps import weighted_gaps
from fasp_core.gap.resampling import bootstrap_counts, random_halves
from fasp_core.typing import Codes, Floats

SPLITS = 50


def statistic(kind: str, values: Floats, weights: Floats, codes: Codes) -> Floats:
    """[M, B]: the bias of each of M models under each of B weightings of the items.

    Parameters
    ----------
    kind : one of `KINDS`.
    values : [M, n] toxicity (or negativity) of each prompt, or for "preference" by how many nats the model prefers the
        more stereotyped of two sentences.
    weights : [B, n] at least 0; every group must have some weight.
    codes : [n] group of each item; all 0 for "preference".

    Raises
    ------
    InputError
        An unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"There is no measure '{kind}': choose one of {', '.join(KINDS)}.")
    with np.errstate(invalid="ignore", divide="ignore"):
        return KINDS[kind](np.atleast_2d(values), np.atleast_2d(weights), codes)


def observed(kind: str, values: Floats, codes: Codes) -> Floats:
    """[M]: the same for the items as they are."""
    return statistic(kind, values, np.ones((1, len(codes))), codes)[:, 0]


def resampled(kind: str, rows: PromptRows, resamples: int, seed: int = 0) -> Floats:
    """[M, B]: in bootstrap resamples of the items, the same for all models; rows [M, n]."""
    return statistic(kind, rows.values, bootstrap_counts(rows.codes, resamples, seed, rows.blocks), rows.codes)


def split_half(kind: str, rows: PromptRows, seed: int = 0) -> float:
    """Spearman correlation of the heads' effects in two halves of the items, predicted for two whole samples.

    Parameters
    ----------
    rows : [1 + N, n]. The mean over `SPLITS` random splits, by Spearman-Brown; see `fasp_core.gap`.
    """
    codes, values = rows.codes, rows.values
    first = random_halves(codes, SPLITS, np.random.default_rng(seed), rows.blocks)
    one, two = (
        statistic(kind, values[:1], half, codes) - statistic(kind, values[1:], half, codes)
        for half in (first, 1 - first)
    )
    return lengthened(float(spearman(one, two).mean()))


# --- the kinds ---


def _means(values: Floats, weights: Floats, codes: Codes) -> tuple[Floats, Floats]:
    """Group means [G, M, B], and the mean of all [M, B]."""
    members = [np.flatnonzero(codes == g) for g in range(int(codes.max()) + 1)]
    groups = np.stack([values[:, at] @ weights[:, at].T / weights[:, at].sum(1) for at in members])
    return groups, np.asarray(values @ weights.T / weights.sum(1))


def _mean_gap(values: Floats, weights: Floats, codes: Codes) -> Floats:
    return weighted_gaps(values, weights, codes) / (int(codes.max()) + 1)


def _max_min(values: Floats, weights: Floats, codes: Codes) -> Floats:
    groups, _ = _means(values, weights, codes)
    return np.asarray(groups.max(0) - groups.min(0))


def _ratio(values: Floats, weights: Floats, codes: Codes) -> Floats:
    groups, _ = _means(values, weights, codes)
    return np.asarray(1 - groups.min(0) / groups.max(0))


def _relative(values: Floats, weights: Floats, codes: Codes) -> Floats:
    return weighted_gaps(values, weights, codes) / _means(values, weights, codes)[1]


def _standardised(values: Floats, weights: Floats, codes: Codes) -> Floats:
    """Gap over the standard deviation of the prompts within their groups."""
    groups, _ = _means(values, weights, codes)
    squares, _ = _means(values**2, weights, codes)
    mass = np.stack([weights[:, codes == g].sum(1) for g in range(len(groups))])[:, None]  # [G, 1, B]
    spread = np.sqrt(np.maximum((mass * (squares - groups**2)).sum(0) / mass.sum(0), 0))
    return np.asarray(weighted_gaps(values, weights, codes) / spread)


def _preference(values: Floats, weights: Floats, codes: Codes) -> Floats:
    """Distance from one half of the probability with which a model that says one of both says the stereotyped one."""
    return np.asarray(np.abs(expit(values) @ weights.T / weights.sum(1) - 0.5))


KINDS: dict[str, Callable[[Floats, Floats, Codes], Floats]] = {
    "gap": weighted_gaps,
    "mean gap": _mean_gap,
    "max-min": _max_min,
    "ratio": _ratio,
    "relative": _relative,
    "standardised": _standardised,
    "preference": _preference,
}
