"""What the pages draw, as pure functions from plain arrays to Plotly figures.

A figure here knows nothing of models or of the screen: it can be tested, put into a report, or drawn by any page.
Charts of heads carry one invisible trace, `CLICK_TRACE`, with a point for each head in flat order. It takes hover
and clicks, so that the index of a clicked point *is* the head, and `clicked_heads` reads the event. Nothing rides
on `customdata`, which does not come back from the browser as it was sent.

`hover` is what a point says under the pointer, its first line set in bold. Every figure refuses, with an `InputError`
that names it, what does not fit: arrays of another shape, ids outside the model, ends of an interval that are swapped.

Text given by callers is plain: markup in it is shown, not followed. The figures bring their own colors, for light
and dark pages, and an empty template: draw them with `st.plotly_chart(..., theme=None)`.
"""

from __future__ import annotations

from fasp_core.figures.attention import attention_map, attention_maps
from fasp_core.figures.clicks import clicked_head, clicked_heads
from fasp_core.figures.contexts import Series, Strip, answers_by_group, dots, strips
from fasp_core.figures.curves import Curve, Points, method_curves, pareto_front, tradeoff
from fasp_core.figures.front import MethodPoint, learning_curve, method_front
from fasp_core.figures.grid import Z_NOISE, GridLook, head_grid
from fasp_core.figures.groups import GroupMeans, group_bars
from fasp_core.figures.marks import CLICK_CURVE, CLICK_TRACE, Marks
from fasp_core.figures.matrix import Cells, cell_matrix
from fasp_core.figures.scales import clip_limit
from fasp_core.figures.scatter import scatter_impacts, scatter_pair
from fasp_core.figures.texts import Row, Written, side_by_side, word_lists
from fasp_core.figures.theme import BASE, DARK, LIGHT, PRUNED, Theme, Words, escape, short
from fasp_core.figures.tried import tried_sets
from fasp_core.figures.waterfall import shown_parts, waterfall

__all__ = [
    "BASE",
    "CLICK_CURVE",
    "CLICK_TRACE",
    "DARK",
    "LIGHT",
    "PRUNED",
    "Z_NOISE",
    "Cells",
    "Curve",
    "GridLook",
    "GroupMeans",
    "Marks",
    "MethodPoint",
    "Points",
    "Row",
    "Series",
    "Strip",
    "Theme",
    "Words",
    "Written",
    "answers_by_group",
    "attention_map",
    "attention_maps",
    "cell_matrix",
    "clicked_head",
    "clicked_heads",
    "clip_limit",
    "dots",
    "escape",
    "group_bars",
    "head_grid",
    "learning_curve",
    "method_curves",
    "method_front",
    "pareto_front",
    "scatter_impacts",
    "scatter_pair",
    "short",
    "shown_parts",
    "side_by_side",
    "strips",
    "tradeoff",
    "tried_sets",
    "waterfall",
    "word_lists",
]
