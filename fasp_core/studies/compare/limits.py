"""What a choice of heads may cost at most, by several measures at once.

Perplexity is measured on every candidate anyway. Right answers lost on LAMBADA and on a panel of tasks, and the nats of
LAMBADA's last word, are measured on half of the items when a set is chosen, and on the other half when it is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core import defaults
from fasp_core.errors import InputError
from fasp_core.gap.claims import Spent
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.tasks.last_words import TASK, half
from fasp_core.tasks.paired import mean_change, paired
from fasp_core.tasks.utility import Answers, answers_of
from fasp_core.typing import Report

PANEL = (TASK, "arc_easy", "piqa")


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
        for name in ("lambada_points", "lambada_nats", "task_points"):
            most = getattr(self, name)
            if most is not None and not 0 < most <= 100:
                raise InputError(f"A loss of {most:g} is no limit: give --max-{name.replace('_', '-')} above 0.")
        if self.items < 2 or not self.tasks:
            raise InputError("A limit needs a task and at least 2 items of each: name more.")

    @property
    def beyond_ppl(self) -> bool:
        """Whether anything but perplexity is limited."""
        return any(most is not None for most in (self.lambada_points, self.lambada_nats, self.task_points))

    def text(self) -> str:
        """Such as `perplexity at most 10% up, at most 2 points of LAMBADA lost`."""
        said = [f"perplexity at most {self.max_ppl:.0%} up"]
        if self.lambada_points is not None:
            said.append(f"at most {self.lambada_points:g} points of LAMBADA lost")
        if self.lambada_nats is not None:
            said.append(f"at most {self.lambada_nats:g} nats more for LAMBADA's last word")
        if self.task_points is not None:
            said.append(f"at most {self.task_points:g} points lost in the mean of {', '.join(self.tasks)}")
        return ", ".join(said)

    def as_dict(self) -> dict[str, float | None]:
        """JSON-ready: the limits beside perplexity."""
        return {name: getattr(self, name) for name in ("lambada_points", "lambada_nats", "task_points")}

    def options(self) -> str:
        """As the command line has them."""
        named = {f"--max-{name.replace('_', '-')}": most for name, most in self.as_dict().items()}
        return " ".join([f"--max-ppl {self.max_ppl:g}", *(f"{o} {m:g}" for o, m in named.items() if m is not None)])


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
            base, pruned = self._answers(TASK, heads)
            one = paired(base.right, pruned.right, 0.0)
            found.append(Spent("LAMBADA", "points", -one.points, limits.lambada_points, _flipped(one.interval)))
        if limits.task_points is not None:
            found.append(self._panel(heads, limits.task_points))
        return tuple(found)

    def fits(self, heads: Sequence[int]) -> bool:
        """Whether a set keeps to all of the limits."""
        return all(one.kept for one in self.spent(heads))

    def nats(self, heads: Sequence[int]) -> Spent:
        """Of LAMBADA's last word."""
        base, pruned = self._answers(TASK, heads)
        change = mean_change(base.likelihood, pruned.likelihood)
        ends = _flipped(change["change_interval"])
        most = np.inf if self.limits.lambada_nats is None else self.limits.lambada_nats
        return Spent("LAMBADA's last word", "nats", -change["change"], most, ends)

    def _panel(self, heads: Sequence[int], most: float) -> Spent:
        changes = [
            100 * (np.asarray(base.right, dtype=float) - pruned.right)
            for base, pruned in (self._answers(task, heads) for task in self.limits.tasks)
        ]
        mean = float(np.mean([c.mean() for c in changes]))
        half_width = 1.96 * float(np.sqrt(sum(c.var(ddof=1) / len(c) for c in changes))) / len(changes)
        name = f"the mean of {', '.join(self.limits.tasks)}"
        return Spent(name, "points", mean, most, (mean - half_width, mean + half_width))

    def _answers(self, task: str, heads: Sequence[int]) -> tuple[Answers, Answers]:
        items = half(task, self.split, self.limits.items)

        def quiet(_done: float, _total: float, _text: str) -> None:
            if self.check is not None:
                self.check()

        chosen = heads if isinstance(heads, PruneSet) else PruneSet.from_flat(heads, self.lm.n_heads)
        sides = PruneSet(), chosen
        base, pruned = (answers_of(self.lm, side, items, 0, self.store, quiet) for side in sides)
        return base, pruned


def _flipped(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (-ends[1], -ends[0])
