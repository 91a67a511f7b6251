"""What removing each head costs against what it buys."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.figures import marks
from fasp_core.figures.grid import beyond_note, clip_limit
from fasp_core.figures.scales import center_of, finite, symlog, ticks
from fasp_core.figures.theme import (
    BASE,
    PRUNED,
    Theme,
    axis,
    check_texts,
    escape,
    layout,
    short,
    theme_of,
    vector,
    veil,
)


def scatter_impacts(
    z_ppl: ArrayLike,
    z_bias: ArrayLike,
    *,
    hover: Sequence[str],
    title: str,
    pruned: Collection[int] = frozenset(),
    by_hand: Collection[int] = frozenset(),
    critical: Collection[int] = frozenset(),
    picked: Collection[int] = frozenset(),
    x_line: tuple[float, str] | None = None,
    y_line: tuple[float, str] | None = None,
    x_title: str = "impact on perplexity (right: the head helps)",
    y_title: str = "impact on bias (up: removing it lowers the gap)",
    log_x: bool = False,
    dark: bool = False,
) -> go.Figure:
    """One point a head, z_ppl to the right and z_bias upwards; it takes clicks as the grid does.

    Heads that lack a value are not drawn, but keep their place in `CLICK_TRACE`. What lies beyond `clip_limit` of
    z_ppl stands at the edge, and a line under the title says so. With `log_x` all is in view: x is spaced as
    sign(x) log10(1 + |x| / c), c the median |x|, so linear near 0 and logarithmic beyond; the ticks show true values.
    Infinite values stand at the largest finite magnitude.

    Parameters
    ----------
    z_ppl, z_bias : [N] in flat order.
    hover : [N] plain texts; the first line is set in bold.
    pruned, by_hand, critical, picked : flat ids, as for `head_grid`.
    x_line, y_line : a value of z_ppl or z_bias at which a line is drawn, and what is written at it. One beyond the
        scale stands at its edge.

    Raises
    ------
    InputError
        Arrays that are not as long as `hover`, ids outside the model.
    """
    theme, n = theme_of(dark), len(hover)
    check_texts("hover", hover, n)
    off, hand, squared, ringed = (
        marks.checked_ids(name, ids, n)
        for name, ids in (("pruned", pruned), ("by_hand", by_hand), ("critical", critical), ("picked", picked))
    )
    x, y = finite(vector("z_ppl", z_ppl, n)), finite(vector("z_bias", z_bias, n))
    x, y = np.where(np.isnan(y), np.nan, x), np.where(np.isnan(x), np.nan, y)
    note, labels = "", {}
    at = None if x_line is None else float(x_line[0])
    if log_x:
        center = center_of(x)
        values = ticks(x, center)
        labels = {"tickvals": symlog(values, center).tolist(), "ticktext": [short(value, 1) for value in values]}
        x, note = symlog(x, center), "The horizontal scale is logarithmic away from 0."
        at = at if at is None else float(symlog(np.array(at), center))
    else:
        limit = clip_limit(x)
        note = beyond_note("The horizontal scale ends", int((np.abs(x) > limit).sum()), limit)
        x = np.clip(x, -limit, limit)
        at = at if at is None else float(np.clip(at, -limit, limit))
    edge = {"color": theme.halo, "width": 0.7}  # tells points apart where they crowd
    kept = set(range(n)) - off - hand
    fig = go.Figure(
        [
            marks.click_trace(x, y, hover, size=9),
            marks.points(x, y, kept, "kept", symbol="circle", size=7, color=BASE, line=edge),
            marks.points(
                x, y, squared, "critical", symbol="square-open", size=12, color=theme.faint, line={"width": 1}
            ),
            *marks.state_marks(theme, x, y, off, hand, 10, PRUNED),
            *marks.picked_marks(theme, x, y, ringed, 16),
        ]
    )
    zero = {"showgrid": False, "zeroline": True, "zerolinecolor": theme.line, "zerolinewidth": 1.5}
    across, upwards = axis(theme, x_title, **zero, **labels), axis(theme, y_title, **zero)
    fig.layout = layout(theme, title, note, 460, 84, xaxis=across, yaxis=upwards)
    if at is not None and x_line is not None:
        fig.add_vline(at, line=_dashed(theme), annotation=_written(theme, x_line[1], textangle=-90, yanchor="top"))
    if y_line is not None:
        fig.add_hline(float(y_line[0]), line=_dashed(theme), annotation=_written(theme, y_line[1], yanchor="bottom"))
    return fig


def _dashed(theme: Theme) -> dict[str, Any]:
    return {"color": theme.faint, "width": 1.3, "dash": "5px,3px"}


def _written(theme: Theme, text: str, **more: Any) -> dict[str, Any]:
    back = veil(theme.page, 0.8)  # over points
    return {"text": escape(text), "font": {"size": 11, "color": theme.text}, "bgcolor": back, **more}
