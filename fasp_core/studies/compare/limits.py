"""What a choice of heads may cost at most, by several measures at once.

Perplexity is measured on every candidate anyway. Right answers lost on LAMBADA and on a panel of tasks, and the nats of
LAMBADA's last word, are measured on half of the items when a set is chosen, and on the other half when it is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core import defaults
from fasp_core.console import share
from fasp_core.errors import InputError
from fasp_core.gap.claims import Spent
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.tasks.answers import Answers, answers_of, read_answers
from fasp_core.tasks.files import Items
from fasp_core.tasks.last_words import TASK, half
from fasp_core.tasks.paired import mean_change, paired
from fasp_core.typing import Report

PANEL = (TASK, "arc_easy", "piqa")


FURTHER = ("lambada_points", "lambada_nats", "task_points")  # limits beside that on perplexity


@dataclass(frozen=True)
class Limits:
    """The most that a set may cost; None is no limit.

    Attributes
    ----------
    max_ppl : rise of perplexity, relative: 0.1 is 10%.
    lambada_points : right answers lost on LAMBADA, in points of a percentage.
    lambada_nats : rise of the last word's negative log-likelihood.
    task_points : points lost in the mean accuracy of `tasks`.
    items : of each task, on each side.
    """

    max_ppl: float = defaults.MAX_PPL
    lambada_points: float | None = None
    lambada_nats: float | None = None
    task_points: float | None = None
    tasks: tuple[str, ...] = PANEL
    items: int = defaults.COST_ITEMS

    def __post_init__(self) -> None:
        if not 0 < self.max_ppl < 10:
            raise InputError(
                f"A rise of perplexity of {self.max_ppl:g} is no limit: give --max-ppl .1 for at most 10%."
            )
        for name in FURTHER:
            most = getattr(self, name)
            if most is not None and not 0 < most <= 100:
                raise InputError(f"A loss of {most:g} is no limit: give --max-{name.replace('_', '-')} above 0.")
        if self.items < 2 or not self.tasks:
            raise InputError("A limit needs a task and at least 2 items of each: name more.")

    @property
    def beyond_ppl(self) -> bool:
        """Whether anything but perplexity is limited."""
        return any(getattr(self, name) is not None for name in FURTHER)

    @property
    def asked(self) -> tuple[str, ...]:
        """The tasks that have to be answered."""
        of_lambada = (self.lambada_points, self.lambada_nats) != (None, None)
        return tuple(dict.fromkeys((TASK,) * of_lambada + self.tasks * (self.task_points is not None)))

    def within(self, other: Limits) -> bool:
        """Whether whatever keeps to these keeps to the others, and nothing else is limited."""
        mine, others = self.as_dict(), other.as_dict()
        for name, most in others.items():
            own = mine[name]
            if (own is None) != (most is None) or (own is not None and most is not None and own > most + 1e-9):
                return False
        same = (self.tasks, self.items) == (other.tasks, other.items) or not other.beyond_ppl
        return same and self.max_ppl < other.max_ppl + 1e-9

    def text(self) -> str:
        """Such as `perplexity at most 10% up, at most 2 points of LAMBADA lost`."""
        said = [f"perplexity at most {share(self.max_ppl)} up"]
        if self.lambada_points is not None:
            said.append(f"at most {_points(self.lambada_points)} of LAMBADA lost")
        if self.lambada_nats is not None:
            said.append(f"at most {self.lambada_nats:g} nats more for LAMBADA's last word")
        if self.task_points is not None:
            said.append(f"at most {_points(self.task_points)} lost in the mean of {', '.join(self.tasks)}")
        return ", ".join(said)

    def as_dict(self) -> dict[str, float | None]:
        """JSON-ready: the limits beside perplexity."""
        return {name: getattr(self, name) for name in ("lambada_points", "lambada_nats", "task_points")}

    def options(self) -> str:
        """As the command line has them."""
        named = {f"--max-{name.replace('_', '-')}": most for name, most in self.as_dict().items()}
        told = [f"--max-ppl {self.max_ppl:g}", *(f"{o} {m:g}" for o, m in named.items() if m is not None)]
        return " ".join(
            told + [f"--limit-items {self.items}"] * (self.beyond_ppl and self.items != defaults.COST_ITEMS)
        )


class Unmeasured(InputError):
    """It is not known whether a set keeps to the limits."""


class Meter:
    """What sets cost by limits beyond perplexity, on one side; every answer is stored.

    Parameters
    ----------
    split : "valid", to choose by, or "test".
    """

    def __init__(
        self, lm: LanguageModel, limits: Limits, split: str, store: Store, progress: Report | None = None
    ) -> None:
        self.lm, self.limits, self.split, self.store = lm, limits, split, store
        self.check = getattr(progress, "check", None)

    def spent(self, heads: Sequence[int]) -> tuple[Spent, ...]:
        """Of one set (flat ids), the cheapest to measure first."""
        limits, found = self.limits, []
        if limits.lambada_nats is not None:
            found.append(self.nats(heads))
        if limits.lambada_points is not None:
            found.append(self._points(heads, limits.lambada_points))
        if limits.task_points is not None:
            found.append(self._panel(heads, limits.task_points))
        return tuple(found)

    def fits(self, heads: Sequence[int]) -> bool:
        """Whether a set keeps to all of the limits. Raises Unmeasured where what is known does not tell."""
        found = self.spent(heads)
        if any(one.value > one.most for one in found):
            return False
        for one in found:
            if not one.kept:
                raise Unmeasured(f"What this set costs by {one.name} was not measured: measure it.")
        return True

    def nats(self, heads: Sequence[int]) -> Spent:
        """Of LAMBADA's last word."""
        name, most = "LAMBADA's last word", np.inf if self.limits.lambada_nats is None else self.limits.lambada_nats
        if (both := self._answers(TASK, heads)) is None:
            return Spent(name, "nats", np.nan, most)
        change = mean_change(both[0].likelihood, both[1].likelihood)
        return Spent(name, "nats", -change["change"], most, _flipped(change["change_interval"]))

    def _points(self, heads: Sequence[int], most: float) -> Spent:
        if (both := self._answers(TASK, heads)) is None:
            return Spent("LAMBADA", "points", np.nan, most)
        one = paired(both[0].right, both[1].right, 0.0)
        return Spent("LAMBADA", "points", -one.points, most, _flipped(one.interval))

    def _panel(self, heads: Sequence[int], most: float) -> Spent:
        name, changes = f"the mean of {', '.join(self.limits.tasks)}", []
        for task in self.limits.tasks:
            if (both := self._answers(task, heads)) is None:
                return Spent(name, "points", np.nan, most)
            changes.append(100 * (np.asarray(both[0].right, dtype=float) - both[1].right))
        mean = float(np.mean([c.mean() for c in changes]))
        half_width = 1.96 * float(np.sqrt(sum(c.var(ddof=1) / len(c) for c in changes))) / len(changes)
        return Spent(name, "points", mean, most, (mean - half_width, mean + half_width))

    def _answers(self, task: str, heads: Sequence[int]) -> tuple[Answers, Answers] | None:
        """Of the unpruned and of the pruned model; None where they are not known."""
        items = half(task, self.split, self.limits.items)

        def quiet(_done: float, _total: float, _text: str) -> None:
            if self.check is not None:
                self.check()

        sides = PruneSet(), _set(heads, self.lm.n_heads)
        base, pruned = (answers_of(self.lm, side, items, 0, self.store, quiet) for side in sides)
        return base, pruned


