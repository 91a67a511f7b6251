"""Two scores of the same heads against each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.figures import marks
from fasp_core.figures.theme import BASE, PRUNED, Words, check_texts, escape, figure, vector, zero_axis

GAP = "\u00a0\u00a0"  # keeps a label off its point


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
