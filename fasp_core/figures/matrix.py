"""A table as a picture: one colored cell a pair, with its number printed in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.figures import marks
from fasp_core.figures.scales import beyond_note
from fasp_core.figures.theme import (
    TOP,
    WASH,
    Theme,
    Words,
    axis,
    channels,
    check_texts,
    colorbar,
    escape,
    figure,
    short,
    vector,
    veil,
    veiled,
)
from fasp_core.typing import Floats

BOTTOM = 104  # px for column labels, their title and the legend
STEPS = 3  # lines of a hatched cell


@dataclass(frozen=True, eq=False)
class Cells:
    """R rows by C columns, row by row.

    Attributes
    ----------
    rows, columns : plain labels; a line end breaks them.
    values : [R * C]; a cell of NaN has no color, only its text.
    text : [R * C] what stands in the cells. hover : [R * C].
    faint, hatched, outlined : [R * C] bool, or None: cells whose color is veiled, that are struck through with thin
        lines, and that have a frame. Only what occurs is named in the legend, in the words of `names`.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: ArrayLike
    text: Sequence[str]
    hover: Sequence[str]
    faint: ArrayLike | None = None
    hatched: ArrayLike | None = None
    outlined: ArrayLike | None = None
    names: tuple[str, str, str] = ("interval holds 0", "not above noise", "")


def cell_matrix(
    cells: Cells,
    words: Words,
    *,
    limit: float,
    cell_height: int = 46,
    colorbar: bool = True,
    column_angle: float = 0,
) -> go.Figure:
    """A cell for each value, the first row on top. Orange is positive, blue negative, and colors end at `limit`.

    It takes clicks as the grid of heads does: `clicked_head(event, C, R)` gives (row, column).

    Parameters
    ----------
    words : `x` and `y` name columns and rows, `unit` the color bar, which is left out where `colorbar` is False.
    column_angle : of the labels of columns, in degrees; negative ones rise to the right.
    """
    theme, shape = words.theme, (len(cells.rows), len(cells.columns))
    n = shape[0] * shape[1]
    if not n:
        raise InputError("A matrix needs at least one row and one column.")
    if not 0 < limit < np.inf:
        raise InputError(f"Colors cannot end at {limit}: give a limit above 0.")
    z = vector("values", cells.values, n)
    check_texts("text", cells.text, n)
    check_texts("hover", cells.hover, n)
    pale, struck, framed = (
        np.zeros(n, dtype=bool) if flags is None else vector(name, flags, n).astype(bool)
        for name, flags in (("faint", cells.faint), ("hatched", cells.hatched), ("outlined", cells.outlined))
    )
    pale &= ~np.isnan(z)
    y, x = np.divmod(np.arange(n), shape[1])
    fill = [color_at(theme, value / limit, faded) for value, faded in zip(z, pale, strict=True)]
    faint, hatched, outlined = cells.names
    traces = [
        marks.click_trace(x, y, cells.hover, size=cell_height - 6),
        marks.cells(
            np.clip(z, -limit, limit).reshape(shape),
            theme.scale,
            2,
            name="value",
            zmin=-limit,
            zmid=0,
            zmax=limit,
            showscale=colorbar,
            colorbar=_colorbar(words.unit, limit) if colorbar else None,
        ),
        marks.cells(
            np.where(pale, 1.0, np.nan).reshape(shape), [veil(theme.neutral)] * 2, 2, name=faint, showscale=False
        ),
        marks.path(*_strokes(x[struck], y[struck]), hatched, theme.faint, 0.8),
        marks.outlines(x[framed], y[framed], (0.475, 0.455), outlined or "outlined", theme.ink, 1.4),
        go.Scatter(
            x=x.tolist(),
            y=y.tolist(),
            text=[escape(cell) for cell in cells.text],
            mode="text",
            name="text",
            textfont={"color": [ink(color) for color in fill], "size": 12},
            hoverinfo="skip",
            showlegend=False,
        ),
        *_legend(theme, (faint, pale), (hatched, struck), (outlined, framed)),
    ]
    beyond = int((np.abs(z) > limit).sum())
    across, down = [-0.5, shape[1] - 0.5], [shape[0] - 0.5, -0.5]
    return figure(
        traces,
        words,
        TOP + BOTTOM + cell_height * shape[0],
        BOTTOM,
        92 if colorbar else 12,
        also=beyond_note("Colors end", beyond, limit).replace("head", "cell"),
        hoverdistance=-1,  # every spot belongs to the nearest cell
        xaxis=axis(theme, words.x, range=across, fixedrange=True, **_ticks(cells.columns, column_angle)),
        yaxis=axis(theme, words.y, range=down, fixedrange=True, **_ticks(cells.rows)),
        title_at="container",
    )


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


def _strokes(x: NDArray[Any], y: NDArray[Any]) -> tuple[Floats, Floats]:
    """Slanting lines through cells."""
    starts = np.linspace(-0.5, 0.5, 2 * STEPS + 1)[1::2]  # where each line crosses the middle of a cell
    reach = np.array([-0.14, 0.14, np.nan])
    across = (starts[:, None] + reach).ravel() * 0.92
    return x[:, None] + across, y[:, None] + np.tile(np.array([0.44, -0.44, np.nan]), STEPS)


def _ticks(labels: Sequence[str], angle: float = 0) -> dict[str, Any]:
    return {"tickvals": list(range(len(labels))), "ticktext": [escape(label) for label in labels], "tickangle": angle}


def _colorbar(unit: str, limit: float) -> dict[str, Any]:
    at = [-limit, -limit / 2, 0, limit / 2, limit]
    return colorbar(unit, at, [short(tick, 2) for tick in at])


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
