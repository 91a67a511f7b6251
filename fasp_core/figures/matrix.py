"""A table as a picture: one colored cell a pair, with its number printed in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.figures import marks
from fasp_core.figures.grid import beyond_note, clip_limit
from fasp_core.figures.theme import (
    TOP,
    WASH,
    Floats,
    Theme,
    axis,
    channels,
    check_texts,
    escape,
    layout,
    short,
    theme_of,
    vector,
    veil,
    veiled,
)

BOTTOM = 104  # px for column labels, their title and the legend
STEPS = 3  # lines of a hatched cell


def cell_matrix(
    values: ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    text: Sequence[str],
    hover: Sequence[str],
    title: str,
    unit: str,
    note: str = "",
    row_title: str = "",
    column_title: str = "",
    faint: ArrayLike | None = None,
    hatched: ArrayLike | None = None,
    outlined: ArrayLike | None = None,
    faint_name: str = "interval holds 0",
    hatched_name: str = "not above noise",
    outlined_name: str = "",
    limit: float | None = None,
    cell_height: int = 46,
    colorbar: bool = True,
    column_angle: float = 0,
    dark: bool = False,
) -> go.Figure:
    """R rows by C columns, the first row on top. Orange is positive, blue negative, and colors end at `limit`.

    It takes clicks as the grid of heads does: `clicked_head(event, C, R)` gives (row, column).

    Parameters
    ----------
    values : [R * C], row by row; a cell of NaN has no color, only its text.
    rows, columns : plain labels; a line end breaks them.
    text : [R * C] what stands in the cells. hover : [R * C], the first line is set in bold.
    faint, hatched, outlined : [R * C] bool, or None: cells whose color is veiled, that are struck through with thin
        lines, and that have a frame. Only what occurs is named in the legend.
    unit : title of the color bar, which is left out where `colorbar` is False.
    column_angle : of the labels of columns, in degrees; negative ones rise to the right.

    Raises
    ------
    InputError
        No cells, arrays that are not of shape [R * C], a limit that is not positive.
    """
    theme, shape = theme_of(dark), (len(rows), len(columns))
    n = shape[0] * shape[1]
    if not n:
        raise InputError("A matrix needs at least one row and one column.")
    z = vector("values", values, n)
    check_texts("text", text, n)
    check_texts("hover", hover, n)
    pale, struck, framed = (
        np.zeros(n, dtype=bool) if flags is None else vector(name, flags, n).astype(bool)
        for name, flags in (("faint", faint), ("hatched", hatched), ("outlined", outlined))
    )
    pale &= ~np.isnan(z)
    limit = clip_limit(z) if limit is None else limit
    if not 0 < limit < np.inf:
        raise InputError(f"Colors cannot end at {limit}: give a limit above 0, or none.")
    y, x = np.divmod(np.arange(n), shape[1])

    def cells(shown: Floats, scale: Sequence[str], **more: Any) -> go.Heatmap:
        steps = [[i / (len(scale) - 1), color] for i, color in enumerate(scale)]
        return go.Heatmap(z=shown.reshape(shape), colorscale=steps, xgap=2, ygap=2, hoverinfo="skip", **more)

    fill = [color_at(theme, value / limit, faded) for value, faded in zip(z, pale, strict=True)]
    veil_color = veil(theme.neutral)
    fig = go.Figure(
        [
            marks.click_trace(x, y, hover, size=cell_height - 6),
            cells(
                np.clip(z, -limit, limit),
                theme.scale,
                name="value",
                zmin=-limit,
                zmid=0,
                zmax=limit,
                showscale=colorbar,
                colorbar=_colorbar(unit, limit) if colorbar else None,
            ),
            cells(np.where(pale, 1.0, np.nan), [veil_color, veil_color], name=faint_name, showscale=False),
            _lines(*_strokes(x, y, struck), hatched_name, theme.faint, 0.8),
            _lines(*_frames(x, y, framed), outlined_name or "outlined", theme.ink, 1.4),
            go.Scatter(
                x=x.tolist(),
                y=y.tolist(),
                text=[escape(cell) for cell in text],
                mode="text",
                name="text",
                textfont={"color": [ink(color) for color in fill], "size": 12},
                hoverinfo="skip",
                showlegend=False,
            ),
            *_legend(theme, (faint_name, pale), (hatched_name, struck), (outlined_name, framed)),
        ]
    )
    beyond = int((np.abs(z) > limit).sum())
    whole = {"showgrid": False, "fixedrange": True}
    fig.layout = layout(
        theme,
        title,
        "  ".join(filter(None, [note, beyond_note("Colors end", beyond, limit).replace("head", "cell")])),
        TOP + BOTTOM + cell_height * shape[0],
        BOTTOM,
        92 if colorbar else 12,
        hoverdistance=-1,  # every spot belongs to the nearest cell
        xaxis=axis(theme, column_title, range=[-0.5, shape[1] - 0.5], **_ticks(columns, column_angle), **whole),
        yaxis=axis(theme, row_title, range=[shape[0] - 0.5, -0.5], **_ticks(rows), **whole),
    )
    fig.layout.title.xref = "container"  # row labels may be long
    return fig


def color_at(theme: Theme, place: float, faded: bool = False) -> str:
    """Color of the scale at `place` in [-1, 1] (cut to it), veiled or not; that of the page for NaN."""
    if np.isnan(place):
        return theme.page
    stops = np.array([channels(color) for color in theme.scale], dtype=np.float64)
    at = (np.clip(place, -1, 1) + 1) / 2 * (len(stops) - 1)
    red, green, blue = (round(float(np.interp(at, range(len(stops)), stops[:, i]))) for i in range(3))
    color = f"#{red:02X}{green:02X}{blue:02X}"
    return veiled(color, theme.neutral, WASH) if faded else color


def ink(color: str) -> str:
    """Black or white, whichever stands out more on `color`: always at 4.5:1 or more."""
    parts = [c / 255 for c in channels(color)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#FFFFFF"


def _strokes(x: NDArray[Any], y: NDArray[Any], where: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Slanting lines through cells, as one path."""
    starts = np.linspace(-0.5, 0.5, 2 * STEPS + 1)[1::2]  # where each line crosses the middle of a cell
    reach = np.array([-0.14, 0.14, np.nan])
    across = (starts[:, None] + reach).ravel() * 0.92
    down = np.tile(np.array([0.44, -0.44, np.nan]), STEPS)
    return (x[where, None] + across).ravel(), (y[where, None] + down).ravel()


