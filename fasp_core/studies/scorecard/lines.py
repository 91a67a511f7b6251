"""One line of a scorecard: a measure of the unpruned and of the pruned model, and what the difference shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["better", "worse", "unchanged", "cannot be told", "tells nothing"]
Ends = tuple[float, float]
OUTCOMES: tuple[Outcome, ...] = ("better", "worse", "unchanged", "cannot be told", "tells nothing")


@dataclass(frozen=True)
class Line:
    """One measure.

    Attributes
    ----------
    part : what it belongs to, such as "toxicity gap" or "task".
    name, unit : in words; `base` and `pruned` are in this unit.
    base, pruned : of both models.
    change : in the unit `change_unit`.
    interval : 95%, of the change; None where nothing is drawn at random, or where it is not known.
    better : which direction is better or fairer, in words, such as "lower".
    sample : on what it was measured, such as "450 test prompts".
    outcome : what the change shows.
    said : why it shows nothing, or what else a reader must know; may be empty.
    base_interval, pruned_interval : 95%, of each by itself, where known.
    """

    part: str
    name: str
    unit: str
    base: float
    pruned: float
    change: float
    change_unit: str
    interval: Ends | None
    better: str
    sample: str
    outcome: Outcome
    said: str = ""
    base_interval: Ends | None = None
    pruned_interval: Ends | None = None

    @property
    def timed(self) -> bool:
        """Whether its interval is a spread of timings, and no 95% interval."""
        return self.unit == "tokens/s"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Line:
        """From `as_dict`, as JSON gives it back."""
        ends = ("interval", "base_interval", "pruned_interval")
        return cls(**{**stored, **{name: tuple(stored[name]) if stored[name] else None for name in ends}})


def outcome(interval: Ends | None, better: Literal["lower", "higher"]) -> Outcome:
    """What an interval of a change shows: better or worse only where it leaves zero out."""
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "cannot be told"
    return "better" if (interval[1] < 0) == (better == "lower") else "worse"


def summary(lines: Sequence[Line]) -> str:
    """One sentence for those who decide: what got better, what worse, how much cannot be told."""
    if not lines:
        return "Nothing has been measured yet."
    by = {found: [line for line in lines if line.outcome == found] for found in OUTCOMES}
    same = len(by["unchanged"])
    counted = (
        f"Of {len(lines)} {'measure' if len(lines) == 1 else 'measures'} {len(by['better'])} got better, "
        f"{len(by['worse'])} got worse, and of {len(by['cannot be told'])} no change can be told"
        + f"; {same} stayed as {'it was' if same == 1 else 'they were'}" * bool(same)
        + f"; {len(by['tells nothing'])} tell nothing of this model" * bool(by["tells nothing"])
        + "."
    )
    named = [
        f" {found.capitalize()}: {'; '.join(line.name for line in by[found])}."
        for found in ("better", "worse")
        if by[found]
    ]
    drawn = sum(line.interval is not None and line.outcome != "tells nothing" and not line.timed for line in lines)
    chance = f" Each interval is 95%: of {drawn}, about {drawn / 20:.0f} would show a change that is none."
    return counted + "".join(named) + chance * (drawn >= 10)
