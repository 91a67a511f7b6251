"""Work cut into shards gives what uncut work gives, bit for bit, whoever runs it and whatever is lost on the way."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.compute import shards
from fasp_core.compute.jobs import Cancelled
from fasp_core.compute.shards import Workers, cut
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.metrics import work
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.metrics.work import Sweep
from fasp_core.model import devices
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import entries, exact, score
from fasp_core.scoring.entries import bias_key
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.compare import compare
from fasp_core.studies.compare.plan import Plan
from tests.support.tiny import tiny_lm
from tests.support.worlds import use_scorer, write_axis, write_text


class Posted(Executor):
    """Threads that see nothing but bytes, as other machines would."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self.sent: list[Any] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.sent.append(args[1])
        raw = pickle.dumps((fn, args, kwargs))

        def there() -> bytes:
            function, its, named = pickle.loads(raw)
            return pickle.dumps(function(*its, **named))

        out: Future[Any] = Future()
        self._pool.submit(there).add_done_callback(lambda done: self._back(done, out))
        return out

    @staticmethod
    def _back(done: Future[bytes], out: Future[Any]) -> None:
        if out.set_running_or_notify_cancel():
            if (error := done.exception()) is not None:
                out.set_exception(error)
            else:
                out.set_result(pickle.loads(done.result()))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, complete=False)
    monkeypatch.setattr(shards, "RUN", 2)
    monkeypatch.setattr(work, "CUTS", 4)
    monkeypatch.setattr(shards, "TICK", 0.02)
    monkeypatch.setitem(devices._SIZES, "cpu", replace(devices.CPU, tree=40))


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 300, tokens=200, window=64, stride=48)


@pytest.fixture
def config(tmp_path: Path) -> BiasConfig:
    return BiasConfig(write_axis(tmp_path / "axis.csv"), split="all", n_prompts=36)


@pytest.fixture
def posted() -> Generator[Posted]:
    found = Posted()
    yield found
    found._pool.shutdown()


def equal(here: Entry | None, there: Entry | None) -> bool:
    """The same name and the same bytes."""
    assert here is not None and there is not None  # noqa: PT018
    assert here.path.name == there.path.name
    assert here.arrays.keys() == there.arrays.keys()
    return all(here.arrays[name].tobytes() == there.arrays[name].tobytes() for name in here.arrays)


def scores_equal(lm: LanguageModel, text: TextConfig, config: BiasConfig, estimator: str, *stores: Store) -> bool:
    sure = "exact" if estimator in entries.SURE else "preview"
    keys = [ppl_key(text, lm.id, sure), bias_key(config, lm.id, estimator)]
    return all(equal(*(store.load(entries.KIND, key) for store in stores)) for key in keys)


@pytest.mark.parametrize(
    ("kind", "estimator"),
    [("llama", "exact"), ("gpt2", "refined"), ("gpt_neo", "exact"), ("llama", "two-phase"), ("gemma3_text", "refined")],
)
def test_scores_of_workers_are_the_same_bytes(
    kind: str, estimator: str, text: TextConfig, config: BiasConfig, posted: Posted, tmp_path: Path
) -> None:
    lm, here, there = tiny_lm(kind, n_layers=3), Store(tmp_path / "here"), Store(tmp_path / "there")
    score.score(lm, text, config, here, None, estimator)
    score.score(lm, text, config, there, None, estimator, Workers.of(posted, lm, 2))
    assert scores_equal(lm, text, config, estimator, here, there)
    sweeps = [shard for shard in posted.sent if isinstance(shard, Sweep)]
    assert len(sweeps) > 4
    assert min(len(shard.heads) for shard in sweeps) < lm.size
    assert not list((tmp_path / "there" / "partial").glob("*"))


def test_sampled_scores_of_workers(text: TextConfig, config: BiasConfig, posted: Posted, tmp_path: Path) -> None:
    lm, config = tiny_lm("gpt2"), replace(config, measure="sampled", generation=GenerationConfig(2, 3))
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    exact.bias_impacts(lm, config, here)
    exact.bias_impacts(lm, config, there, None, Workers.of(posted, lm, 2))
    key = bias_key(config, lm.id)
    assert equal(here.load(entries.KIND, key), there.load(entries.KIND, key))
    assert len(posted.sent) == 1 + lm.size


