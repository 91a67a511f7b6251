"""What removing each head costs against what it buys."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.figures import marks
from fasp_core.figures.grid import beyond_note, clip_limit
from fasp_core.figures.theme import BASE, PRUNED, Floats, axis, check_texts, layout, short, theme_of, vector


def scatter_impacts(
    z_ppl: ArrayLike,
    z_bias: ArrayLike,
    *,
    hover: Sequence[str],
    title: str,
    pruned: Collection[int] = frozenset(),
    by_hand: Collection[int] = frozenset(),
    critical: Collection[int] = frozenset(),
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
    pruned, by_hand, critical : flat ids, as for `head_grid`.

    Raises
    ------
    InputError
        Arrays that are not as long as `hover`, ids outside the model.
    """
    theme, n = theme_of(dark), len(hover)
    check_texts("hover", hover, n)
    off, hand, squared = (
        marks.checked_ids(name, ids, n)
        for name, ids in (("pruned", pruned), ("by_hand", by_hand), ("critical", critical))
    )
    x, y = _finite(vector("z_ppl", z_ppl, n)), _finite(vector("z_bias", z_bias, n))
    x, y = np.where(np.isnan(y), np.nan, x), np.where(np.isnan(x), np.nan, y)
    note, ticks = "", {}
    if log_x:
        sizes = np.abs(x[np.isfinite(x) & (x != 0)])
        center = float(np.median(sizes)) if sizes.size else 1.0
        values = _ticks(x, center)
        ticks = {"tickvals": _symlog(values, center).tolist(), "ticktext": [short(value, 1) for value in values]}
        x, note = _symlog(x, center), "The horizontal scale is logarithmic away from 0."
    else:
        limit = clip_limit(x)
        note = beyond_note("The horizontal scale ends", int((np.abs(x) > limit).sum()), limit)
        x = np.clip(x, -limit, limit)
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
        ]
    )
    zero = {"showgrid": False, "zeroline": True, "zerolinecolor": theme.line, "zerolinewidth": 1.5}
    across, upwards = axis(theme, x_title, **zero, **ticks), axis(theme, y_title, **zero)
    fig.layout = layout(theme, title, note, 460, 84, xaxis=across, yaxis=upwards)
    return fig


def _finite(values: Floats) -> Floats:
    """Infinite values at the largest finite magnitude; NaN stays."""
    ends = np.abs(values[np.isfinite(values)]).max(initial=0)
    return np.clip(values, -ends, ends)


def _symlog(x: Floats, center: float) -> Floats:
    return np.asarray(np.sign(x) * (np.log10(np.abs(x) + center) - np.log10(center)))


def _ticks(x: Floats, center: float) -> Floats:
    """0 and powers of ten on both sides, as far as there are values; four a side at most."""
    ticks = [0.0]
    for sign in (-1, 1):
        end = np.nanmax(sign * x, initial=0)
        if end <= 0:
            continue
        first, last = int(np.ceil(np.log10(center))), int(np.floor(np.log10(end)))
        ticks += [sign * 10.0**power for power in range(last, first - 1, -max(1, -(-(last - first + 1) // 4)))]
    return np.array(sorted(ticks))
