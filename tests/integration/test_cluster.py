"""A Dask cluster inside this process: the same bytes as without one, and its troubles in one sentence each."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from fasp_core.cli.main import main
from fasp_core.compute import cluster, shards
from fasp_core.compute.cluster import Cluster
from fasp_core.compute.jobs import Lane
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.scoring import entries, score
from fasp_core.scoring.entries import bias_key
from fasp_core.storage.store import Store
from tests.support.tiny import tiny_lm
from tests.support.worlds import use_scorer, write_axis, write_text

distributed = pytest.importorskip("distributed", reason="no Dask: pip install -r requirements-cluster.txt")


@pytest.fixture(scope="module")
def local() -> Generator[Any]:
    found = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50
    )
    yield found
    found.close()


@pytest.fixture
def there(local: Any) -> Generator[Cluster]:
    found = Cluster(local.scheduler_address)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, complete=False)
    monkeypatch.setattr(shards, "RUN", 3)
    monkeypatch.setattr(shards, "TICK", 0.02)


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 300, tokens=200, window=64, stride=64)


@pytest.fixture
def config(tmp_path: Path) -> BiasConfig:
    return BiasConfig(write_axis(tmp_path / "axis.csv", ("man", "tree")), split="all", n_prompts=18)


def test_a_cluster_gives_the_same_bytes(there: Cluster, text: TextConfig, config: BiasConfig, tmp_path: Path) -> None:
    lm, here, away = tiny_lm("llama", n_layers=3), Store(tmp_path / "here"), Store(tmp_path / "away")
    assert there.width() == 2
    score.score(lm, text, config, here, None, "refined")
    score.score(lm, text, config, away, None, "refined", there.workers(lm))
    for key in (ppl_key(text, lm.id), bias_key(config, lm.id, "refined")):
        entries_of = [store.load(entries.KIND, key) for store in (here, away)]
        one, other = ({name: a.tobytes() for name, a in e.arrays.items()} for e in entries_of if e is not None)
        assert one == other


def test_a_cancelled_job_leaves_the_cluster_free(
    there: Cluster, text: TextConfig, config: BiasConfig, tmp_path: Path
) -> None:
    lm, lane, begun = tiny_lm("llama", n_layers=3), Lane(), threading.Event()

    def work(progress: Any) -> None:
        def report(done: float, total: float, what: str) -> None:
            if done:
                begun.set()
                stopped.wait(20)
            progress(done, total, what)

        score.score(lm, text, config, Store(tmp_path / "cancelled"), report, "exact", there.workers(lm))

    stopped = threading.Event()
    job = lane.submit("score", work)
    assert begun.wait(20)
    job.cancel()
    stopped.set()
    assert job.wait(20)
    assert job.state == "cancelled"
    assert (
        len(score.score(lm, text, config, Store(tmp_path / "next"), None, "exact", there.workers(lm)).bias.codes) == 18
    )


def test_a_scheduler_that_goes_away(text: TextConfig, config: BiasConfig, tmp_path: Path) -> None:
    lm = tiny_lm("llama", n_layers=3)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50
    ) as brief:
        there = Cluster(brief.scheduler_address, wait=1.0)

        def gone(done: float, total: float, what: str) -> None:
            if done and brief.status.name == "running":
                brief.close()

        with pytest.raises(InputError, match=r"is gone: start it and its workers again\. What was finished is kept"):
            score.score(lm, text, config, Store(tmp_path / "gone"), gone, "exact", there.workers(lm))
        there.close()


def test_nobody_answers() -> None:
    for address in ("tcp://127.0.0.1:9", "not an address"):
        with pytest.raises(InputError, match=r"No scheduler answers at .*: start one with 'dask scheduler'"):
            Cluster(address, wait=0.2)


def test_a_scheduler_without_workers() -> None:
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0", silence_logs=50) as empty,
        pytest.raises(InputError, match=r"has no workers: start one with 'dask worker"),
    ):
        Cluster(empty.scheduler_address, wait=0.2)


def test_workers_that_are_lost_for_good(there: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    monkeypatch.setattr(there._client, "scheduler_info", lambda n_workers: {"workers": {}})
    assert there.width() == 0
    with pytest.raises(InputError, match=r"No worker is left at .*the same command goes on from there"):
        there.width()


def by_thread() -> dict[str, str]:
    """Other versions for workers than for the test."""
    return {"torch": str(threading.current_thread() is threading.main_thread())}


def test_workers_of_other_versions(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "versions", by_thread)
    with pytest.raises(InputError, match=r"The worker inproc://.* has torch False, and True is here"):
        Cluster(local.scheduler_address)


def test_troubles_have_sentences(there: Cluster) -> None:
    killed = distributed.scheduler.KilledWorker("task", None, 3)
    assert "4 workers died on the same piece of work" in str(there._explain(killed))
    assert "no such program" in str(there._explain(ModuleNotFoundError("No module named 'fasp_core'"), "tcp://a:1"))
    assert there._explain(ZeroDivisionError()) is None


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install -r requirements-cluster\.txt"):
        Cluster("tcp://127.0.0.1:8786")


def test_no_address_no_cluster() -> None:
    for address in (None, ""):
        with cluster.connected(address) as nothing:
            assert nothing is None
            assert cluster.workers_of(nothing, tiny_lm("gpt2")) is None


@pytest.mark.parametrize("command", [("score", "--out", "scores"), ("compare", "--run")])
def test_commands_say_so_before_a_model_is_loaded(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Cluster.__init__, "__defaults__", (0.2,))
    monkeypatch.setattr(entries, "best", lambda *_: object())
    monkeypatch.setattr("fasp_core.studies.compare.plan.Plan.candidates", lambda *_: [])
    monkeypatch.setattr("fasp_core.model.loading.load", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.setenv("FASP_SCHEDULER", "tcp://127.0.0.1:9")
    assert main([*command, "--axis", "age", "--cache", str(tmp_path / "cache")]) == 2
    assert capsys.readouterr().err.startswith("Error: No scheduler answers at 'tcp://127.0.0.1:9': start one")
