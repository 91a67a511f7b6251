"""Predictions against measurements, and lists of numbers with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.figures.theme import (
    BASE,
    PRUNED,
    Floats,
    Theme,
    axis,
    check_texts,
    escape,
    hover_text,
    layout,
    short,
    theme_of,
    vector,
)

NAME = 44  # characters of a label that an axis shows; the label under the pointer has all
STYLES = ((PRUNED, "circle"), (BASE, "diamond"))  # the first kind, then all others


@dataclass(frozen=True, eq=False)
class Ends:
    """Numbers [n] with the ends of their intervals."""

    value: ArrayLike
    low: ArrayLike
    high: ArrayLike

    def arrays(self, name: str, n: int) -> tuple[Floats, Floats, Floats]:
        value, low, high = (vector(name, part, n) for part in (self.value, self.low, self.high))
        if (low > high).any():
            raise InputError(f"{name} has a lower end above the upper one: give low and high in this order.")
        return value, low, high


def predicted_against_measured(
    predicted: Ends,
    measured: Ends,
    *,
    kinds: Sequence[str],
    hover: Sequence[str],
    title: str,
    unit: str,
    note: str = "",
    solid: ArrayLike | None = None,
    solid_name: str = "",
    dark: bool = False,
) -> go.Figure:
    """One point a set of heads, with both intervals; where effects add up points lie on the dashed line.

    Parameters
    ----------
    kinds : [n] name of what each point is; the first name that occurs is drawn in blue, the others in gray.
    hover : [n] plain texts; the first line is set in bold.
    solid : [n] bool, points that are filled, which `solid_name` explains; None fills all.

    Raises
    ------
    InputError
        Arrays that are not as long as `kinds`, an interval whose ends are swapped.
    """
    theme, n = theme_of(dark), len(kinds)
    check_texts("hover", hover, n)
    x, x_low, x_high = predicted.arrays("predicted", n)
    y, y_low, y_high = measured.arrays("measured", n)
    full = np.ones(n, dtype=bool) if solid is None else vector("solid", solid, n).astype(bool)
    names = np.array(kinds, dtype=object)
    traces: list[Any] = [_identity(theme, x, y)]
    for i, kind in enumerate(dict.fromkeys(kinds)):
        color, symbol = STYLES[min(i, 1)]
        for filled in (True, False):
            at = np.flatnonzero((names == kind) & (full == filled))
            if not at.size:
                continue
            traces.append(
                go.Scatter(
                    x=x[at],
                    y=y[at],
                    mode="markers",
                    name=kind + (f", {solid_name}" if filled and solid_name else ""),
                    marker={"color": color, "size": 8, "symbol": symbol if filled else f"{symbol}-open"},
                    error_x=_bars(x[at], x_low[at], x_high[at], color),
                    error_y=_bars(y[at], y_low[at], y_high[at], color),
                    text=[hover_text(hover[int(j)]) for j in at],
                    hovertemplate="%{text}<extra></extra>",
                )
            )
    fig = go.Figure(traces)
    zero = {"zeroline": True, "zerolinecolor": theme.line, "zerolinewidth": 1.2}
    fig.layout = layout(
        theme,
        title,
        note,
        440,
        84,
        xaxis=axis(theme, f"predicted change, {unit}", **zero),
        yaxis=axis(theme, f"measured change, {unit}", **zero),
    )
    return fig


def growing_sets(
    sizes: Sequence[ArrayLike],
    predicted: Sequence[ArrayLike],
    measured: Sequence[Ends],
    *,
    names: Sequence[str],
    title: str,
    unit: str,
    note: str = "",
    dark: bool = False,
) -> go.Figure:
    """What growing sets do: a solid line through the measurements with a band, a dotted one through the predictions.

    Parameters
    ----------
    sizes, predicted, measured : for each of the K kinds of `names`, by growing size.
    names : the first is drawn in blue, the others in gray; only one of the gray ones stands in the legend.
    """
    theme = theme_of(dark)
    traces: list[Any] = []
    for i, (name, size, forecast, found) in enumerate(zip(names, sizes, predicted, measured, strict=True)):
        n = np.asarray(size).size
        x, y = vector("sizes", size, n), vector("predicted", forecast, n)
        value, low, high = found.arrays("measured", n)
        color, symbol = STYLES[min(i, 1)]
        shown = i < 2
        texts = [
            f"{name}, {int(k)} heads\nmeasured {short(v, 3)} [{short(a, 3)}, {short(b, 3)}] {unit}\n"
            f"predicted {short(p, 3)} {unit}"
            for k, v, a, b, p in zip(x, value, low, high, y, strict=True)
        ]
        label = name if not i else name.rsplit(" ", 1)[0]
        hovering = {"text": [hover_text(t) for t in texts], "hovertemplate": "%{text}<extra></extra>"}
        traces += [
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                name=f"{label}, predicted",
                showlegend=shown,
                line={"color": color, "width": 1.6, "dash": "dot"},
                hoverinfo="skip",
            ),
            go.Scatter(
                x=x,
                y=value,
                mode="lines+markers",
                name=f"{label}, measured",
                showlegend=shown,
                line={"color": color, "width": 2 if not i else 1.2},
                marker={"color": color, "symbol": symbol, "size": 7},
                error_y=_bars(value, low, high, color),
                **hovering,
            ),
        ]
    fig = go.Figure(traces)
    zero = {"zeroline": True, "zerolinecolor": theme.line, "zerolinewidth": 1.2}
    fig.layout = layout(
        theme,
        title,
        note,
        440,
        84,
        xaxis=axis(theme, "heads pruned", rangemode="tozero"),
        yaxis=axis(theme, f"change, {unit}", **zero),
    )
    return fig


def interval_list(
    found: Ends,
    *,
    labels: Sequence[str],
    hover: Sequence[str],
    title: str,
    unit: str,
    note: str = "",
    strong: ArrayLike | None = None,
    strong_name: str = "beyond noise",
    weak_name: str = "may be noise",
    dark: bool = False,
) -> go.Figure:
    """A bar a row with its interval, in the given order from the top; the height grows with the rows.

    Parameters
    ----------
    strong : [n] bool, rows that are drawn in blue; the others are gray. None: all are.
    """
    theme, n = theme_of(dark), len(labels)
    check_texts("hover", hover, n)
    value, low, high = found.arrays("values", n)
    blue = np.ones(n, dtype=bool) if strong is None else vector("strong", strong, n).astype(bool)
    bars = []
    for name, color, where in ((strong_name, PRUNED, blue), (weak_name, BASE, ~blue)):
        at = np.flatnonzero(where)
        if not at.size:
            continue
        bars.append(
            go.Bar(
                x=value[at],
                y=at,
                orientation="h",
                name=name,
                marker={"color": color},
                error_x=_bars(value[at], low[at], high[at], theme.text, 1.2),
                hovertext=[hover_text(hover[int(i)]) for i in at],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    fig = go.Figure(bars)
    ticks = [escape(text if len(text) <= NAME else text[: NAME - 1] + "…") for text in labels]
    fig.layout = layout(
        theme,
        title,
        note,
        max(220, 150 + 24 * n),
        84,
        xaxis=axis(theme, unit, fixedrange=True, showgrid=True, zeroline=True, zerolinecolor=theme.faint),
        yaxis=axis(
            theme,
            "",
            range=[n - 0.5, -0.5],  # the first row on top
            fixedrange=True,
            tickvals=list(range(n)),
            ticktext=ticks,
            ticklabelstandoff=6,
        ),
        bargap=0.35,
        barmode="overlay",
    )
    return fig


def _identity(theme: Theme, x: Floats, y: Floats) -> go.Scatter:
    both = np.concatenate([x[np.isfinite(x)], y[np.isfinite(y)]])
    ends = [float(both.min(initial=0)), float(both.max(initial=0))]
    return go.Scatter(
        x=ends,
        y=ends,
        mode="lines",
        name="effects add up",
        line={"color": theme.faint, "width": 1.4, "dash": "5px,4px"},
        hoverinfo="skip",
    )


def _bars(value: Floats, low: Floats, high: Floats, color: str, thickness: float = 0.8) -> dict[str, Any]:
    def size(array: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.nan_to_num(np.maximum(array, 0)))

    return {
        "type": "data",
        "symmetric": False,
        "array": size(high - value),
        "arrayminus": size(value - low),
        "color": color,
        "thickness": thickness,
        "width": 0,
    }


def word_strips(
    word_groups: Sequence[str],
    means: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    groups: Sequence[str],
    group_means: ArrayLike,
    hover: Sequence[str],
    title: str,
    unit: str,
    note: str = "",
    dark: bool = False,
) -> go.Figure:
    """One point a word in the row of its group, its range as a line, and a stroke at the mean of each group.

    Parameters
    ----------
    word_groups, means, low, high, hover : [m] of the words. The first line of `hover` is set in bold.
    groups, group_means : [G] rows, the first on top; the height grows with G.

    Raises
    ------
    InputError
        Arrays of other lengths, a word of no group, ends that are swapped.
    """
    theme, m, n = theme_of(dark), len(word_groups), len(groups)
    check_texts("hover", hover, m)
    value, lowest, highest = Ends(means, low, high).arrays("means", m)
    row = {group: i for i, group in enumerate(groups)}
    if missing := set(word_groups) - set(row):
        raise InputError(f"There is no row for the group '{min(missing)}': name every group of the words.")
    y = np.array([row[group] for group in word_groups], dtype=np.float64)
    for i in range(n):  # words of a group one above the other, so that none hides another
        at = np.flatnonzero(y == i)
        y[at] += np.linspace(-0.3, 0.3, at.size) if at.size > 1 else 0.0
    marks = vector("group_means", group_means, n)
    strokes = np.array([[i - 0.42, i + 0.42, np.nan] for i in range(n)]).ravel()
    fig = go.Figure(
        [
            go.Scatter(
                x=np.repeat(marks, 3),
                y=strokes,
                mode="lines",
                name="mean of the group",
                line={"color": theme.ink, "width": 2},
                hoverinfo="skip",
            ),
            go.Scatter(
                x=value,
                y=y,
                mode="markers",
                name="a word",
                marker={"color": PRUNED, "size": 6},
                error_x=_bars(value, lowest, highest, PRUNED),
                text=[hover_text(t) for t in hover],
                hovertemplate="%{text}<extra></extra>",
            ),
        ]
    )
    labels = [escape(group if len(group) <= NAME else group[: NAME - 1] + "…") for group in groups]
    fig.layout = layout(
        theme,
        title,
        note,
        max(280, 150 + 34 * n) if n < 20 else 150 + 22 * n,
        84,
        xaxis=axis(theme, unit, range=[-0.02, max(0.2, float(np.nanmax(highest, initial=0)) * 1.05)], showgrid=True),
        yaxis=axis(
            theme,
            "",
            range=[n - 0.5, -0.5],
            fixedrange=True,
            tickvals=list(range(n)),
            ticktext=labels,
            ticklabelstandoff=6,
        ),
    )
    return fig
