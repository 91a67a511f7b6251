"""From the selection event of a chart back to heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fasp_core.figures.marks import CLICK_CURVE

Head = tuple[int, int]


def clicked_heads(event: Mapping[str, Any] | None, n_heads: int, n_layers: int | None = None) -> list[Head]:
    """Heads (layer, head) that a click, box or lasso chose, each once, in the event's order.

    `event` is what `st.plotly_chart(..., on_select="rerun")` returns:
    `{"selection": {"points": [{"curve_number": .., "point_index": ..}, ..]}}`. Points of other traces and anything
    malformed are passed over, because an event comes from a browser. With `n_layers`, so are heads outside the
    model: an event may be left over from a larger one.
    """
    heads = [divmod(index, n_heads) for index in _indices(event, CLICK_CURVE)]
    return [head for head in heads if n_layers is None or head[0] < n_layers]


def _indices(event: Mapping[str, Any] | None, of: int) -> list[int]:
    """Points of one trace that an event names, each once, in its order."""
    selection = event.get("selection") if isinstance(event, Mapping) else None
    points = selection.get("points") if isinstance(selection, Mapping) else None
    if not isinstance(points, Sequence):
        return []
    found: dict[int, None] = {}  # an ordered set
    for point in points:
        if not isinstance(point, Mapping):
            continue
        curve, index = point.get("curve_number"), point.get("point_index")
        if type(curve) is int and curve == of and type(index) is int and index >= 0:
            found[index] = None
    return list(found)


def clicked_head(event: Mapping[str, Any] | None, n_heads: int, n_layers: int | None = None) -> Head | None:
    """The head that was clicked; None unless the event names exactly one. Arguments as for `clicked_heads`."""
    heads = clicked_heads(event, n_heads, n_layers)
    return heads[0] if len(heads) == 1 else None
