"""What the pages draw, as pure functions from plain arrays to Plotly figures.

A figure here knows nothing of models or of the screen: it can be tested, put into a report, or drawn by any page.
Charts of heads carry one invisible trace, `CLICK_TRACE`, with a point for each head in flat order. It takes hover
and clicks, so that the index of a clicked point *is* the head, and `clicked_heads` reads the event. Nothing rides
on `customdata`, which does not come back from the browser as it was sent.

Text given by callers is plain: markup in it is shown, not followed. The figures bring their own colors, for light
and dark pages, and an empty template: draw them with `st.plotly_chart(..., theme=None)`.
"""

from __future__ import annotations

from fasp_core.figures.attention import attention_map, attention_maps
from fasp_core.figures.clicks import clicked_head, clicked_heads, clicked_lines
from fasp_core.figures.contexts import Series, answers_by_group, dots
from fasp_core.figures.curves import Curve, method_curves, pareto_front, tradeoff
from fasp_core.figures.grid import Z_NOISE, clip_limit, head_grid
from fasp_core.figures.groups import group_bars
from fasp_core.figures.marks import CLICK_CURVE, CLICK_TRACE
from fasp_core.figures.matrix import cell_matrix
from fasp_core.figures.pair import scatter_pair
from fasp_core.figures.scatter import scatter_impacts
from fasp_core.figures.texts import Row, Written, side_by_side
from fasp_core.figures.theme import BASE, DARK, LIGHT, PRUNED, Theme, escape, short
from fasp_core.figures.tried import tried_sets

__all__ = [
    "BASE",
    "CLICK_CURVE",
    "CLICK_TRACE",
    "DARK",
    "LIGHT",
    "PRUNED",
    "Z_NOISE",
    "Curve",
    "Row",
    "Series",
    "Theme",
    "Written",
    "answers_by_group",
    "attention_map",
    "attention_maps",
    "cell_matrix",
    "clicked_head",
    "clicked_heads",
    "clicked_lines",
    "clip_limit",
    "dots",
    "escape",
    "group_bars",
    "head_grid",
    "method_curves",
    "pareto_front",
    "scatter_impacts",
    "scatter_pair",
    "short",
    "side_by_side",
    "tradeoff",
    "tried_sets",
]
