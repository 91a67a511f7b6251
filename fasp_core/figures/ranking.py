"""Heads in the order of one score, each with its interval, and the place where a choice cuts the order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures import marks
from fasp_core.figures.theme import BASE, PRUNED, axis, check_texts, hover_text, layout, theme_of, vector


def ranked_heads(
    scores: ArrayLike,
    half_widths: ArrayLike,
    *,
    shown: Collection[int],
    chosen: Collection[int],
    hover: Sequence[str],
    title: str,
    note: str,
    unit: str,
    cut: float | None = None,
    dark: bool = False,
) -> go.Figure:
    """A caterpillar plot: heads from the lowest score to the highest, bars of uncertainty, chosen heads colored.

    Where the bars of most heads reach across the cut, the choice is made by noise.

    Parameters
    ----------
    scores, half_widths : [N] in flat order; the interval is score ± half width. NaN is left out.
    shown, chosen : flat ids of the heads to draw, and of those among them that are chosen.
    hover : [N] plain texts; the first line is set in bold.
    cut : score between chosen and not chosen, drawn as a line; None or NaN for none.

    Raises
    ------
    InputError
        Arrays that are not as long as `hover`, ids outside the model, a negative half width.
    """
    theme, n = theme_of(dark), len(hover)
    check_texts("hover", hover, n)
    values, half = vector("scores", scores, n), vector("half_widths", half_widths, n)
    if (half < 0).any():
        raise InputError("half_widths holds a negative number: give half of each interval.")
    picked = marks.checked_ids("chosen", chosen, n)
    drawn = np.array(sorted(marks.checked_ids("shown", shown, n)), dtype=np.intp)
    drawn = drawn[np.isfinite(values[drawn])]
    order = drawn[np.argsort(values[drawn], kind="stable")]
    place = np.arange(1, order.size + 1)
    crowded = order.size > 250
    traces = []
    for name, color, where in (
        ("not chosen", BASE, np.array([flat not in picked for flat in order], dtype=bool)),
        ("chosen", PRUNED, np.array([flat in picked for flat in order], dtype=bool)),
    ):
        heads = order[where]
        traces.append(
            go.Scatter(
                x=place[where],
                y=values[heads],
                mode="markers",
                name=name,
                marker={"color": color, "size": 4 if crowded else 6},
                error_y={
                    "type": "data",
                    "array": half[heads],
                    "color": color,
                    "thickness": 0.6 if crowded else 1.1,
                    "width": 0,
                },
                text=[hover_text(hover[flat]) for flat in heads],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    fig = go.Figure(traces)
    if cut is not None and np.isfinite(cut):
        fig.add_hline(y=cut, line={"color": theme.text, "width": 1, "dash": "4px,3px"})
    fig.layout.update(
        layout(
            theme,
            title,
            note,
            380,
            84,
            xaxis=axis(theme, "place among the heads that may be chosen", fixedrange=True),
            yaxis=axis(theme, unit, fixedrange=True, showgrid=True),
        )
    )
    return fig
