"""The instrument on a page: maps of all heads, sliders and estimates that follow the hand without the server.

The script is one module, joined here from files that each have a subject; it needs no build and loads nothing. It is
put on the page twice: once with what a set does not change, so that Streamlit sends it once, and once to be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from pages.instrument.sent import Act, Shown, Step, acts

HERE = Path(__file__).parent
SCRIPTS = ("rule.js", "board.js", "parts.js", "view.js", "hand.js")  # in this order
KEY = "instrument"
# Streamlit fades what the script has not drawn yet: this is ahead of the page, and is read while the page is made.
UNFADED = ".st-key-instrument[data-stale] { opacity: 1; transition: none; }"
DONE = "acts done"  # number of the last act that the page has acted on
DRAWN = "instrument drawn"  # whether a browser has told so in this session


def script() -> str:
    """The whole module."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)


_component = st.components.v2.component(
    "fasp instrument", js=script(), css=(HERE / "instrument.css").read_text(encoding="utf-8")
)


def draw(shown: Shown, effects: bytes, act: Callable[[Act | Step], None]) -> None:
    """Put it on the page; `act` is called in a callback, for each act once and in order."""
    size = shown.layers * shown.heads
    _component(
        key=KEY,
        data=[{**shown.sent(), "first": not drawn()}],  # no mapping, in which Streamlit would look for tables
        default={"acts": [], "drawn": 0},
        on_acts_change=lambda: _tell(size, act),
        on_drawn_change=lambda: st.session_state.update({DRAWN: True}),
    )
    _component(key=f"{KEY} effects", data=effects)


def drawn() -> bool:
    """Whether this reader has seen the maps: what else a page has may wait until then, and would only delay them.

    The script says so once it has drawn them for the first time.
    """
    return DRAWN in st.session_state


def done() -> int:
    """Number of the last act that was acted on."""
    return int(st.session_state.get(DONE, 0))


def _tell(size: int, act: Callable[[Act | Step], None]) -> None:
    state = st.session_state.get(KEY)
    for one in acts(state.get("acts") if state else None, done(), size):
        st.session_state[DONE] = one.n
        act(one)
