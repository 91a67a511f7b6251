"""Models, stored scores and running work, shared by every reader of the app. Knows nothing of the screen.

One lane a model measures, one request after the other; scoring has a lane of its own and gives way between heads,
because a model is locked only while it runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from fasp_core.compute import cluster
from fasp_core.compute.jobs import Job, Lane, Progress
from fasp_core.compute.lanes import Lanes, Past
from fasp_core.compute.shards import Workers
from fasp_core.data.scorers import scorer_self_bias
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, Evaluation, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.meters import BiasConfig, scorer_of
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model import hub, loading
from fasp_core.model.devices import one_name
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import free
from fasp_core.model.spec import BUILT_IN_SHAPE, ModelSpec
from fasp_core.scoring import entries, score
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.search import Found
from fasp_core.storage import catalog as kept
from fasp_core.storage.atomic import atomic_write
from fasp_core.storage.catalog import Kept
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.compare import compare, outcome, searching
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.outcome import Claim
from fasp_core.studies.compare.plan import Candidate
from fasp_core.studies.contexts import matrix
from fasp_core.studies.contexts.matrix import Matrix
from pages.backend import demo, folders, readers

KEEP_MODELS = 2
KEEP_TABLES = 16
KEEP_RESULTS = 12
RENEW = 5  # seconds for which an answer of a hub is new
SCORE_TEXT = TextConfig(tokens=8192)
T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """What is known of a model: enough to find its scores and to draw its heads."""

    id: ModelId
    n_layers: int
    n_heads: int


_lanes = Lanes(make=partial(Lane, here=readers.here))
_shelf: OrderedDict[ModelSpec, CachedRunner] = OrderedDict()  # by `_named`
_facts: dict[ModelSpec, Facts] = {}  # of every model that was ever loaded: small, and outlives the shelf
_shelf_lock = threading.Lock()
_commits: dict[str, str] = {}  # what names of a hub meant when it was last asked
_asked: dict[str, float] = {}  # when that was
_tables: OrderedDict[Hashable, ImpactTable] = OrderedDict()
_tables_lock = threading.Lock()
_results: OrderedDict[Path, Any] = OrderedDict()  # experiments, by the folder of their entry
_results_lock = threading.Lock()


def store() -> Store:
    """The results on disk."""
    return Store()


def trouble() -> str | None:
    """Why what this server computes is not kept on disk, in a sentence; None while it is."""
    return store().trouble


def model(spec: ModelSpec) -> LanguageModel:
    """The loaded model; at most `KEEP_MODELS` stay in memory. Call it from a job: loading takes seconds."""
    return runner(spec).lm


def runner(spec: ModelSpec) -> CachedRunner:
    """The loaded model with what is kept of its latest measurements."""
    demo.check_model(spec)
    folders.check_model(spec)
    with _shelf_lock:
        if (name := _named(spec)) not in _shelf:
            if len(_shelf) >= KEEP_MODELS:  # first: memory may not hold one more
                while len(_shelf) >= KEEP_MODELS:
                    _shelf.popitem(last=False)
                free()
            lm = loading.load(pinned(spec))
            if lm.spec.commit:
                _commits.setdefault(spec.source, lm.spec.commit)
                name = replace(name, commit=lm.spec.commit)
            _shelf[name] = CachedRunner(lm)
            _facts[name] = Facts(lm.id, lm.n_layers, lm.n_heads)
        _shelf.move_to_end(name)
        return _shelf[name]


def facts(spec: ModelSpec) -> Facts | None:
    """What is known without waiting; None while the model has yet to be loaded."""
    if (known := loading.known_id(spec)) is not None:
        return Facts(known, *BUILT_IN_SHAPE)
    return _facts.get(_named(spec))


def pinned(spec: ModelSpec) -> ModelSpec:
    """The same with the commit that a name of a hub stands for, where it was loaded once."""
    return spec if spec.commit else replace(spec, commit=_commits.get(spec.source, ""))


def renew(source: str) -> None:
    """Ask the hub what a name means by now, for a reader who begins to look at it.

    Others go on with the commit that they have. Whoever asks waits 2 seconds at most; then the answer serves the next.
    """
    if source in _commits and time.monotonic() - _asked.get(source, -RENEW) >= RENEW:
        _asked[source] = time.monotonic()
        asking = threading.Thread(target=_renew, args=(source,), name="hub", daemon=True)
        asking.start()
        asking.join(2)


def _renew(source: str) -> None:
    with suppress(InputError):  # no answer: it means what it meant
        ref = hub.ref_of(source)
        if ref is not None and (found := hub.resolve(ref)).local is None:
            _commits[source] = found.origin.revision


def scheduler() -> str | None:
    """Address of the cluster that scoring and comparisons run on; None: this machine, as always in a demo.

    It is set where the server is started, by `FASP_SCHEDULER`, and not by readers: who can name a scheduler can make
    this server run code.
    """
    return None if demo.current() is not None else os.environ.get("FASP_SCHEDULER", "").strip() or None


@contextmanager
def workers(lm: LanguageModel) -> Iterator[Workers | None]:
    """Whoever runs the work of a job on this model, for the time of the `with` block; None: this process."""
    with cluster.connected(scheduler()) as there:
        yield cluster.workers_of(there, lm)


def load_job(spec: ModelSpec) -> Job[None]:
    """Load a model in the background. The model itself is no result: whoever keeps that would keep it in memory."""

    def work(progress: Progress) -> None:
        progress(0, 1, f"loading {spec.source}")
        model(spec)

    return _submit(_lane(spec), ("load", spec), work)


def measure_job(spec: ModelSpec, prune_set: PruneSet, config: EvalConfig, owner: Hashable) -> Job[Evaluation]:
    """Measure a prune set; a newer request of the same owner overtakes it."""

    def work(progress: Progress) -> Evaluation:
        progress(0, 1, "loading the model")
        at = runner(spec)
        return evaluate(at.lm, prune_set, config, store(), progress, at)

    return _submit(_lane(spec), (spec, prune_set, config), work, owner)


def score_job(spec: ModelSpec, config: BiasConfig) -> Job[ImpactTable]:
    """Score all heads, a preview first; the same request of several readers is one job, and goes on when they leave."""

    def work(progress: Progress) -> ImpactTable:
        progress(0, 1, "loading the model")
        lm = model(spec)
        with workers(lm) as there:
            if store().load(entries.KIND, ppl_key(SCORE_TEXT, lm.id)) is None:
                score.preview(lm, config, store(), progress, there)
            return score.score(lm, SCORE_TEXT, config, store(), progress, "refined", there)

    return _submit(f"{_lane(spec)} scoring", (spec, config), work)


def scorer_job(config: BiasConfig) -> Job[str]:
    """Load the scorer in the background; its name."""

    def work(progress: Progress) -> str:
        progress(0, 1, f"loading {config.scorer}")
        return scorer_of(config).name

    return _submit("scorers", ("scorer", config.scorer, config.label, config.scorer_reading), work)


def experiment_job(spec: ModelSpec, key: Hashable, work: Callable[[LanguageModel, Store, Progress], T]) -> Job[T]:
    """An experiment of many measurements, in a lane of its own; it goes on when its reader leaves.

    Parameters
    ----------
    key : everything that shapes the result beside the model; equal experiments are one job.
    work : from the loaded model, the store and a progress to the result. What it measures should be kept as it goes, so
        that a cancelled run goes on where it was.
    """

    def begin(progress: Progress) -> T:
        progress(0, 1, "loading the model")
        return work(model(spec), store(), progress)

    return _submit(_experiments(spec), (spec, key), begin)


def running_experiment(spec: ModelSpec, key: Hashable) -> Job[Any] | None:
    """The same experiment if somebody has asked for it and it has not ended."""
    jobs = (job for name, job in _lanes.jobs() if name == _experiments(spec))
    return next((job for job in jobs if job.key == (spec, key)), None)


def scores(spec: ModelSpec, config: BiasConfig) -> ImpactTable | None:
    """Stored scores, or None. Never loads a model."""
    demo.check_axis(config.axis)
    known = facts(spec)
    if known is None:
        return None
    key = (known.id, spec, config)
    with _tables_lock:
        if key not in _tables:
            found = entries.best(SCORE_TEXT, config, known.id, spec.source, store())
            if found is None:
                return None
            _tables[key] = found
        _tables.move_to_end(key)
        while len(_tables) > KEEP_TABLES:
            _tables.popitem(last=False)
        return _tables[key]


def comparison(spec: ModelSpec, axis: str, reading: str) -> Comparison | None:
    """The stored comparison of methods, with what was computed from it so far. Never loads a model."""
    known = facts(spec)
    if known is None:
        return None
    header = compare.find(known.id, axis, reading, store())
    return _result(header, lambda entry: compare.read(entry, spec.source))


def claim(spec: ModelSpec, axis: str, reading: str, candidate: Candidate) -> Claim | None:
    """What a chosen set does to test prompts, if that was measured. Never loads a model."""
    known = facts(spec)
    if known is None:
        return None
    header = outcome.find_claim(known.id, axis, reading, candidate, store())
    return _result(header, lambda entry: outcome.read_claim(entry, spec.source))


def matrices(spec: ModelSpec) -> list[Matrix]:
    """Stored matrices of contexts, the largest first. Never loads a model."""
    known = facts(spec)
    if known is None:
        return []
    found = [_result(header, matrix.read) for header in matrix.find(known.id, store())]
    return [m for m in found if m is not None]


def _result(header: Entry | None, read: Callable[[Entry], T]) -> T | None:
    """A stored experiment, read once while its entry stays the one that is asked for."""
    if header is None:
        return None
    with _results_lock:
        if header.path in _results:
            _results.move_to_end(header.path)
            kept: T = _results[header.path]
            return kept
    found = store().read(header.kind, header.config, read)  # which checks it
    if found is None:
        return None
    with _results_lock:
        _results[header.path] = found
        while len(_results) > KEEP_RESULTS:
            _results.popitem(last=False)
    return found


def filling(spec: ModelSpec, config: BiasConfig) -> ImpactTable | None:
    """Scores that are being made, as far as they are: a preview with finished heads in it. Never loads a model."""
    demo.check_axis(config.axis)
    known = facts(spec)
    if known is None:
        return None
    return entries.filling(SCORE_TEXT, config, known.id, spec.source, store())


def searches(spec: ModelSpec, axis: str, reading: str) -> list[Found]:
    """Finished joint searches. Never loads a model."""
    known = facts(spec)
    return [] if known is None else searching.stored(known.id, axis, store(), reading)


@lru_cache(maxsize=16)
def scorer_opinions(config: BiasConfig) -> pd.DataFrame:
    """What the scorer thinks of the axis' own words, each in one harmless sentence; highest first."""
    prompts = config.prompts()
    words = sorted(set(prompts.descriptors) - {""})
    rows = scorer_self_bias(scorer_of(config), words)
    return pd.DataFrame(rows, columns=["word", "toxicity"]).sort_values("toxicity", ascending=False)


