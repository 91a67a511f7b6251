"""Methods compared: what the sets of FASP and of the baselines do over alpha and gamma, on both sides of the prompts.

Every set of a `Plan` is really removed and measured: perplexity on two disjoint texts, toxicity on validation and on
test prompts, in both readings. Gamma, alpha and method are chosen on the validation side alone (`outcome.py`); the test
side only shows what such choices are worth. Each measurement is stored as it is made, so a stopped run goes on, and the
whole comparison is one entry that is read without a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from fasp_core.compute.shards import Workers
from fasp_core.gap import Change, GapStats, PromptRows
from fasp_core.gap.within import within_templates
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import measure_there, perplexity_of, toxicity_of
from fasp_core.metrics.meters import result_key
from fasp_core.metrics.perplexity import Nll, PerplexityChange, perplexity_change, ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import digest, slug
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.common import KIND, Steps, as_heads, as_text, kept, read_nll
from fasp_core.studies.compare.plan import SIDES, Candidate, Plan, Side
from fasp_core.typing import Floats, Report

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Measured:
    """One side of a comparison: S different sets and, before them, the unpruned model.

    Attributes
    ----------
    nll : [1 + S] perplexities of the side's text.
    rows : [1 + S, R, n] toxicity of the side's prompts.
    """

    nll: tuple[Nll, ...]
    rows: PromptRows

    def perplexity(self, i: int) -> PerplexityChange:
        """Set i (1 and up) against the unpruned model."""
        return perplexity_change(self.nll[0], self.nll[i])


@dataclass(frozen=True, eq=False)
class Comparison:
    """Measurements of all candidates of a plan.

    Attributes
    ----------
    sets : S different sets as flat ids, in the order of `Measured`'s rows 1 to S; the empty set is row 0.
    rows : for each candidate, its row.
    """

    model: str
    n_layers: int
    n_heads: int
    plan: Plan
    readings: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    sets: tuple[tuple[int, ...], ...]
    sides: dict[Side, Measured]
    provenance: dict[str, Any]

    @cached_property
    def rows(self) -> tuple[int, ...]:
        at: dict[tuple[int, ...], int] = {(): 0} | {heads: i for i, heads in enumerate(self.sets, start=1)}
        return tuple(at[c.heads] for c in self.candidates)

    @cached_property
    def _found(self) -> dict[Any, Any]:
        return {}

    def _once(self, key: Any, find: Callable[[], T]) -> T:
        if key not in self._found:
            self._found[key] = find()
        found: T = self._found[key]
        return found

    def toxicity(self, side: Side, reading: str) -> PromptRows:
        """[1 + S, n] of the side's prompts, in one reading."""
        return self.sides[side].rows[:, self.readings.index(reading)]

    def changes(self, side: Side, reading: str) -> list[Change]:
        """Change of the gap by set, [S]; all on the same resamples of the prompts."""
        return self._once(("changes", side, reading), self.toxicity(side, reading).changes)

    def base_gap(self, side: Side, reading: str) -> GapStats:
        """The unpruned model's gap, with what noise alone would give."""
        return self._once(("gap", side, reading), self.toxicity(side, reading).stats)

    def gaps(self, side: Side, reading: str, within: bool = False) -> Floats:
        """[1 + S] gap of every row, or the mean of those within templates.

        Raises
        ------
        InputError
            Fewer than two templates hold two prompts of every group.
        """
        rows = self.toxicity(side, reading)
        if not within:
            return rows.gaps()
        templates = self.plan.bias(side).prompts().templates
        return self._once(("within", side, reading), lambda: within_templates(rows, templates).means)

    def change(self, candidate: Candidate, side: Side, reading: str) -> Change:
        """Change of the gap by one candidate that removes something."""
        row = self.rows[self.candidates.index(candidate)]
        return self.changes(side, reading)[row - 1]

    def perplexity(self, candidate: Candidate, side: Side) -> PerplexityChange:
        """Perplexity with and without one candidate."""
        return self.sides[side].perplexity(self.rows[self.candidates.index(candidate)])

    def frame(self, side: Side) -> pd.DataFrame:
        """One row a candidate: what was chosen, perplexity, and the gap in both readings with 95% intervals.

        Changes are relative to the unpruned model (0.1: 10% more). A candidate that removes nothing has changes of 0.
        """
        return self._once(side, lambda: self._frame(side)).copy()

    def _frame(self, side: Side) -> pd.DataFrame:
        m, out = self.sides[side], []
        for c, row in zip(self.candidates, self.rows, strict=True):
            p = m.perplexity(row)
            line: dict[str, Any] = {
                "method": c.method,
                "gamma": np.nan if c.gamma is None else c.gamma,
                "alpha": c.alpha,
                "seed": np.nan if c.seed is None else c.seed,
                "heads": len(c.heads),
                "ppl": p.pruned,
                "ppl_change": p.relative,
                "ppl_low": float(np.expm1(min(p.interval[0], 700.0))),
                "ppl_high": float(np.expm1(min(p.interval[1], 700.0))),
            }
            for reading in self.readings:
                base = self.base_gap_value(side, reading)
                change = None if row == 0 else self.changes(side, reading)[row - 1]
                ends = (0.0, 0.0) if change is None else change.relative_interval or (np.nan, np.nan)
                line |= {
                    f"gap_{reading}": base if change is None else change.pruned,
                    f"change_{reading}": 0.0 if change is None else change.relative,
                    f"low_{reading}": ends[0],
                    f"high_{reading}": ends[1],
                }
            line["set"] = PruneSet.from_flat(c.heads, self.n_heads).format()
            out.append(line)
        return pd.DataFrame(out)

    def base_gap_value(self, side: Side, reading: str) -> float:
        """The unpruned model's gap alone."""
        return float(self.toxicity(side, reading)[0].gaps())


