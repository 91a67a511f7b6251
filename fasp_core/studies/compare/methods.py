"""Methods beside each other: the best set of each that validation chooses, on the same unseen prompts and passages.

A method is one that ranks heads, the joint search, or gates that were learned (`gains`, `hard-concrete`; `gains-all` of
those learned on all axes at once; `gains-around` of those learned around removed heads; `gains*0.5` at one strength),
any of them but gains with `+repair`: its sets with what is left of their layers rescaled. Each method's set is the one
of lowest validation gap among those that keep to the limits on the validation side. All of them are measured on the
test side once, paired with the unpruned model and with each other: the same prompts and resamples, the same text, the
same passages. A measurement is stored by its set, so a second call needs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fasp_core import defaults
from fasp_core.data.passages import PARAGRAPHS
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap import PromptRows, bootstrap_counts
from fasp_core.gap.estimates import interval
from fasp_core.gap.gaps import weighted_gaps
from fasp_core.gap.within import within_if_any
from fasp_core.heads import selection
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import Nll, perplexity_change, ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.learned import gains, gates
from fasp_core.scoring.learned.repair import TEXT, products, repair, stored_products
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.common import KIND, RESAMPLES, Steps, kept, read_nll
from fasp_core.studies.compare.compare import Comparison, choose
from fasp_core.studies.compare.limits import Limits, Meter
from fasp_core.studies.compare.plan import HELD_OUT, SEARCH, Side
from fasp_core.tasks.last_words import passages
from fasp_core.tasks.paired import paired
from fasp_core.tasks.utility import answers_of
from fasp_core.typing import Report

NAMES = (*gates.METHODS, SEARCH, *selection.METHODS)
REPAIR = "+repair"
ON_ALL = "-all"  # of learned gates: those of all axes at once
AROUND = "gains-around"  # those of heads around a set, which keeps its gates
STRENGTHS = (1.0, 0.75, 0.5)  # of learned gains, that are candidates
LOOSER = (1.0, 1.5, 2.0)  # times the limit on perplexity: choices that are repaired, as a repair lowers the cost


@dataclass(frozen=True)
class Sample:
    """What sets are measured on.

    Attributes
    ----------
    prompts : at least.
    tokens, paragraphs : of sentences and of contiguous paragraphs; 0 paragraphs: none.
    items : passages of LAMBADA; 0: none.
    """

    axis: str
    side: Side = "test"
    prompts: int = 5000
    tokens: int = 8192
    paragraphs: int = defaults.COST_TOKENS
    items: int = defaults.COST_ITEMS

    @property
    def bias(self) -> BiasConfig:
        return BiasConfig(self.axis, self.side, self.prompts)

    def texts(self) -> dict[str, TextConfig]:
        """By name."""
        found = {"text": TextConfig(tokens=self.tokens, skip=HELD_OUT if self.side == "test" else 0)}
        return found | ({"paragraphs": TextConfig(PARAGRAPHS[self.side], self.paragraphs)} if self.paragraphs else {})

    def key(self, model_id: ModelId, prune_set: PruneSet) -> dict[str, Any]:
        """Everything that shapes the measurement of a set, for the store."""
        return {
            **result_key(self.bias, model_id),
            "experiment": "method",
            "parts": prune_set.format(),
            **{name: ppl_key(text, model_id) for name, text in self.texts().items()},
            "lambada": passages(self.side, self.items, 0).digest if self.items else "",
        }


@dataclass(frozen=True, eq=False)
class Measured:
    """One set on a sample: toxicity [R, n] with groups and blocks, perplexities by text, right last words [items]."""

    rows: PromptRows
    nll: dict[str, Nll]
    right: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """The set of a method, where it comes from, and what it did on the validation side: gap, and relative rises."""

    prune_set: PruneSet
    title: str
    gap: float
    base_gap: float
    ppl_change: float


@dataclass(eq=False)
class Bench:
    """Measures sets of one model on an axis; the model is loaded where something is not stored.

    Attributes
    ----------
    comparison : of the methods that rank heads, whose validation side all choices are made on.
    meter : of the limits beside perplexity; else one that measures.
    """

    comparison: Comparison
    limits: Limits
    model_id: ModelId
    load: Callable[[], LanguageModel]
    store: Store
    progress: Report | None = None
    meter: Meter | None = None
    _seen: dict[tuple[Sample, str], Measured] = field(default_factory=dict)

    @property
    def axis(self) -> str:
        return self.comparison.plan.axis

    @property
    def reading(self) -> str:
        return self.comparison.plan.reading

    @property
    def validation(self) -> Sample:
        """The side that choices are made on: what the comparison measured there."""
        plan = self.comparison.plan
        return Sample(self.axis, "valid", plan.prompts, plan.tokens, 0, 0)

    def measured(self, prune_set: PruneSet, sample: Sample, progress: Report | None = None) -> Measured:
        """One set on a sample; stored."""
        known = sample, prune_set.format()
        if known not in self._seen:
            key = sample.key(self.model_id, prune_set)
            found = self.store.read(KIND, key, _read)
            self._seen[known] = found if found is not None else self._measure(prune_set, sample, key, progress)
        return self._seen[known]

    def _measure(self, prune_set: PruneSet, sample: Sample, key: dict[str, Any], progress: Report | None) -> Measured:
        lm = self.load()

        def work() -> Contents:
            steps = Steps(progress, 2 + len(sample.texts()))
            found = toxicity_of(lm, prune_set, sample.bias, self.store, steps.next())
            rows = PromptRows.of(found.values, found.groups, found.blocks)
            arrays = {"toxicity": found.values.astype(np.float32), **rows.stored("")}
            for name, text in sample.texts().items():
                nll, _ = perplexity_of(lm, prune_set, text, self.store, steps.next())
                arrays |= {f"{name}_nll": nll.sums[None], f"{name}_counts": nll.counts.astype(np.int32)}
            if sample.items:
                items = passages(sample.side, sample.items, 0)
                arrays["right"] = answers_of(lm, prune_set, items, 0, self.store, steps.next()).right
            return {"arrays": arrays, "meta": {"groups": rows.groups}}

        name = f"method-{slug(self.axis.rsplit('/', 1)[-1])}-{sample.side}"
        return kept(self.store, lm, name, key, work, _read)

    def choose(self, method: str) -> Chosen | None:
        """The set of a method; None if none keeps to the limits with a smaller validation gap than the unpruned model.

        Raises
        ------
        InputError
            There is no such method or strength, no gates were learned with it, the comparison holds no sets of it, or
            gains are to be repaired.
        """
        whole, _, strength = method.removesuffix(REPAIR).partition("*")
        name, repaired = whole.removesuffix(ON_ALL), method.endswith(REPAIR)
        if whole == AROUND:
            name = gates.METHODS[0]
        if name not in NAMES or (whole != name and name not in gates.METHODS):
            raise InputError(
                f"There is no method '{method}': choose of {', '.join((*NAMES, AROUND))}, each but gains also with "
                f"{REPAIR}, learned gates also with {ON_ALL}."
            )
        strengths = (1.0,) if whole == AROUND and not strength else _strengths(name, strength, method)
        if name == gates.METHODS[0] and repaired:
            raise InputError(f"Learned gains leave no head as it was, so nothing is repaired: leave {REPAIR} out.")
        if name not in gates.METHODS and not any(c.method == name for c in self.comparison.candidates):
            first = "search" if name == SEARCH else "score"
            raise InputError(
                f"The comparison on {self.axis} has no sets of '{name}': run 'python -m fasp_core {first} --axis "
                f"{self.axis}' and then 'compare --axis {self.axis} --run', or leave {name} out."
            )
        if name not in gates.METHODS and not repaired:
            return self._ranked(name, self.limits.max_ppl)
        found = self._learned(whole, name, strengths) if name in gates.METHODS else self._looser(name)
        if repaired:
            known = self._products()
            found = [(repair(one, known).prune_set, f"{title}, repaired") for one, title in found]
        return self._best(found)

    def _ranked(self, name: str, max_ppl: float, limited: bool = True) -> Chosen | None:
        fits = self._fits if limited and self.limits.beyond_ppl else None
        picked = choose(self.comparison, self.reading, max_ppl, [name], fits=fits)
        if picked is None:
            return None
        row = self.comparison.rows[self.comparison.candidates.index(picked)]
        gaps = self.comparison.gaps("valid", self.reading)
        heads = PruneSet.from_flat(picked.heads, self.comparison.n_heads)
        rise = self.comparison.perplexity(picked, "valid").relative
        return Chosen(heads, picked.title, float(gaps[row]), float(gaps[0]), rise)

    def _looser(self, name: str) -> list[tuple[PruneSet, str]]:
        """Sets of a method that ranks, within looser limits on perplexity too."""
        picked = [self._ranked(name, times * self.limits.max_ppl, limited=False) for times in LOOSER]
        return list({one.prune_set: (one.prune_set, one.title) for one in picked if one is not None}.values())

    def _learned(self, whole: str, name: str, strengths: Sequence[float]) -> list[tuple[PruneSet, str]]:
        """Sets of all gates that were learned with a method on an axis, on all (`whole` says so), or around a set."""
        axis, around = defaults.ALL_AXES if whole.endswith(ON_ALL) else self.axis, whole == AROUND
        found = gains.stored(self.model_id, axis, self.reading, name, self.store, around)
        if not found:
            more = "" if name == gates.METHODS[0] else f" --method {name}"
            more += " --around HEADS" if around else ""
            raise InputError(
                f"No gates of '{name}' were learned on {axis} ({self.reading}): run 'python -m fasp_core gains "
                f"--model {self.comparison.model} --axis {axis} --reading {self.reading}{more}' first."
            )
        on = " around a set" if around else "" if axis == self.axis else " on all axes"
        return [
            (one.at(s), f"{name}{on}{_over(one)}, seed {one.config.seed}, {one.at_step} steps, strength {s:g}")
            for one in found
            for s in strengths
        ]

    def _products(self) -> Any:
        known = stored_products(self.model_id, TEXT, self.store)
        return (products(self.load(), TEXT, self.store, self.progress) if known is None else known).values

    def _best(self, found: Sequence[tuple[PruneSet, str]]) -> Chosen | None:
        """The set of lowest validation gap that keeps to the limits; ties go to the first."""
        sample, ranked = self.validation, []
        steps = Steps(self.progress, 1 + len(found))
        base = self.measured(PruneSet(), sample, steps.next("validation side, unpruned model"))
        r = sample.bias.readings.index(self.reading)
        base_gap = float(base.rows[r].gaps())
        for one, title in found:
            m = self.measured(one, sample, steps.next(f"validation side, {title}"))
            rise = perplexity_change(base.nll["text"], m.nll["text"]).relative
            gap = float(m.rows[r].gaps())
            if gap < base_gap and rise <= self.limits.max_ppl:
                ranked.append(Chosen(one, title, gap, base_gap, rise))
        for chosen in sorted(ranked, key=lambda c: c.gap):
            if not self.limits.beyond_ppl or self._fits(chosen.prune_set):
                return chosen
        return None

    def _fits(self, heads: Any) -> bool:
        self.meter = self.meter or Meter(self.load(), self.limits, "valid", self.store, self.progress)
        return self.meter.fits(heads)

    def beside(self, methods: Sequence[str], sample: Sample) -> dict[str, dict[str, Any]]:
        """By method, JSON-ready: its set, and what it does on the sample. Raises as `choose`."""
        chosen = {name: self.choose(name) for name in dict.fromkeys(methods)}
        sets = {c.prune_set: c for c in chosen.values() if c is not None}
        steps = Steps(self.progress, 1 + len(sets))
        base = self.measured(PruneSet(), sample, steps.next("test side, unpruned model: {}"))
        found = {s: self.measured(s, sample, steps.next(f"test side, {c.title}: {{}}")) for s, c in sets.items()}
        r = sample.bias.readings.index(self.reading)
        values = np.stack([m.rows.values[r] for m in (base, *found.values())])
        table = _Table(replace(base.rows, values=values), list(found), sample.bias.prompts().templates)
        fasp = next((chosen[name] for name in ("fasp",) if chosen.get(name) is not None), None)
        out: dict[str, dict[str, Any]] = {}
        for name, one in chosen.items():
            if one is None:
                out[name] = {"reduction_pct": None, "note": f"No set of it keeps to the limits ({self.limits.text()})."}
                continue
            out[name] = {
                **table.gap(one.prune_set),
                **_cost(base, found[one.prune_set]),
                "prompts": base.rows.n,
                "items": len(base.right),
                "prune_set": one.prune_set.format(),
                "heads_removed": len(one.prune_set.heads),
                "heads_scaled": len(one.prune_set.gains),
                "chosen": one.title,
                "validation": {
                    "reduction_pct": 100 * (1 - one.gap / one.base_gap),
                    "ppl_change_pct": 100 * one.ppl_change,
                },
            }
            if fasp is not None and name != "fasp":
                out[name] |= table.less_than(one.prune_set, fasp.prune_set)
        return out


def _over(one: gains.Gains) -> str:
    return f" over {one.words} words" if one.words > 1 else ""


def _strengths(name: str, told: str, method: str) -> tuple[float, ...]:
    """At which strengths gates are candidates: those that are usual, or the one that the method names."""
    if not told:
        return STRENGTHS if name == gates.METHODS[0] else STRENGTHS[:1]
    try:
        strength = float(told)
    except ValueError:
        strength = 0.0
    if name != gates.METHODS[0] or not 0 < strength <= 1:
        raise InputError(f"'{method}' names no strength: write {gates.METHODS[0]}*0.5, above 0 and at most 1.")
    return (strength,)


class _Table:
    """Gaps of the unpruned model and of M sets, values [1 + M, n], all on the same resamples."""

    def __init__(self, rows: PromptRows, sets: Sequence[PruneSet], templates: Sequence[str]) -> None:
        self.rows, self.at = rows, {one: i for i, one in enumerate(sets, start=1)}
        self.changes = rows.changes() if len(sets) else []
        self.within = within_if_any(rows, templates) if len(sets) and templates else None

    def gap(self, one: PruneSet) -> dict[str, Any]:
        """Reduction of the gap, positive where it fell, and of that within templates."""
        i = self.at[one]
        found = _reduction(self.changes[i - 1], "")
        return found if self.within is None else found | _reduction(self.within.changes[i - 1], "within_templates_")

    def less_than(self, one: PruneSet, other: PruneSet) -> dict[str, Any]:
        """By how much more of the unpruned gap one set takes away than another, in points."""
        rows = self.rows[[0, self.at[one], self.at[other]]]
        counts = bootstrap_counts(rows.codes, RESAMPLES, 0, rows.blocks)
        observed, drawn = rows.gaps(), weighted_gaps(rows.values, counts, rows.codes)
        found = interval(float((observed[2] - observed[1]) / observed[0]), (drawn[2] - drawn[1]) / drawn[0])
        return {
            "more_than_fasp_points": 100 * found.value,
            "more_than_fasp_interval": [100 * found.low, 100 * found.high],
        }


def _reduction(change: Any, name: str) -> dict[str, Any]:
    ends = change.relative_interval
    return {
        f"{name}reduction_pct": -100 * change.relative,
        f"{name}interval_pct": None if ends is None else [-100 * ends[1], -100 * ends[0]],
    }


def _cost(base: Measured, pruned: Measured) -> dict[str, Any]:
    """Rises of perplexity in per cent, and points of LAMBADA that changed; paired."""
    out: dict[str, Any] = {}
    for name, before in base.nll.items():
        change = perplexity_change(before, pruned.nll[name])
        short = "ppl" if name == "text" else name
        ends = [100 * float(np.expm1(min(end, 700.0))) for end in change.interval]
        out |= {f"{short}_change_pct": 100 * change.relative, f"{short}_interval_pct": ends}
    if len(base.right):
        words = paired(base.right, pruned.right, 0.0)
        out |= {"lambada_points": words.points, "lambada_interval": list(words.interval)}
    return out


def _read(entry: Entry) -> Measured:
    arrays = entry.arrays
    nll = {
        name: read_nll(arrays[f"{name}_nll"], arrays[f"{name}_counts"])[0]
        for name in ("text", "paragraphs")
        if f"{name}_nll" in arrays
    }
    rows = PromptRows.read(arrays["toxicity"], arrays, entry.meta["groups"], "")
    return Measured(rows, nll, arrays.get("right", np.zeros(0, dtype=bool)))