class StoredMeter(Meter):
    """What sets cost as far as it was measured, without a model: nan where it was not.

    Parameters
    ----------
    n_heads : of a layer.

    Raises
    ------
    InputError
        The data package of the tasks is missing or damaged.
    """

    def __init__(self, model_id: ModelId, n_heads: int, limits: Limits, split: str, store: Store) -> None:
        self.model_id, self.n_heads = model_id, n_heads
        self.limits, self.split, self.store = limits, split, store
        self._found: dict[PruneSet, tuple[Spent, ...]] = {}
        self._base = {
            items.task: (items, self._read(items, ()))
            for items in (half(task, split, limits.items) for task in limits.asked)
        }

    def spent(self, heads: Sequence[int]) -> tuple[Spent, ...]:
        """Of one set (flat ids), read once."""
        key = _set(heads, self.n_heads)
        if key not in self._found:
            self._found[key] = super().spent(heads)
        return self._found[key]

    def _answers(self, task: str, heads: Sequence[int]) -> tuple[Answers, Answers] | None:
        items, base = self._base[task]
        pruned = None if base is None else self._read(items, heads)
        return None if base is None or pruned is None else (base, pruned)

    def _read(self, items: Items, heads: Sequence[int]) -> Answers | None:
        return read_answers(self.model_id, _set(heads, self.n_heads), items, 0, self.store)


def _set(heads: Sequence[int] | PruneSet, n_heads: int) -> PruneSet:
    """A set that may be named by flat ids of its heads."""
    return heads if isinstance(heads, PruneSet) else PruneSet.from_flat(heads, n_heads)


def _flipped(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (-ends[1], -ends[0])


def _points(most: float) -> str:
    return f"{most:g} point" + "s" * (most != 1)
