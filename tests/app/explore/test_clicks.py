"""What meets a run of the page at a bad moment: a click whose button it never comes to, a job that ends meanwhile."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from fasp_core.compute.jobs import Job, Lane
from pages.explore import measured
from pages.widgets import background, scoring
from tests.support.fakes import Studio
from tests.support.running import APP, press, run


def page() -> None:
    """A page whose first button draws it again, and whose others are told of below it."""
    import streamlit as st

    from pages.widgets import clicks

    state = st.session_state
    if state.pop("cut short", False):
        st.rerun()
    if not state.get("elsewhere"):
        if st.button("plain", key="plain"):
            state["plain heard"] = state.get("plain heard", 0) + 1
        if clicks.button("kept", key="of this page"):
            state["kept heard"] = state.get("kept heard", 0) + 1
    clicks.drop()


@pytest.fixture
def at() -> AppTest:
    return run(AppTest.from_function(page))


def heard(at: AppTest, name: str) -> int:
    return int(at.session_state[f"{name} heard"]) if f"{name} heard" in at.session_state else 0


@pytest.mark.parametrize(("name", "times"), [("plain", 0), ("kept", 1)])
def test_a_run_that_is_drawn_anew_before_the_button(at: AppTest, name: str, times: int) -> None:
    """Streamlit's own button never hears of the click; ours does, once."""
    at.session_state["cut short"] = True
    next(button for button in at.button if button.label == name).click()
    run(at)
    assert heard(at, name) == times
    run(at)
    assert heard(at, name) == times


def test_each_click_is_heard_once(at: AppTest) -> None:
    for times in (1, 2):
        at.button("of this page").click()
        run(at)
        run(at)
        assert heard(at, "kept") == times


def test_a_click_on_what_is_gone_does_nothing_when_it_comes_back(at: AppTest) -> None:
    at.session_state["elsewhere"] = True
    at.button("of this page").click()
    run(at)
    at.session_state["elsewhere"] = False
    run(at)
    assert heard(at, "kept") == 0


class Redrawn(Exception):
    pass


def test_a_job_that_ends_while_the_page_looks_for_its_result_draws_it_anew_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rerun() -> None:
        raise Redrawn

    state: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(st, "rerun", rerun)
    go = Event()
    jobs: list[Job[bool]] = [Lane().submit(name, lambda progress: go.wait(20)) for name in ("one", "two")]
    background.look_again(None)
    background.look_again(jobs[0])  # it still runs: its progress is shown
    go.set()
    for job in jobs:
        assert job.wait(20)
        with pytest.raises(Redrawn):
            background.look_again(job)
        background.look_again(job)  # its result is nowhere: the page offers to make it


def test_a_measurement_that_ends_while_its_estimates_are_drawn_is_shown(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.add_scores("race_ethnicity")
    studio.open.clear()
    draw = measured._removed

    def late(*args: Any) -> None:
        draw(*args)
        studio.open.set()
        studio.finish()

    monkeypatch.setattr(measured, "_removed", late)
    at = AppTest.from_file(APP, default_timeout=60)
    at.session_state["alpha"] = 0.02
    run(at)
    assert [m.label for m in at.metric if "\u2192" in str(m.value)] != []
    assert not [m.value for m in at.metric if "\u2248" in str(m.value)]


def test_scores_that_are_ready_before_the_page_offers_to_make_them_are_shown(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.open.clear()
    at = AppTest.from_file(APP, default_timeout=60)
    run(at)
    press(at, "Score all heads")
    assert [button.label for button in at.main.button] == ["Cancel"]
    offer = scoring.offer

    def late(*args: Any) -> None:
        studio.open.set()
        studio.finish()
        offer(*args)

    monkeypatch.setattr(scoring, "offer", late)
    run(at)
    assert "Score all heads" not in [button.label for button in at.button]
    assert at.metric
