"""Clicks that the script on the page tells, and what charts of Streamlit tell: each counts once."""

from __future__ import annotations

from typing import Any

import pytest
import streamlit as st
from hypothesis import given
from hypothesis import strategies as some

from fasp_core.model.identity import ModelId
from fasp_core.scoring.manual_edits import ManualEdits
from pages.backend.models import Facts
from pages.session import shared
from pages.widgets import clicks, pointer

junk = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.sampled_from(["n", "of", "shift", "x"]), inner),
)


@given(some.lists(some.integers(1, 60), max_size=40), some.integers(0, 60))
def test_every_click_above_the_last_counts_once_in_order(numbers: list[int], done: int) -> None:
    told = [{"n": n, "of": "m"} for n in numbers]
    assert [c["n"] for c in pointer.fresh(told, done)] == sorted({n for n in numbers if n > done})


@given(junk)
def test_anything_else_from_a_browser_is_passed_over(told: Any) -> None:
    for click in pointer.fresh(told, 0):
        assert type(click["n"]) is int


def test_a_queue_that_is_sent_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser sends all clicks that it does not know to be done; those on another model's charts are dropped."""
    state: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", state)
    acted: list[tuple[str, list[int], bool]] = []

    def act(of: str) -> pointer.Act:
        return lambda event, shift: acted.append((of, [c["n"] for c in event["selection"]["points"]], shift))

    def send(*told: dict[str, Any]) -> None:
        state["pointer"] = {"clicks": list(told)}
        pointer._tell({"m": act("m"), "sets": act("sets")})

    first, second = {"n": 5, "of": "m"}, {"n": 6, "of": "m", "shift": True}
    send(first)
    send(first, second)
    send(second, {"n": 7, "of": "other"}, {"n": 8, "of": "sets", "shift": "yes"}, {"n": 9, "of": ["m"]}, {"n": 10})
    assert acted == [("m", [5], False), ("m", [6], True), ("sets", [8], False)]


def test_a_chart_tells_each_thing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "session_state", {})
    assert clicks.new("chart 0", [3]) == {3}
    assert clicks.new("chart 1", []) == set()
    assert clicks.new("chart 0", [3]) == set(), "sent again although the chart is gone"
    assert clicks.new("chart 0", [4]) == {4}, "clicked before the new chart was drawn"
    assert clicks.new("chart 0", [4, 5]) == {5}, "added with Shift"
    assert clicks.new("chart 1", [3]) == {3}
    for i in range(200):
        clicks.new(f"other {i}", [1])
    assert len(st.session_state[clicks._TOLD]) == clicks._KEPT


def test_of_several_acts_before_the_page_is_drawn_each_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Any] = {"model": "m"}
    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(shared, "_known", lambda told: Facts(ModelId("w"), 2, 4))
    acts = [
        ManualEdits(),
        ManualEdits().set([1], True),
        ManualEdits().set([1, 6], True),
        ManualEdits().set([1], True).set([6], False),
    ]
    for act in acts[1:]:
        shared.tell("m", act)
    for act in [*acts[-2::-1], acts[0]]:
        shared.undo()
        assert shared.by_hand("m") == act
    for act in [*acts[1:], acts[-1]]:
        shared.redo()
        assert shared.by_hand("m") == act
