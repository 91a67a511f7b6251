"""What Streamlit's charts do not tell: whether Shift was held at a click, and which head is pointed at in other charts.

The script also keeps Ctrl+Z and Ctrl+Y to the text while somebody types.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

_KEY = "pointer"
_component = st.components.v2.component("fasp pointer", js=Path(__file__).with_name("pointer.js").read_text())


def listen() -> None:
    """Put the script on the page; it draws nothing where it stands."""
    _component(key=_KEY, data={"shift": shift()}, default={"shift": False}, on_shift_change=lambda: None)


def shift() -> bool:
    """Whether Shift was held when a chart was clicked last."""
    state = st.session_state.get(_KEY)
    return bool(state and state.get("shift"))
