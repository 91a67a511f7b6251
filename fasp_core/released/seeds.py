"""How far bias scores of several seeds can be trusted: do seeds agree, and which heads are chosen beyond noise.

Perplexity does not depend on the seed, so the critical heads are the same for all seeds: only bias is random.

References
----------
McGraw and Wong, "Forming inferences about some intraclass correlation coefficients", Psychological Methods 1, 1996:
the two-way model with consistency, ICC(C,1) and ICC(C,k), and its exact interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasp_core import gap
from fasp_core.errors import InputError
from fasp_core.gap.estimates import LEVEL, UNDEFINED, Estimate, lengthened
from fasp_core.heads.selection import Selection
from fasp_core.released.files import Floats, SeedRows

SURE = 0.95  # share of resamples from which on a head is chosen beyond noise
DRAWN = 4_000_000  # numbers resampled at a time


@dataclass(frozen=True)
class Agreement:
    """How well seeds agree about the heads.

    Attributes
    ----------
    heads, seeds : how many; only heads with a number in every seed count.
    pearson, spearman : correlation of one seed with another, the mean over all pairs of seeds. Interval: bootstrap
        over heads, percentiles.
    icc : intraclass correlation of one seed, ICC(C,1): the share of the variance between heads that is not noise.
        Interval: exact for normal scores.
    mean_pearson, mean_spearman : reliability of the mean over the seeds, by the Spearman-Brown formula
        `S r / (1 + (S - 1) r)`; a negative r is passed on unchanged.
    mean_icc : the same from the intraclass correlation, ICC(C,S).
    """

    heads: int
    seeds: int
    pearson: Estimate
    spearman: Estimate
    icc: Estimate
    mean_pearson: Estimate
    mean_spearman: Estimate
    mean_icc: Estimate

    @property
    def noise(self) -> bool:
        """Whether the ranking cannot be told from noise: the interval of `spearman` is not above 0."""
        return not self.spearman.low > 0


@dataclass(frozen=True, eq=False)
class Places:
    """How sure it is which heads are among the chosen.

    Attributes
    ----------
    mean, se : [N] bias after removal, the mean over the seeds that a head has, and its standard error from that head's
        own seeds (nan for fewer than two).
    noise : standard deviation between seeds of one head's score, pooled over the heads that may be chosen.
    pooled_se : [N] standard error of the mean from `noise`.
    in_seeds, of_seeds : [N] in how many single seeds the head would be chosen, of those in which it has a number.
    share : [N] share of resamples in which it is chosen. A resample moves each mean by noise drawn from the residuals
        of all heads that may be chosen.
    free, k : heads that may be chosen, and how many are.
    cut : bias after removal halfway between the last head that is chosen and the first that is not; nan where there is
        no such pair.
    chosen : flat ids of the k heads of lowest mean.
    by_chance : heads that every seed would choose if the scores were noise, `free * (k / free) ** S`.
    sure_by_chance : heads that would be `sure` if the scores were normal noise.
    """

    mean: Floats
    se: Floats
    noise: float
    pooled_se: Floats
    in_seeds: NDArray[np.intp]
    of_seeds: NDArray[np.intp]
    share: Floats
    free: int
    k: int
    cut: float
    chosen: tuple[int, ...]
    by_chance: float
    sure_by_chance: float

    def grid_se(self, critical: Sequence[int] = ()) -> Floats:
        """[N] standard errors of the means: pooled, but a critical head's own, for it may be far noisier."""
        result = self.pooled_se.copy()
        own = list(critical)
        result[own] = self.se[own]
        return result

    @property
    def sure(self) -> tuple[int, ...]:
        """Flat ids of chosen heads that are chosen in 95% or more of the resamples."""
        return tuple(flat for flat in self.chosen if self.share[flat] >= SURE)

    @property
    def in_every_seed(self) -> tuple[int, ...]:
        """Flat ids of heads that every seed alone would choose."""
        seeds = int(self.of_seeds.max(initial=0))
        return tuple(np.flatnonzero((self.in_seeds == seeds) & (seeds > 0)).tolist())


@dataclass(frozen=True, eq=False)
class Trust:
    """What several seeds say about one choice.

    Attributes
    ----------
    every, free : agreement over all heads, and over those that may be chosen.
    tested : Spearman correlation of the means on validation with those on test prompts, over the same two kinds of
        heads; None where there are too few test rows.
    """

    every: Agreement
    free: Agreement
    places: Places
    tested: tuple[Estimate, Estimate] | None


