"""Methods compared: lines over the share of heads pruned, and what each set buys against what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.figures.theme import (
    CLEAR,
    Theme,
    Words,
    axis,
    check_texts,
    error_bars,
    figure,
    hovering,
    short,
    vector,
    veil,
)
from fasp_core.typing import Floats

# a shape and a dash for each color of `Theme.series`, so that no method is told by its color alone
SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "cross", "circle-open", "diamond")
DASHES = ("solid", "8px,3px", "2px,3px", "8px,3px,2px,3px", "12px,4px", "solid", "solid")
DODGE = 0.4  # of the distance between two alphas, shared by all lines, so that their bars stand side by side


@dataclass(frozen=True, eq=False)
class Curve:
    """One method.

    Attributes
    ----------
    style : index into `Theme.series`.
    x, y, low, high : [A] by rising x; nan is left out.
    hover : [A].
    band : low and high are drawn as a band of several runs, else as bars of an interval.
    """

    name: str
    style: int
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike
    high: ArrayLike
    hover: Sequence[str]
    band: bool = False


def method_curves(
    curves: Sequence[Curve],
    words: Words,
    *,
    reference: float,
    floor: float | None = None,
    chosen: tuple[float, float] | None = None,
    cap: float | None = None,
    log_y: bool = False,
) -> go.Figure:
    """A line for each method, with bars or a band, and the unpruned model as a dashed line.

    Parameters
    ----------
    reference : y of the unpruned model.
    floor : y that noise alone would give; None: no such line.
    chosen : (x, y) of the chosen set, ringed.
    cap : end of the vertical axis if values go beyond; a line under the title says how many. Ignored with `log_y`.
    """
    theme = words.theme
    read = [_checked(curve) for curve in curves]
    xs = np.unique(np.concatenate([x for x, *_ in read])) if read else np.zeros(1)
    step = float(np.diff(xs).min()) if xs.size > 1 else 1.0
    barred = [i for i, curve in enumerate(curves) if not curve.band]
    traces: list[go.Scatter] = []
    beyond = 0
    for i, (curve, (x, y, low, high)) in enumerate(zip(curves, read, strict=True)):
        color = theme.series[curve.style]
        if curve.band:
            traces.append(_band(curve, x, low, high, color))
        else:
            x = x + DODGE * step * ((barred.index(i) + 0.5) / len(barred) - 0.5)
        beyond += 0 if cap is None or log_y else int((y > cap).sum())
        traces.append(
            go.Scatter(
                x=x,
                y=y,
                mode="lines+markers",
                name=curve.name,
                legendgroup=curve.name,
                line={"color": color, "width": 1.8, "dash": DASHES[curve.style]},
                marker={"symbol": SYMBOLS[curve.style], "size": 7, "color": color},
                error_y=None if curve.band else error_bars(y, low, high, color=veil(color, 0.55), width=2),
                **hovering(curve.hover),
            )
        )
    ends = np.array([xs[0] - 0.6 * step, xs[-1] + 0.6 * step])
    levels = [("unpruned", reference, theme.text, "6px,4px"), ("noise alone", floor, theme.faint, "1.5px,3px")]
    for name, level, color, dash in levels:
        if level is not None:
            line = {"color": color, "width": 1.3, "dash": dash}
            name = f"{name}: {short(level, 3)}"
            traces.append(go.Scatter(x=ends, y=[level] * 2, mode="lines", name=name, line=line, hoverinfo="skip"))
    if chosen is not None:
        traces.append(_ring(theme, *chosen))
    vertical: dict[str, Any] = {"showgrid": True, "type": "log" if log_y else "linear"}
    if not log_y:
        vertical |= {"range": [0, cap]} if beyond else {"rangemode": "tozero"}
    more = f"{beyond} of {sum(len(y) for _, y, *_ in read)} points lie above; double-click shows them." * bool(beyond)
    across = axis(theme, words.x, range=ends.tolist(), tickvals=xs.tolist(), ticktext=[f"{x:g}" for x in xs])
    fig = figure(traces, words, 430, 116, also=more, xaxis=across, yaxis=axis(theme, words.y, **vertical))
    fig.layout.legend.update(itemclick="toggle", itemdoubleclick="toggleothers", traceorder="normal")
    return fig


@dataclass(frozen=True, eq=False)
class Points:
    """Candidates.

    Attributes
    ----------
    x, y, hover : [n]; nan is left out.
    styles : [n] indices into `Theme.series`. names : by style, for the legend.
    """

    x: ArrayLike
    y: ArrayLike
    hover: Sequence[str]
    styles: Sequence[int]
    names: Sequence[str]


def tradeoff(
    points: Points,
    words: Words,
    *,
    reference: tuple[float, float],
    limit: float | None,
    floor: float | None = None,
    chosen: int | None = None,
    caps: tuple[float, float] = (np.inf, np.inf),
) -> go.Figure:
    """One point a candidate, cost to the right and gap upwards, with the Pareto front and the limit on the cost.

    The front takes in the unpruned model. What lies beyond a cap stands at the edge, and a line under the title says
    so.

    Parameters
    ----------
    reference : the unpruned model's x and y.
    limit : x that must not be passed, if any.
    floor : y that noise alone would give. chosen : index of the chosen candidate.
    caps : ends of x and y.
    """
    theme, n, names = words.theme, len(points.hover), points.names
    check_texts("hover", points.hover, n)
    across, upwards = vector("x", points.x, n), vector("y", points.y, n)
    if len(points.styles) != n or any(not 0 <= s < min(len(SYMBOLS), len(names)) for s in points.styles):
        raise InputError(f"styles must be {n} whole numbers, each below {min(len(SYMBOLS), len(names))}.")
    if chosen is not None and not 0 <= chosen < n:
        raise InputError(f"There is no candidate {chosen}: they are numbered from 0 to {n - 1}.")
    front = pareto_front(np.append(across, reference[0]), np.append(upwards, reference[1]))
    there = np.isfinite(across) & np.isfinite(upwards)
    beyond = int((there & ((across > caps[0]) | (upwards > caps[1]))).sum())
    shown_x, shown_y = np.minimum(across, caps[0]), np.minimum(upwards, caps[1])
    traces = [
        go.Scatter(
            x=np.append(shown_x, reference[0])[front],
            y=np.append(shown_y, reference[1])[front],
            mode="lines",
            line={"shape": "hv", "color": theme.text, "width": 1.3},
            name="Pareto front",
            hoverinfo="skip",
        )
    ]
    where = np.asarray(points.styles, dtype=int)
    for style in (s for s in range(len(names)) if (where == s).any()):
        at = np.flatnonzero(there & (where == style))
        edge = {"color": theme.halo, "width": 0.0 if SYMBOLS[style].endswith("open") else 0.7}
        traces.append(
            go.Scatter(
                x=shown_x[at],
                y=shown_y[at],
                mode="markers",
                name=names[style],
                marker={"symbol": SYMBOLS[style], "color": theme.series[style], "size": 9, "line": edge},
                **hovering(points.hover[int(i)] for i in at),
            )
        )
    traces.append(
        go.Scatter(
            x=[reference[0]],
            y=[reference[1]],
            mode="markers",
            name="unpruned",
            marker={"symbol": "star", "size": 13, "color": theme.text, "line": {"color": theme.halo, "width": 0.8}},
            hovertemplate=f"<b>unpruned</b><br>{short(reference[1], 3)}<extra></extra>",
        )
    )
    if chosen is not None and there[chosen]:
        traces.append(_ring(theme, float(shown_x[chosen]), float(shown_y[chosen])))
    fig = figure(
        traces,
        words,
        520,
        96,
        also=f"{beyond} of {int(there.sum())} lie beyond the edge at which they stand." * bool(beyond),
        xaxis=axis(theme, words.x, showgrid=True, zeroline=True, zerolinecolor=theme.line),
        yaxis=axis(theme, words.y, showgrid=True, rangemode="tozero"),
    )
    fig.layout.legend.update(itemclick="toggle", itemdoubleclick="toggleothers")
    if limit is not None:
        fig.add_vline(x=limit, line={"color": theme.text, "width": 1, "dash": "4px,3px"})
        fig.add_annotation(
            x=limit, y=1, yref="paper", text="limit", showarrow=False, xanchor="left", yanchor="top", xshift=4
        )
    if floor is not None:
        fig.add_hline(y=floor, line={"color": theme.faint, "width": 1, "dash": "1.5px,3px"})
        fig.add_annotation(
            x=0, xref="paper", y=floor, text="noise alone", showarrow=False, xanchor="left", yanchor="bottom",
            font={"size": 11, "color": theme.faint},
        )  # fmt: skip
    return fig


def pareto_front(x: ArrayLike, y: ArrayLike) -> NDArray[np.intp]:
    """Indices of the points that no other point beats, where less is better in both, by rising x.

    A point beats another if it is at most as large in both and smaller in one; equal points are both kept. Points that
    are not finite in both are never on the front.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    there = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
    kept: list[int] = []
    for i in there[np.lexsort((b[there], a[there]))]:
        if not kept or b[i] < b[kept[-1]] or (a[i], b[i]) == (a[kept[-1]], b[kept[-1]]):
            kept.append(int(i))
    return np.array(kept, dtype=np.intp)


