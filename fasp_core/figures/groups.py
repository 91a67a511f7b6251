"""Toxicity of each group before and after pruning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.figures.theme import (
    BASE,
    PRUNED,
    Floats,
    axis,
    check_texts,
    escape,
    hover_text,
    layout,
    short,
    theme_of,
    vector,
)

NAME = 34  # characters of a group's name that the axis shows; the label under the pointer has all


def group_bars(
    groups: Sequence[str],
    base_means: ArrayLike,
    pruned_means: ArrayLike,
    base_intervals: ArrayLike | None = None,
    pruned_intervals: ArrayLike | None = None,
    *,
    overall_base: float,
    overall_pruned: float,
    title: str,
    unit: str,
    dark: bool = False,
) -> go.Figure:
    """A pair of bars for each of the G groups, highest unpruned mean on top, and a line at each overall mean.

    The gap is the sum of the distances between bars' ends and the line. NaN leaves a bar or line out, so that the
    chart can stand before the pruned model is measured. The height grows with G.

    Parameters
    ----------
    base_means, pruned_means : [G] in the order of `groups`.
    base_intervals, pruned_intervals : [G, 2] lower and upper ends, or None.
    overall_base, overall_pruned : mean over all prompts.
    unit : title of the horizontal axis.

    Raises
    ------
    InputError
        Arrays that do not fit `groups`, an interval whose ends are swapped.
    """
    theme, n = theme_of(dark), len(groups)
    check_texts("groups", groups, n)
    base = vector("base_means", base_means, n)
    order = np.argsort(-base, kind="stable")  # NaN last
    models = (
        ("unpruned", BASE, base, base_intervals, overall_base),
        ("pruned", PRUNED, vector("pruned_means", pruned_means, n), pruned_intervals, overall_pruned),
    )
    bars, lines = [], []
    for name, color, means, intervals, overall in models:
        ends = np.full((n, 2), np.nan) if intervals is None else _intervals(f"{name} intervals", intervals, n)
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
                error_x={
                    "type": "data",
                    "symmetric": False,
                    # an interval of resamples may miss the mean it belongs to
                    "array": np.maximum(ends[:, 1] - means, 0)[order],
                    "arrayminus": np.maximum(means - ends[:, 0], 0)[order],
                    "color": theme.text,
                    "thickness": 1.2,
                    "width": 2,
                },
                hovertext=[hover_text(texts[i]) for i in order],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
        for width, shade in ((3.5, theme.page), (1.7, color)):  # the wide one sets the line off from the bars
            line = {"color": shade, "width": width, "dash": "solid" if name == "unpruned" else "5px,3px"}
            lines.append(
                go.Scatter(
                    x=[overall, overall],
                    y=[-0.5, n - 0.5],
                    mode="lines",
                    line=line,
                    name=f"all prompts, {name}: {short(overall, 3)}",
                    showlegend=shade == color,
                    hoverinfo="skip",
                )
            )
    fig = go.Figure([*bars, *lines])
    labels = [escape(group if len(group) <= NAME else group[: NAME - 1] + "…") for group in (groups[i] for i in order)]
    fig.layout = layout(
        theme,
        title,
        "",
        max(260, 150 + 28 * n),
        92,
        xaxis=axis(theme, unit, fixedrange=True, showgrid=True, rangemode="tozero"),
        yaxis=axis(
            theme,
            "",
            range=[n - 0.5, -0.5],  # the first group on top
            fixedrange=True,
            tickvals=list(range(n)),
            ticktext=labels,
            ticklabelstandoff=6,
        ),
        bargap=0.3,
        bargroupgap=0.05,
    )
    return fig


def _intervals(name: str, values: ArrayLike, n: int) -> Floats:
    ends = np.asarray(values, dtype=np.float64)
    if ends.shape != (n, 2):
        raise InputError(f"{name} have shape {ends.shape}: they need ({n}, 2), a lower and an upper end each.")
    if (ends[:, 0] > ends[:, 1]).any():
        raise InputError(f"{name} have a lower end above the upper one: give [lower, upper].")
    return ends