def keep_upload(content: bytes, name: str) -> Path:
    """An uploaded table as a file of its own name, in a folder of the cache that is named by its content.

    Raises
    ------
    InputError
        The cache cannot be written.
    """
    demo.check_writing()
    stem = re.sub(r"[^\w ()+-]+", "_", Path(name.replace("\\", "/")).stem).strip(" _")[:40] or "prompts"
    path = store().root / "uploads" / hashlib.sha256(content).hexdigest()[:16] / f"{stem}.csv"
    if not path.exists():
        atomic_write({path: content}, "make room there, or name another folder with FASP_CACHE")
    return path


def running(key: Hashable) -> Job[Any] | None:
    """The job with this key if it waits or runs, whoever asked for it."""
    return next((job for _, job in _lanes.jobs() if job.key == key), None)


def jobs() -> list[Job[Any]]:
    """All jobs of this server that run or wait."""
    return [job for _, job in _lanes.jobs()]


def past() -> list[Past]:
    """Jobs of this server that have ended, the latest first."""
    return _lanes.past()


def resume(one: Past) -> Job[Any]:
    """Submit a failed or cancelled job again; what it had kept is not computed twice. InputError if refused."""
    demo.check(one.key)
    return _lanes.again(one)


def forget(one: Past) -> None:
    """Drop an ended job from the list."""
    _lanes.forget(one.number)


