"""What charts and buttons tell, each thing once, however late it comes.

A chart that is drawn again is another one to Streamlit. Two things follow. A reader who is quicker than the drawing
clicks the old chart, and that click counts. And the browser sends the last event of a chart again when the chart is
gone, and that one does not. So every drawing needs a key of its own, and what it tells is compared with what it told
before.

A button tells of its click in one run of the page alone. Another click, or a step of the page that draws it again, may
end that run before it has come to the button. So the click is kept until a run has come there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import plotly.graph_objects as go
import streamlit as st

from fasp_core.figures import clicked_heads
from pages.widgets.drawing import chart

_TOLD = "told by charts"
_KEPT = 50  # drawings
_PRESSED = "buttons pressed"
T = TypeVar("T", bound=Hashable)


def new(key: str, told: Iterable[T]) -> frozenset[T]:
    """What the chart with this key tells now and did not tell in its last event."""
    earlier: dict[str, frozenset[T]] = st.session_state.setdefault(_TOLD, {})
    now = frozenset(told)
    before = earlier.pop(key, frozenset())
    earlier[key] = now  # the latest stands last
    for old in list(earlier)[:-_KEPT]:
        del earlier[old]
    return now - before


def on_chart(
    fig: go.Figure,
    key: str,
    alt: str,
    shape: tuple[int, int],
    act: Callable[[frozenset[tuple[int, int]]], None],
    modes: Iterable[str] = ("points",),
) -> None:
    """A chart whose first trace takes clicks; `act` is told which places (row, column) of a grid were meant."""
    drawn: int = st.session_state.setdefault(f"{key} drawn", 0)
    own = f"{key} {drawn}"  # a selection outlives the click that made it: a new key after each drops it

    def tell() -> None:
        event = st.session_state.get(own)
        if found := new(own, clicked_heads(event, shape[1], shape[0]) if event else ()):
            st.session_state[f"{key} drawn"] += 1
            act(found)

    chart(fig, own, alt, on_select=tell, selection_mode=tuple(modes))


def button(label: str, key: str, **more: Any) -> bool:
    """Draw a button; whether it was clicked since it was last asked, in this run or in one that was cut short.

    The key has to name what the click is about: the browser may send it when another page has been drawn already.
    """
    st.button(label, key=key, on_click=_press, args=(key,), **more)
    pressed: set[str] = st.session_state.get(_PRESSED, set())
    told = key in pressed
    pressed.discard(key)
    return told


def _press(key: str) -> None:
    st.session_state.setdefault(_PRESSED, set()).add(key)


def drop() -> None:
    """Forget clicks on buttons that a whole run of the page has not drawn: they are gone, and with them the wish."""
    st.session_state.pop(_PRESSED, None)
