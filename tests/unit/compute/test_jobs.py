"""Jobs are computed once, overtaken, cancelled and reported. Threads are steered by events, never by time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as hs
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fasp_core.compute.jobs import Cancelled, Lane, Progress
from fasp_core.compute.lanes import Lanes
from fasp_core.errors import InputError
from fasp_core.model import loading
from fasp_core.storage.keys import digest
from fasp_core.storage.store import Store
from tests.support.lanes import LONG, Work, never


@pytest.fixture
def lane() -> Lane:
    return Lane()


@pytest.fixture
def first(lane: Lane) -> Iterator[Work]:
    """Work that keeps the lane busy, so that what is submitted next waits."""
    work = Work()
    lane.submit("first", work)
    work.until_started()
    yield work
    work.go.set()


def record(seen: list[Any], value: Any, progress: Progress) -> Any:
    seen.append(value)
    return value


# results


def test_a_job_from_submit_to_result(lane: Lane) -> None:
    work = Work(42)
    job = lane.submit("key", work)
    work.until_started()
    assert (job.key, job.state, job.place) == ("key", "running", 0)
    assert not job.wait(0)
    with pytest.raises(RuntimeError, match="not ended"):
        _ = job.result
    work.finish(job)
    assert (job.state, job.result, job.error) == ("done", 42, None)
    job.cancel()
    assert job.state == "done"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_errors_are_kept_and_the_lane_goes_on(lane: Lane, error: BaseException) -> None:
    def fail(progress: Progress) -> None:
        raise error

    job = lane.submit("key", fail, owner="a")
    assert job.wait(LONG)
    assert job.state == "failed"
    assert job.error is error
    with pytest.raises(type(error)):
        _ = job.result
    again = lane.submit("key", lambda progress: "fine")  # a failure is not kept
    assert again.wait(LONG)
    assert again.result == "fine"


def test_an_executor_that_was_shut_down_fails_the_job() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    lane = Lane(executor)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shutdown"):
            lane.submit("key", never)
        assert lane.idle
        assert lane.jobs() == []


# cancelling


def test_work_that_ends_without_looking_is_still_cancelled(lane: Lane) -> None:
    started, go = threading.Event(), threading.Event()

    def work(progress: Progress) -> str:
        started.set()
        assert go.wait(LONG)
        return "unwanted"

    job = lane.submit("key", work)
    assert started.wait(LONG)
    job.cancel()
    go.set()
    assert job.wait(LONG)
    assert job.state == "cancelled"


def test_the_program_ends_without_waiting_for_its_jobs() -> None:
    code = """
import threading
from fasp_core.compute.jobs import Lane
started, pause, lane = threading.Event(), threading.Event(), Lane()
def work(progress):
    started.set()
    while True:
        progress.check()
        pause.wait(0.01)
lane.submit("endless", work)
lane.submit("next", lambda progress: print("started after the end"))
started.wait()
print("end")
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.parametrize("what", ["an entry", "a conversion"])
def test_a_job_that_waits_for_another_process_is_cancelled(lane: Lane, tmp_path: Path, what: str) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    store, config = Store(tmp_path), {"a": 1}

    def wait() -> Any:
        if what == "an entry":
            return store.compute("scores", config, lambda: pytest.fail("the lock is held"))
        return loading._converted(tmp_path / "x.gguf", tmp_path)

    converted = loading._converted_folder(tmp_path / "x.gguf", tmp_path, loading.sha256_file(tmp_path / "x.gguf"))
    locks = {
        "an entry": tmp_path / "locks" / f"scores-{digest(config)}.lock",
        "a conversion": converted.with_name(f"{converted.name}.lock"),
    }
    locks[what].parent.mkdir()
    started = threading.Event()

    def work(progress: Progress) -> Any:
        started.set()
        return wait()

    hold = "import filelock, sys\nwith filelock.FileLock(sys.argv[1]): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(locks[what])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        job = lane.submit("waits", work)
        assert started.wait(LONG)
        later = lane.submit("later", lambda progress: "done")
        job.cancel()
        assert job.wait(LONG)
        assert later.wait(LONG)
        assert other.poll() is None, "the lock was free"
        other.communicate(b"")
    assert (job.state, later.result) == ("cancelled", "done")