def test_a_comparison_of_workers_is_the_same_bytes(
    text: TextConfig, config: BiasConfig, posted: Posted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm("llama", n_layers=3)
    monkeypatch.setattr(
        Plan, "text", lambda self, side: replace(text, tokens=self.tokens, skip=100 if side == "test" else 0)
    )
    plan = Plan(config.axis, gammas=(0.2,), alphas=(0.1, 0.25), seeds=1, prompts=18, tokens=130)
    impacts = score.score(lm, text, config, Store(tmp_path / "scores"), None, "first-order")
    chosen = plan.candidates(impacts)
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    seen: list[tuple[float, float]] = []
    compare.run(lm, plan, chosen, here)
    compare.run(lm, plan, chosen, there, lambda d, t, _: seen.append((d, t)), Workers.of(posted, lm, 2))
    for kind in ("measured", "experiments"):
        both = [store.entries(kind) for store in (here, there)]
        assert len(both[0]) == len(both[1]) > 0
        assert all(equal(a, b) for a, b in zip(*both, strict=True))
    sets = {c.heads for c in chosen if c.heads}
    assert len(here.entries("measured")) == 2 * 2 * (1 + len(sets))
    assert all(0 <= done <= total for done, total in seen)
    posted.sent.clear()
    assert compare.run(lm, plan, chosen[:-1], there, None, Workers.of(posted, lm, 2)).candidates == tuple(chosen[:-1])
    assert posted.sent == []  # every set was measured before


def test_a_stopped_run_keeps_the_shards_that_are_back(
    text: TextConfig, config: BiasConfig, posted: Posted, tmp_path: Path
) -> None:
    lm, here, there = tiny_lm("llama", n_layers=3), Store(tmp_path / "here"), Store(tmp_path / "there")
    workers, parts = Workers.of(posted, lm, 1), there.parts(entries.KIND, bias_key(config, lm.id))

    def stop(_done: float, _total: float, _what: str) -> None:
        if any(name.startswith("shard-") for name in parts.names()):  # reports come whether or not shards are back
            raise Cancelled

    for store in (here, there):
        score.preview(lm, config, store)
    score.score(lm, text, config, here)
    with pytest.raises(Cancelled):
        score.score(lm, text, config, there, stop, "exact", workers)
    kept = {
        (flat, batch) for name in parts.names() if name.startswith("shard-") for flat, batch in held_in(parts, name)
    }
    assert kept
    assert entries.filling(text, config, lm.id, lm.name, there) is not None
    posted.sent.clear()
    score.score(lm, text, config, there, None, "exact", workers)
    again = {
        (flat, batch.digest)
        for shard in posted.sent
        if isinstance(shard, Sweep)
        for flat in shard.heads
        for batch in shard.batches
    }
    assert again and not again & kept  # noqa: PT018
    assert scores_equal(lm, text, config, "exact", here, there)


def held_in(parts: Any, name: str) -> Iterator[tuple[int, str]]:
    part = parts.load(name)
    flats = part.pop("heads").tolist()
    return ((flat, batch) for batch in part for flat in flats)


def test_a_stopped_run_is_taken_up_by_this_process(
    text: TextConfig, config: BiasConfig, posted: Posted, tmp_path: Path
) -> None:
    lm, here, there = tiny_lm("llama", n_layers=3), Store(tmp_path / "here"), Store(tmp_path / "there")

    def stop(done: float, total: float, what: str) -> None:
        if what.startswith("bias") and done >= 3:
            raise Cancelled

    score.score(lm, text, config, here)
    with pytest.raises(Cancelled):
        score.score(lm, text, config, there, stop, "exact", Workers.of(posted, lm, 2))
    score.score(lm, text, config, there)
    assert scores_equal(lm, text, config, "exact", here, there)


def test_what_has_not_begun_is_withdrawn(posted: Posted) -> None:
    lm, begun = tiny_lm("gpt2"), threading.Event()
    waiting: list[Future[Any]] = []

    class Never(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            waiting.append(Future())
            begun.set()
            return waiting[-1]

    def stop() -> None:
        assert begun.is_set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Workers.of(Never(), lm, 3).run([Sweep((0,), ())] * 20, stop))
    assert len(waiting) == shards.AHEAD * 3  # no more are handed out than the workers can soon begin
    assert all(future.cancelled() for future in waiting)


def test_a_worker_of_another_version_or_without_the_model(
    posted: Posted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lm = tiny_lm("gpt2")
    workers, shard = Workers.of(posted, lm, 1), Sweep((0,), ())
    ours = shards.versions()
    old = replace(workers.order, versions=ours | {"torch": "1.0"})
    with pytest.raises(InputError, match=r"has torch .* and 1\.0 is here: install the same versions there"):
        list(replace(workers, order=old).run([shard], lambda: None))
    gone = replace(workers.order, spec=replace(lm.spec, source=str(tmp_path / "none")))
    with pytest.raises(InputError, match=r"The worker on .* has no such model\. .* is neither a folder nor a hub id"):
        list(replace(workers, order=gone).run([shard], lambda: None))
    monkeypatch.setattr(shards.loading, "load", lambda spec: lm)
    other = replace(workers.order, weights_id="sha256:other")
    with pytest.raises(InputError, match="has other weights than here"):
        list(replace(workers, order=other).run([shard], lambda: None))


def test_a_model_is_loaded_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, loads = tiny_lm("gpt2"), []
    monkeypatch.setattr(shards.loading, "load", lambda spec: loads.append(spec) or lm)
    shards.register(tiny_lm("gpt2", seed=1))  # what was held gives way
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: shards.shared_model(lm.spec, lm.weights_id), range(8)))
    assert found == [lm] * 8
    assert len(loads) == 1


@given(
    st.sets(st.integers(0, 59), min_size=1),
    st.booleans(),
    st.lists(st.integers(0, 99), min_size=1, max_size=9, unique=True),
    st.integers(1, 80),
    st.booleans(),
)
def test_cuts_cover_everything_once(
    heads: set[int], whole: bool, batches: list[int], pieces: int, layers: bool
) -> None:
    wanted = [-1] * whole + sorted(heads)
    found = cut(wanted, batches, 12, 5, pieces, layers)
    covered = [(flat, b) for flats, those in found for flat in flats for b in those]
    assert len(covered) == len(set(covered))
    assert set(covered) == {(flat, b) for flat in wanted for b in batches}
    assert all(list(flats) == sorted(flats) and flats and those for flats, those in found)
    assert len(found) <= max(pieces + len(batches), len(batches))
    runs = {flats for flats, _ in found}
    if layers:  # no layer in two runs
        of_runs = [layer for flats in runs for layer in {flat // 5 for flat in flats}]
        assert len(of_runs) == len(set(of_runs))


def test_runs_of_heads_cost_about_the_same() -> None:
    found = cut(list(range(1024)), [0], 32, 32, 16)
    work = [sum(32 - flat // 32 + 1 for flat in flats) for flats, _ in found]
    assert len(work) == 16
    assert max(work) - min(work) <= 2 * 33
