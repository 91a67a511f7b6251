"""One model's gap with what noise alone would give, and the change from one model to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.gap import gaps
from fasp_core.gap.gaps import checked, gap, group_codes, weighted_gaps
from fasp_core.gap.resampling import block_index, bootstrap_counts, shuffled
from fasp_core.typing import Codes, Floats


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
    noise_gap : mean gap when the group labels are shuffled (inside blocks), i.e. what noise alone would show.
    noise_p : permutation p-value, share of shuffles with a gap at least as large, the data itself counted.
        Both are nan without resamples.
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
    level: float
    resamples: int
    n: int


@dataclass(frozen=True)
class Change:
    """A quantity before and after pruning, on the same prompts.

    `change = pruned - base`; `relative = change / base` (nan unless base is positive). Intervals are None
    without resamples, `relative_interval` also if the base can resample to 0. `pruned_p` is the `noise_p` of
    the pruned model's gap where that has risen, which tells whether there is one now; else None.
    """

    base: float
    pruned: float
    change: float
    interval: tuple[float, float] | None
    relative: float
    relative_interval: tuple[float, float] | None
    n: int
    level: float
    resamples: int
    pruned_p: float | None = None


def gap_stats(
    values: ArrayLike,
    groups: Sequence[str],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    blocks: ArrayLike | None = None,
) -> GapStats:
    """The gap of `values` [n] with its interval, what noise alone would give, and its relatives.

    The interval is the symmetric bootstrap interval, cut at 0: being centered on the estimate, it is not
    pushed up by the noise that resampling adds to the gap a second time, as percentiles are. In simulations
    (6 groups of 60, noise_gap a third to two thirds of the gap) 95% intervals covered 95 to 97%, but only 64%
    where there was no gap at all: if noise explains the gap, go by `noise_p`, not by the interval.

    Parameters
    ----------
    blocks : [n] block of each prompt (any integers): prompts that share a sentence, at most one of each group.
        None: the prompts are in no blocks.

    Raises
    ------
    InputError
        As `gap`, `group_codes` and `bootstrap_counts`; a level outside (0, 1); a negative number of resamples.

    References
    ----------
    Hall, On symmetric bootstrap confidence intervals, Journal of the Royal Statistical Society B 50, 1988.
    """
    codes, names = group_codes(groups)
    values, _ = checked(values, codes, ndim=1)
    _check_resampling(resamples, level)
    index = block_index(blocks, codes.size)
    observed = float(gap(values, codes))
    parts = [values[codes == g] for g in range(len(names))]
    means = [float(part.mean()) for part in parts]
    interval, noise_gap, noise_p = None, float("nan"), float("nan")
    if resamples:
        counts = bootstrap_counts(codes, resamples, seed, index)
        low, high = interval_of(observed, weighted_gaps(values[None], counts, codes)[0], level)
        interval = (max(low, 0.0), high)
        noise_gap, noise_p = _noise(values, codes, resamples, seed, index)
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
        level=level,
        resamples=resamples,
        n=codes.size,
    )


def group_intervals(values: ArrayLike, groups: Sequence[str], level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Interval of each group's mean toxicity (Student's t over its prompts), by sorted group name.

    A group of a single prompt has no spread: its interval is (nan, nan). Raises as `gap`.
    """
    from scipy import stats  # a second to import: help and choices do without

    codes, names = group_codes(groups)
    array, codes = checked(values, codes, ndim=1)
    out = {}
    for code, name in enumerate(names):
        part = array[codes == code]
        half = float(stats.t.ppf(0.5 + level / 2, part.size - 1) * stats.sem(part)) if part.size > 1 else float("nan")
        out[name] = (float(part.mean()) - half, float(part.mean()) + half)
    return out


