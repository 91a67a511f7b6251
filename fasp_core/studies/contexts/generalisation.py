"""What a matrix of contexts says: changes of |SMD| by what a set was chosen on. Its findings: `findings.py`.

SMD is here the difference of the groups' mean log(1 + number) in SDs of the whole model's (Glass 1976), numbers beyond
the whole model's outermost ones moved to these. A pruned model may have next to no spread of its own, or answer
millions: its own SMD is then any number at all, and so would be means over scenarios.

Everything is on the same resamples of the names, so differences between methods and between settings are paired. With
exact answers the halves that sets for their own scenario are tested on are brought to one mean before names are
resampled: each half is under a set of its own, and what the two sets do otherwise is no difference between groups.
Several halvings of the names count as one test, the mean of theirs. Noise
adds to |SMD|, and so may lower or raise it when answers are merely drawn from another model; random sets of the same
size show by how much, and stand beside every method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fasp_core.studies.answers.distributions import Distributions, moved
from fasp_core.studies.answers.measures import (
    RESAMPLES,
    Disparity,
    Estimate,
    at_once,
    mean_known,
    symmetric_interval,
)
from fasp_core.studies.contexts.cells import Cell, Matrix
from fasp_core.studies.contexts.choosing import Method
from fasp_core.studies.contexts.costing import RowCosts, SetCosts
from fasp_core.studies.contexts.halves import levelled
from fasp_core.studies.contexts.settings import Kind
from fasp_core.typing import Floats

NARROW = 0.06  # intervals below this width are told with a digit more
SCENARIOS = 5  # with fewer, resampling them covers too little


@dataclass(frozen=True)
class Summary:
    """One method, what its sets were chosen on and the context that they were tested on, or several of these.

    Attributes
    ----------
    before, after, change : of mean |SMD| over the scenarios.
    inliers : share of the answers within the usual range of the whole model's; usual_inliers : the same what
        the whole model itself has, of samples by other ones: what nothing removed comes to.
        distance : in its SDs (Wasserstein), both winsorised at the whole model's limits.
    parsed_before, parsed_after : share of answers with a number, by group.
    parts : least and most parts of a set. perplexity : mean relative change.
    cells : tests in which both models gave numbers, of which before, after and change are made.
    left : how many tests lack numbers. lost : titles of their scenarios.
    costs : of paragraphs and last words; None: not measured.
    """

    before: Estimate
    after: Estimate
    change: Estimate
    inliers: float
    usual_inliers: float
    distance: float
    parsed_before: tuple[float, float]
    parsed_after: tuple[float, float]
    parts: tuple[int, int]
    perplexity: float
    cells: int
    left: int
    lost: tuple[str, ...]
    costs: RowCosts | None

    @property
    def without(self) -> str:
        """What follows the number of tests."""
        return _without(self.left, self.lost)


@dataclass(frozen=True)
class Compared:
    """Changes of mean |SMD| by two kinds of sets, over the tests in which both left numbers.

    Attributes
    ----------
    first, second, difference : the changes, and the first minus the second; below 0: the first lower it by more.
    means : [2, 1 + B] both as measured, and under each resample.
    tests : how many pairs of them.
    left : how many pairs lack numbers. lost : titles of their scenarios.
    elsewhere : the difference, scenarios taken for a sample of those that might have been asked: names and scenarios
        are resampled, crossed (Owen 2007, "The pigeonhole bootstrap").
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    means: Floats
    tests: int
    left: int
    lost: tuple[str, ...]
    elsewhere: Estimate

    @property
    def said(self) -> str:
        """What it is of."""
        wider = ""
        if np.isfinite(self.elsewhere.low):
            wider = f", {told(self.elsewhere).partition(' ')[2]} for other scenarios of their kind"
        return f"over {self.tests} pairs of tests{_without(self.left, self.lost)}{wider}"


