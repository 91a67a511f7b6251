"""Dots with intervals, and answers by group: what is drawn stands where the numbers say."""

from __future__ import annotations

import numpy as np
import pytest

from fasp_core.errors import InputError
from fasp_core.figures import BASE, CLICK_TRACE, PRUNED, Series, Strip, Words, answers_by_group, dots, strips


def test_dots_and_their_intervals() -> None:
    one = Series("one", [0.1, np.nan], [0.0, np.nan], [0.3, np.nan], ["a <b>", "b"])
    two = Series("two", [-0.2, 0.4], [-0.5, 0.4], [0.0, 0.5], ["c", "d"], faint=True)
    fig = dots(["first <i>", "second"], [one, two], Words("t", "n", unit="u"))
    marks = fig.data
    assert [m.name for m in marks] == ["one", "two"]
    assert marks[0].x[0] == 0.1
    assert marks[0].error_x.array[0] == pytest.approx(0.2)
    assert marks[0].error_x.arrayminus[0] == pytest.approx(0.1)
    assert np.isnan(marks[0].error_x.array[1])  # none where there is no value
    assert marks[1].error_x.arrayminus[1] == 0
    assert marks[0].y[0] < 0 < marks[1].y[0] < 0.5  # beside each other, within their row
    assert marks[1].marker.symbol.endswith("open")
    assert marks[0].marker.symbol.split("-")[0] != marks[1].marker.symbol.split("-")[0]
    assert "&lt;b&gt;" in marks[0].hovertext[0]
    assert fig.layout.yaxis.ticktext[0] == "first &lt;i&gt;"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError):
        dots([], [], Words(""))
    with pytest.raises(InputError):
        dots(["a"], [Series("s", [1.0, 2.0], [1.0], [1.0], ["x"])], Words(""))
    with pytest.raises(InputError):
        answers_by_group(np.zeros((3, 2)), np.zeros((2, 2)), [0, 1], ("a", "b"), Words(""))


@pytest.mark.parametrize("dark", [False, True])
def test_answers_stand_with_their_group(dark: bool) -> None:
    before = np.array([[1.0, np.nan], [99.0, 9.0]])
    after = np.array([[np.nan, np.nan], [999.0, 0.0]])
    fig = answers_by_group(before, after, [0, 1], ("a", "b"), Words("t", "n", unit="u", dark=dark))
    whole, pruned = fig.data
    assert (whole.marker.color, pruned.marker.color) == (BASE, PRUNED)
    assert list(whole.y) == ["a", "b", "b"]
    np.testing.assert_allclose(whole.x, [np.log10(2), 2, 1])
    assert list(whole.text) == ["1", "99", "9"]
    assert list(pruned.y) == ["b", "b"]
    np.testing.assert_allclose(pruned.x, [3, 0])
    shown = [float(t.replace(",", "")) for t in fig.layout.xaxis.ticktext]
    np.testing.assert_allclose(fig.layout.xaxis.tickvals, np.log10(1 + np.array(shown)))
    assert shown[-1] >= 999


def test_no_answers_at_all() -> None:
    nothing = np.full((2, 2), np.nan)
    fig = answers_by_group(nothing, nothing, [0, 1], ("a", "b"), Words("t", "n", unit="u"))
    assert [len(t.x) for t in fig.data] == [0, 0]


def test_strips_hold_both_distributions_and_take_clicks() -> None:
    rows = [
        Strip("chair", ([1.0, 10.0], [10.0]), ([0.25, 0.75], [1.0]), "chair\nSMD −0.3"),
        Strip("<b>car", ([100.0], [100.0, 1000.0]), ([1.0], [0.5, 0.5]), "car"),
    ]
    fig = strips(rows, ("black", "white"), Words("What is answered"))
    assert fig.data[0].name == CLICK_TRACE
    assert len(fig.data[0].x) == 2
    first, second = fig.data[1], fig.data[2]
    assert min(first.y) < 0 == max(first.y)  # above the line, on an axis that runs downwards
    assert max(second.y) > 0 == min(second.y)
    assert "&lt;b&gt;car" in fig.layout.yaxis.ticktext[1]
    with pytest.raises(InputError, match="one probability for each number"):
        strips([Strip("x", ([1.0], [2.0]), ([1.0, 2.0], [1.0]), "")], ("a", "b"), Words(""))
    with pytest.raises(InputError, match="need a scenario"):
        strips([], ("a", "b"), Words(""))
