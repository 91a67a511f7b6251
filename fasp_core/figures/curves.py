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
    Floats,
    Theme,
    axis,
    check_texts,
    hover_text,
    layout,
    short,
    theme_of,
    vector,
    veil,
)

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
    hover : [A] plain texts; the first line is set in bold.
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
    *,
    title: str,
    note: str,
    x_title: str,
    y_title: str,
    reference: float,
    floor: float | None = None,
    chosen: tuple[float, float] | None = None,
    cap: float | None = None,
    log_y: bool = False,
    dark: bool = False,
) -> go.Figure:
    """A line for each method, with bars or a band, and the unpruned model as a dashed line.

    Parameters
    ----------
    reference : y of the unpruned model.
    floor : y that noise alone would give; None: no such line.
    chosen : (x, y) of the chosen set, ringed.
    cap : end of the vertical axis if values go beyond; a line under the title says how many. Ignored with `log_y`.

    Raises
    ------
    InputError
        Arrays that are not as long as `hover`, a style that there is not.
    """
    theme = theme_of(dark)
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
        traces.append(_line(curve, x, y, low, high, color))
    ends = np.array([xs[0] - 0.6 * step, xs[-1] + 0.6 * step])
    traces.append(_level(ends, reference, f"unpruned: {short(reference, 3)}", theme.text, "6px,4px"))
    if floor is not None:
        traces.append(_level(ends, floor, f"noise alone: {short(floor, 3)}", theme.faint, "1.5px,3px"))
    if chosen is not None:
        traces.append(_ring(theme, *chosen))
    vertical: dict[str, Any] = {"showgrid": True, "type": "log" if log_y else "linear"}
    if not log_y:
        vertical |= {"range": [0, cap]} if beyond else {"rangemode": "tozero"}
    more = f" {beyond} of {sum(len(y) for _, y, *_ in read)} points lie above; double-click shows them." * bool(beyond)
    fig = go.Figure(traces)
    across = axis(theme, x_title, range=ends.tolist(), tickvals=xs.tolist(), ticktext=[f"{x:g}" for x in xs])
    fig.layout = layout(theme, title, note + more, 430, 116, xaxis=across, yaxis=axis(theme, y_title, **vertical))
    fig.layout.legend.update(itemclick="toggle", itemdoubleclick="toggleothers", traceorder="normal")
    return fig


def tradeoff(
    x: ArrayLike,
    y: ArrayLike,
    *,
    styles: Sequence[int],
    names: Sequence[str],
    hover: Sequence[str],
    title: str,
    note: str,
    x_title: str,
    y_title: str,
    reference: tuple[float, float],
    limit: float,
    floor: float | None = None,
    chosen: int | None = None,
    x_cap: float | None = None,
    y_cap: float | None = None,
    dark: bool = False,
) -> go.Figure:
    """One point a candidate, cost to the right and gap upwards, with the Pareto front and the limit on the cost.

    The front takes in the unpruned model. What lies beyond a cap stands at the edge, and a line under the title says
    so.

    Parameters
    ----------
    x, y : [n]; nan is left out.
    styles : [n] indices into `Theme.series`.
    names : by style, for the legend.
    hover : [n] plain texts; the first line is set in bold.
    reference : the unpruned model's x and y.
    limit : x that must not be passed. floor : y that noise alone would give. chosen : index of the chosen candidate.

    Raises
    ------
    InputError
        Arrays that are not as long as `hover`, a style or a chosen candidate that there is not.
    """
    theme, n = theme_of(dark), len(hover)
    check_texts("hover", hover, n)
    across, upwards = vector("x", x, n), vector("y", y, n)
    if len(styles) != n or any(not 0 <= s < min(len(SYMBOLS), len(names)) for s in styles):
        raise InputError(f"styles must be {n} whole numbers, each below {min(len(SYMBOLS), len(names))}.")
    if chosen is not None and not 0 <= chosen < n:
        raise InputError(f"There is no candidate {chosen}: they are numbered from 0 to {n - 1}.")
    front = pareto_front(np.append(across, reference[0]), np.append(upwards, reference[1]))
    x_end, y_end = (np.inf if cap is None else cap for cap in (x_cap, y_cap))
    there = np.isfinite(across) & np.isfinite(upwards)
    beyond = int((there & ((across > x_end) | (upwards > y_end))).sum())
    shown_x, shown_y = np.minimum(across, x_end), np.minimum(upwards, y_end)
    fronted_x, fronted_y = np.append(shown_x, reference[0])[front], np.append(shown_y, reference[1])[front]
    fig = go.Figure()
    fig.add_trace(
        go.Scatter(
            x=fronted_x,
            y=fronted_y,
            mode="lines",
            line={"shape": "hv", "color": theme.text, "width": 1.3},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    where = np.asarray(styles, dtype=int)
    for style in (s for s in range(len(names)) if (where == s).any()):
        at = np.flatnonzero(there & (where == style))
        fig.add_trace(
            go.Scatter(
                x=shown_x[at],
                y=shown_y[at],
                mode="markers",
                name=names[style],
                marker={
                    "symbol": SYMBOLS[style],
                    "color": theme.series[style],
                    "size": 9,
                    "line": {"color": theme.halo, "width": 0.0 if SYMBOLS[style].endswith("open") else 0.7},
                },
                text=[hover_text(hover[int(i)]) for i in at],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    fig.add_trace(
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
        fig.add_trace(_ring(theme, float(shown_x[chosen]), float(shown_y[chosen])))
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
    more = f" {beyond} of {int(there.sum())} lie beyond the edge at which they stand." * bool(beyond)
    fig.layout.update(
        layout(
            theme,
            title,
            note + more,
            520,
            96,
            xaxis=axis(theme, x_title, showgrid=True, zeroline=True, zerolinecolor=theme.line),
            yaxis=axis(theme, y_title, showgrid=True, rangemode="tozero"),
        )
    )
    fig.layout.legend.update(itemclick="toggle", itemdoubleclick="toggleothers")
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


def _line(curve: Curve, x: Floats, y: Floats, low: Floats, high: Floats, color: str) -> go.Scatter:
    bars = {
        "type": "data",
        "symmetric": False,
        "array": np.maximum(np.nan_to_num(high - y), 0),
        "arrayminus": np.maximum(np.nan_to_num(y - low), 0),
        "color": veil(color, 0.55),
        "thickness": 1,
        "width": 2,
    }
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=curve.name,
        legendgroup=curve.name,
        line={"color": color, "width": 1.8, "dash": DASHES[curve.style]},
        marker={"symbol": SYMBOLS[curve.style], "size": 7, "color": color},
        error_y=None if curve.band else bars,
        text=[hover_text(text) for text in curve.hover],
        hovertemplate="%{text}<extra></extra>",
    )


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


def _level(ends: Floats, y: float, name: str, color: str, dash: str) -> go.Scatter:
    return go.Scatter(
        x=ends, y=[y, y], mode="lines", name=name, line={"color": color, "width": 1.3, "dash": dash}, hoverinfo="skip"
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
