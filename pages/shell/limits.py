"""What a choice may cost beside perplexity, as the joint search and the comparison of methods both ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from fasp_core.studies.compare.limits import PANEL, Limits
from pages.widgets import tasks


def of_session(max_ppl: float) -> Limits:
    """The limits that were last asked for, on whatever page, that on perplexity being given."""
    lambada, panel = (st.session_state.get(name) or None for name in ("lambada_points", "task_points"))
    return Limits(max_ppl, lambada_points=lambada, task_points=panel)


def draw(max_ppl: float, places: Sequence[Any] = (st, st)) -> Limits:
    """All limits of a choice, that on perplexity being given; 0 points are no limit.

    Parameters
    ----------
    places : where either number stands.
    """
    panel = ", ".join(map(tasks.title, PANEL))
    lambada = _points(
        places[0],
        "LAMBADA: points lost at most",
        "lambada_points",
        "Right answers that may be lost on LAMBADA's last words, in points of a percentage, on the half of its "
        "passages that choices are made on. Mean perplexity hides what heads that carry words over a distance are for. "
        "0 is no limit.",
    )
    mean = _points(
        places[1],
        "Tasks: points lost at most",
        "task_points",
        f"Right answers that may be lost in the mean of {panel}. 0 is no limit.",
    )
    return Limits(max_ppl, lambada_points=lambada, task_points=mean)


def _points(place: Any, title: str, key: str, about: str) -> float | None:
    found = place.number_input(title, 0.0, 100.0, step=0.5, format="%g", key=key, persist_state="session", help=about)
    return float(found) or None
