"""A button that is pressed counts once.

Streamlit's client keeps a pressed button among the values of widgets until a timer of 0 ms sends it (`scheduleFlush`
and `sendUpdateWidgetsMessage` in its WidgetStateManager, 1.67). A fragment with `run_every` that asks for news in
between sends all values, the button too, and its callback would be called twice: one Ctrl+Z would go two steps back.
"""

from __future__ import annotations

from functools import wraps

from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime.app_session import AppSession

PRESSED = {"trigger_value", "string_trigger_value", "json_trigger_value", "chat_input_value"}


def without_presses(asked: ClientState) -> ClientState:
    """What a timer asks for, without what a hand has done: that comes with a message of its own."""
    found = ClientState()
    found.CopyFrom(asked)
    kept = [one for one in asked.widget_states.widgets if one.WhichOneof("value") not in PRESSED]
    del found.widget_states.widgets[:]
    found.widget_states.widgets.extend(kept)
    return found


def install() -> None:
    """Let sessions of this process leave presses out of what timers ask for; once is enough."""
    request = AppSession.request_rerun
    if hasattr(request, "__wrapped__"):
        return

    @wraps(request)
    def asked(self: AppSession, client_state: ClientState | None) -> None:
        if client_state is not None and client_state.is_auto_rerun:
            client_state = without_presses(client_state)
        request(self, client_state)

    AppSession.request_rerun = asked  # type: ignore[method-assign]
