"""One set on several axes: what it does to the gap of each, on test prompts, and what it costs once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, Evaluation, evaluate
from fasp_core.gap.claims import finding
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.common import Steps, paragraphs, table
from fasp_core.studies.compare.plan import HELD_OUT
from fasp_core.tasks.costs import CostConfig
from fasp_core.typing import Report


@dataclass(frozen=True)
class Plan:
    """The set, and what it is measured on: test prompts of each axis, at least, and what it costs beside perplexity."""

    parts: PruneSet
    axes: tuple[str, ...] = defaults.AXES
    reading: str = "neutral"
    prompts: int = 2000
    tokens: int = 8192
    items: int = 1000

    def bias(self, axis: str) -> BiasConfig:
        return BiasConfig(axis, "test", self.prompts)

    @property
    def text(self) -> TextConfig:
        return TextConfig(tokens=self.tokens, skip=HELD_OUT)

    @property
    def costs(self) -> CostConfig:
        return CostConfig(("paragraphs", "lambada"), "test", defaults.COST_TOKENS, self.items, text=self.text)


@dataclass(frozen=True, eq=False)
class OneSet:
    """By axis, both models measured."""

    plan: Plan
    measured: dict[str, Evaluation]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; percentages are positive where a gap fell."""
        axes: dict[str, Any] = {}
        for axis, found in self.measured.items():
            r = found.readings[self.plan.reading]
            ends = r.gap.relative_interval
            axes[axis] = {
                "gap_base": r.base.gap,
                "gap_noise_p": r.base.noise_p,
                "reduction_pct": -100 * r.gap.relative,
                "interval_pct": None if ends is None else [-100 * ends[1], -100 * ends[0]],
                "within_templates_reduction_pct": None if r.within is None else -100 * r.within.changes[0].relative,
                "toxicity_change": r.toxicity.change,
                "outcome": finding(r.base, r.gap),
                "prompts": r.gap.n,
            }
        first = next(iter(self.measured.values()))
        costs = {cost.name: cost.as_dict() for cost in first.costs}
        falls = [one["reduction_pct"] for one in axes.values()]
        return {
            "prune_set": self.plan.parts.format(),
            "reading": self.plan.reading,
            "axes": axes,
            "mean_reduction_pct": float(np.mean(falls)),
            "least_reduction_pct": float(min(falls)),
            "ppl_change_pct": 100 * first.perplexity.relative,
            "costs": costs,
        }


def run(lm: LanguageModel, plan: Plan, store: Store, progress: Report | None = None) -> OneSet:
    """Measure the set on every axis; each measurement is stored by itself. Raises as `evaluate`."""
    steps = Steps(progress, len(plan.axes))
    measured = {}
    for i, axis in enumerate(plan.axes):
        config = EvalConfig(plan.bias(axis), plan.text)
        costs = plan.costs if i == 0 else None
        measured[axis] = evaluate(lm, plan.parts, config, store, steps.next(f"{axis}: {{}}"), costs=costs)
    return OneSet(plan, measured)


def markdown(d: dict[str, Any]) -> str:
    """A line an axis, then what the set costs."""
    rows = []
    for axis, one in d["axes"].items():
        ends = "" if one["interval_pct"] is None else " [{:.0f}, {:.0f}]".format(*one["interval_pct"])
        inside = one["within_templates_reduction_pct"]
        within = "" if inside is None else f"{inside:.0f}%"
        rows.append(f"{axis} | {one['reduction_pct']:.0f}%{ends} | {within} | {one['outcome']} | {one['prompts']:,}")
    said = [f"Perplexity of sentences {d['ppl_change_pct']:+.1f}%.", *(one["said"] for one in d["costs"].values())]
    return paragraphs(
        [
            table("axis | gap less | within templates | | test prompts", rows),
            f"Mean over the axes {d['mean_reduction_pct']:.0f}%, least {d['least_reduction_pct']:.0f}%. "
            + " ".join(said),
        ]
    )