def stored() -> list[Kept]:
    """Scores and experiments on disk, the latest first."""
    return kept.kept(store())


def remove(one: Kept) -> None:
    """Delete a stored result, from memory too. InputError if it has to stay."""
    demo.check_writing()
    kept.remove(store(), one)
    with _tables_lock, _results_lock:
        _tables.clear()
        _results.clear()


def one_prompt_job(
    spec: ModelSpec, key: Hashable, work: Callable[[LanguageModel, Progress], T], owner: Hashable, priority: int = 0
) -> Job[T]:
    """A short piece of work on one prompt, among the measurements; a newer request of the same owner overtakes it."""

    def begin(progress: Progress) -> T:
        progress(0, 1, "loading the model")
        return work(model(spec), progress)

    return _submit(_lane(spec), key, begin, owner, priority)


def _submit(
    lane: str, key: Hashable, work: Callable[[Progress], T], owner: Hashable = None, priority: int = 0
) -> Job[T]:
    """Where every job begins, and a demo refuses what is not within its limits."""
    demo.check(key)
    return _lanes.get(lane).submit(key, work, owner, priority)


def _experiments(spec: ModelSpec) -> str:
    return f"{_lane(spec)} experiments"


def _lane(spec: ModelSpec) -> str:
    named = _named(spec)
    return f"{named.source} {named.dtype} {named.device}"


def _named(spec: ModelSpec) -> ModelSpec:
    """The spec with its commit and the one name of its device: however these are asked for, its model is the same."""
    spec = pinned(spec)
    try:
        return replace(spec, device=one_name(spec.device))
    except InputError:  # no such device, which loading tells
        return spec
