"""The toxicity gap between groups, and how much of it chance alone would give.

A gap is a sum of absolute differences, so noise only ever adds to it, and every estimate of it is a random
number. This module therefore never gives a gap without its companions: an interval, the gap that shuffled
group labels would show, the standard error of each head's effect, and how well a ranking of heads repeats.

All intervals come from resampling prompts *within* their groups, so that group sizes stay as designed, and
all comparisons are paired: both models are judged on the same resampled prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fasp_core.errors import InputError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

CELLS = 2**21  # cells of the largest temporary array, [groups, rows, resamples]: 16 MB


@dataclass(frozen=True)
class GapStats:
    """The gap of one model on one axis, in units of the scorer (toxicity in [0, 1]).

    Attributes
    ----------
    gap : sum over groups of |mean of all prompts - mean of the group|.
    mean_gap : `gap` divided by the number of groups; comparable between axes.
    max_min : highest group mean minus the lowest.
    min_max_ratio : lowest group mean over the highest; nan if the highest is 0.
    overall : mean of all prompts (not the mean of the group means).
    group_means, group_sizes : by group name, sorted.
    interval : of `gap`; None without resamples.
    noise_gap : mean gap when the group labels are shuffled, i.e. what noise alone would show.
    noise_p : permutation p-value, share of shuffles with a gap at least as large, the data itself counted.
        Both are nan without resamples.
    f_statistic, f_p : one-way analysis of variance; nan if no group varies within itself.
    level, resamples, n : level of the interval, bootstrap resamples (and shuffles), prompts.
    """

    gap: float
    mean_gap: float
    max_min: float
    min_max_ratio: float
    overall: float
    group_means: dict[str, float]
    group_sizes: dict[str, int]
    interval: tuple[float, float] | None
    noise_gap: float
    noise_p: float
    f_statistic: float
    f_p: float
    level: float
    resamples: int
    n: int


@dataclass(frozen=True)
class Change:
    """A quantity before and after pruning, on the same prompts.

    `change = pruned - base`; `relative = change / base` (nan unless base is positive). `p_sign` is the share
    of resamples whose change is 0 or of the other sign; 1 if there is no change at all. Intervals are None
    without resamples, `relative_interval` also if the base can resample to 0.
    """

    base: float
    pruned: float
    change: float
    interval: tuple[float, float] | None
    relative: float
    relative_interval: tuple[float, float] | None
    p_sign: float
    n: int
    level: float
    resamples: int


@dataclass(frozen=True)
class Reliability:
    """How well a ranking of heads repeats on other prompts.

    `halves` is the mean Spearman correlation of two disjoint halves of the prompts. `whole` foresees that of
    two samples of full size (Spearman-Brown, 2r / (1 + r); a negative `halves` is passed on unchanged).
    """

    halves: float
    whole: float
    heads: int
    splits: int


def group_codes(groups: Sequence[str]) -> tuple[Codes, tuple[str, ...]]:
    """Number the groups by sorted name.

    Returns
    -------
    codes : [n] index of each prompt's group in `names`.
    names : sorted group names.

    Raises
    ------
    InputError
        No prompts, or fewer than two groups.
    """
    names = tuple(sorted(set(groups)))
    if not names:
        raise InputError("There are no prompts to compare: choose an axis with at least two groups.")
    if len(names) == 1:
        raise InputError(f"All prompts are about '{names[0]}': a gap needs a second group.")
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[name] for name in groups], dtype=np.int64), names


def gap(values: ArrayLike, codes: ArrayLike) -> Floats:
    """Toxicity gap, `sum_g |mean(all prompts) - mean(prompts of g)|`.

    Parameters
    ----------
    values : [..., n] toxicity of each prompt; leading axes (heads, resamples) are kept.
    codes : [n] group of each prompt, every number from 0 to the last one in use.

    Returns
    -------
    [...] gap, never negative.

    Raises
    ------
    InputError
        Empty or non-finite values, shapes that do not match, or fewer than two groups.

    References
    ----------
    Zayed et al., Fairness-Aware Structured Pruning in Transformers, AAAI 2024, arXiv:2312.15398; the sum over
    groups is that of the authors' code.
    """
    values, codes = _checked(values, codes)
    one = np.ones((1, codes.size))
    return _weighted_gaps(values.reshape(-1, codes.size), one, codes).reshape(values.shape[:-1])


def z_bias(base: ArrayLike, ablated: ArrayLike, codes: ArrayLike) -> Floats:
    """Effect of each head on the gap, `gap(base) - gap(ablated)`; positive: removing the head lowers the gap.

    `base` is [n], `ablated` [..., n], the result [...]. Raises as `gap`.
    """
    return gap(base, codes) - gap(ablated, codes)


def gap_stats(
    values: ArrayLike, groups: Sequence[str], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> GapStats:
    """The gap of `values` [n] with its interval, what noise alone would give, and its relatives.

    The interval is the symmetric bootstrap interval, cut at 0: being centered on the estimate, it is not
    pushed up by the noise that resampling adds to the gap a second time, as percentiles are. In simulations
    (6 groups of 60, noise_gap a third to two thirds of the gap) 95% intervals covered 95 to 97%, but only 64%
    where there was no gap at all: if noise explains the gap, go by `noise_p`, not by the interval.

    Raises
    ------
    InputError
        As `gap` and `group_codes`; a level outside (0, 1); a negative number of resamples.

    References
    ----------
    Hall, On symmetric bootstrap confidence intervals, Journal of the Royal Statistical Society B 50, 1988.
    """
    codes, names = group_codes(groups)
    values, _ = _checked(values, codes, ndim=1)
    _check_resampling(resamples, level)
    observed = float(gap(values, codes))
    parts = [values[codes == g] for g in range(len(names))]
    means = [float(part.mean()) for part in parts]
    interval, noise_gap, noise_p = None, float("nan"), float("nan")
    if resamples:
        counts = bootstrap_counts(codes, resamples, seed)
        low, high = _interval(observed, _weighted_gaps(values[None], counts, codes)[0], level)
        interval = (max(low, 0.0), high)
        shuffled = _shuffled_gaps(values, codes, resamples, seed)
        noise_gap = float(shuffled.mean())
        tie = 1e-12 * np.ptp(values)  # a shuffle which changes nothing must not lose by rounding
        noise_p = float((1 + np.count_nonzero(shuffled >= observed - tie)) / (1 + resamples))
    f_statistic, f_p = float("nan"), float("nan")
    if any(np.ptp(part) > 0 for part in parts):
        f_statistic, f_p = (float(x) for x in stats.f_oneway(*parts))
    return GapStats(
        gap=observed,
        mean_gap=observed / len(names),
        max_min=max(means) - min(means),
        min_max_ratio=min(means) / max(means) if max(means) else float("nan"),
        overall=float(values.mean()),
        group_means=dict(zip(names, means, strict=True)),
        group_sizes={name: part.size for name, part in zip(names, parts, strict=True)},
        interval=interval,
        noise_gap=noise_gap,
        noise_p=noise_p,
        f_statistic=f_statistic,
        f_p=f_p,
        level=level,
        resamples=resamples,
        n=codes.size,
    )


def group_intervals(values: ArrayLike, groups: Sequence[str], level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Interval of each group's mean toxicity (Student's t over its prompts), by sorted group name.

    A group of a single prompt has no spread: its interval is (nan, nan). Raises as `gap`.
    """
    codes, names = group_codes(groups)
    array, codes = _checked(values, codes, ndim=1)
    out = {}
    for code, name in enumerate(names):
        part = array[codes == code]
        half = float(stats.t.ppf(0.5 + level / 2, part.size - 1) * stats.sem(part)) if part.size > 1 else float("nan")
        out[name] = (float(part.mean()) - half, float(part.mean()) + half)
    return out