def trust(
    rows: SeedRows,
    selection: Selection,
    test: SeedRows | None = None,
    agree: Callable[[SeedRows, tuple[int, ...] | None], Agreement] | None = None,
) -> Trust:
    """All that is known of how far a choice by bias can be trusted.

    `test` are the rows of the other split. In place of `agreement` a caller may give one that remembers what it has
    computed. Other arguments and errors as for `places`.
    """
    agree = agree or agreement
    free = np.setdiff1d(np.arange(rows.bias.shape[1]), selection.critical)
    tested = None
    if test is not None:
        try:
            tested = correlation(rows.mean, test.mean), correlation(rows.mean, test.mean, free)
        except InputError:  # fewer than three heads
            tested = None
    return Trust(agree(rows, None), agree(rows, tuple(free.tolist())), places(rows, selection), tested)


def agreement(
    rows: SeedRows, subset: Sequence[int] | NDArray[np.intp] | None = None, resamples: int = 1000, seed: int = 0
) -> Agreement:
    """Agreement of the seeds about the bias of heads.

    Parameters
    ----------
    subset : flat ids of the heads that matter, such as those that may be pruned; None for all.

    Raises
    ------
    InputError
        Fewer than two seeds, or fewer than four heads with a number in every seed.
    """
    from scipy import stats  # a second to import: choosing heads from a file does without

    scores = rows.bias if subset is None else rows.bias[:, np.asarray(subset, dtype=np.intp)]
    scores = scores[:, np.isfinite(scores).all(0)]  # [S, n]
    seeds, n = scores.shape
    _require(seeds, n)
    rng = np.random.default_rng(seed)
    raw, ranks = np.empty(resamples), np.empty(resamples)
    step = max(1, DRAWN // scores.size)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = np.moveaxis(scores[:, rng.integers(n, size=(stop - start, n))], 0, 1)  # [B, S, n]
        raw[start:stop] = _mean_correlation(drawn)
        ranks[start:stop] = _mean_correlation(stats.rankdata(drawn, axis=-1))
    pearson = _with_percentiles(float(_mean_correlation(scores)), raw)
    spearman = _with_percentiles(float(_mean_correlation(stats.rankdata(scores, axis=-1))), ranks)
    one, many = _intraclass(scores)
    return Agreement(n, seeds, pearson, spearman, one, _lengthened(pearson, seeds), _lengthened(spearman, seeds), many)


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    subset: Sequence[int] | NDArray[np.intp] | None = None,
    kind: Literal["spearman", "pearson"] = "spearman",
) -> Estimate:
    """Correlation over heads of two scores [N], such as the means of two splits, over heads that have both.

    Raises
    ------
    InputError
        Fewer than three such heads.
    """
    one, two = (np.asarray(scores, dtype=np.float64) for scores in (x, y))
    if subset is not None:
        chosen = np.asarray(subset, dtype=np.intp)
        one, two = one[chosen], two[chosen]
    both = np.isfinite(one) & np.isfinite(two)
    return Estimate(*gap.ranking_correlation_interval(one[both], two[both], kind=kind))


