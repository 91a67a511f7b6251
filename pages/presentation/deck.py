"""The bar above the steps: which there are, where one is, the speaker's notes, and the hand-out.

Its script hears the arrow keys, and those of a presenter's remote control, wherever nothing else is meant by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
KEY = "presentation bar"
STEP = "presentation step"  # in the session: the step that is shown, from 1
NAME = "step"  # in the address
STEPS = ("A head", "Bias", "The cut", "The cost", "How sure")

_component = st.components.v2.component(
    "fasp presentation",
    js=(HERE / "deck.js").read_text(encoding="utf-8"),
    css=(HERE / "deck.css").read_text(encoding="utf-8"),
)


def arrive() -> list[str]:
    """Begin at the step that a link names; what of it cannot be used, as `name=value`. From then on it follows."""
    told, left_out = st.query_params.get(NAME), []
    if STEP not in st.session_state:
        fits = told in {str(i) for i in range(1, len(STEPS) + 1)}
        st.session_state[STEP] = int(told) if fits and told is not None else 1
        if told is not None and not fits:
            left_out = [f"{NAME}={' '.join(told[:40].split())}"]
    if told != str(step()):
        st.query_params[NAME] = str(step())
    return left_out


def step() -> int:
    """The step that is shown, from 1."""
    return int(st.session_state[STEP])


def draw(notes: Sequence[str]) -> None:
    """The bar; `notes` are the speaker's on this step, a paragraph each."""
    _component(
        key=KEY,
        data={"step": step(), "steps": list(STEPS), "notes": list(notes)},
        default={"step": 0},  # always the same: another one would be another part of the page
        on_step_change=_moved,
    )


def _moved() -> None:
    told = (st.session_state.get(KEY) or {}).get("step")
    if type(told) is int and 1 <= told <= len(STEPS):  # a browser may send anything
        st.session_state[STEP] = told
        st.query_params[NAME] = str(told)
