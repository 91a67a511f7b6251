"""Predictions against measurements, and lists of numbers with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures.theme import (
    BASE,
    PRUNED,
    Theme,
    Words,
    axis,
    check_texts,
    error_bars,
    figure,
    hovering,
    row_axis,
    short,
    vector,
    zero_axis,
)
from fasp_core.typing import Floats

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
    words: Words,
    *,
    kinds: Sequence[str],
    hover: Sequence[str],
    solid: ArrayLike | None = None,
    solid_name: str = "",
) -> go.Figure:
    """One point a set of heads, with both intervals; where effects add up points lie on the dashed line.

    Parameters
    ----------
    kinds : [n] name of what each point is; the first name that occurs is drawn in blue, the others in gray.
    solid : [n] bool, points that are filled, which `solid_name` explains; None fills all.
    """
    theme, n = words.theme, len(kinds)
    check_texts("hover", hover, n)
    xs, ys = predicted.arrays("predicted", n), measured.arrays("measured", n)
    full = np.ones(n, dtype=bool) if solid is None else vector("solid", solid, n).astype(bool)
    names = np.array(kinds, dtype=object)
    traces: list[Any] = [_identity(theme, xs[0], ys[0])]
    for i, kind in enumerate(dict.fromkeys(kinds)):
        color, symbol = STYLES[min(i, 1)]
        for filled in (True, False):
            at = np.flatnonzero((names == kind) & (full == filled))
            if not at.size:
                continue
            traces.append(
                go.Scatter(
                    x=xs[0][at],
                    y=ys[0][at],
                    mode="markers",
                    name=kind + (f", {solid_name}" if filled and solid_name else ""),
                    marker={"color": color, "size": 8, "symbol": symbol if filled else f"{symbol}-open"},
                    error_x=error_bars(*(x[at] for x in xs), color=color, thickness=0.8),
                    error_y=error_bars(*(y[at] for y in ys), color=color, thickness=0.8),
                    **hovering(hover[int(j)] for j in at),
                )
            )
    across, upwards = (zero_axis(theme, f"{what} change, {words.unit}") for what in ("predicted", "measured"))
    return figure(traces, words, 440, 84, xaxis=across, yaxis=upwards)


def growing_sets(
    sizes: Sequence[ArrayLike],
    predicted: Sequence[ArrayLike],
    measured: Sequence[Ends],
    words: Words,
    *,
    names: Sequence[str],
) -> go.Figure:
    """What growing sets do: a solid line through the measurements with bars, a dotted one through the predictions.

    Parameters
    ----------
    sizes, predicted, measured : for each of the K kinds of `names`, by growing size.
    names : the first is drawn in blue, the others in gray; only one of the gray ones stands in the legend.
    """
    theme, unit = words.theme, words.unit
    traces: list[Any] = []
    for i, (name, size, forecast, found) in enumerate(zip(names, sizes, predicted, measured, strict=True)):
        n = np.asarray(size).size
        x, y = vector("sizes", size, n), vector("predicted", forecast, n)
        value, low, high = found.arrays("measured", n)
        color, symbol = STYLES[min(i, 1)]
        label = name if not i else name.rsplit(" ", 1)[0]
        texts = [
            f"{name}, {int(k)} heads\nmeasured {short(v, 3)} [{short(a, 3)}, {short(b, 3)}] {unit}\n"
            f"predicted {short(p, 3)} {unit}"
            for k, v, a, b, p in zip(x, value, low, high, y, strict=True)
        ]
        traces += [
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                name=f"{label}, predicted",
                showlegend=i < 2,
                line={"color": color, "width": 1.6, "dash": "dot"},
                hoverinfo="skip",
            ),
            go.Scatter(
                x=x,
                y=value,
                mode="lines+markers",
                name=f"{label}, measured",
                showlegend=i < 2,
                line={"color": color, "width": 2 if not i else 1.2},
                marker={"color": color, "symbol": symbol, "size": 7},
                error_y=error_bars(value, low, high, color=color, thickness=0.8),
                **hovering(texts),
            ),
        ]
    across, upwards = axis(theme, "heads pruned", rangemode="tozero"), zero_axis(theme, f"change, {unit}")
    return figure(traces, words, 440, 84, xaxis=across, yaxis=upwards)


def interval_list(
    found: Ends, words: Words, *, labels: Sequence[str], hover: Sequence[str], strong: ArrayLike
) -> go.Figure:
    """A bar a row with its interval, in the given order from the top; the height grows with the rows.

    Parameters
    ----------
    labels, hover : [n].
    strong : [n] bool, rows beyond noise, which are drawn in blue; the others are gray.
    """
    theme, n = words.theme, len(labels)
    check_texts("hover", hover, n)
    ends = found.arrays("values", n)
    blue = vector("strong", strong, n).astype(bool)
    bars = []
    for name, color, where in (("beyond noise", PRUNED, blue), ("may be noise", BASE, ~blue)):
        at = np.flatnonzero(where)
        if not at.size:
            continue
        bars.append(
            go.Bar(
                x=ends[0][at],
                y=at,
                orientation="h",
                name=name,
                marker={"color": color},
                error_x=error_bars(*(end[at] for end in ends), color=theme.text, thickness=1.2),
                **hovering((hover[int(i)] for i in at), "hovertext"),
            )
        )
    return figure(
        bars,
        words,
        max(220, 150 + 24 * n),
        84,
        xaxis=axis(theme, words.unit, fixedrange=True, showgrid=True, zeroline=True, zerolinecolor=theme.faint),
        yaxis=row_axis(theme, labels, NAME),
        bargap=0.35,
        barmode="overlay",
    )


def _identity(theme: Theme, x: Floats, y: Floats) -> go.Scatter:
    both = np.concatenate([x[np.isfinite(x)], y[np.isfinite(y)]])
    ends = [float(both.min(initial=0)), float(both.max(initial=0))]
    line = {"color": theme.faint, "width": 1.4, "dash": "5px,4px"}
    return go.Scatter(x=ends, y=ends, mode="lines", name="effects add up", line=line, hoverinfo="skip")


def word_strips(
    word_groups: Sequence[str],
    scores: Ends,
    words: Words,
    *,
    groups: Sequence[str],
    group_means: ArrayLike,
    hover: Sequence[str],
) -> go.Figure:
    """One point a word in the row of its group, its range as a line, and a stroke at the mean of each group.

    Parameters
    ----------
    word_groups, scores, hover : [m] of the words.
    groups, group_means : [G] rows, the first on top; the height grows with G.
    """
    theme, m, n = words.theme, len(word_groups), len(groups)
    check_texts("hover", hover, m)
    value, lowest, highest = scores.arrays("means", m)
    row = {group: i for i, group in enumerate(groups)}
    if missing := set(word_groups) - set(row):
        raise InputError(f"There is no row for the group '{min(missing)}': name every group of the words.")
    y = np.array([row[group] for group in word_groups], dtype=np.float64)
    for i in range(n):  # words of a group one above the other, so that none hides another
        at = np.flatnonzero(y == i)
        y[at] += np.linspace(-0.3, 0.3, at.size) if at.size > 1 else 0.0
    traces = [
        go.Scatter(
            x=np.repeat(vector("group_means", group_means, n), 3),
            y=np.array([[i - 0.42, i + 0.42, np.nan] for i in range(n)]).ravel(),
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
            error_x=error_bars(value, lowest, highest, color=PRUNED, thickness=0.8),
            **hovering(hover),
        ),
    ]
    most = max(0.2, float(np.nanmax(highest, initial=0)) * 1.05)
    return figure(
        traces,
        words,
        max(280, 150 + 34 * n) if n < 20 else 150 + 22 * n,
        84,
        xaxis=axis(theme, words.unit, range=[-0.02, most], showgrid=True),
        yaxis=row_axis(theme, groups, NAME),
    )
