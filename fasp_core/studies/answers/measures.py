"""How far groups are apart in the numbers that a model answers, and what pruning does to the answers.

Persons are what is sampled, and each answers several times. So intervals come from resampling names within groups,
with all their answers; the same draws serve every scenario and both models, so that differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fasp_core.typing import Floats

RESAMPLES = 2000
INLIERS = (5.0, 95.0)  # percentiles of the unpruned model's answers
FEWEST = 4  # names of a group: resampling fewer finds too little, however far its percentiles are moved
LEAST_SHARE = 0.01  # of a group's distributions, below which their numbers have no mean that could be compared


class Estimate(NamedTuple):
    """A value with its 95% interval; the ends are nan where no interval can be given."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Answers:
    """Numbers that a model answered in one scenario.

    Attributes
    ----------
    values : [names, samples]; nan where the answer gave no number.
    codes : [names] group of each name, 0 or 1.
    """

    values: Floats
    codes: NDArray[np.int64]
    spent = 2.0  # answers that the two means take from the degrees of freedom of the pooled SD

    def shares(self) -> Floats:
        """[names] share of answers with a number."""
        return np.asarray(np.isfinite(self.values).mean(1))

    def parsed(self) -> Floats:
        """[2] share of answers with a number, by group."""
        return np.array([np.isfinite(self.values[self.codes == g]).mean() for g in (0, 1)])

    def moments(self) -> Floats:
        """[names, 3] number of parsed answers, sum and sum of squares of their distance from the mean of all."""
        seen = np.isfinite(self.values)
        mean = float(self.values[seen].mean()) if seen.any() else 0.0
        filled = np.where(seen & ~np.isclose(self.values, mean, rtol=1e-12, atol=0), self.values - mean, 0.0)
        return np.stack([seen.sum(1), filled.sum(1), (filled**2).sum(1)], 1).astype(float)

    def limits(self, share: float) -> tuple[float, float]:
        """The `share` and 1 - `share` quantiles of the numbers; share is in [0, .5), and of 0 or none there is none."""
        if not share or not np.isfinite(self.values).any():
            return -np.inf, np.inf
        low, high = np.nanquantile(self.values, (share, 1 - share))
        return float(low), float(high)

    def within(self, limits: tuple[float, float]) -> Answers:
        """Numbers beyond some limits moved to them."""
        return replace(self, values=np.clip(self.values, *limits))

    def changed(self, change: Callable[[Floats], Floats]) -> Answers:
        """Another number for each."""
        return replace(self, values=change(self.values))

    def winsorised(self, share: float) -> Answers:
        """Numbers beyond their own `limits` moved to them."""
        return self.within(self.limits(share))


def draws(
    codes: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0, pairs: NDArray[np.int64] | None = None
) -> Floats:
    """[B, names] how often each name is drawn when names are resampled within their group, or whole pairs of names.

    Parameters
    ----------
    pairs : [names] number of the pair of each name, where names are matched one to one.
    """
    rng = np.random.default_rng(seed)
    if pairs is not None:
        size = int(pairs.max()) + 1
        return np.asarray(rng.multinomial(size, np.full(size, 1 / size), resamples)[:, pairs], dtype=float)
    counts = np.zeros((resamples, len(codes)))
    for group in np.unique(codes):
        members = np.flatnonzero(codes == group)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
    return counts


class Numbers(Protocol):
    """Numbers that a model answers in one scenario: samples of them (`Answers`), or their whole distributions."""

    @property
    def codes(self) -> NDArray[np.int64]: ...

    @property
    def spent(self) -> float: ...

    def shares(self) -> Floats: ...

    def moments(self) -> Floats: ...


def smd(
    moments: Floats,
    codes: NDArray[np.int64],
    counts: Floats | None = None,
    spent: float = Answers.spent,
    by: Floats | None = None,
) -> Floats:
    """[...] standardised mean difference: mean of group 0 minus mean of group 1 over the pooled SD.

    Parameters
    ----------
    moments : [names, 3] of `Answers.moments`.
    counts : [B, names] of `draws`; None: every name once, and one value.
    spent : degrees of freedom that the SD lacks: 2 of samples (ddof 1 in each group), 0 of whole distributions.
    by : moments of the answers whose SD is taken in place of these ones' own (as Glass 1976 does).

    Returns
    -------
    nan where a group has fewer than 2 answers with a number (of distributions: where less than `LEAST_SHARE` of a
    group's have one), or all those that give the SD are equal.
    """
    weights = np.ones((1, len(codes))) if counts is None else counts
    sides = [weights * (codes == g) for g in (0, 1)]
    out = _smd(moments, sides, spent, moments if by is None else by)
    return out if counts is not None else out[0]


def smd_between(moments: Floats, first: Floats, spent: float = Answers.spent) -> Floats:
    """[B] as `smd`, with the names of weight 1 in `first` [B, names] as group 0 and those of weight 0 as group 1."""
    return _smd(moments, [first, 1 - first], spent, moments)


