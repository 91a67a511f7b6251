"""A timer's request says what widgets are, not what was pressed."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime.app_session import AppSession

from pages.shell import once


def asked(by_timer: bool) -> ClientState:
    """A slider, a pressed button, a component's value and its event."""
    found = ClientState(fragment_id="row", is_auto_rerun=by_timer, query_string="gamma=0.5")
    for name, value in {
        "double_value": 0.5,
        "trigger_value": True,
        "json_value": '{"acts": []}',
        "json_trigger_value": "[1]",
    }.items():
        found.widget_states.widgets.add(id=name, **{name: value})
    return found


@pytest.mark.parametrize(
    ("by_timer", "named"),
    [
        (False, ["double_value", "trigger_value", "json_value", "json_trigger_value"]),
        (True, ["double_value", "json_value"]),
    ],
)
def test_presses_are_left_out_of_what_timers_ask(
    by_timer: bool, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(AppSession, "request_rerun", lambda self, state: heard.append(state))
    once.install()
    once.install()  # at every run of the app
    sent = asked(by_timer)
    AppSession.request_rerun(object(), sent)  # type: ignore[arg-type]
    AppSession.request_rerun(object(), None)  # type: ignore[arg-type]
    state, none = heard
    assert [one.id for one in state.widget_states.widgets] == named
    assert (state.fragment_id, state.query_string, none) == ("row", "gamma=0.5", None)
    assert len(sent.widget_states.widgets) == 4, "the message itself stays as it came"
