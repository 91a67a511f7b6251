"""Whole distributions of answers: their moments and quantiles, and how far groups are apart in them.

A name's distribution is a list of numbers with probabilities, nan for answers without a number. What was not followed
to its end is in it by a few draws (`exact.py`). An interval resamples names with all that they answer, draws included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.studies.answers import measures
from fasp_core.studies.answers.exact import Tree
from fasp_core.studies.answers.measures import (
    INLIERS,
    LEAST_SHARE,
    RESAMPLES,
    Answers,
    Estimate,
    draws,
    interval,
    smaller_group,
    smd,
)
from fasp_core.typing import Floats

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CHUNK = 100  # resamples of medians at once
DIGITS = 3  # in which numbers agree that are kept as one


@dataclass(frozen=True, eq=False)
class Distributions:
    """Of all names in one scenario, flat.

    Attributes
    ----------
    values, masses : [m] number (nan: none) and probability.
    names : [m] whose, an index into `codes`.
    drawn : [m] whether it is a draw for what was not followed to its end.
    codes : [names] group of each name; where groups are compared, 0 or 1.
    """

    values: Floats
    masses: Floats
    names: NDArray[np.int64]
    drawn: NDArray[np.bool_]
    codes: NDArray[np.int64]
    spent = 0.0  # a whole distribution has no degrees of freedom to lose

    @classmethod
    def read(cls, table: Any, codes: NDArray[np.int64]) -> Distributions:
        """From a stored data frame with a column of each but `codes`."""
        return cls(
            table["values"].to_numpy(dtype=float, na_value=np.nan),
            table["masses"].to_numpy(dtype=float),
            table["names"].to_numpy(dtype=np.int64),
            table["drawn"].to_numpy(dtype=bool),
            codes,
        )

    def columns(self) -> dict[str, NDArray[Any]]:
        """What `read` reads."""
        return {name: getattr(self, name) for name in ("names", "values", "masses", "drawn")}

    @cached_property
    def given(self) -> NDArray[np.bool_]:
        """[m] whether there is a number."""
        return np.isfinite(self.values)

    @cached_property
    def covered(self) -> Floats:
        """[names] probability of the answers that were followed until their number was settled."""
        return self._by_name(~self.drawn)

    @cached_property
    def usual(self) -> Floats:
        """[2, names] 5th and 95th percentile of each name's numbers; nan of none."""
        return self._quantiles_by_name([q / 100 for q in INLIERS])

    def by_name(self) -> dict[str, Floats]:
        """[names] what is followed, and of the numbers: mean, SD, the same of log(1 + number), and `QUANTILES`."""
        out = {"covered": self.covered, "without_number": 1 - self.shares()}
        for title, values in (("", self.values), ("log_", np.log1p(self.values))):
            x, w = np.where(self.given, values, 0.0), np.where(self.given, self.masses, 0.0)
            mass = np.bincount(self.names, w, len(self.codes))
            with np.errstate(divide="ignore", invalid="ignore"):
                mean = np.bincount(self.names, w * x, len(self.codes)) / mass
                square = np.bincount(self.names, w * (x - mean[self.names]) ** 2, len(self.codes)) / mass
            out |= {f"{title}mean": mean, f"{title}sd": np.sqrt(square)}
        return out | dict(zip(map(str, QUANTILES), self._quantiles_by_name(QUANTILES), strict=True))

    def _quantiles_by_name(self, at: Sequence[float]) -> Floats:
        """[at, names]; nan of none."""
        out = np.full((len(at), len(self.codes)), np.nan)
        for i in range(len(self.codes)):
            mine = self.given & (self.names == i)
            out[:, i] = quantiles(*ascending(self.values[mine], self.masses[mine]), at)
        return out

    def shares(self) -> Floats:
        """[names] probability of an answer with a number."""
        return self._by_name(self.given)

    def parsed(self) -> Floats:
        """[2] the same by group."""
        return np.array([self.shares()[self.codes == g].mean() for g in (0, 1)])

    def moments(self) -> Floats:
        """[names, 3] probability of a number, and sums of the distance from the mean of all and of its square."""
        w = np.where(self.given, self.masses, 0.0)
        x = np.where(self.given, self.values, 0.0)
        mean = float(w @ x / w.sum()) if w.sum() else 0.0
        off = np.where(self.given & ~np.isclose(x, mean, rtol=1e-12, atol=0), x - mean, 0.0)
        parts = [np.bincount(self.names, w * off**k, len(self.codes)) for k in range(3)]
        return np.stack(parts, 1)

    def of(self, group: int) -> tuple[Floats, Floats]:
        """Numbers of a group, ascending, and their probabilities, which sum to 1."""
        mine = self.given & (self.codes[self.names] == group)
        return ascending(self.values[mine], self.masses[mine])

    def everybody(self) -> tuple[Floats, Floats]:
        """Numbers of both groups, likewise."""
        return ascending(self.values[self.given], self.masses[self.given])

    def between(self, first: Collection[int], second: Collection[int]) -> Distributions:
        """Names of the groups `first` as group 0 and of the groups `second` as group 1; the others are left out."""
        sides = np.full(len(self.codes), -1, dtype=np.int64)
        sides[np.isin(self.codes, list(first))] = 0
        sides[np.isin(self.codes, list(second))] = 1
        kept = sides >= 0
        place = np.cumsum(kept) - 1
        rows = kept[self.names]
        names = place[self.names[rows]]
        return Distributions(self.values[rows], self.masses[rows], names, self.drawn[rows], sides[kept])

    def changed(self, change: Callable[[Floats], Floats]) -> Distributions:
        """With other numbers in the place of those that there are."""
        return replace(self, values=change(self.values))

    def limits(self, share: float) -> tuple[float, float]:
        """As `Answers.limits`."""
        if not share or not self.given.any():
            return -np.inf, np.inf
        low, high = quantiles(*self.everybody(), (share, 1 - share))
        return float(low), float(high)

    def within(self, limits: tuple[float, float]) -> Distributions:
        """Numbers beyond some limits moved to them."""
        return self.changed(lambda x: np.clip(x, *limits))

    def winsorised(self, share: float) -> Distributions:
        """Numbers beyond their own `limits` moved to them."""
        return self.within(self.limits(share))

    def thinned(self) -> Distributions:
        """Numbers of a name that agree in `DIGITS` digits as one, at their mean: means stay as they are, and no number
        moves by more than a hundredth of itself."""
        digits = np.nan_to_num(in_digits(self.values), nan=-1.0)
        order = np.lexsort((digits, self.drawn, self.names))
        names, drawn, masses, digits = self.names[order], self.drawn[order], self.masses[order], digits[order]
        new = (names[1:] != names[:-1]) | (drawn[1:] != drawn[:-1]) | (digits[1:] != digits[:-1])
        begins = np.flatnonzero(np.concatenate([[True], new]))
        total = np.add.reduceat(masses, begins)
        values = np.add.reduceat(masses * self.values[order], begins) / total
        return Distributions(values, total, names[begins], drawn[begins], self.codes)

    def bounds(self) -> tuple[float, float]:
        """Least and largest SMD, in SDs as measured, if all that was not followed to its end were numbers at the 5th
        percentile of the others in one group and at the 95th in the other (bounds without assumptions within a range:
        Manski, Partial identification of probability distributions, 2003); what was drawn lies between them or is an
        end."""
        if not self.given.any():
            return float("nan"), float("nan")
        low, high = quantiles(*self.everybody(), (0.05, 0.95))
        moments = self.moments()
        found = [float(smd(moments, self.codes, None, self.spent))]
        for ends in ((low, high), (high, low)):
            worst = replace(self, values=np.where(self.drawn, np.array(ends)[self.codes[self.names]], self.values))
            found.append(float(smd(worst.moments(), self.codes, None, self.spent, moments)))
        return min(found), max(found)

    def _by_name(self, which: NDArray[np.bool_]) -> Floats:
        return np.bincount(self.names, np.where(which, self.masses, 0.0), len(self.codes)).astype(float)