def _frames(x: NDArray[Any], y: NDArray[Any], where: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Squares around cells, as one path."""
    return (
        (x[where, None] + 0.475 * np.array([-1, 1, 1, -1, -1, np.nan])).ravel(),
        (y[where, None] + 0.455 * np.array([-1, -1, 1, 1, -1, np.nan])).ravel(),
    )


def _lines(x: Floats, y: Floats, name: str, color: str, width: float) -> go.Scatter:
    line = {"color": color, "width": width}
    return go.Scatter(x=x, y=y, name=name, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _ticks(labels: Sequence[str], angle: float = 0) -> dict[str, Any]:
    return {"tickvals": list(range(len(labels))), "ticktext": [escape(label) for label in labels], "tickangle": angle}


def _colorbar(unit: str, limit: float) -> dict[str, Any]:
    ticks = [-limit, -limit / 2, 0, limit / 2, limit]
    return {
        "title": {"text": f"{escape(unit)}<br><span>\u00a0</span>", "side": "top", "font": {"size": 12}},
        "tickvals": ticks,
        "ticktext": [short(tick, 2) for tick in ticks],
        "thickness": 11,
        "outlinewidth": 0,
        "len": 1,
        "xpad": 8,
    }


def _legend(theme: Theme, *kinds: tuple[str, NDArray[np.bool_]]) -> list[go.Scatter]:
    """Entries for the kinds of cells that occur: faint, hatched, outlined."""
    swatch = veiled(theme.scale[-1], theme.neutral)
    signs = (
        {"symbol": "square", "size": 12, "color": swatch},
        {"symbol": "line-ne-open", "size": 10, "color": theme.faint, "line": {"width": 1.5}},
        {"symbol": "square-open", "size": 11, "color": theme.ink, "line": {"width": 1.5}},
    )
    return [
        marks.legend_entry(name, **sign)
        for (name, where), sign in zip(kinds, signs, strict=True)
        if name and where.any()
    ]
