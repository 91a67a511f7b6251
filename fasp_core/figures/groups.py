"""Toxicity of each group before and after pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
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

NAME = 34  # characters of a group's name that the axis shows; the label under the pointer has all


@dataclass(frozen=True, eq=False)
class GroupMeans:
    """Of one model; NaN leaves a bar or line out.

    Attributes
    ----------
    means : [G] mean of each group. overall : mean over all prompts.
    intervals : [G, 2] lower and upper ends, or None.
    """

    means: ArrayLike
    overall: float
    intervals: ArrayLike | None = None


def group_bars(groups: Sequence[str], base: GroupMeans, pruned: GroupMeans, words: Words) -> go.Figure:
    """A pair of bars for each of the G groups, highest unpruned mean on top, and a line at each overall mean.

    The gap is the sum of the distances between bars' ends and the line. The height grows with G. `words.unit` is the
    title of the horizontal axis.
    """
    theme, n = words.theme, len(groups)
    check_texts("groups", groups, n)
    order = np.argsort(-vector("base means", base.means, n), kind="stable")  # NaN last
    bars, lines = [], []
    for name, color, model in (("unpruned", BASE, base), ("pruned", PRUNED, pruned)):
        means = vector(f"{name} means", model.means, n)
        ends = np.full((n, 2), np.nan)
        if model.intervals is not None:
            ends = _intervals(f"{name} intervals", model.intervals, n)
        texts = [
            f"{group}\n{name}: {short(mean, 3)}" + ("" if np.isnan(low) else f" [{short(low, 3)}, {short(high, 3)}]")
            for group, mean, (low, high) in zip(groups, means, ends, strict=True)
        ]
        bars.append(
            go.Bar(
                x=means[order],
                y=np.arange(n),
                orientation="h",
                name=name,
                marker={"color": color},
                error_x=error_bars(means[order], *ends[order].T, color=theme.text, thickness=1.2, width=2),
                **hovering((texts[i] for i in order), "hovertext"),
            )
        )
        for width, shade in ((3.5, theme.page), (1.7, color)):  # the wide one sets the line off from the bars
            line = {"color": shade, "width": width, "dash": "solid" if name == "unpruned" else "5px,3px"}
            lines.append(
                go.Scatter(
                    x=[model.overall, model.overall],
                    y=[-0.5, n - 0.5],
                    mode="lines",
                    line=line,
                    name=f"all prompts, {name}: {short(model.overall, 3)}",
                    showlegend=shade == color,
                    hoverinfo="skip",
                )
            )
    return figure(
        [*bars, *lines],
        words,
        max(260, 150 + 28 * n),
        92,
        xaxis=axis(theme, words.unit, fixedrange=True, showgrid=True, rangemode="tozero"),
        yaxis=row_axis(theme, [groups[i] for i in order], NAME),
        bargap=0.3,
        bargroupgap=0.05,
    )


def _intervals(name: str, values: ArrayLike, n: int) -> Floats:
    ends = np.asarray(values, dtype=np.float64)
    if ends.shape != (n, 2):
        raise InputError(f"{name} have shape {ends.shape}: they need ({n}, 2), a lower and an upper end each.")
    if (ends[:, 0] > ends[:, 1]).any():
        raise InputError(f"{name} have a lower end above the upper one: give [lower, upper].")
    return ends
