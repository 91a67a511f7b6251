"""Scores of all heads against each other: what removing each costs and buys, or any two of the same heads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.figures import marks
from fasp_core.figures.marks import Marks
from fasp_core.figures.scales import beyond_note, clip_limit, finite
from fasp_core.figures.theme import BASE, PRUNED, Theme, Words, check_texts, escape, figure, vector, veil, zero_axis

UNMARKED = Marks()
GAP = "\u00a0\u00a0"  # keeps a label off its point


def scatter_impacts(
    z_ppl: ArrayLike,
    z_bias: ArrayLike,
    words: Words,
    *,
    hover: Sequence[str],
    marked: Marks = UNMARKED,
    x_line: tuple[float, str] | None = None,
    y_line: tuple[float, str] | None = None,
) -> go.Figure:
    """One point a head, z_ppl to the right and z_bias upwards; it takes clicks as the grid does.

    Heads that lack a value are not drawn, but keep their place in `CLICK_TRACE`. What lies beyond `clip_limit` of
    z_ppl stands at the edge, and a line under the title says so. An infinite z_bias stands at the largest finite
    magnitude.

    Parameters
    ----------
    z_ppl, z_bias, hover : [N] in flat order.
    x_line, y_line : a value of z_ppl or z_bias at which a line is drawn, and what is written at it. One beyond the
        scale stands at its edge.
    """
    theme, n = words.theme, len(hover)
    check_texts("hover", hover, n)
    off, hand, squared, ringed = marked.of(n)
    x, y = finite(vector("z_ppl", z_ppl, n)), finite(vector("z_bias", z_bias, n))
    x, y = np.where(np.isnan(y), np.nan, x), np.where(np.isnan(x), np.nan, y)
    limit = clip_limit(x)
    note = beyond_note("The horizontal scale ends", int((np.abs(x) > limit).sum()), limit)
    x = np.clip(x, -limit, limit)
    edge = {"color": theme.halo, "width": 0.7}  # tells points apart where they crowd
    kept = set(range(n)) - off - hand
    traces = [
        marks.click_trace(x, y, hover, size=9),
        marks.points(x, y, kept, "kept", symbol="circle", size=7, color=BASE, line=edge),
        marks.points(x, y, squared, "critical", symbol="square-open", size=12, color=theme.faint, line={"width": 1}),
        *marks.state_marks(theme, x, y, off, hand, 10, PRUNED),
        *marks.picked_marks(theme, x, y, ringed, 16),
    ]
    across, upwards = zero_axis(theme, words.x), zero_axis(theme, words.y)
    fig = figure(traces, words, 460, 84, also=note, xaxis=across, yaxis=upwards)
    line = {"color": theme.faint, "width": 1.3, "dash": "5px,3px"}
    if x_line is not None:
        at = float(np.clip(x_line[0], -limit, limit))
        fig.add_vline(at, line=line, annotation=_written(theme, x_line[1], textangle=-90, yanchor="top"))
    if y_line is not None:
        fig.add_hline(float(y_line[0]), line=line, annotation=_written(theme, y_line[1], yanchor="bottom"))
    return fig


def _written(theme: Theme, text: str, **more: Any) -> dict[str, Any]:
    back = veil(theme.page, 0.8)  # over points
    return {"text": escape(text), "font": {"size": 11, "color": theme.text}, "bgcolor": back, **more}


def scatter_pair(
    x: ArrayLike,
    y: ArrayLike,
    words: Words,
    *,
    names: Sequence[str],
    hover: Sequence[str],
    critical: Collection[int] = frozenset(),
    estimated: Collection[int] = frozenset(),
    labelled: Collection[int] = frozenset(),
) -> go.Figure:
    """One point a head; it takes clicks as the grid does. Heads of NaN are not drawn, but keep their place.

    Parameters
    ----------
    x, y, names, hover : [N] in flat order.
    critical : flat ids, drawn as gray squares; all others are discs.
    estimated : flat ids of heads, one of whose scores is no measurement: hollow.
    labelled : flat ids whose names stand beside their points.
    """
    theme, n = words.theme, len(names)
    check_texts("hover", hover, n)
    squares, hollow, named = (
        marks.checked_ids(name, ids, n)
        for name, ids in (("critical", critical), ("estimated", estimated), ("labelled", labelled))
    )
    across, up = vector("x", x, n), vector("y", y, n)
    across, up = np.where(np.isnan(up), np.nan, across), np.where(np.isnan(across), np.nan, up)
    drawn = {int(i) for i in np.flatnonzero(~np.isnan(across))}
    traces = []
    for ids, shape, color, what in (
        (drawn - squares, "circle", PRUNED, "may be pruned"),
        (drawn & squares, "square", BASE, "critical"),
    ):
        for part, symbol, name, edge in (
            (ids - hollow, shape, what, {"color": theme.halo, "width": 0.7}),
            (ids & hollow, f"{shape}-open", f"{what}, a score is an estimate", {"color": color, "width": 1.2}),
        ):
            if part:
                traces.append(marks.points(across, up, part, name, symbol=symbol, size=8, color=color, line=edge))
    shown = sorted(named & drawn)
    middle = np.nanmean(across) if drawn else 0.0
    labels = go.Scatter(
        x=across[shown].tolist(),
        y=up[shown].tolist(),
        text=[f"{GAP}{escape(names[i])}{GAP}" for i in shown],
        textposition=["middle right" if across[i] <= middle else "middle left" for i in shown],
        textfont={"size": 11, "color": theme.text},
        mode="text",
        name="labels",
        hoverinfo="skip",
        showlegend=False,
    )
    found = [marks.click_trace(across, up, hover, size=9), *traces, labels]
    return figure(found, words, 480, 84, xaxis=zero_axis(theme, words.x), yaxis=zero_axis(theme, words.y))