def _checked(curve: Curve) -> tuple[Floats, Floats, Floats, Floats]:
    n = len(curve.hover)
    check_texts("hover", curve.hover, n)
    if not 0 <= curve.style < len(SYMBOLS):
        raise InputError(f"There is no style {curve.style}: use 0 to {len(SYMBOLS) - 1}.")
    x, y, low, high = (vector(name, getattr(curve, name), n) for name in ("x", "y", "low", "high"))
    return x, y, low, high


def _band(curve: Curve, x: Floats, low: Floats, high: Floats, color: str) -> go.Scatter:
    there = np.isfinite(low) & np.isfinite(high)
    return go.Scatter(
        x=np.concatenate([x[there], x[there][::-1]]),
        y=np.concatenate([high[there], low[there][::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=veil(color, 0.22),
        line={"color": CLEAR, "width": 0},
        name=curve.name,
        legendgroup=curve.name,
        showlegend=False,
        hoverinfo="skip",
    )


def _ring(theme: Theme, x: float, y: float) -> go.Scatter:
    return go.Scatter(
        x=[x],
        y=[y],
        mode="markers",
        name="chosen",
        marker={"symbol": "circle-open", "size": 19, "color": theme.ink, "line": {"width": 2.2}},
        hoverinfo="skip",
    )
