"""Stored scores and experiments, read once for every reader of the app. Nothing here loads a model."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fasp_core.data.text import SCORE_TEXT
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import entries
from fasp_core.scoring.impact_table import ImpactTable, TaskImpacts
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gains import Gains
from fasp_core.scoring.search import Found
from fasp_core.storage import catalog
from fasp_core.storage.catalog import Kept
from fasp_core.storage.store import Entry, Store
from fasp_core.studies import common, strengths
from fasp_core.studies.compare import compare, front, outcome, searching, settled, wider
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.front import Front
from fasp_core.studies.compare.limits import Limits, StoredMeter
from fasp_core.studies.compare.outcome import Claim
from fasp_core.studies.compare.plan import Candidate
from fasp_core.studies.costs import costs
from fasp_core.studies.explain import explain
from fasp_core.studies.explain.explain import Explained
from fasp_core.studies.strengths import Strengths
from fasp_core.tasks import utility
from fasp_core.tasks.answers import KIND
from fasp_core.tasks.utility import Utility
from pages.backend import demo
from pages.backend.models import Models

if TYPE_CHECKING:  # of one page, and slow to import
    from fasp_core.studies.contexts.cells import Matrix
    from fasp_core.studies.contexts.costing import SetCosts

T = TypeVar("T")
Lost = dict[tuple[int, ...], float]  # heads -> points of right answers


class Latest(Generic[T]):
    """The latest `limit` values that were asked for; of use to several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, find: Callable[[], T | None]) -> T | None:
        """The value of a key, found once; what is not found is looked for again."""
        with self._lock:
            found = self._found.get(key)
        if found is None and (found := find()) is None:
            return None
        with self._lock:
            found = self._found.setdefault(key, found)  # another thread may have been first
            self._found.move_to_end(key)
            while len(self._found) > self._limit:
                self._found.popitem(last=False)
            return found

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._found.clear()


def _renewed(kept: Latest[T], store: Store, key: tuple[Hashable, ...], find: Callable[[], T | None]) -> T | None:
    """A value that rests on stored answers, found anew once there are more of them."""
    with suppress(OSError):  # there is no folder, which changes with every entry, yet
        changed = (store.root / KIND).stat().st_mtime_ns
        if store.trouble is None:
            return kept.get((*key, store.root, changed), find)
    return find()  # what is in memory alone