def places(rows: SeedRows, selection: Selection, resamples: int = 1000, seed: int = 0) -> Places:
    """How sure the places in a set are that was chosen by bias (`fasp` or `bias-only`).

    Parameters
    ----------
    selection : says which heads are critical, and how many are chosen. Heads without any number are never chosen.

    Raises
    ------
    InputError
        A selection that does not go by bias; fewer than two seeds, or fewer than four heads that may be chosen and have
        a number in every seed.
    """
    from scipy import stats

    if selection.method not in ("fasp", "bias-only"):
        raise InputError(f"Method '{selection.method}' does not go by bias: choose fasp or bias-only.")
    of_seeds = np.isfinite(rows.bias).sum(0)
    n = of_seeds.size
    barred = of_seeds == 0
    barred[list(selection.critical)] = True
    free = np.flatnonzero(~barred)
    complete = rows.bias[:, free][:, of_seeds[free] == len(rows.seeds)]
    _require(*complete.shape)
    residuals, noise = _residuals(complete)

    mean, se = rows.mean, np.full(n, np.nan)
    some, several = of_seeds > 0, of_seeds > 1
    se[several] = np.nanstd(rows.bias[:, several], axis=0, ddof=1) / np.sqrt(of_seeds[several])
    known = np.where(some, mean, 0.0)
    root = np.sqrt(np.maximum(of_seeds, 1))

    rng = np.random.default_rng(seed)
    share = np.zeros(n)
    step = max(1, DRAWN // (n * len(rows.seeds)))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.choice(residuals, size=(n, size, len(rows.seeds))).mean(-1) * np.sqrt(len(rows.seeds))
        moved = known[:, None] + drawn / root[:, None]
        share += gap.choice_probability(-moved, selection.k, barred) * size / resamples
    in_seeds = np.zeros(n, dtype=np.intp)
    for one in rows.bias:
        lacking = barred | ~np.isfinite(one)
        alone = gap.choice_probability(-np.where(lacking, 0.0, one)[:, None], selection.k, lacking)
        in_seeds += alone.astype(np.intp)

    k = min(selection.k, free.size)
    order = free[np.argsort(mean[free], kind="stable")]
    cut = float((mean[order[k - 1]] + mean[order[k]]) / 2) if 0 < k < free.size else float("nan")
    return Places(
        mean=mean,
        se=se,
        noise=noise,
        pooled_se=np.where(some, noise / root, np.nan),
        in_seeds=in_seeds,
        of_seeds=of_seeds,
        share=np.clip(share, 0.0, 1.0),
        free=free.size,
        k=k,
        cut=cut,
        chosen=tuple(sorted(order[:k].tolist())),
        by_chance=float(free.size * (k / free.size) ** len(rows.seeds)),
        sure_by_chance=float(free.size * stats.norm.sf(stats.norm.isf(k / free.size) + stats.norm.ppf(SURE))),
    )


def _require(seeds: int, heads: int) -> None:
    if seeds < 2:
        raise InputError("Agreement between seeds needs at least two seeds: give a file that holds several.")
    if heads < 4:
        raise InputError(
            f"Agreement between seeds needs at least 4 heads with a number in every seed, not {heads}: lower gamma."
        )


def _mean_correlation(scores: Floats) -> Floats:
    """Mean Pearson correlation over all pairs of rows, [..., S, n] -> [...]; nan where a row is constant."""
    seeds = scores.shape[-2]
    centered = scores - scores.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = centered / np.sqrt((centered**2).sum(-1, keepdims=True))
    # the square of the sum of unit vectors holds each pair twice, and each of them with itself once
    total = (unit.sum(-2) ** 2).sum(-1)
    return np.asarray((total - seeds) / (seeds * (seeds - 1)))


def _with_percentiles(value: float, drawn: Floats) -> Estimate:
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not known.size:
        return UNDEFINED
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def _lengthened(r: Estimate, seeds: int) -> Estimate:
    """Spearman-Brown for a mean of `seeds` scores; it rises with r, so ends of intervals go the same way."""
    return Estimate(*(lengthened(x, seeds) for x in (r.value, r.low, r.high)))


def _intraclass(scores: Floats) -> tuple[Estimate, Estimate]:
    """ICC(C,1) and ICC(C,S) of [S, n] scores, with exact intervals under normality."""
    from scipy import stats

    seeds, n = scores.shape
    between = seeds * scores.mean(0).var(ddof=1)
    _, noise = _residuals(scores)
    if not between and not noise:
        return UNDEFINED, UNDEFINED
    with np.errstate(divide="ignore"):
        f = np.float64(between) / np.float64(noise**2)
    tail = (1 + LEVEL) / 2
    freedom = n - 1, (n - 1) * (seeds - 1)
    ends = f, f / stats.f.ppf(tail, *freedom), f * stats.f.ppf(tail, *freedom[::-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        one = [float((x - 1) / (x + seeds - 1)) if np.isfinite(x) else 1.0 for x in ends]
        many = [float(1 - 1 / x) for x in ends]
    return Estimate(*one), Estimate(*many)


def _residuals(scores: Floats) -> tuple[Floats, float]:
    """What is left of [S, n] scores without the means of heads and seeds, scaled to the variance of noise; its s.d."""
    seeds, n = scores.shape
    left = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    noise = float(np.sqrt((left**2).sum() / ((n - 1) * (seeds - 1))))
    return (left * np.sqrt(scores.size / ((n - 1) * (seeds - 1)))).ravel(), noise