class Carried:
    """Summaries of a matrix. `names`: of the smaller group.

    Parameters
    ----------
    winsorise : share of the whole model's answers at either end beyond which numbers are moved inwards, 0 to below .5.
    costs : what its sets take from the model, where that was measured.
    """

    def __init__(
        self,
        matrix: Matrix,
        winsorise: float = 0.0,
        resamples: int = RESAMPLES,
        seed: int = 0,
        costs: SetCosts | None = None,
    ) -> None:
        self._costs, self._shifts = costs, dict[Cell, tuple[float, float]]()
        self.matrix, self.winsorise, self._seed = matrix, winsorise, seed
        limits = [a.limits(winsorise) for a in matrix.base]
        logs = [a.within(limit).changed(np.log1p) for a, limit in zip(matrix.base, limits, strict=True)]
        n = len(logs)
        whole = list(logs)
        of, halvings = list(range(n)), [0] * n  # whose scenario; how often names were halved for it
        ends, rows = [*range(n + 1)], {}
        for cell in matrix.cells:
            tested = cell.setting.tested
            after = [a.within(limits[tested]).changed(np.log1p) for a in cell.halvings]
            halved = isinstance(whole[tested], Distributions) and cell.setting.kind == "same"
            sides = [after]
            if halved:  # the whole model's answers beside them, brought to one mean in the same way
                sides = [
                    [levelled(a, i) for i, a in enumerate(side) if isinstance(a, Distributions)]
                    for side in (after, [whole[tested]] * len(after))
                ]
            rows[cell.method, cell.setting] = (len(ends) - 1, len(ends) if halved else tested)
            for side in sides:
                logs += side
                of += [tested] * len(side)
                halvings += [len(side) if halved else 0] * len(side)
                ends.append(len(logs))
        each = Disparity.of(logs, resamples, seed, by=of)
        values = each.values[:, None]
        drawn = values + (each.drawn - values) * np.array([widened(each.names, m) for m in halvings])[:, None]

        def means(found: Floats) -> Floats:
            return np.stack([found[a:b].mean(0) for a, b in pairwise(ends)])

        self._values, self._drawn = means(np.abs(values))[:, 0], means(np.abs(drawn))  # [rows], [rows, B]
        self._signed = Disparity(means(values)[:, 0], means(drawn), each.names)
        self.names = each.names
        self._at = rows  # of each cell, and of the whole model's answers that it is compared with

    def summary(self, cells: Sequence[Cell]) -> Summary | None:
        """Of some cells together; None if there are none."""
        if not cells:
            return None
        m = self.matrix
        tested = [c.setting.tested for c in cells]
        changes = self._changes(cells)
        known = np.isfinite(changes[:, 0])
        change = mean_known(changes)
        before, after = self._sides(cells)
        pairs = [(m.base[c.setting.tested], c.answers) for c in cells]
        parsed = np.array([[b.parsed(), a.parsed()] for b, a in pairs]).mean(0)  # [2, groups]
        shown = [self._moved(c) for c in cells]
        return Summary(
            symmetric_interval(float(before[0]), before[1:], self.names, 0.0),
            symmetric_interval(float(after[0]), after[1:], self.names, 0.0),
            self._interval(float(change[0]), change[1:]),
            _mean(inliers for inliers, _ in shown),
            _mean(moved(m.base[t], m.base[t] if m.config.exact else m.other[t])[0] for t in tested),
            _mean(distance for _, distance in shown),
            (float(parsed[0, 0]), float(parsed[0, 1])),
            (float(parsed[1, 0]), float(parsed[1, 1])),
            (min(c.parts for c in cells), max(c.parts for c in cells)),
            _mean(m.perplexity(c).relative for c in cells),
            int(known.sum()),
            int((~known).sum()),
            self._titles(c for c, k in zip(cells, known, strict=True) if not k),
            None if self._costs is None else self._costs.of(cells),
        )

    def signed(self, cell: Cell) -> tuple[Estimate, Estimate]:
        """SMD, with its sign, of a cell's scenario: of the whole model and of the pruned one."""
        each = self._signed.each()
        return each[cell.setting.tested], each[self._at[cell.method, cell.setting][0]]

    def difference(self, pairs: Sequence[tuple[Cell, Cell]]) -> Compared:
        """Of sets that are tested on the same scenario, two by two."""
        first, second = (self._changes(side) for side in zip(*pairs, strict=True))  # [pairs, 1 + B]
        both = np.where(np.isfinite(first) & np.isfinite(second), 1.0, np.nan)
        means = np.stack([mean_known(both * side) for side in (first, second)])
        known = np.isfinite(both[:, 0])
        a, b, between = (self._interval(float(row[0]), row[1:]) for row in (*means, means[0] - means[1]))
        return Compared(
            a,
            b,
            between,
            means,
            int(known.sum()),
            int((~known).sum()),
            self._titles(c for (c, _), k in zip(pairs, known, strict=True) if not k),
            self._elsewhere(both * (first - second), np.array([c.setting.tested for c, _ in pairs])),
        )

    def _elsewhere(self, rows: Floats, tested: NDArray[np.int64]) -> Estimate:
        """The mean of [pairs, 1 + B], with its interval when scenarios are resampled too, all pairs of one together.

        nan of fewer scenarios than resampling can speak of.
        """
        known = tested[np.isfinite(rows[:, 0])]
        places, of = np.unique(known, return_inverse=True)
        if len(places) < SCENARIOS:
            return Estimate(float("nan"), float("nan"), float("nan"))
        rows = rows[np.isfinite(rows[:, 0])]
        resamples = rows.shape[1] - 1
        rng = np.random.default_rng(self._seed + 1)
        times = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), resamples)[:, of].T  # [pairs, B]
        weights = times * np.isfinite(rows[:, 1:])
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = np.asarray((weights * np.nan_to_num(rows[:, 1:])).sum(0) / weights.sum(0))
        return symmetric_interval(float(rows[:, 0].mean()), drawn, min(self.names, len(places)))

    def simultaneous(self, comparisons: Sequence[Sequence[tuple[Cell, Cell]]]) -> list[Estimate]:
        """The difference of each comparison's pairs, as `difference` has it, the second of each pair a set at random.

        Intervals hold for all at once, and allow for other sets than those that were drawn: each resample of the names
        has the noise of a mean over as many sets, by t with one degree of freedom less than there are of them. nan of
        a single set.
        """
        rng = np.random.default_rng(self._seed + 2)
        found = []
        for pairs in comparisons:
            mine, other = self.difference(pairs).means
            changes = self._changes([cell for _, cell in pairs])
            _, of = np.unique([str(cell.setting.sources) for _, cell in pairs], return_inverse=True)
            error, freedom = error_of_sets(changes, of)
            noise = rng.standard_t(freedom, len(mine) - 1) if freedom else np.full(len(mine) - 1, np.nan)
            found.append(mine - other + np.append(0.0, error * noise))
        rows = np.stack(found)
        return at_once(rows[:, 0], rows[:, 1:], self.names)

    def at_equal_inliers(self, pairs: Sequence[tuple[Cell, Cell]]) -> Estimate | None:
        """Of `difference`, what is left where both sets leave as many answers within the usual range.

        The intercept of the line of differences on differences of inlier shares over the pairs, fitted under each
        resample of the names (analysis of covariance). None of fewer than three pairs, or where all shares are equal.
        """
        first, second = (self._changes(side) for side in zip(*pairs, strict=True))
        shares = np.array([[self._moved(c)[0] for c in pair] for pair in pairs])
        found = intercepts(shares[:, 0] - shares[:, 1], first - second)
        return self._interval(float(found[0]), found[1:]) if np.isfinite(found[0]) else None

    def whole(self, tested: Sequence[int]) -> float:
        """Mean |SMD| of the whole model over some scenarios."""
        return _mean(self._values[list(tested)])

    def inliers(self, cells: Iterable[Cell]) -> float:
        """Mean share of answers within the whole model's usual range."""
        return _mean(self._moved(c)[0] for c in cells)

    def _moved(self, cell: Cell) -> tuple[float, float]:
        """Inliers and distance, means over the halvings."""
        if cell not in self._shifts:  # milliseconds each, and asked for again and again
            base = self.matrix.base[cell.setting.tested]
            first, second = np.mean([moved(base, answers, self.winsorise) for answers in cell.halvings], axis=0)
            self._shifts[cell] = float(first), float(second)
        return self._shifts[cell]

    def _interval(self, value: float, drawn: Floats) -> Estimate:
        return symmetric_interval(value, drawn, self.names)

    def _sides(self, cells: Sequence[Cell]) -> tuple[Floats, Floats]:
        """[1 + B] mean |SMD| before and after, as measured and under each resample, where both have one."""
        known = np.where(np.isfinite(self._changes(cells)), 1.0, np.nan)
        places = [c.setting.tested for c in cells], [self._at[c.method, c.setting][0] for c in cells]
        before, after = (mean_known(known * self._rows(at)) for at in places)
        return before, after

    def _changes(self, cells: Sequence[Cell]) -> Floats:
        """[cells, 1 + B] of |SMD|: as measured, and under every resample; nan where one side has none."""
        after, before = zip(*(self._at[c.method, c.setting] for c in cells), strict=True)
        return np.asarray(self._rows(after) - self._rows(before))

    def _rows(self, at: Sequence[int]) -> Floats:
        return np.column_stack([self._values[list(at)], self._drawn[list(at)]])

    def _titles(self, cells: Iterable[Cell]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.matrix.scenarios[c.setting.tested].title for c in cells))


