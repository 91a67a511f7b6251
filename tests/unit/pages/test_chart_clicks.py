"""What charts of Streamlit tell counts once, and each act is a step."""

from __future__ import annotations

from typing import Any

import pytest
import streamlit as st

from fasp_core.model.identity import ModelId
from fasp_core.scoring.manual_edits import ManualEdits
from pages.backend.models import Facts
from pages.session import shared
from pages.widgets import clicks


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
