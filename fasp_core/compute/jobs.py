"""Long work outside the thread that draws: progress, cancelling, and newer requests overtaking older ones.

A page reruns at every click and must never wait for a model, and a model can serve one request at a time. So
each model gets a lane, which runs one job after the other; who asks for what is already under way or was done
lately gets the same job; and a request that its owner has replaced by a newer one is not worth finishing.
"""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from fasp_core.storage.locks import stoppable

T = TypeVar("T")
State = Literal["waiting", "running", "done", "failed", "cancelled"]
LOG = 20  # progress texts that a job keeps
AWAY = 10.0  # seconds after which nobody waits any more for the work of owners that are away


class Cancelled(Exception):
    """Raised inside work that nobody wants any more."""


class Progress:
    """What long work is handed: `progress(done, total, text)` reports, `progress.check()` only asks.

    `progress.show(value)` says what is known before the end, see `Job.so_far`. All raise `Cancelled` when the work
    should stop, and also once the program's main thread has ended: who leaves the program does not wait for the end of
    a long job. `Progress()` alone reports to nobody.

    Parameters
    ----------
    report : called with done, total (same unit, any unit) and a short text
    cancelled : whether the work should stop
    show : called with what is known so far
    """

    def __init__(
        self,
        report: Callable[[float, float, str], None] = lambda done, total, text: None,
        cancelled: Callable[[], bool] = lambda: False,
        show: Callable[[Any], None] = lambda value: None,
    ) -> None:
        self._report = report
        self._cancelled = cancelled
        self._show = show

    def __call__(self, done: float, total: float, text: str = "") -> None:
        self._report(done, total, text)
        self.check()

    def show(self, value: Any) -> None:
        """Say what is known before the work is done; the value is never changed afterwards."""
        self._show(value)
        self.check()

    def check(self) -> None:
        """Raise `Cancelled` if the work should stop."""
        if self._cancelled() or not threading.main_thread().is_alive():
            raise Cancelled


