"""What the command line prints: JSON without NaN, one line that stays one, and tables."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasp_core.console import one_line, table, to_json


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_holds_no_nan(value: float) -> None:
    assert json.loads(to_json({"a": [value, 1.5], "b": (value, {"c": value})})) == {
        "a": [None, 1.5],
        "b": [None, {"c": None}],
    }


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_round_trip(value: Any) -> None:
    assert json.loads(to_json(value)) == value


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    said = one_line(text)
    assert len(said.splitlines()) <= 1
    assert "\x1b" not in said


def test_table_is_aligned() -> None:
    assert table([["", "n"], ["long name", "1"], ["b", "100"]]).splitlines() == [
        "             n",
        "---------  ---",
        "long name    1",
        "b          100",
    ]