def error_of_sets(changes: Floats, of: NDArray[np.int64]) -> tuple[float, int]:
    """Standard error that a mean over tests owes to the few sets that were drawn, and its degrees of freedom.

    From how far the sets' means lie apart, less what names make of that; whatever else differs between their tests
    counts as well, which is on the safe side.

    Parameters
    ----------
    changes : [tests, 1 + B] as measured, and under each resample of the names. of : [tests] number of its set.
    """
    known = np.isfinite(changes[:, 0])
    sets = np.unique(of[known])
    if len(sets) < 2:
        return 0.0, 0
    means = np.stack([mean_known(changes[known & (of == one)]) for one in sets])
    of_names = np.nanmean((means[:, 1:] - means[:, :1]).var(0, ddof=1)) if means.shape[1] > 1 else 0.0
    return math.sqrt(max(means[:, 0].var(ddof=1) - of_names, 0.0) / len(sets)), len(sets) - 1


def widened(names: int, halvings: int) -> float:
    """By how much resampled differences of levelled halves are to be widened; nan of two names.

    A name's distance from the mean of its half has lost a degree of freedom to each half instead of one to the group;
    over several halvings, whose halves differ, a part of that loss is shared.

    Parameters
    ----------
    names : of the smaller group. halvings : whose mean it is; 0: names were not halved.
    """
    if not halvings:
        return 1.0
    left = (names - 2) / (names - 1) if names > 2 else 0.0
    kept = left / halvings + left**2 * (1 - 1 / halvings)
    return 1 / math.sqrt(kept) if kept else math.nan