class Job(Generic[T]):
    """One piece of work in a lane. Made by `Lane.submit`; safe to read from any thread.

    Attributes
    ----------
    key : what identifies the work and its result
    state : "waiting", "running", then one of "done", "failed", "cancelled"
    done, total, text : the latest report; total is 0 before the first one
    log : the latest different texts that were reported
    error : what the work raised, if it failed
    so_far : what the work has shown before its end; it stays when the job is overtaken. None: nothing
    asked, began, ended : seconds since 1970; None before it began or ended
    """

    def __init__(self, lane: Lane, key: Hashable, work: Callable[[Progress], T], priority: int, number: int) -> None:
        self.key = key
        self.state: State = "waiting"
        self.done, self.total, self.text = 0.0, 0.0, ""
        self.log: deque[str] = deque(maxlen=LOG)
        self.error: BaseException | None = None
        self.so_far: Any = None
        self.asked = time.time()
        self.began: float | None = None
        self.ended: float | None = None
        self._lane = lane
        self._work: Callable[[Progress], T] | None = work
        self._order = (-priority, number)
        self._owners: set[Hashable] = set()
        self._unowned = False  # asked for by nobody in particular: never overtaken
        self._stopping = False
        self._overtaken = False
        self._away: float | None = None  # since when all its owners are
        self._value: T | None = None
        self._finished = threading.Event()
        self._pace = (0.0, 0.0)  # time and `done` from which the speed is measured
        self._reported = 0.0

    @property
    def result(self) -> T:
        """What the work returned.

        Raises
        ------
        BaseException
            The work's own error if it failed, `Cancelled` if cancelled, RuntimeError if it has not ended.
        """
        if self.state == "failed" and self.error is not None:
            raise self.error
        if self.state == "cancelled":
            raise Cancelled
        if self.state != "done":
            raise RuntimeError("The job has not ended: call wait() first.")
        return self._value  # type: ignore[return-value]

    @property
    def place(self) -> int:
        """How many jobs of its lane come first; 0 when it runs or has ended."""
        return self._lane._place(self)

    def eta_seconds(self) -> float | None:
        """Seconds to go at the speed seen so far; None before two reports, and when it does not run.

        Speed counts from the first report, so that parts found finished at the start do not flatter it.
        """
        with self._lane._lock:
            since, base = self._pace
            elapsed = self._reported - since
            if self.state != "running" or elapsed <= 0 or self.done <= base:
                return None
            at_report = (self.total - self.done) * elapsed / (self.done - base)
            return max(0.0, self._reported + at_report - self._lane._clock())

    def cancel(self) -> None:
        """Stop it for everybody. Running work ends at its next report, or soon where it waits for another process; an
        ended job stays as it is."""
        with self._lane._lock:
            self._lane._stop(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, at most `timeout` seconds; True if it has."""
        return self._finished.wait(timeout)


def _forget(error: BaseException | None) -> None:
    """Let go of what the frames of an error held, such as a model: a job that failed may be kept for long."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class Lane:
    """Jobs that run one at a time, first come, first served within a priority.

    Parameters
    ----------
    executor : where the lane borrows one worker at a time; by default it starts a thread whenever there is
        work. Any executor whose workers share this process's memory will do, and several lanes may share one;
        those of `concurrent.futures` make the program wait at its end for the job that runs.
    keep : how many results to keep, the least recently asked for going first
    clock : seconds, for `Job.eta_seconds` and `here`
    here : whether an owner is still there to wait; work whose owners have all been away for `AWAY` seconds is
        released as by `release`. Asked while a job reports; must not ask the lane

    Attributes
    ----------
    remember : called with each job that ends and its work, unless a newer request overtook it; must not ask the lane
    """

    def __init__(
        self,
        executor: Executor | None = None,
        *,
        keep: int = 256,
        clock: Callable[[], float] = time.monotonic,
        here: Callable[[Hashable], bool] = lambda owner: True,
    ) -> None:
        self._executor = executor
        self._keep = keep
        self._clock = clock
        self._here = here
        self._looked = 0.0  # when owners were last looked for
        self.remember: Callable[[Job[Any], Callable[[Progress], Any]], None] = lambda job, work: None
        self._lock = threading.Lock()  # guards all below, and every job's fields
        self._numbers = itertools.count()
        self._waiting: list[Job[Any]] = []
        self._running: Job[Any] | None = None
        self._busy = False  # a thread is working through the lane, or about to
        self._live: dict[Hashable, Job[Any]] = {}  # waiting or running, and wanted
        self._kept: OrderedDict[Hashable, Job[Any]] = OrderedDict()
        self._owned: dict[Hashable, Job[Any]] = {}  # owner -> its unfinished job

    def submit(self, key: Hashable, work: Callable[[Progress], T], owner: Hashable = None, priority: int = 0) -> Job[T]:
        """The job for `key`: the one under way, one done lately, or a new one.

        Parameters
        ----------
        key : everything that shapes the result; equal keys are computed once
        work : called with a `Progress`, in another thread, unless an equal job exists
        owner : who asks, such as one reader's one chart. An owner wants its newest request only: its older
            unfinished one is released, and cancelled if nobody else waits for it. Without an owner the job is
            never overtaken.
        priority : higher goes first among the jobs that wait; a running job is never interrupted by it
        """
        with self._lock:
            job = self._live.get(key) or self._kept.get(key)
            if owner is not None and self._owned.get(owner) is not job:
                self._release(owner)
            if job is None:
                job = self._live[key] = Job(self, key, work, priority, next(self._numbers))
                self._waiting.append(job)
            if job.state == "done":
                self._kept.move_to_end(key)
                return job
            job._order = min(job._order, (-priority, job._order[1]))
            if owner is None:
                job._unowned = True
            else:
                job._owners.add(owner)
                self._owned[owner] = job
            start, self._busy = not self._busy, True
        if start:
            self._begin()
        return job

    def release(self, owner: Hashable) -> None:
        """Drop what `owner` still waits for, as when its page is left; a job that others want goes on."""
        with self._lock:
            self._release(owner)

    def jobs(self) -> list[Job[Any]]:
        """The running job, then those that wait, in their order."""
        with self._lock:
            running = [self._running] if self._running else []
            return running + sorted(self._waiting, key=lambda job: job._order)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._busy

    # _release, _stop and _end are called with the lock held; the others take it

    def _release(self, owner: Hashable) -> None:
        job = self._owned.pop(owner, None)
        if job is not None:
            job._owners.discard(owner)
            if not job._owners and not job._unowned:
                job._overtaken = True
                self._stop(job)

    def _wanted(self, job: Job[Any]) -> bool:
        """Whether the running job is; about once a second, what nobody waits for any more is released first."""
        with self._lock:
            now = self._clock()
            if now - self._looked >= 1:
                self._looked = now
                for one in [job, *self._waiting]:
                    if one._unowned or any(map(self._here, one._owners)):
                        one._away = None
                    elif one._away is None:
                        one._away = now
                    elif now - one._away >= AWAY:
                        for owner in list(one._owners):
                            self._release(owner)
            return not job._stopping

    def _stop(self, job: Job[Any]) -> None:
        job._stopping = True
        if self._live.get(job.key) is job:  # the next request for this key starts afresh
            del self._live[job.key]
        if job.state == "waiting":
            self._waiting.remove(job)
            self._end(job, "cancelled")

    def _end(self, job: Job[Any], state: State, value: Any = None, error: BaseException | None = None) -> None:
        work, job._work = job._work, None
        job._value, job.error, job.ended = value, error, time.time()
        job.state = state
        if work is not None and not job._overtaken:
            self.remember(job, work)
        if self._live.get(job.key) is job:
            del self._live[job.key]
        for owner in job._owners:
            if self._owned.get(owner) is job:
                del self._owned[owner]
        if state == "done":
            self._kept[job.key] = job
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        job._finished.set()

    def _place(self, job: Job[Any]) -> int:
        with self._lock:
            if job.state != "waiting":
                return 0
            return sum(other._order < job._order for other in self._waiting) + (self._running is not None)

    def _report(self, job: Job[Any], done: float, total: float, text: str) -> None:
        with self._lock:
            job._reported = self._clock()
            if done < job.done or total != job.total:  # the first report, or a new stage
                job._pace = (job._reported, done)
            job.done, job.total, job.text = done, total, text
            if text and (not job.log or job.log[-1] != text):
                job.log.append(text)

    def _begin(self) -> None:
        try:
            if self._executor is None:
                threading.Thread(target=self._drain, name="lane").start()
            else:
                self._executor.submit(self._drain)
        except RuntimeError as error:  # the executor was shut down, or the program is ending
            with self._lock:
                self._busy = False
                for job in list(self._waiting):
                    self._waiting.remove(job)
                    self._end(job, "failed", error=error)
            raise

    def _drain(self) -> None:
        while True:
            with self._lock:
                self._running = job = min(self._waiting, key=lambda job: job._order, default=None)
                if job is None:
                    self._busy = False
                    return
                self._waiting.remove(job)
                job.state, job.began = "running", time.time()
            self._run(job)

    def _run(self, job: Job[Any]) -> None:
        state: State = "done"
        value, failure = None, None
        progress = Progress(partial(self._report, job), lambda: not self._wanted(job), partial(setattr, job, "so_far"))
        try:
            progress.check()
            assert job._work is not None
            with stoppable(progress.check):
                value = job._work(progress)
        except Cancelled:
            state = "cancelled"
        except BaseException as error:
            state, failure = "failed", error
            _forget(error)
        with self._lock:
            if state == "done" and job._stopping:
                state, value = "cancelled", None
            self._running = None
            self._end(job, state, value, failure)
