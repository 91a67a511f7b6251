"""News of a measurement: waited for, drawn when it is there, and left where somebody asks for something else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData, ScriptRequests

from fasp_core.compute.jobs import Job
from fasp_core.gap.anytime import Partial
from fasp_core.metrics.looks import SoFar
from pages.explore import looking, measured


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


def test_who_asks_for_another_run_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = ScriptRequests()
    monkeypatch.setattr(looking, "get_script_run_ctx", lambda **_: SimpleNamespace(script_requests=requests))
    job = Told(5, shows="a look")
    looking.wait_for_news(job, None, 60)
    assert job.looks == 5
    requests.request_rerun(RerunData(fragment_id="the cards", is_auto_rerun=True))  # a timer waits
    job = Told(5, shows="a look")
    looking.wait_for_news(job, None, 60)
    assert job.looks == 5
    requests.request_rerun(RerunData(fragment_id="the maps"))
    requests.request_rerun(RerunData(fragment_id="the cards", is_auto_rerun=True))  # and hides nobody
    other = Told(10**9)
    looking.wait_for_news(other, None, 60)
    assert other.looks == 0


@pytest.mark.parametrize("of_fragment", [True, False])
def test_a_run_draws_first_numbers_itself_until_both_are_known(
    monkeypatch: pytest.MonkeyPatch, of_fragment: bool
) -> None:
    ids = ["explore"] if of_fragment else None
    context = SimpleNamespace(script_requests=ScriptRequests(), fragment_ids_this_run=ids)
    monkeypatch.setattr(looking, "get_script_run_ctx", lambda **_: context)
    gap = Partial(1, 1, 0.0, None, 1, 2)
    told = [SoFar(gaps={"neutral": gap}), SoFar(gaps={"neutral": gap}, perplexity=gap), SoFar()]

    class Telling(Told):
        def wait(self, timeout: float | None = None) -> bool:
            self.so_far = told.pop(0)
            return False

    drawn: list[SoFar | None] = [None]
    job: Any = Telling(0)
    measured.follow(measured.Cards(job, True, drawn, lambda: drawn.append(job.so_far)))
    assert len(drawn) == (3 if of_fragment else 1)
    assert len(told) == (1 if of_fragment else 3)  # the third look is left to the timer


def test_a_measurement_that_ends_meanwhile_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(script_requests=ScriptRequests(), fragment_ids_this_run=["explore"])
    monkeypatch.setattr(looking, "get_script_run_ctx", lambda **_: context)
    reruns: list[int] = []
    monkeypatch.setattr(measured.st, "rerun", lambda: reruns.append(1))
    job: Any = Told(3, ends=True)
    measured.follow(measured.Cards(job, True, [None], lambda: None))
    assert (job.looks, reruns) == (3, [1])
    measured.follow(measured.Cards(job, False, [None], lambda: None))  # it was drawn when it had ended
    assert reruns == [1]
