"""The picture of a whole model: one cell for each attention head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.figures import marks
from fasp_core.figures.marks import Marks
from fasp_core.figures.scales import beyond_note, center_of, clip_limit, finite, symlog, ticks
from fasp_core.figures.theme import (
    TOP,
    WASH,
    Theme,
    Words,
    axis,
    check_texts,
    colorbar,
    figure,
    short,
    vector,
    veil,
    veiled,
)
from fasp_core.typing import Floats

Z_NOISE = 1.96  # standard errors from 0 at which a sign counts as known (two-sided 5%)
BOTTOM, RIGHT = 92, 92  # px for words, whether needed or not, so that grids side by side stay level


@dataclass(frozen=True, eq=False)
class GridLook:
    """How a grid shows its values.

    Attributes
    ----------
    order : [N] flat ids, layer after layer, of the heads from left to right; None: as they are numbered. The points
        that take clicks move with their heads and keep their index, the flat id.
    scale : `linear`, or `symlog`, which spaces colors linearly near 0 and logarithmically beyond the median magnitude
        and has all in view; the ticks of the color bar show true values. Infinite values have the color of the largest
        finite magnitude.
    doubt : how standard errors show. `veil` makes cells faint whose sign is within noise, `fade` all cells the more,
        the less certain their sign; `none` leaves errors to the labels.
    """

    order: ArrayLike | None = None
    scale: str = "linear"
    doubt: str = "veil"


PLAIN, UNMARKED = GridLook(), Marks()


def head_grid(
    values: ArrayLike,
    n_layers: int,
    n_heads: int,
    words: Words,
    *,
    hover: Sequence[str],
    se: ArrayLike | None = None,
    marked: Marks = UNMARKED,
    look: GridLook = PLAIN,
) -> go.Figure:
    """One cell a head, colored by its impact: layers upwards from 0, heads to the right.

    Orange is positive, blue negative. Colors end at `clip_limit(values)`; what lies beyond has the end color, and a
    line under the title says so. Cells whose |value| is below `Z_NOISE` standard errors are faint: their sign is not
    known. (A standard error of NaN makes nothing faint.) NaN cells are gray. The height depends on `n_layers` alone.

    Parameters
    ----------
    values : [N] in flat order, N = n_layers * n_heads; NaN where not scored yet.
    hover : [N]. True values belong here, since colors are clipped.
    se : [N] standard errors in the unit of `values`, or None.
    """
    theme, n = words.theme, n_layers * n_heads
    if min(n_layers, n_heads) < 1:
        raise InputError(f"A model has at least 1 layer and 1 head a layer, not {n_layers} and {n_heads}.")
    z, errors = vector("values", values, n), np.zeros(n) if se is None else vector("se", se, n)
    if (errors < 0).any():
        raise InputError("se holds a negative number: give standard errors, or None.")
    check_texts("hover", hover, n)
    off, hand, outlined, ringed = marked.of(n)
    unscored, faint = np.isnan(z), np.abs(z) < Z_NOISE * errors
    shown, colors, note = scaled(z, words.unit, look.scale)
    texts = [f"{text}\nnot scored yet" if nan else text for text, nan in zip(hover, unscored, strict=True)]

    layer, head = np.divmod(np.arange(n), n_heads)
    across = np.arange(n) if look.order is None else _checked_order(look.order, n_layers, n_heads)
    place = np.empty(n, dtype=np.int64)
    place[across] = head  # where each head stands in its layer
    height = int(np.clip(TOP + BOTTOM + 19 * n_layers, 320, 900))
    wide, tall = 400 / n_heads, (height - TOP - BOTTOM) / n_layers  # px of a cell, in a narrow column
    mark = float(np.clip(0.75 * min(wide, tall), 6, 11))
    reach = (0.5 - min(2 / wide, 0.15), 0.5 - min(2 / tall, 0.15))
    critical = sorted(outlined)

    def cells(of_heads: Floats, steps: Sequence[str], **more: Any) -> go.Heatmap:
        return marks.cells(of_heads[across].reshape(n_layers, n_heads), steps, 1, **more)

    def veils(name: str, where: NDArray[np.bool_], color: str) -> go.Heatmap:
        return cells(np.where(where, 1.0, np.nan), [color, color], name=name, showscale=False)

    if look.doubt == "fade":
        known = np.divide(np.abs(z), Z_NOISE * errors, out=np.ones(n), where=errors > 0)
        steps = [veil(theme.neutral, 0), veil(theme.neutral, WASH)]
        doubts = cells(1 - np.minimum(known, 1), steps, name="doubt", zmin=0, zmax=1, showscale=False)
    else:
        doubts = veils("within noise", faint & (look.doubt == "veil"), veil(theme.neutral))
    traces = [
        marks.click_trace(place, layer, texts, size=5),  # in a narrow window a cell is hardly wider
        cells(shown, theme.scale, name="impact", **colors),
        doubts,
        veils("not scored", unscored, theme.missing),
        marks.outlines(place[critical], layer[critical], reach, "critical", theme.ink, 1.1),
        *marks.state_marks(theme, place, layer, off, hand, mark, theme.ink),
        *marks.picked_marks(theme, place, layer, ringed, mark + 7),
        *_legend(theme, se is not None and look.doubt == "veil"),
    ]
    said = {"veil": f"Faint: |z| < {Z_NOISE} s.e.", "fade": f"Paler: |z| nearer to 0 than {Z_NOISE} s.e.", "none": ""}
    ranked = "head" if look.order is None else "rank in its layer"
    return figure(
        traces,
        words,
        height,
        BOTTOM,
        RIGHT,
        entry=104,
        also="  ".join(filter(None, ["" if se is None else said[look.doubt], note])),
        hoverdistance=-1,  # every spot belongs to the nearest head, however wide its cell
        xaxis=axis(theme, ranked, range=[-0.5, n_heads - 0.5], tickvals=_steps(n_heads), tickangle=0, fixedrange=True),
        yaxis=axis(theme, "layer", range=[-0.5, n_layers - 0.5], tickvals=_steps(n_layers), fixedrange=True),
    )


def _steps(n: int) -> list[int]:
    """Places of tick labels, so that about 16 at most stand on an axis of n."""
    return list(range(0, n, next(step for step in (1, 2, 4, 8, 16, 32, n) if n <= 16 * step)))


Scaled = tuple[Floats, dict[str, Any], str]  # what the colors stand for, their ends and bar, what is to be said


def scaled(z: Floats, unit: str, scale: str) -> Scaled:
    """What the colors of impacts [N] stand for on a scale of `GridLook`, for the layout of a heatmap."""
    return (_logarithmic if scale == "symlog" else _linear)(z, unit)


def _linear(z: Floats, unit: str) -> Scaled:
    limit = clip_limit(z)
    beyond = int((np.abs(z) > limit).sum())
    below, above = ("≤ ", "≥ ") if beyond else ("", "")
    at = [-limit, -limit / 2, 0, limit / 2, limit]
    labels = [short(tick, 3) for tick in at]
    bar = colorbar(unit, at, [below + labels[0], *labels[1:4], above + labels[4]])
    colors = {"zmin": -limit, "zmid": 0, "zmax": limit, "colorbar": bar}
    return np.clip(z, -limit, limit), colors, beyond_note("Colors end", beyond, limit)


def _logarithmic(z: Floats, unit: str) -> Scaled:
    inside = finite(z)
    center = center_of(inside)
    shown, at = symlog(inside, center), ticks(inside, center)
    end = float(np.nanmax(np.abs(shown), initial=0)) or 1.0
    most = float(np.nanmax(np.abs(inside), initial=0))
    clear = at[np.abs(symlog(at, center)) < 0.93 * end]  # of the labels at the ends
    at = np.unique([-most, *clear, most])
    bar = colorbar(unit, symlog(at, center).tolist(), [short(tick, 2) for tick in at])
    return shown, {"zmin": -end, "zmid": 0, "zmax": end, "colorbar": bar}, "Colors are logarithmic away from 0."


def _checked_order(order: ArrayLike, n_layers: int, n_heads: int) -> NDArray[np.int64]:
    ids = np.asarray(order)
    own = np.arange(n_layers * n_heads)
    if ids.shape != own.shape or (np.sort(ids.reshape(n_layers, n_heads), 1).ravel() != own).any():
        raise InputError("An order names each head once, layer after layer.")
    return ids.astype(np.int64)


def _legend(theme: Theme, has_errors: bool) -> list[go.Scatter]:
    swatch = veiled(theme.scale[-1], theme.neutral)
    return [
        marks.legend_entry("critical", symbol="square-open", size=11, color=theme.ink, line={"width": 1.5}),
        *([marks.legend_entry("sign within noise", symbol="square", size=12, color=swatch)] if has_errors else []),
        marks.legend_entry("not scored yet", symbol="square", size=12, color=theme.missing),
    ]
