"""What removing each head costs against what it buys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.figures import marks
from fasp_core.figures.marks import Marks
from fasp_core.figures.scales import beyond_note, clip_limit, finite
from fasp_core.figures.theme import BASE, PRUNED, Theme, Words, check_texts, escape, figure, vector, veil, zero_axis

UNMARKED = Marks()


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
