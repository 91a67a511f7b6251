"""What the command line prints: JSON without NaN, one line that stays one, and tables."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasp_core.console import one_line, table, to_json

ROOT = Path(__file__).resolve().parents[2]


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


def test_what_native_code_prints_meanwhile_is_no_result() -> None:
    """Libraries that are not written in Python know nothing of sys.stdout."""
    code = """import os
from fasp_core.console import working
with working():
    os.write(1, b"from a library\\n")
print("the result")"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("the result\n", "from a library\n")