def intercepts(x: Floats, y: Floats) -> Floats:
    """[B] least-squares values at x = 0 of lines through points (x [n], y [n, B]), those with nan left out.

    nan where fewer than three points are left, or all lie at one x.
    """
    known = np.isfinite(x)[:, None] & np.isfinite(y)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = ((np.where(known, v, 0.0).sum(0) / count) for v in (x[:, None], y))
        dx, dy = (np.where(known, v - mean, 0.0) for v, mean in ((x[:, None], mean_x), (y, mean_y)))
        square = (dx**2).sum(0)
        slopes = (dx * dy).sum(0) / np.where((count > 2) & (square > 1e-12), square, np.nan)
    return np.asarray(mean_y - slopes * mean_x)


def rows_of(matrix: Matrix) -> list[tuple[Kind, str]]:
    """What sets were chosen on, the least general first: (kind, context or '')."""
    seen = [(c.setting.kind, c.setting.chosen_on if c.setting.kind == "other" else "") for c in matrix.cells]
    return sorted(dict.fromkeys(seen), key=lambda x: (("same", "context", "other", "others").index(x[0]),))


def cells_of(matrix: Matrix, method: Method, row: tuple[Kind, str], tested_on: str | None = None) -> list[Cell]:
    """Cells of a row of `rows_of`, tested on one context or on all."""
    return matrix.of(method, row[0], row[1] or None, tested_on)


def _without(left: int, lost: Sequence[str]) -> str:
    return f" ({left} more, in {', '.join(lost)}, lack numbers)" if left else ""


def _mean(values: Iterable[float]) -> float:
    found = np.array([v for v in values if np.isfinite(v)])
    return float(found.mean()) if found.size else float("nan")


def grown(relative: float) -> str:
    """`+12.3%`, or `3.1e+12 times` of what a set leaves nothing of."""
    return f"{relative:+.1%}" if relative < 9.995 else f"{1 + relative:.3g} times"


def told(e: Estimate) -> str:
    """`+0.12 [-0.03, +0.27]`; of an interval narrower than .06 a digit more."""
    if not np.isfinite(e.low):
        return f"{round(e.value, 2) + 0.0:+.2f} (no interval)"
    digits = 3 if e.high - e.low < NARROW else 2
    value, low, high = (round(end, digits) + 0.0 for end in e)  # no minus before 0
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
