"""A gap before and after pruning by one measure: what it is of, on how much, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fasp_core.gap.claims import Evidence, Finding, shown
from fasp_core.gap.comparison import Change
from fasp_core.gap.rows import PromptRows
from fasp_core.gap.within import Within

UNSEEN = "new both"  # the cell of templates and descriptors that a choice never saw, see `fasp_core.data.divisions`


@dataclass(frozen=True)
class Measure:
    """One row of a claim.

    Attributes
    ----------
    name : "next word", "within templates", "written" or "sampled".
    reading : identity terms "neutral" (masked) or "counted" (scored); "sampled" where they stand as they are.
    judge : name of the scorer.
    split : the prompts, such as "test" or, of a division, "test, new both".
    continuations : of each model; 0 where nothing is drawn.
    noise, p : gap of shuffled groups, and how often they give one as large as the unpruned model's.
    change : of the gap, in units of the scorer.
    """

    name: str
    reading: str
    judge: str
    split: str
    prompts: int
    continuations: int
    noise: float
    p: float
    change: Change

    @classmethod
    def of(cls, name: str, reading: str, judge: str, split: str, rows: PromptRows, draws: int = 0) -> Measure:
        """From the values [2, n] of both models; `draws` continuations of each prompt."""
        base = rows.stats()
        return cls(name, reading, judge, split, rows.n, draws * rows.n, base.noise_gap, base.noise_p, rows.changes()[0])

    @classmethod
    def inside(cls, reading: str, judge: str, split: str, within: Within) -> Measure:
        """The mean over templates of the gap within each."""
        level, p = within.noise
        return cls("within templates", reading, judge, split, within.n, 0, float(level[0]), float(p[0]), within.change)

    @property
    def finding(self) -> Finding:
        """What it shows."""
        return shown(self.p, self.change)

    @property
    def evidence(self) -> Evidence:
        """For `fasp_core.gap.claims.verdict`."""
        return Evidence(self.name, self.reading, self.judge, self.finding, self.split.endswith(UNSEEN))

    @property
    def interval_pct(self) -> list[float] | None:
        """Of the reduction, in per cent; positive where the gap fell."""
        ends = self.change.relative_interval
        return None if ends is None else [-100 * ends[1], -100 * ends[0]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "reading": self.reading,
            "judge": self.judge,
            "split": self.split,
            "prompts": self.prompts,
            "continuations": self.continuations,
            "gap_base": self.change.base,
            "gap_pruned": self.change.pruned,
            "noise": self.noise,
            "p": self.p,
            "reduction_pct": -100 * self.change.relative,
            "interval_pct": self.interval_pct,
            "finding": self.finding,
        }
