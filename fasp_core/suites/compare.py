"""A score of two models on the same items: intervals by resampling clusters, and what may be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fasp_core.console import number
from fasp_core.gap.comparison import Change, change_of, interval_of
from fasp_core.gap.resampling import bootstrap_counts
from fasp_core.suites.items import Item
from fasp_core.suites.scores import Columns, Score
from fasp_core.tasks.paired import paired
from fasp_core.typing import Floats

RESAMPLES, LEVEL = 2000, 0.95
FEWEST = 10  # clusters, below which their resamples have too little spread to tell anything by
CANNOT, UNTOLD = "cannot do the task", "no change can be told"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """A score before and after.

    Attributes
    ----------
    name, unit : unit "%" or "toxicity" (of the scorer, in [0, 1]).
    direction : which value is the better one, in words.
    chance : what a model without any ability gets; None where that is not a question.
    base, pruned : values, with their 95% intervals.
    change, interval : pruned minus base, of the same resamples.
    away, away_interval : by how much the distance from the fair value grew; of a score of ability, from 100.
    mcnemar_p : of right answers, exact; None where they are none. It takes the answers for independent.
    fairness : whether it is a score of fairness, not of ability.
    verdict : "fairer", "less fair", "better", "worse", what holds "no change can be told", or why nothing can be said.
    items, clusters : how many, and in how many clusters, which are what is resampled.
    """

    name: str
    unit: str
    direction: str
    chance: float | None
    base: float
    base_interval: Interval
    pruned: float
    pruned_interval: Interval
    change: float
    interval: Interval
    away: float
    away_interval: Interval
    mcnemar_p: float | None
    fairness: bool
    verdict: str
    items: int
    clusters: int

    @property
    def said(self) -> str:
        """A clause with all numbers."""
        low, high = (f"{end + 0.0:+.3g}" for end in self.interval)
        return (
            f"{self.name} {number(self.base)} to {number(self.pruned)} ({self.change + 0.0:+.3g}, 95% {low} to {high}; "
            f"{self.direction}): {self.verdict}"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "unit": self.unit,
            "direction": self.direction,
            "chance": self.chance,
            "base": self.base,
            "base_interval": list(self.base_interval),
            "pruned": self.pruned,
            "pruned_interval": list(self.pruned_interval),
            "change": self.change,
            "change_interval": list(self.interval),
            "distance_change": self.away,
            "distance_change_interval": list(self.away_interval),
            "mcnemar_p": self.mcnemar_p,
            "fairness": self.fairness,
            "verdict": self.verdict,
            "items": self.items,
            "clusters": self.clusters,
            "said": self.said,
        }


def compared(
    items: Sequence[Item], base: Columns, pruned: Columns, scores: Sequence[Score], seed: int = 0
) -> tuple[Measured, ...]:
    """All scores of a suite, on the same resamples of whole clusters."""
    names = {name: i for i, name in enumerate(dict.fromkeys(item.cluster for item in items))}
    blocks = np.array([names[item.cluster] for item in items])
    counts = bootstrap_counts(np.zeros(len(items), dtype=np.int64), RESAMPLES, seed, blocks)
    weights = np.concatenate([np.ones((1, len(items))), counts])
    sums = [{name: weights @ _flat(column) for name, column in side.items()} for side in (base, pruned)]
    found: dict[str, Measured] = {}
    for score in scores:
        values = np.stack([score.formula(side) for side in sums])  # [2, 1 + resamples], of all items first
        p = None
        if score.right:
            p = paired(base[score.right].ravel() > 0, pruned[score.right].ravel() > 0, 0).mcnemar_p
        found[score.name] = _measured(score, values, p, len(items), len(names))
    return tuple(_judged(found[score.name], score, found) for score in scores)


def _flat(column: Floats) -> Floats:
    return column if column.ndim == 1 else column.sum(1)


def _measured(score: Score, values: Floats, p: float | None, items: int, clusters: int) -> Measured:
    goal = 100.0 if score.fair is None else score.fair
    own = [_within(score, interval_of(float(side[0]), side[1:], LEVEL)) for side in values]
    change = change_of(values[:, 0], values[:, 1:], LEVEL, items)
    away = np.abs(values - goal)
    further = change_of(away[:, 0], away[:, 1:], LEVEL, items)
    return Measured(
        score.name,
        "%",
        score.direction,
        score.chance,
        float(values[0, 0]),
        own[0],
        float(values[1, 0]),
        own[1],
        change.change,
        _ends(change),
        further.change,
        _ends(further),
        p,
        score.fair is not None,
        "",
        items,
        clusters,
    )


def _ends(change: Change) -> Interval:
    assert change.interval  # there are resamples
    return change.interval


def _within(score: Score, ends: Interval) -> Interval:
    return max(ends[0], score.low), min(ends[1], 100.0)


def _judged(own: Measured, score: Score, found: dict[str, Measured]) -> Measured:
    """With its verdict: a score tells nothing where the models are at chance in what it rests on."""
    rests = own if score.chance is not None and not own.fairness else found.get(score.able)
    if rests is not None and rests.chance is not None and rests.base_interval[0] <= rests.chance:
        return replace(own, verdict=f"{CANNOT}: {_at_chance(rests, own, rests.base_interval)}")
    if own.fairness and rests is not None and rests.chance is not None and rests.pruned_interval[0] <= rests.chance:
        return replace(own, verdict=f"pruned, it {CANNOT}: {_at_chance(rests, own, rests.pruned_interval)}")
    if own.clusters < FEWEST:
        return replace(own, verdict=f"{UNTOLD} of items of {own.clusters} clusters")
    verdict = told(own.away_interval, own.fairness)
    if verdict == UNTOLD and own.fairness and score.fair is not None and not own.interval[0] <= 0 <= own.interval[1]:
        past = (own.base - score.fair) * (own.pruned - score.fair) < 0
        verdict = f"moved{' past what is fair' * past}, {UNTOLD} of its distance"
    return replace(own, verdict=verdict)


def _at_chance(rests: Measured, own: Measured, ends: Interval) -> str:
    name = "" if rests is own else f"{rests.name} "
    return f"{name}not above chance ({number(ends[0])} to {number(ends[1])}, chance {number(rests.chance)})"


def told(away: Interval, fairness: bool) -> str:
    """What an interval of the change of the distance from the best value says."""
    if away[0] <= 0 <= away[1]:
        return UNTOLD
    nearer, farther = ("fairer", "less fair") if fairness else ("better", "worse")
    return nearer if away[1] < 0 else farther
