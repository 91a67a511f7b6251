"""A change as a staircase: where it begins, what each part adds, where it ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures.marks import checked_ids
from fasp_core.figures.theme import (
    BASE,
    PRUNED,
    Words,
    axis,
    check_texts,
    error_bars,
    figure,
    hovering,
    row_axis,
    short,
    vector,
)
from fasp_core.typing import Floats

ROWS = 30  # parts with a row of their own; the smallest beyond share one
NAME = 30  # characters of a part's name that the axis shows


def shown_parts(values: Floats, most: int = ROWS) -> tuple[list[int], list[int]]:
    """Places of the parts with rows of their own, the one that lowers most first, and of the others, which share one.

    The others are the smallest; where only one would be among them, there is none.
    """
    order = np.argsort(-np.abs(values), kind="stable")
    count = len(values) if len(values) <= most + 1 else most
    rows = sorted(order[:count].tolist(), key=lambda i: (values[i], i))
    return rows, sorted(order[count:].tolist())


def waterfall(
    names: Sequence[str],
    values: ArrayLike,
    intervals: ArrayLike,
    ends: tuple[float, float],
    words: Words,
    *,
    marked: Collection[int] = (),
) -> go.Figure:
    """A row for the beginning, one for each part from the lowest to the highest, and one for the end.

    A part that lowers is blue and drawn to the left, one that raises orange and to the right: the direction says what
    the color says. Marked parts have a hatch, and a star before their name.

    Parameters
    ----------
    names, values : [H] of the parts. intervals : [H, 2]; NaN leaves a bar out.
    ends : where the change begins and ends. If parts miss the end, the last step is drawn from where they come to.
    words : `unit` is the title of the horizontal axis.
    marked : places of parts that are to be noticed.
    """
    theme, h = words.theme, len(names)
    check_texts("names", names, h)
    parts, spans = vector("values", values, h), np.asarray(intervals, dtype=np.float64)
    if spans.shape != (h, 2):
        raise InputError(f"intervals have shape {spans.shape}: they need ({h}, 2), a lower and an upper end each.")
    stars = checked_ids("marked", marked, h)
    own, others = shown_parts(parts)
    steps = [(names[i], parts[i], spans[i], i in stars) for i in own]
    if others:
        rest = parts[others].sum()
        steps.insert(
            int(np.searchsorted(parts[own], rest)), (f"{len(others)} smaller ones", rest, np.full(2, np.nan), False)
        )
    size = np.array([part for _, part, _, _ in steps])
    reached = ends[0] + np.concatenate([[0.0], np.cumsum(size)])  # before each step, and after the last
    traces: list[go.Bar | go.Scatter] = []
    for title, color, pick in (("lowers", theme.scale[0], size < 0), ("raises", theme.scale[4], size >= 0)):
        at = np.flatnonzero(pick)
        low, high = (np.array([span[k] for _, _, span, _ in steps])[at] for k in (0, 1))
        texts = [
            f"{steps[i][0]}\n{title} by {short(abs(size[i]), 3)}"
            + ("" if np.isnan(low[j]) else f"; part {short(size[i], 3)} [{short(low[j], 3)}, {short(high[j], 3)}]")
            + ("\nraises it beyond noise" if steps[i][3] else "")
            for j, i in enumerate(at)
        ]
        traces.append(
            go.Bar(
                base=reached[at],
                x=size[at],
                y=at + 1,
                orientation="h",
                name=title,
                marker={
                    "color": color,
                    "pattern": {
                        "shape": ["/" if steps[i][3] else "" for i in at],
                        "fgcolor": theme.page,
                        "solidity": 0.25,
                    },
                },
                error_x=error_bars(size[at], low, high, color=theme.text, thickness=1.2, width=2),
                **hovering(texts, "hovertext"),
            )
        )
    n = len(steps) + 2
    for title, value, color, row in (("unpruned", ends[0], BASE, 0), ("pruned", ends[1], PRUNED, n - 1)):
        traces.append(
            go.Bar(
                x=[value],
                y=[row],
                orientation="h",
                name=title,
                marker={"color": color},
                **hovering([f"{title}\n{short(value, 4)}"], "hovertext"),
            )
        )
    stairs_x = np.repeat(reached, 2)
    stairs_y = np.stack([np.arange(len(reached)), np.arange(1, len(reached) + 1)], -1).reshape(-1)
    line = {"color": theme.faint, "width": 1, "dash": "2px,2px", "shape": "linear"}
    traces.append(go.Scatter(x=stairs_x, y=stairs_y, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    labels = ["unpruned", *(("★ " if star else "") + name for name, _, _, star in steps), "pruned"]
    return figure(
        traces,
        words,
        max(240, 140 + 22 * n),
        84,
        title_at="container",
        xaxis=axis(theme, words.unit, fixedrange=True, showgrid=True, range=_range(reached, steps, ends)),
        yaxis=row_axis(theme, labels, NAME),
        bargap=0.25,
        barmode="overlay",
    )


def _range(
    reached: Floats, steps: Sequence[tuple[str, float, Floats, bool]], ends: tuple[float, float]
) -> tuple[float, float]:
    """What the steps need, with their intervals; from 0 where that is not far away."""
    places = [*reached, *ends]
    for start, (_, _, span, _) in zip(reached, steps, strict=False):
        places += [start + x for x in span if np.isfinite(x)]
    low, high = min(places), max(places)
    room = (high - low or abs(high) or 1.0) * 0.06
    low = 0.0 if 0 <= low < 3 * (high - low) else low - room
    return low, high + room