class Results:
    """What is stored about models: nothing of one that has yet to be loaded, for it is not known which it is."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.tables = Latest[ImpactTable](16)
        self._experiments = Latest[Any](12)  # by the folder of their entry
        self._claims = Latest[Claim](12)  # by the folders of all their entries
        self._settled = Latest[settled.Settled](4)
        self._able = Latest[Utility](12)  # by what they are of, and when the folder of their entries changed
        self._tasks = Latest[TaskImpacts](8)
        self._strengths = Latest[Strengths](6)
        self._costs = Latest[costs.Costs](4)
        self._explained = Latest[Explained](12)
        self._meters = Latest[StoredMeter](12)
        self._fronts = Latest[Front](6)  # by how many entries of methods there are

    def scores(self, spec: ModelSpec, config: BiasConfig) -> ImpactTable | None:
        """Stored scores, or None."""
        demo.check_axis(config.axis)
        if (known := self._models.facts(spec)) is None:
            return None
        task = self.task(spec)
        return self.tables.get(
            (known.id, spec, config, task is None),
            lambda: entries.best(SCORE_TEXT, config, known.id, spec.source, Store()),
        )

    def task(self, spec: ModelSpec) -> TaskImpacts | None:
        """What heads are worth for last words, if that was scored."""
        known = self._models.facts(spec)
        return None if known is None else self._tasks.get(known.id, lambda: entries.stored_task(known.id, Store()))

    def filling(self, spec: ModelSpec, config: BiasConfig) -> ImpactTable | None:
        """Scores that are being made, as far as they are: a preview with finished heads in it."""
        demo.check_axis(config.axis)
        known = self._models.facts(spec)
        return None if known is None else entries.filling(SCORE_TEXT, config, known.id, spec.source, Store())

    def comparison(self, spec: ModelSpec, axis: str, reading: str) -> Comparison | None:
        """The stored comparison of methods, with what was computed from it so far."""
        if (known := self._models.facts(spec)) is None:
            return None
        header = compare.find(known.id, axis, reading, Store())
        return self._read(header, lambda entry: compare.read(entry, spec.source))

    def claim(self, spec: ModelSpec, axis: str, reading: str, candidate: Candidate) -> Claim | None:
        """What a chosen set does to test prompts, if that was measured."""
        if (known := self._models.facts(spec)) is None:
            return None
        header = outcome.find_claim(known.id, axis, reading, candidate, Store())
        if header is None or (claim := self._read(header, lambda e: outcome.read_claim(e, spec.source))) is None:
            return None
        more = wider.headers(known.id, axis, candidate.heads, Store())
        parts = [part for h in more if (part := self._read(h, wider.read)) is not None]
        able = self.able(spec, PruneSet.from_flat(candidate.heads, claim.n_heads))
        key = (header.path, *(h.path for h in more), able)
        return self._claims.get(key, lambda: replace(claim, wider=tuple(parts), able=able))

    def settled(self, spec: ModelSpec, plan: settled.Plan) -> settled.Settled | None:
        """What a set that was chosen on a quarter of sentences and people does to the others, if that was measured."""
        if (known := self._models.facts(spec)) is None:
            return None
        found = self._settled.get((known.id, plan), lambda: settled.find(plan, known.id, Store()))
        if found is not None and found.left:  # more may have been measured since
            self._settled.clear()
        return found

    def able(self, spec: ModelSpec, heads: PruneSet, tasks: tuple[str, ...] | None = None) -> Utility | None:
        """What is stored of what a set does to tasks; None: to all of them."""
        if (known := self._models.facts(spec)) is None:
            return None
        store = Store()

        def find() -> Utility | None:
            return utility.stored(known.id, heads, store, tasks)

        return _renewed(self._able, store, (known.id, heads, tasks), find)

    def meter(self, spec: ModelSpec, n_heads: int, limits: Limits, split: str) -> StoredMeter:
        """What sets cost by limits, as far as it is stored. InputError where the tasks or the model are not there."""
        if (known := self._models.facts(spec)) is None:
            raise InputError("The model is not loaded yet: load it first.")
        store = Store()
        key = (known.id, limits, split)
        found = _renewed(self._meters, store, key, lambda: StoredMeter(known.id, n_heads, limits, split, store))
        assert found is not None
        return found

    def lost(self, spec: ModelSpec, comparison: Comparison, split: str) -> tuple[Lost, Lost]:
        """Points that sets of a comparison lose on LAMBADA, and in the mean of the panel, where that is stored."""
        out: tuple[Lost, Lost] = {}, {}
        for found, limits in zip(out, (Limits(lambada_points=100.0), Limits(task_points=100.0)), strict=True):
            with suppress(InputError):  # the tasks are not installed
                meter = self.meter(spec, comparison.n_heads, limits, split)
                values = {heads: meter.spent(heads)[0].value for heads in comparison.sets}
                found.update({heads: value for heads, value in values.items() if value == value})
        return out

    def costs(self, spec: ModelSpec, axis: str, reading: str) -> costs.Costs | None:
        """What the sets of a comparison cost by other measures, if a study of costs was made."""
        if (known := self._models.facts(spec)) is None:
            return None
        return self._costs.get((known.id, axis, reading), lambda: costs.stored(known.id, axis, reading, Store()))

    def explained(self, spec: ModelSpec, heads: PruneSet, bias: BiasConfig, reading: str) -> Explained | None:
        """What a set does, split among its heads, if that was stored of these prompts."""
        if (known := self._models.facts(spec)) is None:
            return None
        find = partial(explain.stored, known.id, heads, bias, reading, Store())
        return self._explained.get((known.id, heads, bias, reading), find)

    def matrices(self, spec: ModelSpec) -> list[Matrix]:
        """Stored matrices of contexts, the largest first."""
        from fasp_core.studies.contexts import matrix

        if (known := self._models.facts(spec)) is None:
            return []
        found = [self._read(header, matrix.read) for header in matrix.find(known.id, Store())]
        return [m for m in found if m is not None]

    def set_costs(self, spec: ModelSpec, matrix: Matrix) -> SetCosts | None:
        """What a matrix' sets take from the model, if that was measured."""
        from fasp_core.studies.contexts import costing

        if (known := self._models.facts(spec)) is None:
            return None
        try:
            return costing.stored(known.id, matrix, Store())
        except InputError:  # paragraphs or passages are not installed, so nothing was measured
            return None

    def searches(self, spec: ModelSpec, axis: str, reading: str) -> list[Found]:
        """Finished joint searches."""
        known = self._models.facts(spec)
        return [] if known is None else searching.stored(known.id, axis, Store(), reading)

    def gains(self, spec: ModelSpec, axis: str, reading: str) -> list[Gains]:
        """Gains that were learned on an axis."""
        known = self._models.facts(spec)
        return [] if known is None else gains.stored(known.id, axis, reading, "gains", Store())

    def strengths(self, spec: ModelSpec, found: Gains, bias: BiasConfig) -> Strengths | None:
        """What gains do at some strengths on these prompts, if that was measured."""
        if (known := self._models.facts(spec)) is None:
            return None
        key = (known.id, bias, found.config, found.at(1.0))
        return self._strengths.get(key, lambda: strengths.find(found, bias, known.id, Store()))

    def front(self, spec: ModelSpec, comparison: Comparison, limits: Limits) -> Front | None:
        """All methods side by side on test prompts, as far as that is stored; None while the model is not known."""
        if (known := self._models.facts(spec)) is None:
            return None
        store, plan = Store(), comparison.plan
        there = store.find(common.KIND, {"experiment": "method", **known.id.wanted()})
        measured = tuple(sorted(str(h.path) for h in there))
        learned = tuple(sorted(str(h.path) for h in store.find(gains.KIND, known.id.wanted())))
        key = (known.id, plan.axis, plan.reading, limits, tuple(comparison.sets), measured, learned)

        def find() -> Front:
            return front.fullest(comparison, limits, known.id, store)

        return _renewed(self._fronts, store, key, find) if limits.beyond_ppl else self._fronts.get(key, find)

    def remove(self, one: Kept) -> None:
        """Delete a stored result, from memory too. InputError if it has to stay."""
        demo.check_writing()
        catalog.remove(Store(), one)
        self.tables.clear()
        self._experiments.clear()
        self._settled.clear()
        self._tasks.clear()
        self._costs.clear()
        self._strengths.clear()
        self._explained.clear()
        self._fronts.clear()

    def _read(self, header: Entry | None, read: Callable[[Entry], T]) -> T | None:
        """A stored experiment, read once while its entry stays the one that is asked for."""
        if header is None:
            return None
        return self._experiments.get(header.path, lambda: Store().read(header.kind, header.config, read))
