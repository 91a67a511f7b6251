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

Act = Callable[[Mapping[str, Any], bool], None]  # on the event of one clicked point; was Shift held?
_KEY = "pointer"
_DONE = "clicks done"  # number of the last click that was acted on
_MOST = 100  # clicks at once; a browser may send anything
_component = st.components.v2.component("fasp pointer", js=Path(__file__).with_name("pointer.js").read_text())


def ready(fig: go.Figure, of: str) -> go.Figure:
    """The same chart, changed so that the script knows it and single clicks are the script's alone.

    `of` says what the points of the first trace are. Among charts of the same, the point under the pointer is ringed.
    """
    fig.layout.meta = of
    fig.layout.dragmode = "pan"  # boxes and lassos are a button away
    return fig


def listen(acts: Mapping[str, Act]) -> None:
    """Put the script on the page, once, where what is drawn again after a click is drawn; it shows nothing itself.

    Parameters
    ----------
    acts : what to do about a click, by what the chart is of; clicks on charts of something else are dropped. The event
        is as Streamlit's charts tell one: `{"selection": {"points": [{"curve_number": .., "point_index": ..}]}}`.
    """
    data = {"of": list(acts), "done": st.session_state.get(_DONE, 0)}
    _component(key=_KEY, data=data, default={"clicks": []}, on_clicks_change=lambda: _tell(acts))


def _tell(acts: Mapping[str, Act]) -> None:
    state = st.session_state.get(_KEY)
    for click in fresh(state.get("clicks") if state else None, st.session_state.get(_DONE, 0)):
        st.session_state[_DONE] = click["n"]
        of = click.get("of")
        if isinstance(of, str) and of in acts:
            acts[of]({"selection": {"points": [click]}}, click.get("shift") is True)


def fresh(clicks: Any, done: int) -> list[dict[str, Any]]:
    """Clicks with a number above `done`, in the order of their numbers; what is malformed is passed over."""
    if not isinstance(clicks, list):
        return []
    known = (c for c in clicks[-_MOST:] if isinstance(c, dict) and type(c.get("n")) is int and c["n"] > done)
    return sorted({c["n"]: c for c in known}.values(), key=lambda c: int(c["n"]))
