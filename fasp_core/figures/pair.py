"""Two scores of the same heads against each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.figures import marks
from fasp_core.figures.theme import BASE, PRUNED, axis, check_texts, escape, layout, theme_of, vector

GAP = "\u00a0\u00a0"  # keeps a label off its point


def scatter_pair(
    x: ArrayLike,
    y: ArrayLike,
    *,
    names: Sequence[str],
    hover: Sequence[str],
    title: str,
    x_title: str,
    y_title: str,
    note: str = "",
    critical: Collection[int] = frozenset(),
    estimated: Collection[int] = frozenset(),
    labelled: Collection[int] = frozenset(),
    dark: bool = False,
) -> go.Figure:
    """One point a head; it takes clicks as the grid does. Heads of NaN are not drawn, but keep their place.

    Parameters
    ----------
    x, y : [N] in flat order.
    names, hover : [N] plain texts; of `hover` the first line is set in bold.
    critical : flat ids, drawn as gray squares; all others are discs.
    estimated : flat ids of heads, one of whose scores is no measurement: hollow.
    labelled : flat ids whose names stand beside their points.

    Raises
    ------
    InputError
        Arrays that are not as long as `names`, ids outside the model.
    """
    theme, n = theme_of(dark), len(names)
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
        for part, symbol, name in (
            (ids - hollow, shape, what),
            (ids & hollow, f"{shape}-open", f"{what}, a score is an estimate"),
        ):
            if part:
                line = {"color": color if part & hollow else theme.halo, "width": 1.2 if part & hollow else 0.7}
                traces.append(marks.points(across, up, part, name, symbol=symbol, size=8, color=color, line=line))
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
    zero = {"showgrid": False, "zeroline": True, "zerolinecolor": theme.line, "zerolinewidth": 1.5}
    fig = go.Figure([marks.click_trace(across, up, hover, size=9), *traces, labels])
    fig.layout = layout(
        theme, title, note, 480, 84, xaxis=axis(theme, x_title, **zero), yaxis=axis(theme, y_title, **zero)
    )
    return fig
