"""The staircase of a change: its steps meet, its marks do not rest on color, and what does not fit is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.figures import DARK, LIGHT, Words, shown_parts, waterfall
from tests.support.figures import contrast, named, rgb, sent

VALUES = [-0.5, 0.3, -0.1, 0.2]
NAMES = ["L0H1", "L1H0*0.4", "L2H2", "<b>L3H0</b>"]


def drawn(values: Any = VALUES, ends: tuple[float, float] = (2.0, 1.9), **more: Any) -> Any:
    names = more.pop("names", [*NAMES, *(f"L9H{i}" for i in range(len(values)))][: len(values)])
    half = more.pop("half", 0.05)
    intervals = np.stack([np.array(values) - half, np.array(values) + half], -1)
    return waterfall(names, values, intervals, ends, Words("t", unit="u", dark=more.pop("dark", False)), **more)


def steps(fig: Any) -> list[tuple[float, float]]:
    """(begins, ends) of each part, from top to bottom."""
    found = {}
    for trace in (named(fig, "lowers"), named(fig, "raises")):
        for base, x, y in zip(trace.base, trace.x, trace.y, strict=True):
            found[y] = (base, base + x)
    return [found[y] for y in sorted(found)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=80), st.floats(0, 9))
def test_every_step_begins_where_the_last_one_ends(values: list[float], begin: float) -> None:
    fig = drawn(values, (begin, begin + sum(values)))
    found = steps(fig)
    assert found[0][0] == pytest.approx(begin)
    for (_, end), (start, _) in pairwise(found):
        assert start == pytest.approx(end)
    assert found[-1][1] == pytest.approx(begin + sum(values))
    assert len(found) == min(len(values), 31)
    assert sent(fig)["layout"]["yaxis"]["range"][0] > 0, "the beginning is on top"
    low, high = fig.layout.xaxis.range
    assert all(low <= x <= high for pair in found for x in pair)


def test_rows_are_named_in_order_and_marks_need_no_color() -> None:
    fig = drawn(marked=[1])
    assert [text.replace("&lt;", "<").replace("&gt;", ">") for text in fig.layout.yaxis.ticktext] == [
        "unpruned",
        "L0H1",
        "L2H2",
        "<b>L3H0</b>",
        "★ L1H0*0.4",
        "pruned",
    ]
    raises = named(fig, "raises")
    assert raises.marker.pattern.shape == ("", "/")
    assert raises.hovertext[1].endswith("raises it beyond noise")
    assert "part 0.3 [0.25, 0.35]" in raises.hovertext[1]
    assert (named(fig, "unpruned").x[0], named(fig, "pruned").x[0]) == (2.0, 1.9)
    for dark, theme in ((False, LIGHT), (True, DARK)):
        page = rgb(theme.page)
        for name in ("lowers", "raises"):
            assert contrast(rgb(named(drawn(dark=dark), name).marker.color), page) >= 3


def test_the_smallest_of_many_share_a_row() -> None:
    values = np.linspace(-1, 1, 101) ** 3
    rows, others = shown_parts(values)
    assert sorted(rows + others) == list(range(101))
    assert np.abs(values[others]).max() <= np.abs(values[rows]).min()
    assert (np.diff(values[rows]) >= 0).all()
    fig = drawn(values.tolist(), (1.0, 1.0))
    assert "71 smaller ones" in fig.layout.yaxis.ticktext
    assert shown_parts(np.ones(31))[1] == [], "one alone needs no row for the others"


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="intervals have shape"):
        waterfall(["a"], [1.0], [[0, 1], [0, 1]], (0, 1), Words("t"))
    with pytest.raises(InputError, match="values has shape"):
        waterfall(["a"], [1.0, 2.0], [[0, 1]], (0, 1), Words("t"))
    with pytest.raises(InputError, match="marked names"):
        drawn(marked=[4])
    assert np.isnan(named(drawn(half=np.nan), "raises").error_x.array).all(), "an end that is not known has no bar"