# progress


def test_progress_and_time_to_go() -> None:
    now = [100.0]
    lane = Lane(clock=lambda: now[0])
    work = Work()
    job = lane.submit("key", work)
    work.until_started()
    assert (job.done, job.total, job.text, job.eta_seconds()) == (0, 0, "", None)
    now[0] = 105.0
    work.progress(120, 270, "resumed")  # 120 were there already: they say nothing of the speed
    assert (job.done, job.total, job.text, job.eta_seconds()) == (120, 270, "resumed", None)
    now[0] = 115.0
    work.progress(140, 270, "L1H2")  # 20 in 10 s, so 130 more in 65 s
    assert job.eta_seconds() == pytest.approx(65.0)
    now[0] = 120.0
    assert job.eta_seconds() == pytest.approx(60.0)  # runs on between reports
    now[0] = 500.0
    assert job.eta_seconds() == 0.0
    work.progress(1, 10, "next stage")
    assert job.eta_seconds() is None
    now[0] = 502.0
    work.progress(2, 10)
    assert job.eta_seconds() == pytest.approx(16.0)
    work.finish(job)
    assert job.eta_seconds() is None


def test_progress_alone() -> None:
    reports: list[tuple[float, float, str]] = []
    progress = Progress(lambda *report: reports.append(report), lambda: len(reports) == 2)
    progress(1, 3)
    with pytest.raises(Cancelled):
        progress(2, 3, "b")
    assert reports == [(1, 3, ""), (2, 3, "b")]
    Progress()(1, 2)


# executors and lanes


