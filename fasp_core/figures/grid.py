"""The picture of a whole model: one cell for each attention head."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.figures import marks
from fasp_core.figures.scales import center_of, finite, symlog, ticks
from fasp_core.figures.theme import (
    TOP,
    WASH,
    Floats,
    Theme,
    axis,
    check_texts,
    escape,
    layout,
    short,
    theme_of,
    vector,
    veil,
    veiled,
)

Z_NOISE = 1.96  # standard errors from 0 at which a sign counts as known (two-sided 5%)
BOTTOM, RIGHT = 92, 92  # px for words, whether needed or not, so that grids side by side stay level


def clip_limit(values: ArrayLike) -> float:
    """Where the colors of a diverging scale should end, in the unit of `values`.

    The largest magnitude, unless a few values dwarf the rest: then the 97th percentile of the magnitudes (at least
    the smallest that is not 0), so that one head worth 1e8 does not leave all others blank. Rounded up to two
    digits of which the second is even, so that half of it is short, too. NaN and infinities do not count; 1 if
    nothing is left or all is 0.
    """
    sizes = np.abs(np.asarray(values, dtype=np.float64))
    sizes = sizes[np.isfinite(sizes)]
    if not sizes.any():
        return 1.0
    limit = max(np.percentile(sizes, 97), sizes[sizes > 0].min())
    limit = sizes.max() if sizes.max() <= 1.5 * limit else limit
    # as written, for the float 0.02 is a little more; and twice the limit must still be a number
    exact = Decimal(str(float(np.clip(limit, 1e-300, 1e300))))
    unit = Decimal(2).scaleb(exact.adjusted() - 1)
    return float((exact / unit).to_integral_value(ROUND_CEILING) * unit)


def beyond_note(what: str, beyond: int, limit: float) -> str:
    """A line that owns up to clipping; blank if nothing is clipped."""
    heads_lie = "1 head lies" if beyond == 1 else f"{beyond} heads lie"
    return f"{what} at ±{short(limit, 3)}; {heads_lie} beyond." if beyond else ""


def head_grid(
    values: ArrayLike,
    *,
    n_layers: int,
    n_heads: int,
    title: str,
    unit: str,
    hover: Sequence[str],
    pruned: Collection[int] = frozenset(),
    by_hand: Collection[int] = frozenset(),
    critical: Collection[int] = frozenset(),
    se: ArrayLike | None = None,
    limit: float | None = None,
    picked: Collection[int] = frozenset(),
    order: ArrayLike | None = None,
    scale: Literal["linear", "symlog"] = "linear",
    doubt: Literal["veil", "fade", "none"] = "veil",
    handles: bool = False,
    dark: bool = False,
) -> go.Figure:
    """One cell a head, colored by its impact: layers upwards from 0, heads to the right.

    Orange is positive, blue negative. Colors end at `limit`; what lies beyond has the end color, and a line under
    the title says so. Cells whose |value| is below `Z_NOISE` standard errors are faint: their sign is not known. (A
    standard error of NaN makes nothing faint.) NaN cells are gray. The height depends on `n_layers` alone.

    Parameters
    ----------
    values : [N] in flat order, N = n_layers * n_heads; NaN where not scored yet.
    unit : title of the color bar.
    hover : [N] plain texts; the first line is set in bold. True values belong here, since colors are clipped.
    pruned, critical : flat ids, crossed out and outlined.
    by_hand : flat ids whose state was set by hand, against the method's choice: a disc, with a cross if they are
        in `pruned`, empty if they are kept.
    se : [N] standard errors in the unit of `values`, or None.
    limit : positive; by default `clip_limit(values)`. With `symlog` all is in view, and it is not read.
    picked : flat ids that are looked at: a ring around them.
    order : [N] flat ids, layer after layer, of the heads from left to right; None: as they are numbered. The points
        that take clicks move with their heads and keep their index, the flat id.
    scale : `symlog` spaces colors linearly near 0 and logarithmically beyond the median magnitude; the ticks of the
        color bar show true values. Infinite values have the color of the largest finite magnitude.
    doubt : how standard errors show. `veil` makes cells faint whose sign is within noise, `fade` all cells the more,
        the less certain their sign; `none` leaves errors to the labels.
    handles : small arrows at the edges that take clicks for a whole layer (curve 1) or head column (curve 2), as
        `clicked_lines` reads them; no column handles where heads are ordered.

    Raises
    ------
    InputError
        Arrays that are not of shape [N], ids outside the model, a negative standard error, a limit that is not
        positive, an order that is not of each layer's own heads.
    """
    theme, n = theme_of(dark), n_layers * n_heads
    if min(n_layers, n_heads) < 1:
        raise InputError(f"A model has at least 1 layer and 1 head a layer, not {n_layers} and {n_heads}.")
    z, errors = vector("values", values, n), np.zeros(n) if se is None else vector("se", se, n)
    if (errors < 0).any():
        raise InputError("se holds a negative number: give standard errors, or None.")
    check_texts("hover", hover, n)
    off, hand, outlined, ringed = (
        marks.checked_ids(name, ids, n)
        for name, ids in (("pruned", pruned), ("by_hand", by_hand), ("critical", critical), ("picked", picked))
    )
    unscored, faint = np.isnan(z), np.abs(z) < Z_NOISE * errors
    if scale == "symlog":
        shown, colors, note = _logarithmic(z, unit)
    else:
        shown, colors, note = _linear(z, unit, limit)
    texts = [f"{text}\nnot scored yet" if nan else text for text, nan in zip(hover, unscored, strict=True)]

    layer, head = np.divmod(np.arange(n), n_heads)
    across = np.arange(n) if order is None else _checked_order(order, n_layers, n_heads)
    place = np.empty(n, dtype=np.int64)
    place[across] = head  # where each head stands in its layer
    height = int(np.clip(TOP + BOTTOM + 19 * n_layers, 320, 900))
    wide, tall = 400 / n_heads, (height - TOP - BOTTOM) / n_layers  # px of a cell, in a narrow column
    cell = min(wide, tall)
    mark = float(np.clip(0.75 * cell, 6, 11))

    def cells(of_heads: Floats, steps: Sequence[str], **more: Any) -> go.Heatmap:
        colorscale = [[i / (len(steps) - 1), color] for i, color in enumerate(steps)]
        square = of_heads[across].reshape(n_layers, n_heads)
        return go.Heatmap(z=square, colorscale=colorscale, xgap=1, ygap=1, hoverinfo="skip", **more)

    def veils(name: str, where: NDArray[np.bool_], color: str) -> go.Heatmap:
        return cells(np.where(where, 1.0, np.nan), [color, color], name=name, showscale=False)

    if doubt == "fade":
        known = np.divide(np.abs(z), Z_NOISE * errors, out=np.ones(n), where=errors > 0)
        steps = [veil(theme.neutral, 0), veil(theme.neutral, WASH)]
        doubts = cells(1 - np.minimum(known, 1), steps, name="doubt", zmin=0, zmax=1, showscale=False)
    else:
        doubts = veils("within noise", faint & (doubt == "veil"), veil(theme.neutral))
    fig = go.Figure(
        [
            marks.click_trace(place, layer, texts, size=5),  # in a narrow window a cell is hardly wider
            *(_handles(theme, n_layers, n_heads, order is None) if handles else []),
            cells(shown, theme.scale, name="impact", **colors),
            doubts,
            veils("not scored", unscored, theme.missing),
            _outlines(place, layer, outlined, (0.5 - min(2 / wide, 0.15), 0.5 - min(2 / tall, 0.15)), theme.ink),
            *marks.state_marks(theme, place, layer, off, hand, mark, theme.ink),
            *marks.picked_marks(theme, place, layer, ringed, mark + 7),
            *_legend(theme, se is not None and doubt == "veil"),
        ]
    )
    whole = {"showgrid": False, "fixedrange": True}
    said = {"veil": f"Faint: |z| < {Z_NOISE} s.e.", "fade": f"Paler: |z| nearer to 0 than {Z_NOISE} s.e.", "none": ""}
    notes = ["" if se is None else said[doubt], note]
    left, below = -1.5 if handles else -0.5, -1.5 if handles and order is None else -0.5
    ranked = "head" if order is None else "rank in its layer"
    fig.layout = layout(
        theme,
        title,
        "  ".join(filter(None, notes)),
        height,
        BOTTOM,
        RIGHT,
        entry=104,
        hoverdistance=-1,  # every spot belongs to the nearest head, however wide its cell
        xaxis=axis(theme, ranked, range=[left, n_heads - 0.5], tickvals=_steps(n_heads), tickangle=0, **whole),
        yaxis=axis(theme, "layer", range=[below, n_layers - 0.5], tickvals=_steps(n_layers), **whole),
    )
    return fig


def _steps(n: int) -> list[int]:
    """Places of tick labels, so that about 16 at most stand on an axis of n."""
    return list(range(0, n, next(step for step in (1, 2, 4, 8, 16, 32, n) if n <= 16 * step)))


Scaled = tuple[Floats, dict[str, Any], str]  # what the colors stand for, their ends and bar, what is to be said


def _linear(z: Floats, unit: str, limit: float | None) -> Scaled:
    limit = clip_limit(z) if limit is None else limit
    if not 0 < limit < np.inf:
        raise InputError(f"Colors cannot end at {limit}: give a limit above 0, or none.")
    beyond = int((np.abs(z) > limit).sum())
    below, above = ("≤ ", "≥ ") if beyond else ("", "")
    at = [-limit, -limit / 2, 0, limit / 2, limit]
    labels = [short(tick, 3) for tick in at]
    bar = _colorbar(unit, at, [below + labels[0], *labels[1:4], above + labels[4]])
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
    bar = _colorbar(unit, symlog(at, center).tolist(), [short(tick, 2) for tick in at])
    return shown, {"zmin": -end, "zmid": 0, "zmax": end, "colorbar": bar}, "Colors are logarithmic away from 0."


def _checked_order(order: ArrayLike, n_layers: int, n_heads: int) -> NDArray[np.int64]:
    ids = np.asarray(order)
    own = np.arange(n_layers * n_heads)
    if ids.shape != own.shape or (np.sort(ids.reshape(n_layers, n_heads), 1).ravel() != own).any():
        raise InputError("An order names each head once, layer after layer.")
    return ids.astype(np.int64)


def _handles(theme: Theme, n_layers: int, n_heads: int, columns: bool) -> list[go.Scatter]:
    rows, heads = np.arange(n_layers), np.arange(n_heads if columns else 0)
    layer_texts = [f"Layer {i}\nclick for all its {n_heads} heads" for i in rows]
    head_texts = [f"Head {i} of every layer\nclick for all {n_layers}" for i in heads]
    return [
        marks.handle_trace(np.full(n_layers, -1), rows, layer_texts, "layers", "triangle-right", theme.faint),
        marks.handle_trace(heads, np.full(len(heads), -1), head_texts, "head columns", "triangle-up", theme.faint),
    ]


def _colorbar(unit: str, at: Sequence[float], labels: Sequence[str]) -> dict[str, Any]:
    return {
        # a blank second line keeps it clear of the top label; only inside a span is it not dropped
        "title": {"text": f"{escape(unit)}<br><span>\u00a0</span>", "side": "top", "font": {"size": 12}},
        "tickvals": list(at),
        "ticktext": list(labels),
        "thickness": 11,
        "outlinewidth": 0,
        "len": 1,
        "xpad": 8,
    }


def _outlines(
    head: marks.Places, layer: marks.Places, ids: set[int], reach: tuple[float, float], color: str
) -> go.Scatter:
    """Squares in one path: exact at any size of the chart, and out of the reach of selections."""
    chosen = sorted(ids)
    x = head[chosen, None] + reach[0] * np.array([-1, 1, 1, -1, -1, np.nan])
    y = layer[chosen, None] + reach[1] * np.array([-1, -1, 1, 1, -1, np.nan])
    line = {"color": color, "width": 1.1}
    return go.Scatter(
        x=x.ravel(), y=y.ravel(), name="critical", mode="lines", line=line, hoverinfo="skip", showlegend=False
    )


def _legend(theme: Theme, has_errors: bool) -> list[go.Scatter]:
    swatch = veiled(theme.scale[-1], theme.neutral)
    return [
        marks.legend_entry("critical", symbol="square-open", size=11, color=theme.ink, line={"width": 1.5}),
        *([marks.legend_entry("sign within noise", symbol="square", size=12, color=swatch)] if has_errors else []),
        marks.legend_entry("not scored yet", symbol="square", size=12, color=theme.missing),
    ]
