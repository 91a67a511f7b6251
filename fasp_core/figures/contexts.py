"""Estimates of several kinds side by side with their intervals, and numbers that a model answered, by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures.theme import (
    BASE,
    PRUNED,
    Floats,
    axis,
    check_texts,
    escape,
    hover_text,
    layout,
    theme_of,
    vector,
)

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", "x", "cross")
SPREAD = 0.62  # of the place of a row that its marks take


@dataclass(frozen=True, eq=False)
class Series:
    """One kind of estimate: a value for each row, with its interval; nan leaves it out.

    Attributes
    ----------
    value, low, high : [n].
    hover : [n] texts, the first line in bold.
    color : of the series; "" takes the next of the theme. faint : a comparison, drawn in gray and hollow.
    """

    name: str
    value: ArrayLike
    low: ArrayLike
    high: ArrayLike
    hover: Sequence[str]
    color: str = ""
    faint: bool = False


def dots(
    rows: Sequence[str], series: Sequence[Series], *, title: str, note: str, unit: str, dark: bool = False
) -> go.Figure:
    """Rows from top to bottom, in each a dot with its interval for every series; a line at 0.

    Raises
    ------
    InputError
        No rows, no series, or arrays that do not fit the rows.
    """
    theme, n = theme_of(dark), len(rows)
    if not n or not series:
        raise InputError("A chart of estimates needs at least one row and one series.")
    colors = iter([c for c in theme.series if c != BASE] * (1 + len(series) // 4))
    traces = []
    for i, one in enumerate(series):
        value, low, high = (vector(f"{one.name}, {k}", getattr(one, k), n) for k in ("value", "low", "high"))
        check_texts(f"hover of {one.name}", one.hover, n)
        color = one.color or (theme.faint if one.faint else next(colors))
        place = np.arange(n) + (SPREAD * (i / (len(series) - 1) - 0.5) if len(series) > 1 else 0.0)
        symbol = SYMBOLS[i % len(SYMBOLS)]
        traces.append(
            go.Scatter(
                x=value.tolist(),
                y=place.tolist(),
                mode="markers",
                name=one.name,
                marker={
                    "symbol": f"{symbol}-open" if one.faint else symbol,
                    "size": 9,
                    "color": color,
                    "line": {"width": 1.4 if one.faint else 0, "color": color},
                },
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": _reach(high - value),
                    "arrayminus": _reach(value - low),
                    "color": color,
                    "thickness": 1.3,
                    "width": 2,
                },
                hovertext=[hover_text(text) for text in one.hover],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    fig = go.Figure(traces)
    fig.layout = layout(
        theme,
        title,
        note,
        max(220, 128 + (20 + 14 * len(series)) * n),
        92,
        xaxis=axis(
            theme, unit, showgrid=True, zeroline=True, zerolinecolor=theme.text, zerolinewidth=1.2, fixedrange=True
        ),
        yaxis=axis(
            theme,
            "",
            range=[n - 0.5, -0.5],
            tickvals=list(range(n)),
            ticktext=[escape(row) for row in rows],
            ticklabelstandoff=6,
            fixedrange=True,
        ),
    )
    fig.layout.title.xref = "container"  # row labels may be long
    return fig


def answers_by_group(
    before: ArrayLike,
    after: ArrayLike,
    codes: ArrayLike,
    groups: tuple[str, str],
    *,
    title: str,
    note: str,
    unit: str,
    dark: bool = False,
) -> go.Figure:
    """Boxes of the numbers that both models answered about each group, on a scale of log(1 + number).

    Parameters
    ----------
    before, after : [names, samples]; nan where there is no number.
    codes : [names] group of each, 0 or 1.

    Raises
    ------
    InputError
        Arrays that do not fit each other.
    """
    theme = theme_of(dark)
    found = [np.asarray(x, dtype=np.float64) for x in (before, after)]
    member = np.asarray(codes)
    if found[0].ndim != 2 or found[0].shape[0] != len(member) or found[1].shape[0] != len(member):
        raise InputError("Answers need one row for each name, and each name a group.")
    traces = []
    for name, color, values in (("whole model", BASE, found[0]), ("pruned", PRUNED, found[1])):
        numbers = [values[member == g].ravel() for g in (0, 1)]
        kept = [x[np.isfinite(x)] for x in numbers]
        traces.append(
            go.Box(
                x=np.concatenate([np.log10(1 + np.maximum(x, 0)) for x in kept]).tolist(),
                y=[escape(groups[g]) for g in (0, 1) for _ in kept[g]],
                orientation="h",
                name=name,
                marker={"color": color, "size": 4, "opacity": 0.5},
                line={"color": color, "width": 1.6},
                fillcolor="rgba(0,0,0,0)",
                boxpoints="all",
                jitter=0.5,
                pointpos=0,
                text=[f"{x:g}" for x in np.concatenate(kept)],
                hovertemplate=f"{name}: %{{text}}<extra></extra>",
                hoveron="points",
            )
        )
    ends = _ticks(*found)
    fig = go.Figure(traces)
    fig.layout = layout(
        theme,
        title,
        note,
        330,
        92,
        boxmode="group",
        xaxis=axis(
            theme,
            unit,
            showgrid=True,
            fixedrange=True,
            tickvals=np.log10(1 + ends).tolist(),
            ticktext=[f"{x:,.0f}" for x in ends],
        ),
        yaxis=axis(theme, "", fixedrange=True, autorange="reversed", ticklabelstandoff=6),
    )
    fig.layout.title.xref = "container"
    return fig


def _reach(width: Floats) -> list[float]:
    """Lengths of error bars; none where there is no interval."""
    return [float(x) for x in np.nan_to_num(np.maximum(width, 0.0))]


def _ticks(*values: Floats) -> Floats:
    seen = np.concatenate([v[np.isfinite(v)] for v in values])
    top = float(seen.max()) if seen.size else 1.0
    steps = np.array([0.0, 1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 1e5, 1e6, 1e7])
    return steps[: max(2, int((steps < top).sum()) + 1)]
