"""Methods as points, what each takes from the gap against what it costs, and the course of what is learned.

Intervals of both, and the methods that no other one beats in both; of learning, gap and costs step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures.curves import DASHES, pareto_front
from fasp_core.figures.theme import Words, axis, error_bars, escape, figure, hovering, short, veil

# by the beginning of a method's name: color of `Theme.series`, shape, and what the legend says
KINDS = (
    ("fasp", 0, "circle", "FASP"),
    ("search", 6, "diamond", "joint search"),
    ("gains", 1, "star", "learned gains"),
    ("hard-concrete", 3, "square", "learned pruning"),
    ("", 5, "triangle-down", "baselines"),
)
REPAIRED = "+repair"
WIDEST = 2.0  # limits that the picture of methods is wide
COSTS_OF_STEPS = ("text", "last words", "paragraphs")


@dataclass(frozen=True)
class MethodPoint:
    """One method: `x` its cost (less is better), `y` what it takes from the gap in per cent (more is better).

    `x_ends`, `y_ends` are intervals, NaN where not known. What begins alike, such as `gains*0.5`, is of one kind; with
    `+repair` its mark is open.
    """

    name: str
    x: float
    x_ends: tuple[float, float]
    y: float
    y_ends: tuple[float, float]
    hover: str


def method_front(points: Sequence[MethodPoint], words: Words, *, limit: float | None = None) -> go.Figure:
    """Cost to the right, what is taken from the gap upwards, and the methods that no other one beats in both joined.

    The unpruned model stands at 0, 0 and is part of the front.

    Parameters
    ----------
    limit : x that a choice keeps to, on the validation side. What lies beyond twice of it is named and not drawn.

    Raises
    ------
    InputError
        A point is not finite.
    """
    theme = words.theme
    if any(not np.isfinite([p.x, p.y]).all() for p in points):
        raise InputError("A method's cost or change of the gap is not a number: measure it again.")
    beyond = [p for p in points if limit is not None and p.x > WIDEST * limit]
    points = [p for p in points if p not in beyond]
    x, y = np.array([0.0, *(p.x for p in points)]), np.array([0.0, *(p.y for p in points)])
    front = pareto_front(x, -y)
    traces = [
        go.Scatter(
            x=x[front],
            y=y[front],
            mode="lines",
            line={"shape": "hv", "color": theme.text, "width": 1.3},
            name="Pareto front",
            hoverinfo="skip",
        )
    ]
    kinds = [next(kind for kind in KINDS if p.name.startswith(kind[0])) for p in points]
    for kind in KINDS:
        _, series, shape, title = kind
        mine = [p for p, of in zip(points, kinds, strict=True) if of is kind]
        if not mine:
            continue
        color = theme.series[series]
        across, upwards = (np.array([getattr(p, name) for p in mine]) for name in ("x", "y"))
        (left, right), (low, high) = (np.array([getattr(p, name) for p in mine]).T for name in ("x_ends", "y_ends"))
        traces.append(
            go.Scatter(
                x=across,
                y=upwards,
                mode="markers+text",
                name=title,
                marker={
                    "symbol": [shape + "-open" * p.name.endswith(REPAIRED) for p in mine],
                    "color": color,
                    "size": 11,
                    "line": {"width": 1.6, "color": color},
                },
                text=[escape(p.name) for p in mine],
                textposition="top right",
                textfont={"size": 11, "color": theme.faint},
                error_x=error_bars(across, left, right, color=veil(color, 0.5)),
                error_y=error_bars(upwards, low, high, color=veil(color, 0.5)),
                **hovering((p.hover for p in mine), "hovertext"),
            )
        )
    traces.append(
        go.Scatter(
            x=[0],
            y=[0],
            mode="markers",
            name="unpruned",
            marker={"symbol": "x", "size": 10, "color": theme.text},
            hovertemplate="<b>unpruned</b><extra></extra>",
        )
    )
    fig = figure(
        traces,
        words,
        520,
        96,
        also=f"Not drawn: {', '.join(f'{p.name} ({p.x:+.0f})' for p in beyond)}." * bool(beyond),
        xaxis=axis(theme, words.x, showgrid=True, zeroline=True, zerolinecolor=theme.line),
        yaxis=axis(theme, words.y, showgrid=True, zeroline=True, zerolinecolor=theme.line),
    )
    fig.layout.legend.update(itemclick="toggle", itemdoubleclick="toggleothers")
    if limit is not None:
        fig.add_vline(x=limit, line={"color": theme.text, "width": 1, "dash": "4px,3px"})
        fig.add_annotation(
            x=limit, y=1, yref="paper", text="limit", showarrow=False, xanchor="left", yanchor="top", xshift=4
        )
    return fig


def learning_curve(losses: ArrayLike, held: ArrayLike, words: Words) -> go.Figure:
    """What steps of learning saw: the relative gap above, what texts cost below, over one axis of steps.

    Parameters
    ----------
    losses : [steps, 1 + C] the gap relative to the unpruned model's, then nats more of each of `COSTS_OF_STEPS`.
    held : [k, 2] (step, relative gap) on prompts that no step saw.

    Raises
    ------
    InputError
        The arrays are of other shapes.
    """
    seen, apart = np.asarray(losses, dtype=np.float64), np.asarray(held, dtype=np.float64).reshape(-1, 2)
    if seen.ndim != 2 or not 2 <= seen.shape[1] <= 1 + len(COSTS_OF_STEPS):
        raise InputError(f"Losses of learning have shape {seen.shape}: they are [steps, gap and up to 3 costs].")
    theme, steps = words.theme, np.arange(1, len(seen) + 1)

    def line(name: str, x: ArrayLike, y: ArrayLike, series: int, place: str, **more: object) -> go.Scatter:
        at = zip(np.asarray(x), np.asarray(y), strict=True)
        labels = [f"{name}\nstep {i:g}: {short(float(value), 3)}" for i, value in at]
        color = theme.series[series]
        how = {"mode": "lines", "line": {"color": color, "width": 1.8, "dash": DASHES[series]}} | more
        return go.Scatter(x=x, y=y, name=name, yaxis=place, marker={"color": color}, **how, **hovering(labels))

    traces = [line("gap, % of unpruned", steps, 100 * seen[:, 0], 0, "y")]
    if len(apart):
        unseen = {"mode": "lines+markers"}
        traces.append(line("gap of what no step saw", apart[:, 0], 100 * apart[:, 1], 1, "y", **unseen))
    for i, name in enumerate(COSTS_OF_STEPS[: seen.shape[1] - 1]):
        traces.append(line(f"{name}, nats more", steps, seen[:, 1 + i], (6, 3, 2)[i], "y2"))
    fig = figure(
        traces,
        words,
        400,
        96,
        xaxis=axis(theme, words.x or "step", anchor="y2", rangemode="tozero"),
        yaxis=axis(theme, "gap, %", domain=[0.5, 1], showgrid=True, rangemode="tozero"),
        yaxis2=axis(theme, "nats more", domain=[0, 0.42], showgrid=True, zeroline=True, zerolinecolor=theme.line),
    )
    return fig
