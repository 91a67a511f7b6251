"""A lane for each model, and the jobs that have ended."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fasp_core.compute.jobs import Job, Lane, Progress, State
from fasp_core.errors import InputError


@dataclass(frozen=True)
class Past:
    """What is remembered of a job that has ended, without its result.

    Attributes
    ----------
    number : tells it from the others
    lane : name of the lane that it ran in
    asked : seconds since 1970
    seconds : how long it ran; 0 if it never began
    error : what the work raised, as text, and whether that was bad input
    work : what can be submitted again, of a job that was asked for by nobody in particular and is not done
    """

    number: int
    lane: str
    key: Hashable
    state: State
    asked: float
    seconds: float
    log: tuple[str, ...]
    error: str
    work: Callable[[Progress], Any] | None


class Lanes:
    """Lanes by name (a loaded model's), at most `limit`: then the idle one least recently asked for goes.

    Ask for a lane each time rather than keep it: a lane that has gone no longer excludes its successor. What the last
    `memory` jobs came to is remembered, without their results.
    """

    def __init__(self, limit: int = 8, make: Callable[[], Lane] = Lane, memory: int = 60) -> None:
        self._limit = limit
        self._make = make
        self._numbers = itertools.count()
        self._past: deque[Past] = deque(maxlen=memory)
        self._past_lock = threading.Lock()  # apart from the other: lanes remember while they hold their own
        self._lock = threading.Lock()
        self._lanes: OrderedDict[str, Lane] = OrderedDict()

    def get(self, name: str) -> Lane:
        """The lane of that name, made if there is none.

        Raises InputError where `limit` others are all at work.
        """
        with self._lock:
            if name not in self._lanes:
                if len(self._lanes) >= self._limit:
                    idle = next((other for other, lane in self._lanes.items() if lane.idle), None)
                    if idle is None:
                        raise InputError(
                            f"Work is under way on {self._limit} models: wait for one, or cancel its jobs."
                        )
                    del self._lanes[idle]
                lane = self._lanes[name] = self._make()
                lane.remember = partial(self._remember, name)
            self._lanes.move_to_end(name)
            return self._lanes[name]

    def release(self, owner: Hashable) -> None:
        """`Lane.release` in every lane."""
        for _, lane in self._items():
            lane.release(owner)

    def jobs(self) -> list[tuple[str, Job[Any]]]:
        """Name of the lane and job, for all that run or wait."""
        return [(name, job) for name, lane in self._items() for job in lane.jobs()]

    def past(self) -> list[Past]:
        """Jobs that have ended, the latest first; those that newer requests overtook are left out."""
        with self._past_lock:
            return list(reversed(self._past))

    def forget(self, number: int) -> None:
        """Drop a job that has ended from `past()`."""
        with self._past_lock:
            kept = [one for one in self._past if one.number != number]
            self._past.clear()
            self._past.extend(kept)

    def again(self, past: Past) -> Job[Any]:
        """Submit a job that failed or was cancelled once more; it takes the place of the old one in `past()`.

        Raises InputError where it cannot be repeated from here.
        """
        if past.work is None:
            raise InputError("This work cannot be resumed from here: open its page and start it there.")
        job = self.get(past.lane).submit(past.key, past.work)
        self.forget(past.number)
        return job

    def _remember(self, name: str, job: Job[Any], work: Callable[[Progress], Any]) -> None:
        seconds = job.ended - job.began if job.began is not None and job.ended is not None else 0.0
        error = "" if job.error is None else str(job.error)
        if job.error is not None and not isinstance(job.error, InputError):
            error = f"An unexpected error ({type(job.error).__name__}); the terminal shows its details."
        repeat = work if job._unowned and job.state != "done" else None
        with self._past_lock:
            number = next(self._numbers)
            self._past.append(Past(number, name, job.key, job.state, job.asked, seconds, tuple(job.log), error, repeat))

    def _items(self) -> list[tuple[str, Lane]]:
        with self._lock:
            return list(self._lanes.items())
