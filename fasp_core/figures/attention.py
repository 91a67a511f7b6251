"""Attention patterns: which token looks at which, of one head or of several side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from fasp_core.errors import InputError
from fasp_core.figures.theme import TOP, Theme, Words, axis, check_texts, colorbar, escape, figure, theme_of, veiled
from fasp_core.typing import Floats

BOTTOM = 120  # px for column labels
STEPS = 16  # of the color scale
ACROSS = 4  # small pictures in a row
WIDE = 40  # labels that have room side by side; of more, some are left to hover
MONO = "ui-monospace, Menlo, Consolas, monospace"
ROOT = "Color: square root of the weight."


def attention_map(weights: ArrayLike, labels: Sequence[str], words: Words) -> go.Figure:
    """One cell for each pair of a token that looks (rows, the first on top) and one that is looked at (columns).

    Cells above the diagonal are blank: a token sees none that comes after it. Colors run from 0 to 1 in every
    picture, by the square root, so that small weights can be seen and pictures be compared.

    Parameters
    ----------
    weights : [T, T] in [0, 1], rows sum to 1.
    labels : [T] plain texts, one a token.
    """
    theme, w = words.theme, _checked(weights, labels)
    n = len(w)
    cell = float(np.clip(460 / n, 11, 34))
    bar = colorbar("weight", [0, 0.1, 0.25, 0.5, 1])
    mono = {"size": 11 if cell >= 14 else 9, "color": theme.text, "family": MONO}
    across = _ticks(labels, math.ceil(n / WIDE)) | {"tickangle": -90 if n > 8 else -45}
    whole = {"fixedrange": True, "tickfont": mono}
    return figure(
        _heatmap(w, labels, theme, colorbar=bar),
        words,
        round(TOP + BOTTOM + max(cell * n, 180)),
        BOTTOM,
        70,
        also=ROOT,
        xaxis=axis(theme, "is looked at (key)", range=[-0.5, n - 0.5], **across, **whole),
        yaxis=axis(theme, "looks (query)", range=[n - 0.5, -0.5], **_ticks(labels), **whole),
        title_at="container",
    )


def attention_maps(
    weights: ArrayLike, labels: Sequence[str], names: Sequence[str], *, chosen: int = -1, dark: bool = False
) -> go.Figure:
    """The same for several heads, small and without the tokens' names, which hover tells.

    Parameters
    ----------
    weights : [n, T, T]. names : [n] plain titles. chosen : whose title is set in bold.
    """
    theme, maps = theme_of(dark), [_checked(w, labels) for w in np.asarray(weights)]
    check_texts("names", names, len(maps))
    if not maps:
        raise InputError("There is no pattern to draw: give at least one head.")
    rows = math.ceil(len(maps) / ACROSS)
    titles = [f"<b>{escape(name)}</b>" if i == chosen else escape(name) for i, name in enumerate(names)]
    fig = make_subplots(
        rows, ACROSS, subplot_titles=titles, horizontal_spacing=0.025, vertical_spacing=min(0.3 / rows, 0.16)
    )
    for i, w in enumerate(maps):
        row, column = divmod(i, ACROSS)
        fig.add_trace(_heatmap(w, labels, theme, showscale=False), row + 1, column + 1)
    annotations = [a.update(font={"size": 12, "color": theme.text}) for a in fig.layout.annotations]
    shown = figure([], Words("", dark=dark), 30 + 190 * rows, 8, 8).layout
    shown.title = None
    shown.margin = {"l": 8, "r": 8, "t": 28, "b": 8}
    fig.update_layout(shown, annotations=annotations)
    n = len(labels)
    quiet = {"showticklabels": False, "ticks": "", "showgrid": False, "zeroline": False, "fixedrange": True}
    frame = {"showline": True, "linecolor": theme.line, "mirror": True}
    fig.update_xaxes(range=[-0.5, n - 0.5], **quiet, **frame)
    fig.update_yaxes(range=[n - 0.5, -0.5], **quiet, **frame)
    return fig


def _ticks(labels: Sequence[str], step: int = 1) -> dict[str, Any]:
    return {"tickvals": list(range(0, len(labels), step)), "ticktext": [escape(label) for label in labels[::step]]}


def _checked(weights: ArrayLike, labels: Sequence[str]) -> Floats:
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 2 or w.shape[0] != w.shape[1] or not len(w):
        raise InputError(f"A pattern has shape {w.shape}: it needs a row and a column for each token.")
    if not ((w >= 0) & (w <= 1 + 1e-3)).all():
        raise InputError("Attention weights lie between 0 and 1: these do not.")
    check_texts("labels", labels, len(w))
    return w


def _heatmap(w: Floats, labels: Sequence[str], theme: Theme, **more: Any) -> go.Heatmap:
    causal = np.tril(np.ones(w.shape, dtype=bool))
    names = [escape(label) for label in labels]
    hover = [
        [f"<b>{q}</b> looks at <b>{k}</b><br>weight {w[i, j]:.3f}" if j <= i else "" for j, k in enumerate(names)]
        for i, q in enumerate(names)
    ]
    return go.Heatmap(
        z=np.where(causal, w, np.nan),
        zmin=0,
        zmax=1,
        colorscale=_scale(theme),
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        hoverongaps=False,
        xgap=1 if len(w) <= 32 else 0,
        ygap=1 if len(w) <= 32 else 0,
        **more,
    )


def _scale(theme: Theme) -> list[list[Any]]:
    """From the neutral color to the blue end, by the square root."""
    stops = np.linspace(0, 1, STEPS + 1)
    return [[float(s**2), veiled(theme.neutral, theme.scale[0], s)] for s in stops]