def gathered(trees: Sequence[Tree], codes: NDArray[np.int64]) -> tuple[Distributions, tuple[str, ...]]:
    """Of the trees of all names, equal numbers together, and the likeliest text of each row."""
    rows: dict[tuple[int, bool, str], tuple[float, float, float, str]] = {}
    for i, tree in enumerate(trees):
        leaves = [(t, v, m, False) for t, v, m in zip(tree.texts, tree.values, tree.masses, strict=True)]
        for text, value, mass, drawn in leaves + [(*one, True) for one in tree.drawn]:
            _, total, most, said = rows.get((i, drawn, repr(value)), (value, 0.0, -1.0, ""))
            better = (mass, text) if mass > most else (most, said)
            rows[i, drawn, repr(value)] = (value, total + mass, *better)
    found = [(i, drawn, *rest) for (i, drawn, _), rest in rows.items() if rest[1] > 0]
    names, drawn_, values, masses, _, texts = zip(*found, strict=True)
    return (
        Distributions(
            np.array(values, dtype=float),
            np.array(masses, dtype=float),
            np.array(names, dtype=np.int64),
            np.array(drawn_, dtype=bool),
            codes,
        ),
        texts,
    )


def mixed(found: Sequence[Distributions]) -> Distributions:
    """Of the same names, each one's distributions in equal parts."""
    rows = [np.concatenate([getattr(d, name) for d in found]) for name in ("values", "masses", "names", "drawn")]
    return Distributions(rows[0], rows[1] / len(found), rows[2], rows[3], found[0].codes)