class Inline(Executor):
    """Runs at once, in the thread that submits."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_any_executor_will_do() -> None:
    lane = Lane(Inline())
    assert lane.submit("a", lambda progress: lane.submit("b", lambda progress: 2).state).result == "waiting"
    assert lane.submit("b", never).result == 2


def test_lanes_that_share_an_executor_still_run_one_job_each_at_a_time() -> None:
    executor = ThreadPoolExecutor(3)
    lanes = [Lane(executor), Lane(executor)]
    works = [[Work(), Work()], [Work(), Work()]]
    jobs = [[lanes[i].submit(work, work) for work in works[i]] for i in range(2)]
    for pair in works:
        pair[0].until_started()
    assert [[job.state for job in pair] for pair in jobs] == [["running", "waiting"]] * 2
    works[1][0].finish(jobs[1][0])
    works[1][1].until_started()
    assert [[job.state for job in pair] for pair in jobs] == [["running", "waiting"], ["done", "running"]]
    for i in range(2):
        for work, job in zip(works[i], jobs[i], strict=True):
            work.finish(job)
    executor.shutdown()


def test_lanes_are_bounded_and_busy_ones_stay() -> None:
    executors = [ThreadPoolExecutor(1) for _ in range(4)]
    unused = iter(executors)
    lanes = Lanes(limit=2, make=lambda: Lane(next(unused)))
    a, b = lanes.get("a"), lanes.get("b")
    assert lanes.get("a") is a
    work = Work()
    job = a.submit("key", work, owner="me")
    c = lanes.get("c")  # b is the idle one
    assert lanes.get("a") is a
    assert lanes.jobs() == [("a", job)]
    other = Work()
    last = c.submit("key", other)
    with pytest.raises(InputError, match="cancel"):
        lanes.get("b")
    lanes.release("me")
    work.finish(job)
    assert job.state == "cancelled"
    other.finish(last)
    for executor in executors:
        executor.submit(lambda: None).result(LONG)  # its thread has left the lane
    assert a.idle
    assert c.idle
    assert lanes.get("b") is not b
    assert lanes.get("a") is a  # c was asked for before it


def test_many_threads_ask_for_few_keys() -> None:
    lane = Lane()
    runs: list[int] = []
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for i in range(50):
            key = (seed + i) % 5
            job = lane.submit(key, partial(record, runs, key))
            if not job.wait(LONG) or job.result != key:
                wrong.append(key)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert wrong == []
    assert sorted(runs) == [0, 1, 2, 3, 4]


# any order of requests, against a model of what should happen


class LaneMachine(RuleBasedStateMachine):
    """`wanted` lists the live jobs in the order of submission, each with its priority and who wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane(keep=2)
        self.wanted: list[dict[str, Any]] = []
        self.running: dict[str, Any] | None = None
        self.kept: list[int] = []

    def start_next(self) -> None:
        if self.running is None and self.wanted:
            self.running = max(self.wanted, key=lambda job: job["priority"])  # the first of the highest
            self.running["work"].until_started()

    def leave(self, owner: str) -> None:
        for job in list(self.wanted):
            if owner in job["by"]:
                job["by"].remove(owner)
                if not job["by"]:
                    self.drop(job)

    def drop(self, job: dict[str, Any]) -> None:
        self.wanted.remove(job)
        job["dropped"] = True

    @rule(key=hs.integers(0, 3), owner=hs.sampled_from([None, "a", "b"]), priority=hs.integers(0, 1))
    def submit(self, key: int, owner: str | None, priority: int) -> None:
        work = Work(key)
        job = self.lane.submit(key, work, owner=owner, priority=priority)
        known = next((job for job in self.wanted if job["key"] == key), None)
        if owner is not None and (known is None or owner not in known["by"]):
            self.leave(owner)
        if known is None and key in self.kept:
            self.kept.append(self.kept.pop(self.kept.index(key)))
            assert (job.state, job.result) == ("done", key)
            return
        if known is None:
            known = {"key": key, "priority": priority, "by": [], "work": work, "job": job, "dropped": False}
            self.wanted.append(known)
        assert job is known["job"]
        known["priority"] = max(priority, known["priority"])
        if owner not in known["by"]:
            known["by"].append(owner)
        self.start_next()

    @rule(owner=hs.sampled_from(["a", "b"]))
    def release(self, owner: str) -> None:
        self.lane.release(owner)
        self.leave(owner)

    @precondition(lambda self: self.wanted)
    @rule(data=hs.data())
    def cancel(self, data: hs.DataObject) -> None:
        job = data.draw(hs.sampled_from(self.wanted))
        job["job"].cancel()
        self.drop(job)

    @precondition(lambda self: self.running is not None)
    @rule()
    def finish(self) -> None:
        assert self.running is not None
        done, self.running = self.running, None
        done["work"].finish(done["job"])
        assert done["job"].state == ("cancelled" if done["dropped"] else "done")
        if not done["dropped"]:
            self.wanted.remove(done)
            self.kept = [*self.kept[-1:], done["key"]]
        self.start_next()

    @invariant()
    def agrees(self) -> None:
        waiting = [job for job in self.wanted if job is not self.running]
        waiting.sort(key=lambda job: -job["priority"])
        running = [self.running] if self.running else []
        assert self.lane.jobs() == [job["job"] for job in running + waiting]
        assert [job["job"].place for job in waiting] == list(range(1, len(waiting) + 1))
        assert all(job["work"].runs == 0 for job in waiting)
        owners = {owner for job in self.wanted for owner in job["by"] if owner}
        assert set(self.lane._owned) >= owners  # and no owner is remembered for a job that has ended
        assert all(job.state in ("waiting", "running") for job in self.lane._owned.values())

    def teardown(self) -> None:
        for job in self.lane.jobs():
            job.cancel()
        if self.running is not None:
            self.running["work"].finish(self.running["job"])


TestLaneMachine = LaneMachine.TestCase
TestLaneMachine.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
