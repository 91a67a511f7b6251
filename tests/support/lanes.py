"""Work that a test steers by events, never by time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fasp_core.compute.jobs import Job, Lane, Progress

LONG = 30.0  # seconds after which a test has failed: nothing here takes a tenth of a second


class Work:
    """Work that runs until it is told to end, and counts its runs."""

    def __init__(self, value: Any = "value") -> None:
        self.value = value
        self.runs = 0
        self.started = threading.Event()
        self.go = threading.Event()
        self.progress = Progress()

    def __call__(self, progress: Progress) -> Any:
        self.runs += 1
        self.progress = progress
        self.started.set()
        assert self.go.wait(LONG)
        progress.check()
        return self.value

    def until_started(self) -> None:
        assert self.started.wait(LONG)

    def finish(self, *jobs: Job[Any]) -> None:
        self.go.set()
        for job in jobs:
            assert job.wait(LONG)


def never(progress: Progress) -> None:
    pytest.fail("this work should not have started")


def ended(lane: Lane) -> None:
    """Wait until all that was submitted has ended, by one more job of the lowest priority."""
    assert lane.submit(object(), lambda progress: None, priority=-(10**6)).wait(LONG)
