"""Events of the chart and the heads that they name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fasp_core.figures import (
    CLICK_CURVE,
    clicked_head,
    clicked_heads,
)

# --- clicks


def event(*points: Any) -> dict[str, Any]:
    return {"selection": {"points": list(points), "point_indices": [], "box": [], "lasso": []}}


def point(index: Any, curve: Any = CLICK_CURVE) -> dict[str, Any]:
    return {"curve_number": curve, "point_number": 0, "point_index": index, "x": 0, "y": 0}


def test_a_click_names_the_head_under_it() -> None:
    assert clicked_head(event(point(47)), 9) == (5, 2)
    assert clicked_head(event(point(47, curve=CLICK_CURVE + 1)), 9) is None
    assert clicked_head(event(point(1), point(3, curve=2)), 9) == (0, 1)
    assert clicked_head(event(point(1), point(2)), 9) is None  # a box is no click
    assert clicked_heads(event(point(20), point(1), point(20)), 9) == [(2, 2), (0, 1)]
    assert clicked_heads(event(point(8), point(9)), 9, n_layers=1) == [(0, 8)]  # left over from a larger model


def test_streamlits_own_event_is_understood() -> None:
    plotly_chart = pytest.importorskip("streamlit.elements.plotly_chart")
    state = plotly_chart.PlotlyChartSelectionSerde().deserialize(json.dumps(event(point(47))))
    assert clicked_head(state, 9) == (5, 2)
    assert clicked_head(plotly_chart.PlotlyChartSelectionSerde().deserialize(None), 9) is None


@given(st.integers(1, 64), st.lists(st.integers(0, 5000)))
def test_every_selected_head_is_named_once(n_heads: int, flat: list[int]) -> None:
    heads = clicked_heads(event(*map(point, flat)), n_heads)
    assert [layer * n_heads + head for layer, head in heads] == list(dict.fromkeys(flat))
    assert all(0 <= head < n_heads for _, head in heads)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["selection", "points", "curve_number", "point_index", "x"]), inner)
    ),
    max_leaves=12,
)


@given(junk | junk.map(lambda points: event(points)) | st.fixed_dictionaries({"selection": junk}))
@example(event(point(True)))
@example(event(point(-1)))
@example(event(point(1.5)))
@example(event(point("3")))
@example(event(point(1, curve=False)))
@example({"selection": {"points": "0123"}})
def test_malformed_events_name_no_head(event: Any) -> None:
    heads = clicked_heads(event, 4)
    assert all(type(layer) is int and layer >= 0 and 0 <= head < 4 for layer, head in heads)
    well_formed = (
        isinstance(event, dict)
        and isinstance(event.get("selection"), dict)
        and isinstance(event["selection"].get("points"), list)
        and any(
            isinstance(p, dict) and type(p.get("point_index")) is int and type(p.get("curve_number")) is int
            for p in event["selection"]["points"]
        )
    )
    assert well_formed or heads == []
    clicked_head(event, 4)