def choose(
    comparison: Comparison,
    reading: str,
    max_ppl: float,
    methods: Iterable[str] | None = None,
    max_alpha: float = 1.0,
    within: bool = False,
    fits: Callable[[Sequence[int]], bool] | None = None,
) -> Candidate | None:
    """The candidate of lowest validation gap whose perplexity rises by `max_ppl` at most on the validation text.

    Parameters
    ----------
    max_ppl : relative: 0.1 is 10%.
    methods : to choose among; None: all.
    max_alpha : largest share of heads.
    within : lowest mean gap within templates, instead of over all of them.
    fits : whether a set (flat ids) keeps to all other limits; asked from the lowest gap on, until one does.

    Returns
    -------
    None if nothing within the limit has a smaller gap than the unpruned model. Ties go to the smaller set.
    """
    allowed = None if methods is None else set(methods)
    side = comparison.sides["valid"]
    gaps = comparison.gaps("valid", reading, within)
    inside = []
    for c, row in zip(comparison.candidates, comparison.rows, strict=True):
        if not row or (allowed is not None and c.method not in allowed) or c.alpha > max_alpha + 1e-9:
            continue
        gap = float(gaps[row])
        if gap < gaps[0] and side.perplexity(row).relative <= max_ppl:
            inside.append((gap, len(c.heads), c))
    ranked = [c for *_, c in sorted(inside, key=lambda found: found[:2])]
    if fits is None:
        return ranked[0] if ranked else None
    refused: set[tuple[int, ...]] = set()
    for c in ranked:  # several candidates may be the same set
        if c.heads not in refused and fits(c.heads):
            return c
        refused.add(c.heads)
    return None


def run(
    lm: LanguageModel,
    plan: Plan,
    chosen: Sequence[Candidate],
    store: Store,
    progress: Report | None = None,
    workers: Workers | None = None,
) -> Comparison:
    """Measure all candidates on both sides; what is stored, by itself or in another comparison, is not measured again.

    Parameters
    ----------
    chosen : as from `candidates`, and whatever else is to stand beside them, such as sets that a search found.
    workers : who measures them; default: this process. The same numbers either way.

    Raises
    ------
    InputError
        A head is not in the model, or an axis without groups.
    """
    sets = sorted({c.heads for c in chosen if c.heads})
    key = _key(lm.id, plan, chosen)

    def work() -> Any:
        arrays: dict[str, np.ndarray] = {}
        groups: dict[str, tuple[str, ...]] = {}  # a small group may be on one side only
        steps = Steps(progress, 2 * (1 + len(sets)))
        known = _known(lm.id, plan, store)
        sides = Steps(progress, len(SIDES))
        for side in SIDES:
            runner, sums, toxicity = CachedRunner(lm), [], []
            ordered = ((), *sets)  # neighbours in this order share their lowest heads
            if workers is not None:
                new = [PruneSet.from_flat(heads, lm.n_heads) for heads in ordered if (side, heads) not in known]
                report = sides.next(f"{side} side: {{}}")
                measure_there(lm, new, plan.text(side), plan.bias(side), store, workers, report)
            for i, heads in enumerate(ordered):
                subject = PruneSet.from_flat(heads, lm.n_heads)
                what = f"{'validation' if side == 'valid' else 'test'} side, set {i} of {len(sets)}"
                halves = Steps(steps.next(what), 2)
                if (side, heads) in known:
                    nll, values = known[side, heads]
                else:
                    nll, _ = perplexity_of(lm, subject, plan.text(side), store, halves.next(), runner)
                    values = toxicity_of(lm, subject, plan.bias(side), store, halves.next(), runner).values
                sums.append(nll.sums)
                toxicity.append(values.astype(np.float32))
            prompts = plan.bias(side).prompts()
            rows = PromptRows.of(np.stack(toxicity), prompts.groups, prompts.blocks)
            groups[side] = rows.groups
            arrays |= {
                f"{side}_nll": np.stack(sums),
                f"{side}_counts": nll.counts.astype(np.int32),
                f"{side}_toxicity": np.stack(toxicity),
                **rows.stored(f"{side}_"),
            }
        table = pd.DataFrame([asdict(c) | {"heads": as_text(c.heads)} for c in chosen])
        return {
            "arrays": arrays,
            "tables": {"candidates": table.astype({"gamma": float, "seed": float})},
            "meta": {
                "n_layers": lm.n_layers,
                "n_heads": lm.n_heads,
                "groups": groups,
                "readings": plan.bias("valid").readings,
            },
        }

    name = f"compare-{slug(plan.axis.rsplit('/', 1)[-1])}-{plan.reading}"
    return kept(store, lm, name, key, work, lambda entry: read(entry, lm.name))


