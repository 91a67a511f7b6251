"""Heads in the order of one score, each with its interval, and the place where a choice cuts the order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures import marks
from fasp_core.figures.theme import BASE, PRUNED, Words, axis, check_texts, figure, hovering, vector


def ranked_heads(
    scores: ArrayLike,
    half_widths: ArrayLike,
    words: Words,
    *,
    shown: Collection[int],
    chosen: Collection[int],
    hover: Sequence[str],
    cut: float | None = None,
) -> go.Figure:
    """A caterpillar plot: heads from the lowest score to the highest, bars of uncertainty, chosen heads colored.

    Where the bars of most heads reach across the cut, the choice is made by noise.

    Parameters
    ----------
    scores, half_widths : [N] in flat order; the interval is score ± half width. NaN is left out.
    shown, chosen : flat ids of the heads to draw, and of those among them that are chosen.
    cut : score between chosen and not chosen, drawn as a line; None or NaN for none.
    """
    theme, n = words.theme, len(hover)
    check_texts("hover", hover, n)
    values, half = vector("scores", scores, n), vector("half_widths", half_widths, n)
    if (half < 0).any():
        raise InputError("half_widths holds a negative number: give half of each interval.")
    picked = marks.checked_ids("chosen", chosen, n)
    drawn = np.array(sorted(marks.checked_ids("shown", shown, n)), dtype=np.intp)
    drawn = drawn[np.isfinite(values[drawn])]
    order = drawn[np.argsort(values[drawn], kind="stable")]
    place, is_chosen = np.arange(1, order.size + 1), np.isin(order, list(picked))
    crowded = order.size > 250
    thickness = 0.6 if crowded else 1.1
    traces = []
    for name, color, where in (("not chosen", BASE, ~is_chosen), ("chosen", PRUNED, is_chosen)):
        heads = order[where]
        traces.append(
            go.Scatter(
                x=place[where],
                y=values[heads],
                mode="markers",
                name=name,
                marker={"color": color, "size": 4 if crowded else 6},
                error_y={"type": "data", "array": half[heads], "color": color, "thickness": thickness, "width": 0},
                **hovering(hover[flat] for flat in heads),
            )
        )
    across = axis(theme, "place among the heads that may be chosen", fixedrange=True)
    upwards = axis(theme, words.unit, fixedrange=True, showgrid=True)
    fig = figure(traces, words, 380, 84, xaxis=across, yaxis=upwards)
    if cut is not None and np.isfinite(cut):
        fig.add_hline(y=cut, line={"color": theme.text, "width": 1, "dash": "4px,3px"})
    return fig
