"""How a timer's run waits for news of a job, and for whom it does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData, ScriptRequests

from fasp_core.compute.jobs import Job
from pages.explore import looking


class Told(Job[int]):
    """A job that shows something, ends or does neither when it has been looked at so often."""

    def __init__(self, after: int, shows: object = None, ends: bool = False) -> None:
        self.state, self.so_far, self.looks = "running", None, 0
        self._after, self._shows, self._ends = after, shows, ends

    def wait(self, timeout: float | None = None) -> bool:
        self.looks += 1
        if self.looks == self._after:
            self.so_far, self.state = self._shows, "done" if self._ends else "running"
        return self.state == "done"


def test_news_is_waited_for_as_long_as_there_is_none() -> None:
    for job in (Told(3, shows="a look"), Told(3, ends=True)):
        looking.wait_for_news(job, None, 60)
        assert job.looks == 3
    known = Told(99)
    looking.wait_for_news(known, "what was shown before", 60)
    assert known.looks == 0
    nothing = Told(10**9)
    looking.wait_for_news(nothing, None, 0.001)
    assert nothing.looks > 0


def test_half_of_the_news_is_drawn_when_the_time_is_over() -> None:
    half, whole = Told(1, shows="half"), Told(1, shows="whole")
    for job, seconds in ((half, 0.001), (whole, 60)):
        looking.wait_for_news(job, None, seconds, "whole".__eq__)
    assert half.looks > 1
    assert whole.looks == 1
    ended = Told(2, shows="half", ends=True)
    looking.wait_for_news(ended, None, 60, "whole".__eq__)
    assert ended.looks == 2


def test_who_asks_for_another_run_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = ScriptRequests()
    monkeypatch.setattr(looking, "get_script_run_ctx", lambda **_: SimpleNamespace(script_requests=requests))
    job = Told(5, shows="a look")
    looking.wait_for_news(job, None, 60)
    assert job.looks == 5
    requests.request_rerun(RerunData(fragment_id="the maps"))
    other = Told(10**9)
    looking.wait_for_news(other, None, 60)
    assert other.looks == 0