def bootstrap_counts(codes: ArrayLike, resamples: int, seed: int) -> Floats:
    """How often each prompt is drawn when the prompts of every group are resampled with replacement.

    Returns
    -------
    [resamples, n] counts as floats, ready for a matrix product; each group's counts sum to its size. The same
    arguments always give the same counts.
    """
    codes = np.asarray(codes, dtype=np.int64)
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, codes.size))
    for g in range(codes.max() + 1):
        at = np.flatnonzero(codes == g)
        drawn = rng.integers(at.size, size=(resamples, at.size)) + at.size * np.arange(resamples)[:, None]
        counts[:, at] = np.bincount(drawn.ravel(), minlength=resamples * at.size).reshape(resamples, at.size)
    return counts


def paired_gap_change(
    base: ArrayLike,
    pruned: ArrayLike,
    groups: Sequence[str],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Change:
    """Change of the gap from `base` [n] to `pruned` [n], the toxicities of the same prompts under two models.

    Intervals are symmetric as in `gap_stats`. If the pruned model's gap is all noise, it stays above its true
    value: the true fall is then larger than shown, and the interval too short. Raises as `gap_stats`.
    """
    codes, _ = group_codes(groups)
    pair = _paired(base, pruned, codes, resamples, level)
    counts = bootstrap_counts(codes, resamples, seed)
    return _change(gap(pair, codes), _weighted_gaps(pair, counts, codes), level, codes.size)


def paired_mean_change(
    base: ArrayLike,
    pruned: ArrayLike,
    groups: Sequence[str],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Change:
    """Change of the mean toxicity over all prompts; otherwise as `paired_gap_change`."""
    codes, _ = group_codes(groups)
    pair = _paired(base, pruned, codes, resamples, level)
    counts = bootstrap_counts(codes, resamples, seed)
    return _change(pair.mean(1), pair @ counts.T / codes.size, level, codes.size)


def head_standard_errors(
    base: ArrayLike, ablated: ArrayLike, codes: ArrayLike, resamples: int = 1000, seed: int = 0
) -> Floats:
    """Bootstrap standard error of every head's `z_bias`, base and ablated model judged on the same resamples.

    Parameters
    ----------
    base : [n] toxicity of each prompt under the whole model.
    ablated : [N, n] the same with head h removed.
    codes : [n] group of each prompt.

    Returns
    -------
    [N] standard deviation over resamples of `gap(base) - gap(ablated_h)`.

    Raises
    ------
    InputError
        As `gap`; fewer than two resamples.
    """
    whole, group = _checked(base, codes, ndim=1)
    heads, _ = _checked(ablated, group, ndim=2)
    if resamples < 2:
        raise InputError("A standard error needs at least 2 resamples: ask for 200 or more.")
    counts = bootstrap_counts(group, resamples, seed)
    effects = _weighted_gaps(whole[None], counts, group) - _weighted_gaps(heads, counts, group)  # [N, B]
    return np.asarray(effects.std(axis=1, ddof=1))


def split_half_reliability(
    base: ArrayLike,
    ablated: ArrayLike,
    codes: ArrayLike,
    subset: Sequence[int] | NDArray[np.bool_] | None = None,
    splits: int = 50,
    seed: int = 0,
) -> Reliability:
    """Agreement of the `z_bias` rankings of two random halves of the prompts, each half keeping every group.

    Parameters
    ----------
    base, ablated, codes : as `head_standard_errors`.
    subset : flat ids (or a mask) of the heads whose ranking matters, such as those that may be pruned.
    splits : random splits to average.

    Returns
    -------
    Reliability, nan where all heads have the same effect.

    Raises
    ------
    InputError
        As `gap`; a group of one prompt; fewer than three heads; no splits.
    """
    whole, group = _checked(base, codes, ndim=1)
    heads, _ = _checked(ablated, group, ndim=2)
    if subset is not None:
        heads = heads[np.asarray(subset)]
    if len(heads) < 3:
        raise InputError("A ranking needs at least 3 heads: lower gamma, so that more heads may be pruned.")
    if np.bincount(group).min() < 2:
        raise InputError("Every group needs at least 2 prompts to be split into halves: add prompts.")
    if splits < 1:
        raise InputError("Split-half reliability needs at least 1 split: ask for 50.")
    rng = np.random.default_rng(seed)
    first = np.empty((splits, group.size))
    for row in first:
        row[np.lexsort((rng.random(group.size), group))] = np.arange(group.size) % 2  # by turns
    halves = [
        _weighted_gaps(whole[None], half, group) - _weighted_gaps(heads, half, group)  # [heads, splits]
        for half in (first, 1 - first)
    ]
    ranks = [stats.rankdata(half, axis=0) - (len(heads) + 1) / 2 for half in halves]
    spread = np.sqrt((ranks[0] ** 2).sum(0) * (ranks[1] ** 2).sum(0))
    with np.errstate(invalid="ignore"):
        r = float(((ranks[0] * ranks[1]).sum(0) / spread).mean())
    return Reliability(halves=r, whole=2 * r / (1 + r) if r > 0 else r, heads=len(heads), splits=splits)


def _weighted_gaps(values: Floats, weights: Floats, codes: Codes) -> Floats:
    """Gap of every row of `values` [N, n] under every weighting of the prompts `weights` [B, n]: [N, B]."""
    n_groups = int(codes.max()) + 1
    members = [np.flatnonzero(codes == g) for g in range(n_groups)]
    values = values - values[:, :1]  # a gap ignores shifts; equal values now give exactly 0
    mass = np.stack([weights[:, at].sum(1) for at in members])[:, None]  # [G, 1, B]
    shares = mass / mass.sum(0)
    gaps = np.empty((len(values), len(weights)))
    step = max(1, CELLS // (n_groups * len(weights))) if len(weights) else len(values)
    for start in range(0, len(values), step):
        rows = values[start : start + step]
        means = np.stack([rows[:, at] @ weights[:, at].T for at in members]) / mass  # [G, rows, B]
        gaps[start : start + step] = np.abs((shares * means).sum(0) - means).sum(0)
    return gaps


def _shuffled_gaps(values: Floats, codes: Codes, shuffles: int, seed: int) -> Floats:
    """Gaps [shuffles] of `values` [n] dealt out to the groups at random."""
    rng = np.random.default_rng([seed, 1])  # not the stream of the bootstrap
    step = max(1, CELLS // codes.size)
    sizes = [min(step, shuffles - start) for start in range(0, shuffles, step)]
    return np.concatenate([gap(rng.permuted(np.tile(values, (k, 1)), axis=1), codes) for k in sizes])


def _interval(estimate: float, resampled: Floats, level: float) -> tuple[float, float]:
    half = float(np.quantile(np.abs(resampled - estimate), level))
    return estimate - half, estimate + half


def _change(observed: Floats, resampled: Floats, level: float, n: int) -> Change:
    """Change from `observed` [2] (base, pruned) and `resampled` [2, B]."""
    base, pruned = (float(x) for x in observed)
    change, changes = pruned - base, resampled[1] - resampled[0]
    relative, interval, relative_interval, p_sign = float("nan"), None, None, float("nan")
    if base > 0:
        relative = change / base
    if changes.size:
        interval = _interval(change, changes, level)
        p_sign = float((changes * np.sign(change) <= 0).mean())
        if base > 0 and resampled[0].min() > 0:
            low, high = _interval(relative, changes / resampled[0], level)
            relative_interval = (max(low, -1.0), high)
    return Change(
        base=base,
        pruned=pruned,
        change=change,
        interval=interval,
        relative=relative,
        relative_interval=relative_interval,
        p_sign=p_sign,
        n=n,
        level=level,
        resamples=changes.size,
    )


def _paired(base: ArrayLike, pruned: ArrayLike, codes: Codes, resamples: int, level: float) -> Floats:
    _check_resampling(resamples, level)
    return np.stack([_checked(values, codes, ndim=1)[0] for values in (base, pruned)])  # [2, n]


def _check_resampling(resamples: int, level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"The level of an interval lies between 0 and 1, not {level}: use .95.")
    if resamples < 0:
        raise InputError(f"The number of resamples cannot be {resamples}: use 2000, or 0 for no interval.")


def _checked(values: ArrayLike, codes: ArrayLike, ndim: int | None = None) -> tuple[Floats, Codes]:
    array: Floats = np.asarray(values, dtype=np.float64)
    group: NDArray[Any] = np.asarray(codes)
    if group.ndim != 1 or not group.size or not array.size:
        raise InputError("There are no toxicity values to compare: score at least one prompt of two groups.")
    if (ndim is not None and array.ndim != ndim) or array.ndim == 0 or array.shape[-1] != group.size:
        raise InputError(f"Toxicity values of shape {array.shape} do not fit {group.size} prompts: give one each.")
    if not np.isfinite(array).all():
        raise InputError("Some toxicity values are not finite: score those prompts again or leave them out.")
    if not np.issubdtype(group.dtype, np.integer) or group.min() < 0 or not np.bincount(group).all():
        raise InputError("Group codes must number the groups 0, 1, 2, ... without holes: use group_codes.")
    if group.max() < 1:
        raise InputError("A gap needs at least two groups: add prompts about another group.")
    return array, group.astype(np.int64)
