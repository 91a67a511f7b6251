"""Estimates of several kinds side by side with their intervals, and what a model answered, by group: samples of it as
boxes, or whole distributions as strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures.marks import click_trace
from fasp_core.figures.theme import (
    BASE,
    CLEAR,
    PRUNED,
    Words,
    axis,
    check_texts,
    error_bars,
    escape,
    figure,
    hovering,
    row_axis,
    vector,
)
from fasp_core.typing import Floats

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", "x", "cross")
SPREAD = 0.62  # of the place of a row that its marks take
STEPS = np.array([0.0, 1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 1e5, 1e6, 1e7])  # where a scale of numbers is marked
BINS = 60  # of a strip
HEIGHT = 0.42  # of a strip, in rows


@dataclass(frozen=True, eq=False)
class Series:
    """One kind of estimate: a value for each row, with its interval; nan leaves it out.

    Attributes
    ----------
    value, low, high, hover : [n].
    color : of the series; "" takes the next of the theme. faint : a comparison, drawn in gray and hollow.
    """

    name: str
    value: ArrayLike
    low: ArrayLike
    high: ArrayLike
    hover: Sequence[str]
    color: str = ""
    faint: bool = False


def dots(rows: Sequence[str], series: Sequence[Series], words: Words) -> go.Figure:
    """Rows from top to bottom, in each a dot with its interval for every series; a line at 0."""
    theme, n = words.theme, len(rows)
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
                error_x=error_bars(value, low, high, color=color, thickness=1.3, width=2),
                **hovering(one.hover, "hovertext"),
            )
        )
    zero = {"zeroline": True, "zerolinecolor": theme.text, "zerolinewidth": 1.2}
    height = max(220, 128 + (20 + 14 * min(len(series), 2) + 8 * max(len(series) - 2, 0)) * n)
    across = axis(theme, words.unit, showgrid=True, fixedrange=True, **zero)
    return figure(traces, words, height, 92, xaxis=across, yaxis=row_axis(theme, rows), title_at="container")


def answers_by_group(
    before: ArrayLike, after: ArrayLike, codes: ArrayLike, groups: tuple[str, str], words: Words
) -> go.Figure:
    """Boxes of the numbers that both models answered about each group, on a scale of log(1 + number).

    Parameters
    ----------
    before, after : [names, samples]; nan where there is no number.
    codes : [names] group of each, 0 or 1.
    """
    theme = words.theme
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
                x=np.log10(1 + np.maximum(np.concatenate(kept), 0)).tolist(),
                y=[escape(groups[g]) for g in (0, 1) for _ in kept[g]],
                orientation="h",
                name=name,
                marker={"color": color, "size": 4, "opacity": 0.5},
                line={"color": color, "width": 1.6},
                fillcolor=CLEAR,
                boxpoints="all",
                jitter=0.5,
                pointpos=0,
                text=[f"{x:g}" for x in np.concatenate(kept)],
                hovertemplate=f"{name}: %{{text}}<extra></extra>",
                hoveron="points",
            )
        )
    ends = _ticks(*found)
    labels = {"tickvals": np.log10(1 + ends).tolist(), "ticktext": [f"{x:,.0f}" for x in ends]}
    return figure(
        traces,
        words,
        330,
        92,
        boxmode="group",
        xaxis=axis(theme, words.unit, showgrid=True, fixedrange=True, **labels),
        yaxis=axis(theme, "", fixedrange=True, autorange="reversed", ticklabelstandoff=6),
        title_at="container",
    )


def _ticks(*values: Floats) -> Floats:
    seen = np.concatenate([v[np.isfinite(v)] for v in values])
    top = float(seen.max()) if seen.size else 1.0
    return np.asarray(STEPS[: max(2, int((top > STEPS).sum()) + 1)])


@dataclass(frozen=True, eq=False)
class Strip:
    """Numbers and probabilities of two groups in one scenario, and what is said of it under the pointer."""

    label: str
    values: tuple[ArrayLike, ArrayLike]
    masses: tuple[ArrayLike, ArrayLike]
    hover: str


def strips(rows: Sequence[Strip], groups: tuple[str, str], words: Words) -> go.Figure:
    """The first group's distribution above each line, the second's below it, to one scale within a scenario.

    A click on the middle of a strip is a click on its row.

    Raises
    ------
    InputError
        Numbers and probabilities that do not fit, or no row.
    """
    if not rows:
        raise InputError("Strips need a scenario.")
    placed = [[_placed(x, m) for x, m in zip(row.values, row.masses, strict=True)] for row in rows]
    top = max((float(x.max()) for pair in placed for x, _ in pair if x.size), default=1.0)
    edges = np.linspace(0.0, max(top, 0.1) * 1.0001, BINS + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    traces = []
    for i, pair in enumerate(placed):
        found = [np.histogram(x, edges, weights=m)[0] for x, m in pair]
        most = max(float(f.max()) for f in found) or 1.0
        for g, (share, color) in enumerate(zip(found, (BASE, PRUNED), strict=True)):
            sign = -1.0 if g == 0 else 1.0  # the axis runs downwards
            traces.append(
                go.Scatter(
                    x=[*centers.tolist(), *centers[::-1].tolist()],
                    y=[*(i + sign * HEIGHT * share / most).tolist(), *[float(i)] * BINS],
                    fill="toself",
                    mode="lines",
                    line={"color": color, "width": 1},
                    fillcolor=color,
                    opacity=0.75,
                    name=escape(groups[g]),
                    legendgroup=str(g),
                    showlegend=i == 0,
                    hoverinfo="skip",
                )
            )
    place = np.arange(len(rows), dtype=np.float64)
    told = click_trace(np.full(len(rows), float(edges[-1]) / 2), place, [row.hover for row in rows], size=30)
    ends = STEPS[np.log10(1 + STEPS) <= edges[-1]]
    ticks = {"tickvals": np.log10(1 + ends).tolist(), "ticktext": [f"{x:,.0f}" for x in ends]}
    names = {"tickvals": list(range(len(rows))), "ticktext": [escape(row.label) for row in rows]}
    return figure(
        [told, *traces],
        words,
        max(220, 128 + 34 * len(rows)),  # as `dots` of one series, which may stand beside
        92,
        xaxis=axis(words.theme, words.unit, showgrid=True, fixedrange=True, **ticks),
        yaxis=axis(words.theme, "", fixedrange=True, range=[len(rows) - 0.4, -0.6], ticklabelstandoff=6, **names),
        title_at="container",
    )


def _placed(values: ArrayLike, masses: ArrayLike) -> tuple[Floats, Floats]:
    x, m = np.asarray(values, dtype=np.float64), np.asarray(masses, dtype=np.float64)
    if x.shape != m.shape or x.ndim != 1 or not np.isfinite(x).all():
        raise InputError("Strips need one probability for each number.")
    return np.log10(1 + np.maximum(x, 0)), m