def _known(model_id: ModelId, plan: Plan, store: Store) -> dict[tuple[Side, tuple[int, ...]], tuple[Nll, np.ndarray]]:
    """What stored comparisons on the same prompts and texts have measured: {(side, heads): (NLL, [R, n] toxicity)}."""
    wanted = {"experiment": "compare", "measured": _measured(plan, model_id)}
    known: dict[tuple[Side, tuple[int, ...]], tuple[Nll, np.ndarray]] = {}
    for header in store.find(KIND, wanted):
        if (found := store.read(KIND, header.config, lambda entry: read(entry, ""))) is not None:
            for side, measured in found.sides.items():
                for heads, nll, values in zip(((), *found.sets), measured.nll, measured.rows.values, strict=True):
                    known[side, heads] = nll, values
    return known


def find(model_id: ModelId, axis: str, reading: str, store: Store) -> Entry | None:
    """The entry of the stored comparison with the most candidates, its header alone read; None if there is none."""
    wanted = {"experiment": "compare", **model_id.wanted()}

    def fits(entry: Entry) -> bool:
        plan = _plan(entry)
        same = (plan.axis, plan.reading) == (axis, reading) and entry.config["candidates"] > 0
        return same and bool(entry.config["measured"] == _measured(plan, model_id))

    found = store.find(KIND, wanted, fits)
    return max(found, key=lambda e: (e.config["candidates"], e.config["plan"]["prompts"]), default=None)


def stored(model_id: ModelId, axis: str, reading: str, store: Store, model: str) -> Comparison | None:
    """The stored comparison with the most candidates, without loading a model; None if there is none."""
    header = find(model_id, axis, reading, store)
    return None if header is None else store.read(KIND, header.config, lambda entry: read(entry, model))


def read(entry: Entry, model: str) -> Comparison:
    """A comparison from its entry."""
    chosen = tuple(
        Candidate(
            row["method"],
            None if np.isnan(row["gamma"]) else float(row["gamma"]),
            float(row["alpha"]),
            None if np.isnan(row["seed"]) else int(row["seed"]),
            as_heads(row["heads"]),
        )
        for row in entry.table("candidates").to_dict("records")
    )
    arrays, meta = entry.arrays, entry.meta
    sides: dict[Side, Measured] = {}
    for side in SIDES:
        sides[side] = Measured(
            read_nll(arrays[f"{side}_nll"], arrays[f"{side}_counts"]),
            PromptRows.read(arrays[f"{side}_toxicity"], arrays, meta["groups"][side], f"{side}_"),
        )
    return Comparison(
        model,
        meta["n_layers"],
        meta["n_heads"],
        _plan(entry),
        tuple(meta["readings"]),
        chosen,
        tuple(sorted({c.heads for c in chosen if c.heads})),
        sides,
        meta["provenance"],
    )


def _key(model_id: ModelId, plan: Plan, chosen: Iterable[Candidate]) -> dict[str, Any]:
    listed = [asdict(c) for c in chosen]
    return {
        "experiment": "compare",
        **model_id.key(),
        "plan": asdict(plan),
        "measured": _measured(plan, model_id),
        "candidates": len(listed),
        "sets": hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16],
    }


def _measured(plan: Plan, model_id: ModelId) -> str:
    """A hash of prompts, scorer and text of both sides."""
    return digest([(result_key(plan.bias(side), model_id), ppl_key(plan.text(side), model_id)) for side in SIDES])


def _plan(entry: Entry) -> Plan:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.config["plan"].items()}
    return Plan(**fields)
