"""Sets that were tried: what each was thought to do, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures import marks
from fasp_core.figures.theme import BASE, PRUNED, Floats, axis, check_texts, layout, theme_of


def tried_sets(
    estimated: ArrayLike,
    measured: ArrayLike,
    ends: ArrayLike,
    *,
    hover: Sequence[str],
    current: int | None,
    title: str,
    note: str,
    x_title: str,
    y_title: str,
    dark: bool = False,
) -> go.Figure:
    """Each set as a hollow disc where it was estimated and a filled one where it was measured, joined by a line.

    The point that takes clicks stands where the set was measured, or else estimated; its index is the set's.

    Parameters
    ----------
    estimated, measured : [n, 2] x and y; NaN where there is none.
    ends : [n, 2, 2] lower and upper ends of the measured x and y; NaN where they are not known.
    hover : [n] plain texts; the first line is set in bold.
    current : the set to be ringed.

    Raises
    ------
    InputError
        Arrays that are not of these shapes, a current set that there is not.
    """
    theme, n = theme_of(dark), len(hover)
    check_texts("hover", hover, n)
    thought, shown, bounds = (
        _shaped(name, values, shape)
        for name, values, shape in (
            ("estimated", estimated, (n, 2)),
            ("measured", measured, (n, 2)),
            ("ends", ends, (n, 2, 2)),
        )
    )
    if current is not None and not 0 <= current < n:
        raise InputError(f"There is no set {current}: they are numbered from 0 to {n - 1}.")
    at = np.where(np.isnan(shown), thought, shown)
    ways = np.stack([thought, shown, np.full_like(shown, np.nan)], 1)  # [n, 3, 2] there, here, pen up
    ways = ways[~np.isnan(shown[:, 0])].reshape(-1, 2)
    known = [i for i in range(n) if not np.isnan(shown[i, 0])]
    away = np.maximum(np.abs(bounds - shown[:, :, None]), 0)  # [n, 2, 2]
    bars = [
        {
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(away[known, side, 1]).tolist(),
            "arrayminus": np.nan_to_num(away[known, side, 0]).tolist(),
            "color": theme.faint,
            "thickness": 1,
            "width": 2,
        }
        for side in (0, 1)
    ]
    filled = marks.points(shown[:, 0], shown[:, 1], known, "measured, 95%", symbol="circle", size=9, color=PRUNED)
    filled.update(error_x=bars[0], error_y=bars[1])
    hollow = marks.points(
        thought[:, 0],
        thought[:, 1],
        range(n),
        "estimate",
        symbol="circle-open",
        size=8,
        color=BASE,
        line={"width": 1.5},
    )
    zero = np.zeros(1)
    fig = go.Figure(
        [
            marks.click_trace(at[:, 0], at[:, 1], hover, size=12),
            go.Scatter(
                x=ways[:, 0].tolist(),
                y=ways[:, 1].tolist(),
                mode="lines",
                line={"color": theme.line, "width": 1},
                hoverinfo="skip",
                showlegend=False,
                name="ways",
            ),
            hollow,
            filled,
            marks.points(zero, zero, [0], "unpruned", symbol="diamond", size=9, color=theme.text),
        ]
    )
    if current is not None:
        ring: dict[str, Any] = {"symbol": "circle-open", "size": 18, "color": theme.series[2], "line": {"width": 2.5}}
        fig.add_trace(marks.points(at[:, 0], at[:, 1], [current], "now", **ring))
    across, upwards = (axis(theme, text, showgrid=True, ticksuffix="%") for text in (x_title, y_title))
    fig.layout = layout(theme, title, note, 380, 84, xaxis=across, yaxis=upwards)
    return fig


def _shaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    array = np.asarray(values, dtype=np.float64).reshape(shape if shape[0] == 0 else np.shape(values))
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}: it needs {shape}.")
    return array
