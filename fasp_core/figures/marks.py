"""The marks that say what state a head is in, and the invisible points that take hover and clicks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from fasp_core.errors import InputError
from fasp_core.figures.theme import CLEAR, Theme, hovering

CLICK_TRACE = "heads"
CLICK_CURVE = 0  # place of that trace in every figure that has it: Plotly's curve_number

Places = NDArray[Any]  # [N] coordinates in flat order


def checked_ids(name: str, ids: Collection[int], n: int) -> set[int]:
    """Flat ids as a set.

    Raises
    ------
    InputError
        One lies outside 0 .. n - 1.
    """
    outside = [i for i in ids if not 0 <= i < n]
    if outside:
        raise InputError(f"{name} names head {outside[0]}: flat ids of this model run from 0 to {n - 1}.")
    return {int(i) for i in ids}


@dataclass(frozen=True)
class Marks:
    """Flat ids of the heads that are marked.

    Attributes
    ----------
    pruned, critical : crossed out and outlined.
    by_hand : whose state was set by hand, against the method's choice: a disc, with a cross if they are in `pruned`,
        empty if they are kept.
    picked : that are looked at: a ring around them.
    """

    pruned: Collection[int] = frozenset()
    by_hand: Collection[int] = frozenset()
    critical: Collection[int] = frozenset()
    picked: Collection[int] = frozenset()

    def of(self, n: int) -> tuple[set[int], set[int], set[int], set[int]]:
        """All four of a model of n heads."""
        pruned, by_hand, critical, picked = (checked_ids(f.name, getattr(self, f.name), n) for f in fields(self))
        return pruned, by_hand, critical, picked


def points(x: Places, y: Places, ids: Iterable[int], name: str, **marker: Any) -> go.Scatter:
    """Marks on some heads. Without heads, the entry in the legend stays."""
    chosen = sorted(ids)
    return go.Scatter(
        x=x[chosen].tolist() or [None],
        y=y[chosen].tolist() or [None],
        name=name,
        showlegend=True,
        mode="markers",
        marker=marker,
        hoverinfo="skip",
        **_unmoved_by_selection(marker.get("opacity", 1)),
    )


def legend_entry(name: str, **marker: Any) -> go.Scatter:
    """A line of the legend for something that is not drawn as points."""
    return points(np.empty(0), np.empty(0), (), name, **marker)


def click_trace(x: Places, y: Places, hover: Sequence[str], size: float) -> go.Scatter:
    """Invisible points of all heads in flat order, `size` px wide; the first trace of a figure.

    Plotly gives a spot to the nearest point; among points that overlap there, to any. So `size` has to be smaller
    than the distance between neighbors.
    """
    return go.Scatter(
        x=x.tolist(),
        y=y.tolist(),
        name=CLICK_TRACE,
        showlegend=False,
        mode="markers",
        marker={"symbol": "square", "size": size, "color": CLEAR, "line": {"width": 0}},
        **hovering(hover),
        **_unmoved_by_selection(1),
    )


def cells(values: Places, colors: Sequence[str], gap: int, **more: Any) -> go.Heatmap:
    """Cells that take neither hover nor clicks, `gap` px apart, in a scale of evenly spaced colors."""
    scale = [[i / (len(colors) - 1), color] for i, color in enumerate(colors)]
    return go.Heatmap(z=values, colorscale=scale, xgap=gap, ygap=gap, hoverinfo="skip", **more)


def outlines(x: Places, y: Places, reach: tuple[float, float], name: str, color: str, width: float) -> go.Scatter:
    """Squares around places: exact at any size of the chart, and out of the reach of selections."""
    return path(
        x[:, None] + reach[0] * np.array([-1, 1, 1, -1, -1, np.nan]),
        y[:, None] + reach[1] * np.array([-1, -1, 1, 1, -1, np.nan]),
        name,
        color,
        width,
    )


def path(x: Places, y: Places, name: str, color: str, width: float) -> go.Scatter:
    """One line through all places, broken at NaN."""
    line = {"color": color, "width": width}
    return go.Scatter(x=x.ravel(), y=y.ravel(), name=name, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def ring(theme: Theme, size: float) -> dict[str, Any]:
    """Around what is looked at; an open symbol wears its own color, not its line's."""
    return {"symbol": "circle-open", "size": size, "color": theme.series[2], "line": {"width": 2.5}}


def state_marks(
    theme: Theme, x: Places, y: Places, pruned: set[int], by_hand: set[int], size: float, ink: str
) -> list[go.Scatter]:
    """A cross on what the method prunes; discs, crossed or empty, on what a hand pruned or kept against it."""
    disc: dict[str, Any] = {"size": size + 3, "color": theme.halo, "line": {"color": ink, "width": 1.6}}
    cross: dict[str, Any] = {"size": size, "color": ink, "line": {"color": theme.halo, "width": 1.2}}
    return [
        points(x, y, pruned - by_hand, "pruned", symbol="x", **cross),
        points(x, y, pruned & by_hand, "pruned by hand", symbol="circle-x", **disc),
        points(x, y, by_hand - pruned, "kept by hand", symbol="circle", **disc),
    ]


def picked_marks(theme: Theme, x: Places, y: Places, picked: set[int], size: float) -> list[go.Scatter]:
    """Rings around heads that are looked at; nothing, and nothing in the legend, where there are none."""
    return [points(x, y, picked, "picked", **ring(theme, size))] if picked else []


def _unmoved_by_selection(opacity: float) -> dict[str, Any]:
    """Plotly fades what is not selected; here the page answers a click, not the chart."""
    return {state: {"marker": {"opacity": opacity}} for state in ("selected", "unselected")}
