"""What Streamlit's charts do not tell: every click, however quick, with Shift or not; the head pointed at elsewhere.

A chart of Streamlit tells its latest selection. Of two clicks before the page has answered the first, one is lost, and
Plotly takes two within .3 s for a double click. The script beside the charts keeps every click until the page says that
it has acted on it, and marks what was clicked meanwhile. It also keeps the grids where they are under the hand, and
Ctrl+Z and Ctrl+Y to the text while somebody types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import streamlit as st

Act = Callable[[Mapping[str, Any], bool], None]
_KEY = "pointer"
_DONE = "clicks done"  # number of the last click that was acted on
_MOST = 100  # clicks at once; a browser may send anything
_component = st.components.v2.component("fasp pointer", js=Path(__file__).with_name("pointer.js").read_text())


def ready(fig: go.Figure) -> go.Figure:
    """The same chart of heads, changed so that the script knows it and single clicks are the script's alone."""
    fig.layout.meta = "heads"
    fig.layout.dragmode = "pan"  # boxes and lassos are a button away
    return fig


def listen(of: str, act: Act) -> None:
    """Put the script on the page; it draws nothing where it stands.

    Parameters
    ----------
    of : what the charts show; clicks on charts of something else are dropped.
    act : called for every click with `{"curve_number": .., "point_index": ..}` and whether Shift was held.
    """
    data = {"of": of, "done": st.session_state.get(_DONE, 0)}
    _component(key=_KEY, data=data, default={"clicks": []}, on_clicks_change=lambda: _tell(of, act))


def _tell(of: str, act: Act) -> None:
    state = st.session_state.get(_KEY)
    for click in fresh(state.get("clicks") if state else None, st.session_state.get(_DONE, 0)):
        st.session_state[_DONE] = click["n"]
        if click.get("of") == of:
            act(click, click.get("shift") is True)


def fresh(clicks: Any, done: int) -> list[dict[str, Any]]:
    """Clicks with a number above `done`, in the order of their numbers; what is malformed is passed over."""
    if not isinstance(clicks, list):
        return []
    known = (c for c in clicks[-_MOST:] if isinstance(c, dict) and type(c.get("n")) is int and c["n"] > done)
    return sorted({c["n"]: c for c in known}.values(), key=lambda c: int(c["n"]))