def _smd(moments: Floats, sides: Sequence[Floats], spent: float, by: Floats) -> Floats:
    """[B] of both groups' weights [B, names]."""
    sums, others = ([side @ m for side in sides] for m in (moments, by))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (sums[0][:, 1] / sums[0][:, 0] - sums[1][:, 1] / sums[1][:, 0]) / _spread(others, spent)
    least = [spent if spent else LEAST_SHARE * side.sum(1) for side in sides]
    enough = (sums[0][:, 0] >= least[0]) & (sums[1][:, 0] >= least[1])
    return np.asarray(np.where(enough, found, np.nan))


def _spread(sums: Sequence[Floats], spent: float) -> Floats:
    """[B] pooled SD; nan where all are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        within = sum(np.maximum(s[:, 2] - s[:, 1] ** 2 / s[:, 0], 0.0) for s in sums)
        differs = within > 1e-12 * (sums[0][:, 2] + sums[1][:, 2])  # more than rounding
        return np.where(differs, np.sqrt(within / (sums[0][:, 0] + sums[1][:, 0] - spent)), np.nan)


def parsed_differences(
    answers: Sequence[Numbers], resamples: int = RESAMPLES, seed: int = 0, pairs: NDArray[np.int64] | None = None
) -> list[Estimate]:
    """By scenario, share of answers with a number, group 0 minus group 1: that a model refuses one group is a finding
    too. Intervals hold for all scenarios at once (`at_once`)."""
    codes = answers[0].codes
    shares = np.stack([a.shares() for a in answers], 1)  # [names, S]
    counts = np.concatenate([np.ones((1, len(codes))), draws(codes, resamples, seed, pairs)])
    first, second = (side @ shares / side.sum(1, keepdims=True) for side in (counts * (codes == g) for g in (0, 1)))
    found = (first - second).T
    return at_once(found[:, 0], found[:, 1:], smaller_group(codes, pairs))


def more_often(difference: Estimate) -> int | None:
    """Of which group, 0 or 1, a number is given more often, by half a percent or more; None: it is not shown."""
    if abs(difference.value) < 0.005 or not (difference.low > 0 or difference.high < 0):
        return None
    return int(difference.high < 0)


def interval(value: float, drawn: Floats, names: int) -> Estimate:
    """A value with the 95% percentile interval of its resamples, if nearly all of them gave a number.

    Parameters
    ----------
    names : of the smaller group. Resampling few of them gives intervals that are too narrow, so the percentiles are
        moved outwards to where a t interval would end (Hesterberg 2015, "expanded percentile interval"); of fewer than
        `FEWEST` there is none.
    """
    if (found := _usable(value, drawn, names)) is None:
        return Estimate(value, float("nan"), float("nan"))
    finite, tail = found
    low, high = np.quantile(finite, (tail, 1 - tail))
    return Estimate(value, float(low), float(high))


def symmetric_interval(value: float, drawn: Floats, names: int, least: float = -np.inf) -> Estimate:
    """As `interval`, for means of absolute values: the value ± the distance that resamples keep within, cut at `least`.

    Resampling adds its noise to them a second time, so percentiles would lie too high (Hall 1988, as for gaps).
    """
    if (found := _usable(value, drawn, names)) is None:
        return Estimate(value, float("nan"), float("nan"))
    finite, tail = found
    half = float(np.quantile(np.abs(finite - value), 1 - 2 * tail))
    return Estimate(value, max(value - half, least), value + half)


def at_once(values: Floats, drawn: Floats, names: int) -> list[Estimate]:
    """95% intervals of values [k] with resamples [k, B] that hold for all of them together: each value ± as many of its
    own standard errors as the largest distance of all keeps within (max-t: Westfall and Young 1993, Resampling-Based
    Multiple Testing), `names` as in `interval`."""
    told = np.array([_usable(float(v), row, names) is not None for v, row in zip(values, drawn, strict=True)])
    reach = np.full(len(values), np.nan)
    if told.any():
        off = np.abs(drawn[told] - values[told, None])
        spreads = np.sqrt(np.nanmean(off**2, axis=1))
        far = np.divide(off, spreads[:, None], out=np.zeros_like(off), where=spreads[:, None] > 0)
        most = np.fmax.reduce(far, axis=0)
        reach[told] = symmetric_interval(0.0, most, names).high * spreads
    return [Estimate(float(v), float(v - r), float(v + r)) for v, r in zip(values, reach, strict=True)]


def _usable(value: float, drawn: Floats, names: int) -> tuple[Floats, float] | None:
    """Resamples that gave a number, and which share of them either tail takes; None if no interval can be given."""
    from scipy import stats  # a second to import: help and choices do without

    finite = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or finite.size < 0.95 * max(drawn.size, 1) or names < FEWEST:
        return None
    return finite, float(stats.norm.cdf(np.sqrt(names / (names - 1)) * stats.t.ppf(0.025, names - 1)))


def smaller_group(codes: NDArray[np.int64], pairs: NDArray[np.int64] | None = None) -> int:
    """How many names the smaller group has; one less of pairs, which have a spread of their own once, not twice."""
    return int(min((codes == g).sum() for g in (0, 1))) - (pairs is not None)


@dataclass(frozen=True, eq=False)
class Disparity:
    """Standardised mean differences of S scenarios, all on the same resamples of the names.

    Attributes
    ----------
    values : [S].
    drawn : [S, B].
    names : of the smaller group.
    """

    values: Floats
    drawn: Floats
    names: int

    @classmethod
    def of(
        cls,
        answers: Sequence[Numbers],
        resamples: int = RESAMPLES,
        seed: int = 0,
        pairs: NDArray[np.int64] | None = None,
        by: Sequence[int] | None = None,
    ) -> Disparity:
        """Of scenarios with the same names in the same order; `pairs` as in `draws`.

        `by` : of each, the place of the one whose SD it is divided by; None: its own.
        """
        codes = answers[0].codes
        counts = draws(codes, resamples, seed, pairs)
        moments = [a.moments() for a in answers]
        others = moments if by is None else [moments[i] for i in by]
        each = list(zip(moments, answers, others, strict=True))
        values = np.array([float(smd(m, codes, None, a.spent, other)) for m, a, other in each])
        drawn = np.stack([smd(m, codes, counts, a.spent, other) for m, a, other in each])
        drawn[np.isnan(values)] = np.nan  # a scenario that has none is left out of every mean
        return cls(values, drawn, smaller_group(codes, pairs))

    def each(self) -> list[Estimate]:
        """By scenario."""
        return [interval(float(v), d, self.names) for v, d in zip(self.values, self.drawn, strict=True)]

    def mean_absolute(self) -> Estimate:
        """Mean |SMD| over the scenarios that have one. Noise adds to it: it is above 0 even without any difference."""
        return symmetric_interval(float(_mean_abs(self.values[:, None])[0]), _mean_abs(self.drawn), self.names, 0.0)

    def mean(self) -> Estimate:
        """Mean SMD with its sign over the scenarios that have one."""
        return interval(float(mean_known(self.values[:, None])[0]), mean_known(self.drawn), self.names)

    def of_context(self, absolute: bool) -> Estimate:
        """Mean SMD, or mean |SMD|, of a context of which these scenarios are a sample, crossed with the names.

        By t with one degree of freedom less than there are scenarios, or names where these are fewer; resampling few of
        them would find too little. The
        variance is the one between scenarios and the one that comes of the names, which all scenarios share (Cameron,
        Gelbach and Miller 2011, Robust inference with multiway clustering; what is in both is counted twice, which is
        on the safe side). nan of fewer than 2 scenarios.
        """
        from scipy import stats  # a second to import: help and choices do without

        values, drawn = (np.abs(x) if absolute else x for x in (self.values, self.drawn))
        known = np.isfinite(values)
        size, of_names = int(known.sum()), mean_known(drawn)
        names, freedom = self.names, min(size, self.names) - 1
        value = float(mean_known(values[:, None])[0])
        if freedom < 1 or not math.isfinite(interval(value, of_names, names).low):
            return Estimate(value, float("nan"), float("nan"))
        variance = values[known].var(ddof=1) / size + np.nanvar(of_names, ddof=1) * names / (names - 1)
        half = float(stats.t.ppf(0.975, freedom) * np.sqrt(variance))
        return Estimate(value, max(value - half, 0.0) if absolute else value - half, value + half)

    def change(self, pruned: Disparity) -> Estimate:
        """Change of mean |SMD| from this model to the pruned one, paired by name, over the scenarios in which both have
        one: that a model gives no numbers any more is no fall."""
        values, drawn = np.abs(pruned.values) - np.abs(self.values), np.abs(pruned.drawn) - np.abs(self.drawn)
        return symmetric_interval(float(mean_known(values[:, None])[0]), mean_known(drawn), self.names)


def mean_known(values: Floats) -> Floats:
    """[B] from [S, B], rows without a value left out; nan where all are."""
    seen = np.isfinite(values)
    total = np.where(seen, values, 0.0).sum(0)
    return np.asarray(np.where(seen.any(0), total / np.maximum(seen.sum(0), 1), np.nan))


def _mean_abs(values: Floats) -> Floats:
    return mean_known(np.abs(values))


def inlier_ratio(base: Answers, pruned: Answers) -> float:
    """Share of the pruned model's answers that lie in the 5th to 95th percentile of the unpruned model's answers to the
    same question; answers without a number are outliers. nan if no question has an unpruned answer."""
    inside, total = 0, 0
    for before, after in zip(base.values, pruned.values, strict=True):
        if not np.isfinite(before).any():
            continue
        low, high = np.nanpercentile(before, INLIERS)
        inside += int(((after >= low) & (after <= high)).sum())
        total += after.size
    return inside / total if total else float("nan")


def distance(base: Answers, pruned: Answers) -> float:
    """Wasserstein distance between the answers of both models, in SDs of the unpruned model's; nan without answers."""
    from scipy import stats  # a second to import: help and choices do without

    before, after = (a.values[np.isfinite(a.values)] for a in (base, pruned))
    if before.size < 2 or not after.size or not before.std(ddof=1):
        return float("nan")
    return float(stats.wasserstein_distance(before, after) / before.std(ddof=1))
