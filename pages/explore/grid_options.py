"""How the grids show impacts: scale, unit, doubt and order. What a head is worth is the same in all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from fasp_core.scoring.impact_table import ImpactTable
from pages.widgets import glossary

SCALES = {"linear": "linear", "symlog": "logarithmic away from 0"}
UNITS = {"difference": "difference", "share": "% of the unpruned value", "errors": "standard errors"}
DOUBTS = {"veil": "faint where the sign is within noise", "fade": "paler the less certain", "none": "not shown"}


@dataclass(frozen=True)
class GridOptions:
    """What the popover says."""

    scale: str = "linear"
    unit: str = "difference"
    doubt: str = "veil"
    ranked: bool = False  # heads of a layer by their impact on bias, not by number


def draw() -> None:
    """The controls; they are read before they are drawn."""
    for name, label, options in (
        ("scale", "Color scale", SCALES),
        ("unit", "Colors show", UNITS),
        ("doubt", "Standard errors", DOUBTS),
    ):
        st.radio(label, tuple(options), format_func=options.__getitem__, key=f"grid {name}", persist_state="session")
    st.toggle(
        "Sort each layer by impact on bias",
        key="grid ranked",
        persist_state="session",
        help="The head that adds most bias stands first. Point at a cell for the head's own number.",
    )
    st.toggle(
        "Show the impact on last words", key="grid last words", persist_state="session", help=glossary.text("z_task")
    )


def third() -> bool:
    """Whether a third map, of the impact on last words, is asked for."""
    return bool(st.session_state.get("grid last words"))


def read() -> GridOptions:
    """What is chosen."""
    state, plain = st.session_state, GridOptions()
    return GridOptions(
        str(state.get("grid scale") or plain.scale),
        str(state.get("grid unit") or plain.unit),
        str(state.get("grid doubt") or plain.doubt),
        bool(state.get("grid ranked")),
    )


def order(options: GridOptions, table: ImpactTable, reading: str) -> np.ndarray | None:
    """[N] flat ids, each layer from the head that adds most bias on; None: as they are numbered."""
    if not options.ranked:
        return None
    bias = table.bias.z_bias(reading).reshape(table.n_layers, table.n_heads)
    return np.asarray(
        np.argsort(-bias, axis=1, kind="stable") + np.arange(table.n_layers)[:, None] * table.n_heads
    ).ravel()


def shown(
    options: GridOptions, values: np.ndarray, se: np.ndarray, base: float, plain: tuple[str, float]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Impacts and standard errors [N] in the chosen unit, and its name.

    Parameters
    ----------
    base : value of the unpruned model.
    plain : name of the unit of differences, and what they are multiplied by.
    """
    if options.unit == "share":
        return 100 * values / base, 100 * se / base, "% of unpruned"
    if options.unit == "errors":
        with np.errstate(divide="ignore", invalid="ignore"):
            return values / se, np.where(np.isfinite(se) & (se > 0), 1.0, np.nan), "in s.e."
    name, factor = plain
    return factor * values, factor * se, name