def in_digits(x: Floats) -> Floats:
    """Numbers, 0 or more, rounded to `DIGITS` digits, ties upwards; whatever lies between equals is equal to them.

    Those below a billionth are 0.
    """
    sized = np.where(x > 1e-9, x, 1.0)
    unit = 10.0 ** (np.floor(np.log10(sized)) - (DIGITS - 1))
    return np.where(x > 1e-9, np.floor(sized / unit * (1 + 1e-9) + 0.5) * unit, 0.0 * x)


def ascending(values: Floats, masses: Floats) -> tuple[Floats, Floats]:
    """In order, the masses over their sum."""
    order = np.argsort(values, kind="stable")
    total = masses.sum()
    return values[order], masses[order] / (total if total else 1.0)


def quantiles(values: Floats, masses: Floats, at: Sequence[float]) -> Floats:
    """Least values with at least the share `at` of the mass up to them, of ascending values; nan of none."""
    if not len(values):
        return np.full(len(at), np.nan)
    ends = np.minimum(np.searchsorted(np.cumsum(masses), np.array(at) - 1e-12), len(values) - 1)
    return np.asarray(values[ends])


def log_difference(
    found: Distributions, resamples: int = RESAMPLES, seed: int = 0, pairs: NDArray[np.int64] | None = None
) -> Estimate:
    """Mean log(1 + number) of group 0 minus that of group 1: of prices, about how much more in relative terms.

    nan where less than `LEAST_SHARE` of a group's probability is of numbers.
    """
    moments = found.changed(np.log1p).moments()

    def difference(counts: Floats) -> Floats:
        mine = [counts * (found.codes == g) for g in (0, 1)]
        sums = [m @ moments for m in mine]
        enough = np.all([s[:, 0] >= LEAST_SHARE * m.sum(1) for s, m in zip(sums, mine, strict=True)], 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(enough, sums[0][:, 1] / sums[0][:, 0] - sums[1][:, 1] / sums[1][:, 0], np.nan)

    value = float(difference(np.ones((1, len(found.codes))))[0])
    drawn = difference(draws(found.codes, resamples, seed, pairs))
    return interval(value, drawn, smaller_group(found.codes, pairs))


def median_difference(
    found: Distributions, resamples: int = RESAMPLES, seed: int = 0, pairs: NDArray[np.int64] | None = None
) -> Estimate:
    """Median of group 0's numbers minus that of group 1's; nan as of `log_difference`."""
    counts = np.concatenate([np.ones((1, len(found.codes))), draws(found.codes, resamples, seed, pairs)])
    medians = []
    for g in (0, 1):
        mine = np.flatnonzero(found.given & (found.codes[found.names] == g))
        mine = mine[np.argsort(found.values[mine], kind="stable")]
        if not found.masses[mine].sum() >= LEAST_SHARE * (found.codes == g).sum():
            return Estimate(float("nan"), float("nan"), float("nan"))
        values, steps = np.unique(found.values[mine], return_inverse=True)
        table = np.zeros((len(found.codes), len(values)))
        np.add.at(table, (found.names[mine], steps), found.masses[mine])
        below = np.cumsum(table, 1)
        ends = [counts[at : at + CHUNK] @ below for at in range(0, len(counts), CHUNK)]
        medians.append(values[np.concatenate([(e < e[:, -1:] / 2 - 1e-12).sum(1) for e in ends])])
    difference = medians[0] - medians[1]
    return interval(float(difference[0]), difference[1:], smaller_group(found.codes, pairs))


def inlier_ratio(base: Distributions, pruned: Distributions) -> float:
    """Probability that the pruned model's answer to a question lies in the 5th to 95th percentile of the unpruned
    model's, mean over names; an answer without a number is an outlier. nan if no name has an unpruned number.

    Numbers are compared in `DIGITS` digits, so that it is the same of answers that were thinned.
    """
    low, high, values = (in_digits(x) for x in (*base.usual[:, pruned.names], pruned.values))
    inside = pruned._by_name((values >= low) & (values <= high))[np.isfinite(base.usual[0])]
    return float(inside.mean()) if len(inside) else float("nan")


def distance(base: Distributions, pruned: Distributions) -> float:
    """Wasserstein distance between both models' numbers, in SDs of the unpruned model's; nan without numbers."""
    from scipy import stats  # a second to import: help and choices do without

    before, after = base.everybody(), pruned.everybody()
    if not len(before[0]) or not len(after[0]):
        return float("nan")
    mean = float(before[0] @ before[1])
    sd = float(np.sqrt(before[1] @ (before[0] - mean) ** 2))
    if not sd:
        return float("nan")
    return float(stats.wasserstein_distance(before[0], after[0], before[1], after[1]) / sd)


def moved(
    base: Answers | Distributions, pruned: Answers | Distributions, winsorise: float = 0.0
) -> tuple[float, float]:
    """(inlier ratio, distance) of two models' answers; for the distance, numbers beyond the base's limits are moved to
    them in both."""
    limits = base.limits(winsorise)
    if isinstance(base, Distributions) and isinstance(pruned, Distributions):
        return inlier_ratio(base, pruned), distance(base.within(limits), pruned.within(limits))
    assert isinstance(base, Answers)
    assert isinstance(pruned, Answers)
    return measures.inlier_ratio(base, pruned), measures.distance(base.within(limits), pruned.within(limits))


def points(found: Distributions, count: int) -> Floats:
    """[names, count] equally likely answers, to be drawn: the share without a number, rounded, is nan, and the others
    are quantiles in the middle of equal parts, ascending."""
    out = np.full((len(found.codes), count), np.nan)
    for i, row in enumerate(out):
        mine = found.given & (found.names == i)
        kept = round(count * float(found.shares()[i]))
        if mine.any() and kept:
            at = (np.arange(kept) + 0.5) / kept
            row[:kept] = quantiles(*ascending(found.values[mine], found.masses[mine]), at.tolist())
    return out
