"""Two models on the same items: how many each answers rightly, and whether they differ."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
INTERVALS = {
    "accuracy": "Wilson's score interval",
    "points": "normal, of paired answers with half an item added to each of the four outcomes (Agresti and Min 2005)",
    "likelihood": "Student's t of the items' differences",
}

Interval = tuple[float, float]


@dataclass(frozen=True)
class Paired:
    """Right answers of two models on the same n items.

    Attributes
    ----------
    base, pruned : shares of right answers.
    base_interval, pruned_interval : 95%, of each by itself.
    points : by how many percentage points the share changed.
    interval : 95%, of `points`.
    lost, gained : items that the first alone, and that the second alone answers rightly.
    mcnemar_p : exact two-sided p of as many or more one-sided changes, were both directions equally likely.
    tells : whether the first model's interval lies above chance. If not, a change says nothing of what is lost.
    """

    base: float
    pruned: float
    base_interval: Interval
    pruned_interval: Interval
    points: float
    interval: Interval
    lost: int
    gained: int
    mcnemar_p: float
    tells: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "accuracy_base": self.base,
            "accuracy_pruned": self.pruned,
            "accuracy_base_interval": list(self.base_interval),
            "accuracy_pruned_interval": list(self.pruned_interval),
            "points": self.points,
            "points_interval": list(self.interval),
            "lost": self.lost,
            "gained": self.gained,
            "mcnemar_p": self.mcnemar_p,
            "tells": self.tells,
        }


def paired(base: ArrayLike, pruned: ArrayLike, chance: float) -> Paired:
    """Compare right answers [n] (bool) of two models on the same items.

    Parameters
    ----------
    chance : share that is right without reading the question.

    References
    ----------
    McNemar (1947), Psychometrika 12; Wilson (1927), JASA 22; Agresti and Min (2005), Statistics in Medicine 24.
    """
    from scipy import stats  # a second to import: help and choices do without

    one, other = np.asarray(base, dtype=bool), np.asarray(pruned, dtype=bool)
    n, lost, gained = len(one), int((one & ~other).sum()), int((other & ~one).sum())
    first, second = _share_interval(int(one.sum()), n), _share_interval(int(other.sum()), n)
    p = float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
    return Paired(
        float(one.mean()),
        float(other.mean()),
        first,
        second,
        100 * (gained - lost) / n,
        _points_interval(lost, gained, n),
        lost,
        gained,
        p,
        first[0] > chance,
    )


def mean_change(base: ArrayLike, pruned: ArrayLike) -> dict[str, Any]:
    """Means of two models' values [n] on the same items, and their paired change; no interval for a single item."""
    from scipy import stats  # a second to import: help and choices do without

    one, other = np.asarray(base, dtype=np.float64), np.asarray(pruned, dtype=np.float64)
    change, n = other - one, len(one)
    interval = None
    if n > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * change.std(ddof=1) / sqrt(n))
        interval = [float(change.mean()) - half, float(change.mean()) + half]
    return {
        "base": float(one.mean()),
        "pruned": float(other.mean()),
        "change": float(change.mean()),
        "change_interval": interval,
    }


def _share_interval(right: int, n: int) -> Interval:
    from scipy import stats  # a second to import: help and choices do without

    low, high = stats.binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    return float(low), float(high)


def _points_interval(lost: int, gained: int, n: int) -> Interval:
    from scipy import stats  # a second to import: help and choices do without

    b, c, m = lost + 0.5, gained + 0.5, n + 2
    middle = (c - b) / m
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * sqrt(b + c - (c - b) ** 2 / m) / m
    return 100 * max(middle - half, -1.0), 100 * min(middle + half, 1.0)