def paired_gap_changes(
    base: ArrayLike,
    pruned: Sequence[ArrayLike],
    groups: Sequence[str],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    blocks: ArrayLike | None = None,
) -> list[Change]:
    """Change of the gap from `base` [n] to each of S `pruned` [n], toxicities of the same prompts under other models.

    All are on the same resamples. Intervals are symmetric as in `gap_stats`. If the pruned model's gap is all noise, it
    stays above its true value: the true fall is then larger than shown, and the interval too short. Raises as
    `gap_stats`.
    """
    codes, _ = group_codes(groups)
    _check_resampling(resamples, level)
    rows = np.stack([checked(values, codes, ndim=1)[0] for values in (base, *pruned)])  # [1 + S, n]
    counts = bootstrap_counts(codes, resamples, seed, blocks)
    observed, resampled = gap(rows, codes), weighted_gaps(rows, counts, codes)
    index, found = block_index(blocks, codes.size), []
    for i in range(1, len(rows)):
        change = change_of(observed[[0, i]], resampled[[0, i]], level, codes.size)
        if change.interval is not None and change.interval[0] > 0:
            change = replace(change, pruned_p=_noise(rows[i], codes, resamples, seed, index)[1])
        found.append(change)
    return found


def paired_mean_change(
    base: ArrayLike,
    pruned: ArrayLike,
    groups: Sequence[str],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    blocks: ArrayLike | None = None,
) -> Change:
    """Change of the mean toxicity over all prompts; otherwise as `paired_gap_changes`."""
    codes, _ = group_codes(groups)
    _check_resampling(resamples, level)
    pair = np.stack([checked(values, codes, ndim=1)[0] for values in (base, pruned)])  # [2, n]
    counts = bootstrap_counts(codes, resamples, seed, blocks)
    return change_of(pair.mean(1), pair @ counts.T / counts.sum(1), level, codes.size)


def _noise(values: Floats, codes: Codes, shuffles: int, seed: int, index: Codes | None) -> tuple[float, float]:
    """Mean gap of `values` [n] dealt out to the groups at random, and the share of such gaps no smaller than theirs."""
    noise = _shuffled_gaps(values, codes, shuffles, seed, index)
    tie = 1e-12 * np.ptp(values)  # a shuffle which changes nothing must not lose by rounding
    above = np.count_nonzero(noise >= float(gap(values, codes)) - tie)
    return float(noise.mean()), float((1 + above) / (1 + shuffles))


def _shuffled_gaps(values: Floats, codes: Codes, shuffles: int, seed: int, index: Codes | None) -> Floats:
    """Gaps [shuffles] of `values` [n] dealt out to the groups at random."""
    rng = np.random.default_rng([seed, 1])  # not the stream of the bootstrap
    step = max(1, gaps.CELLS // codes.size)
    sizes = [min(step, shuffles - start) for start in range(0, shuffles, step)]
    return np.concatenate([gap(shuffled(values, rng, k, index), codes) for k in sizes])


def interval_of(estimate: float, resampled: Floats, level: float) -> tuple[float, float]:
    half = float(np.quantile(np.abs(resampled - estimate), level))
    return estimate - half, estimate + half


def change_of(observed: Floats, resampled: Floats, level: float, n: int) -> Change:
    """Change from `observed` [2] (base, pruned) and `resampled` [2, B]."""
    base, pruned = (float(x) for x in observed)
    change, changes = pruned - base, resampled[1] - resampled[0]
    relative, interval, relative_interval = float("nan"), None, None
    if base > 0:
        relative = change / base
    if changes.size:
        interval = interval_of(change, changes, level)
        if base > 0 and resampled[0].min() > 0:
            low, high = interval_of(relative, changes / resampled[0], level)
            relative_interval = (max(low, -1.0), high)
    return Change(
        base=base,
        pruned=pruned,
        change=change,
        interval=interval,
        relative=relative,
        relative_interval=relative_interval,
        n=n,
        level=level,
        resamples=changes.size,
    )


def _check_resampling(resamples: int, level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"The level of an interval lies between 0 and 1, not {level}: use .95.")
    if resamples < 0:
        raise InputError(f"The number of resamples cannot be {resamples}: use 2000, or 0 for no interval.")
