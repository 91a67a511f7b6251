"""How sure the effects of heads are: their standard errors, their ranking, and which of them get chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.gap.estimates import lengthened, pearson, spearman
from fasp_core.gap.gaps import Correction, checked, weighted_gaps
from fasp_core.gap.resampling import bootstrap_counts, random_halves
from fasp_core.gap.rows import PromptRows
from fasp_core.typing import Floats


@dataclass(frozen=True)
class Reliability:
    """How well a ranking of heads repeats on other prompts.

    `halves` is the mean correlation (Spearman's, unless asked otherwise) of two disjoint halves of the prompts.
    `whole` foresees that of two samples of full size (Spearman-Brown, 2r / (1 + r); a negative `halves` is passed on
    unchanged).
    """

    halves: float
    whole: float
    heads: int
    splits: int


def resampled_effects(
    rows: PromptRows, resamples: int = 1000, seed: int = 0, correction: Correction | None = None
) -> Floats:
    """Every head's `z_bias` in bootstrap resamples of the prompts, base and ablated model on the same resamples.

    Raises as `gap` and `bootstrap_counts`, and InputError for no resamples.

    Parameters
    ----------
    rows : [1 + N, n] toxicity of each prompt under the whole model, then with head h ablated.
    correction : of estimated rows of the heads, by exact ones of some of the prompts; it is resampled with them.

    Returns
    -------
    [N, resamples] `gap(base) - gap(ablated_h)`.
    """
    if resamples < 1:
        raise InputError(f"Effects cannot be resampled {resamples} times: ask for 200 or more.")
    return _effects(rows, bootstrap_counts(rows.codes, resamples, seed, rows.blocks), correction)


def head_standard_errors(
    rows: PromptRows, resamples: int = 1000, seed: int = 0, correction: Correction | None = None
) -> Floats:
    """[N] bootstrap standard error of every head's `z_bias`: the standard deviation of its `resampled_effects`.

    Raises as `resampled_effects`, and for fewer than two resamples.
    """
    if resamples < 2:
        raise InputError("A standard error needs at least 2 resamples: ask for 200 or more.")
    return np.asarray(resampled_effects(rows, resamples, seed, correction).std(axis=1, ddof=1))


def _effects(rows: PromptRows, weights: Floats, correction: Correction | None) -> Floats:
    """[N, B] gap of the first row minus that of each other one, under each of B weightings [B, n]."""
    values, codes = checked(rows.values, rows.codes, ndim=2)
    return weighted_gaps(values[:1], weights, codes) - weighted_gaps(values[1:], weights, codes, correction)


def choice_probability(effects: ArrayLike, k: int, critical: ArrayLike) -> Floats:
    """Share of resamples in which a head is among the k of largest effect that are not critical.

    Parameters
    ----------
    effects : [N, B] as from `resampled_effects`.
    k : heads to choose; where fewer are not critical, all of them are chosen. Ties: lower flat id, as in
        `fasp_core.heads.selection`.
    critical : bool, [N] or [N, B], heads that must not be chosen.

    Returns
    -------
    [N] in [0, 1], 0 for a head that is always critical.

    Raises
    ------
    InputError
        Effects that are not finite or not [N, B]; `critical` of another shape; a negative `k`.
    """
    array: Floats = np.asarray(effects, dtype=np.float64)
    if array.ndim != 2 or not array.shape[1] or not np.isfinite(array).all():
        raise InputError("Effects must be finite and of shape [heads, resamples]: use resampled_effects.")
    barred = np.asarray(critical)
    if barred.dtype != np.bool_ or barred.shape not in (array.shape, array.shape[:1]):
        raise InputError(f"Say for each of the {len(array)} heads whether it is critical: give True or False.")
    if k < 0:
        raise InputError(f"{k} heads cannot be chosen: ask for 0 or more.")
    barred = np.broadcast_to(barred if barred.ndim == 2 else barred[:, None], array.shape)
    order = np.argsort(np.where(barred, np.inf, -array), axis=0, kind="stable")[:k]
    chosen = np.zeros(array.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=0)
    return np.asarray((chosen & ~barred).mean(1))


def split_half_reliability(
    rows: PromptRows,
    subset: Sequence[int] | NDArray[np.bool_] | None = None,
    splits: int = 50,
    seed: int = 0,
    kind: Literal["pearson", "spearman"] = "spearman",
    correction: Correction | None = None,
) -> Reliability:
    """Agreement of the `z_bias` rankings of two random halves of the prompts, each half keeping every group.

    Raises as `gap` and `random_halves`, and InputError for fewer than three heads or no splits.

    Parameters
    ----------
    rows, correction : as in `resampled_effects`; whole blocks go to one half or the other.
    subset : flat ids (or a mask) of the heads whose ranking matters, such as those that may be pruned.
    splits : random splits to average.
    kind : of correlation; `pearson` compares the scores themselves.

    Returns
    -------
    Reliability, nan where all heads have the same effect.
    """
    if subset is not None:
        of = np.arange(len(rows.values) - 1)[np.asarray(subset)]
        rows = rows[[0, *(1 + of)]]
        correction = None if correction is None else Correction(correction.rows[of], correction.at)
    heads = len(rows.values) - 1
    if heads < 3:
        raise InputError("A ranking needs at least 3 heads: lower gamma, so that more heads may be pruned.")
    if splits < 1:
        raise InputError("Split-half reliability needs at least 1 split: ask for 50.")
    first = random_halves(rows.codes, splits, np.random.default_rng(seed), rows.blocks)
    one, two = (_effects(rows, half, correction) for half in (first, 1 - first))  # [heads, splits]
    r = float((spearman if kind == "spearman" else pearson)(one, two).mean())
    return Reliability(halves=r, whole=lengthened(r), heads=heads, splits=splits)


def ranking_correlation_interval(
    x: ArrayLike,
    y: ArrayLike,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    kind: Literal["pearson", "spearman"] = "spearman",
) -> tuple[float, float, float]:
    """Correlation of two scores of the same items, such as heads, with its interval over the items.

    Parameters
    ----------
    x, y : [m] scores of the same m >= 3 items.
    kind : `pearson` has Fisher's interval (`resamples` and `seed` play no part), `spearman` bootstrap percentiles.

    Returns
    -------
    (r, low, high), nan where it is undefined, as for scores that are all equal.

    Raises
    ------
    InputError
        Scores that are not finite, of different length or fewer than three; a level outside (0, 1); an unknown kind.
    """
    from scipy import stats  # a second to import: help and choices do without

    one, two = (np.asarray(scores, dtype=np.float64) for scores in (x, y))
    if one.ndim != 1 or one.shape != two.shape or one.size < 3 or not np.isfinite([one, two]).all():
        raise InputError("A correlation needs two finite scores of the same 3 or more items: give one pair an item.")
    if not 0 < level < 1 or resamples < 1:
        raise InputError("An interval needs a level between 0 and 1 and at least 1 resample: use .95 and 2000.")
    if kind not in ("pearson", "spearman"):
        raise InputError(f"There is no correlation '{kind}': choose pearson or spearman.")
    if not np.ptp(one) or not np.ptp(two):
        return float("nan"), float("nan"), float("nan")
    if kind == "pearson":
        pearson = stats.pearsonr(one, two)
        low, high = pearson.confidence_interval(level)
        return float(pearson.statistic), float(low), float(high)
    drawn = stats.bootstrap(
        (one, two),
        spearman,
        paired=True,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = drawn.confidence_interval
    return float(spearman(one, two)), float(low), float(high)
