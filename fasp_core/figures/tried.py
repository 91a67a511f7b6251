"""Sets that were tried: what each was thought to do, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures import marks
from fasp_core.figures.theme import BASE, PRUNED, Words, axis, check_texts, error_bars, figure
from fasp_core.typing import Floats


def tried_sets(
    estimated: ArrayLike,
    measured: ArrayLike,
    ends: ArrayLike,
    words: Words,
    *,
    hover: Sequence[str],
    current: int | None,
) -> go.Figure:
    """Each set as a hollow disc where it was estimated and a filled one where it was measured, joined by a line.

    The point that takes clicks stands where the set was measured, or else estimated; its index is the set's.

    Parameters
    ----------
    estimated, measured : [n, 2] x and y; NaN where there is none.
    ends : [n, 2, 2] lower and upper ends of the measured x and y; NaN where they are not known.
    current : the set to be ringed.
    """
    theme, n = words.theme, len(hover)
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
    known = np.flatnonzero(~np.isnan(shown[:, 0]))
    ways = np.stack([thought, shown, np.full_like(shown, np.nan)], 1)[known]  # [known, 3, 2] there, here, pen up
    line = {"color": theme.line, "width": 1}
    hollow: dict[str, Any] = {"symbol": "circle-open", "size": 8, "color": BASE, "line": {"width": 1.5}}
    filled = marks.points(shown[:, 0], shown[:, 1], known, "measured, 95%", symbol="circle", size=9, color=PRUNED)
    bars = [error_bars(shown[known, i], *bounds[known, i].T, color=theme.faint, width=2) for i in (0, 1)]
    filled.update(error_x=bars[0], error_y=bars[1])
    traces = [
        marks.click_trace(at[:, 0], at[:, 1], hover, size=12),
        go.Scatter(
            x=ways[:, :, 0].ravel(),
            y=ways[:, :, 1].ravel(),
            mode="lines",
            line=line,
            hoverinfo="skip",
            showlegend=False,
            name="ways",
        ),
        marks.points(thought[:, 0], thought[:, 1], range(n), "estimate", **hollow),
        filled,
        marks.points(np.zeros(1), np.zeros(1), [0], "unpruned", symbol="diamond", size=9, color=theme.text),
    ]
    if current is not None:
        traces.append(marks.points(at[:, 0], at[:, 1], [current], "now", **marks.ring(theme, 18)))
    across, upwards = (axis(theme, text, showgrid=True, ticksuffix="%") for text in (words.x, words.y))
    return figure(traces, words, 380, 84, xaxis=across, yaxis=upwards)


def _shaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    array = np.asarray(values, dtype=np.float64).reshape(shape if shape[0] == 0 else np.shape(values))
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}: it needs {shape}.")
    return array
