"""Every method as a point: what its set takes from the gap on unseen prompts against what it costs; a table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fasp_core import defaults
from fasp_core.errors import InputError
from fasp_core.figures import MethodPoint
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.common import table
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.limits import Limits, StoredMeter, Unmeasured
from fasp_core.studies.compare.methods import Bench, Sample
from fasp_core.typing import Report

PASSAGES = (defaults.COST_ITEMS, 2000)  # of the samples that methods may be stored on
EVERY = "all"  # stands for these
METHODS = (
    "fasp",
    "fasp+repair",
    "search",
    "search+repair",
    "gains*0.25",
    "gains*0.5",
    "gains*0.75",
    "gains*1",
    "gains-all",
    "hard-concrete",
    "hard-concrete+repair",
    "magnitude",
    "gradient",
    "ppl-only",
    "bias-only",
    "random",
)
COSTS = {  # by name: its axis, key, keys of ends, and sign: less is better
    "ppl": ("perplexity of sentences, %", "ppl_change_pct", "ppl_interval_pct", 1),
    "paragraphs": ("perplexity of paragraphs, %", "paragraphs_change_pct", "paragraphs_interval_pct", 1),
    "lambada": ("last words (LAMBADA) lost, points", "lambada_points", "lambada_interval", -1),
}


class NotStored(Exception):
    """Something would have to be measured."""


@dataclass(frozen=True)
class Front:
    """What is known of the methods.

    Attributes
    ----------
    methods : by name what `Bench.beside` says of each that could be read or measured.
    missing : methods whose sets are there but were not measured.
    lacking : by method why there is no set of it to measure.
    sample : what they were measured on, or would be; None: not said.
    """

    methods: dict[str, dict[str, Any]]
    missing: tuple[str, ...] = ()
    lacking: dict[str, str] = field(default_factory=dict)
    sample: Sample | None = None

    @property
    def best(self) -> str | None:
        """The method that validation chooses: of those that are here, the one whose set has the lowest gap there."""
        seen = {name: one["validation"]["reduction_pct"] for name, one in self.methods.items() if one.get("validation")}
        return max(seen, key=seen.__getitem__, default=None)


def stored(comparison: Comparison, limits: Limits, model_id: ModelId, store: Store, sample: Sample) -> Front:
    """What is stored of all methods; loads no model."""

    def load() -> LanguageModel:
        raise NotStored

    sample.key(model_id, PruneSet())  # says so if its passages cannot be had
    meter = StoredMeter(model_id, comparison.n_heads, limits, "valid", store)
    bench = Bench(comparison, limits, model_id, load, store, meter=meter)
    known, missing, lacking = _sorted(bench, METHODS, sample)
    return Front(bench.beside(known, sample) if known else {}, tuple(missing), lacking, sample)


def fullest(comparison: Comparison, limits: Limits, model_id: ModelId, store: Store) -> Front:
    """As `stored`, of the sample on which most methods are."""
    samples = [Sample(comparison.plan.axis, items=n) for n in PASSAGES]
    found = [stored(comparison, limits, model_id, store, sample) for sample in samples]
    return max(found, key=lambda one: len(one.methods))


def measured(bench: Bench, sample: Sample) -> Front:
    """All methods, measured where that is not stored."""
    known, _, lacking = _sorted(bench, METHODS, None)
    return Front(bench.beside(known, sample) if known else {}, (), lacking, sample)


def _sorted(bench: Bench, methods: Sequence[str], sample: Sample | None) -> tuple[list[str], list[str], dict[str, str]]:
    """Methods that can be told of on a sample, those that would have to be measured, and why others have no set."""
    known: list[str] = []
    missing: list[str] = []
    lacking: dict[str, str] = {}
    for name in methods:
        try:
            chosen = bench.choose(name)
            if chosen is None:
                lacking[name] = f"No set of it keeps to the limits ({bench.limits.text()}) with a smaller gap."
                continue
            if sample is not None:
                bench.measured(PruneSet(), sample)
                bench.measured(chosen.prune_set, sample)
        except (NotStored, Unmeasured):
            missing.append(name)
        except InputError as error:
            lacking[name] = str(error)
        else:
            known.append(name)
    return known, missing, lacking


def points(front: Front, cost: str = "ppl") -> list[MethodPoint]:
    """What can be drawn: methods with a set, and a cost that was measured."""
    _, key, ends_of, sign = COSTS[cost]
    out = []
    for name, one in front.methods.items():
        if one["reduction_pct"] is None or key not in one:
            continue
        low, high = sorted(sign * end for end in one[ends_of])
        y = one["interval_pct"] or [float("nan")] * 2
        hover = f"{name}\n{one['chosen']}\ngap less {one['reduction_pct']:.0f}% [{y[0]:.0f}, {y[1]:.0f}]"
        hover += f"\n{sign * one[key]:+.1f} [{low:+.1f}, {high:+.1f}] {COSTS[cost][0]}"
        out.append(MethodPoint(name, sign * one[key], (low, high), one["reduction_pct"], (y[0], y[1]), hover))
    return out


def sentence(front: Front) -> str | None:
    """Which method validation chooses, and what its set does on the test side; None of fewer than two methods."""
    if (name := front.best) is None or len(front.methods) < 2:
        return None
    one = front.methods[name]

    def ends(key: str, digits: int, sign: str = "") -> str:
        found = one.get(key)
        return "" if found is None else f" [{found[0]:{sign}.{digits}f}, {found[1]:{sign}.{digits}f}]"

    within = one.get("within_templates_reduction_pct")
    said = (
        f"Of the {len(front.methods)} methods that are measured here validation chooses `{name}` ({one['chosen']}): on "
    )
    said += f"{one['prompts']:,} test prompts its gap is {one['reduction_pct']:.0f}%{ends('interval_pct', 0)} smaller"
    if within is not None:
        said += f", within templates {within:.0f}%{ends('within_templates_interval_pct', 0)}"
    for what in ("ppl", "paragraphs"):
        if (rise := one.get(f"{what}_change_pct")) is not None:
            named = {"ppl": "perplexity of sentences", "paragraphs": "of paragraphs"}[what]
            said += f", {named} {rise:+.1f}%{ends(f'{what}_interval_pct', 1, '+')}"
    if "lambada_points" in one:
        words = f"{one['lambada_points']:+.1f} points{ends('lambada_interval', 1, '+')}"
        said += f", last words {words} ({one['items']:,} passages)"
    return f"{said}."


def markdown(front: Front) -> str:
    """A line a method, all on the same prompts, text and passages."""
    rows = []
    for name, one in front.methods.items():
        if one["reduction_pct"] is None:
            continue
        ends = "" if one["interval_pct"] is None else " [{:.0f}, {:.0f}]".format(*one["interval_pct"])
        within = one.get("within_templates_reduction_pct")
        words = ""
        if "lambada_points" in one:
            words = "{:+.1f} [{:+.1f}, {:+.1f}]".format(one["lambada_points"], *one["lambada_interval"])
        rows.append(
            f"{name} | {one['heads_removed']} removed, {one['heads_scaled']} scaled | "
            f"{one['reduction_pct']:.0f}%{ends} | {'' if within is None else f'{within:.0f}%'} | "
            f"{one['ppl_change_pct']:+.1f}% | "
            f"{one['paragraphs_change_pct']:+.1f}% | {words}"
        )
    return table("method | heads | gap less | within templates | sentences | paragraphs | LAMBADA, points", rows)


def run(
    lm: LanguageModel,
    comparison: Comparison,
    limits: Limits,
    store: Store,
    report: Report | None,
    sample: Sample | None = None,
) -> Front:
    """All methods measured; what is stored is not measured again."""
    bench = Bench(comparison, limits, lm.id, lambda: lm, store, report)
    return measured(bench, sample or Sample(comparison.plan.axis))
