"""The matrix of cells and the scatter of two scores: what pages rely on, and colors by WCAG's formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.figures import CLICK_TRACE, DARK, LIGHT, Cells, Words, cell_matrix, clicked_head, scatter_pair
from fasp_core.figures.matrix import color_at, ink
from tests.support.figures import contrast, rgb

drawing = settings(deadline=None, max_examples=15)
LABELS = {"rows": ["one", "two"], "columns": ["a", "b <b>c</b>", "d"]}


def drawn(values: Any = (0.5, math.nan, -1.0, 0.0, 3.0, -0.2), **more: Any) -> go.Figure:
    text = [f"{value:.1f}" for value in values]
    given_: dict[str, Any] = {"hover": text, "text": text, "limit": 1.0, "dark": False} | LABELS | more
    words = Words("r", unit="r", dark=given_.pop("dark"))
    limit = given_.pop("limit")
    return cell_matrix(Cells(values=list(values), **given_), words, limit=limit)


def trace(fig: go.Figure, name: str, kind: str = "") -> Any:
    (found,) = [t for t in fig.data if t.name == name and (not kind or t.type == kind)]
    return found


def test_cells_stand_as_in_a_table_and_a_click_names_one() -> None:
    fig = drawn()
    assert np.asarray(trace(fig, "value").z, float)[0].tolist()[0] == 0.5
    assert fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1], "the first row is on top"
    points = fig.data[0]
    assert points.name == CLICK_TRACE
    for index in range(6):
        event = {"selection": {"points": [{"curve_number": 0, "point_index": index}]}}
        assert clicked_head(event, 3, 2) == (points.y[index], points.x[index]) == divmod(index, 3)
    assert trace(fig, "text").text == ("0.5", "nan", "-1.0", "0.0", "3.0", "-0.2")
    assert fig.layout.xaxis.ticktext[1] == "b &lt;b&gt;c&lt;/b&gt;"
    assert "cells lie" in fig.layout.title.text or "cell lies" in drawn(limit=2.0).layout.title.text


def test_flags_are_drawn_and_named_only_where_they_occur() -> None:
    fig = drawn(
        faint=[1, 1, 0, 0, 0, 0],
        hatched=[0, 0, 1, 0, 0, 0],
        outlined=[0, 0, 0, 1, 0, 0],
        names=("pale", "struck", "framed"),
    )
    assert np.flatnonzero(np.isfinite(np.asarray(trace(fig, "pale", "heatmap").z, float))).tolist() == [0]  # not of NaN
    for name, cell in (("struck", (2, 0)), ("framed", (0, 1))):
        (path,) = [t for t in fig.data if t.name == name and t.mode == "lines"]
        for along, center in ((path.x, cell[0]), (path.y, cell[1])):
            known = np.asarray(along, float)
            assert np.nanmax(np.abs(known - center)) < 0.5
    assert {t.name for t in fig.data if t.showlegend} == {"pale", "struck", "framed"}
    assert not [t for t in drawn().data if t.showlegend]


@drawing
@given(st.floats(-2, 2) | st.just(math.nan), st.booleans(), st.booleans())
def test_every_number_can_be_read_on_its_color(place: float, faded: bool, dark: bool) -> None:
    color = color_at(DARK if dark else LIGHT, place, faded)
    assert contrast(rgb(color), rgb(ink(color))) >= 4.5


def test_colors_of_the_text_are_those_of_the_scale() -> None:
    for theme, dark in ((LIGHT, False), (DARK, True)):
        assert color_at(theme, -1) == color_at(theme, -9) == theme.scale[0]
        assert color_at(theme, 0) == theme.neutral
        assert color_at(theme, 0.5) == theme.scale[3]
        assert color_at(theme, math.nan) == theme.page
        assert drawn(dark=dark).data[0].name == CLICK_TRACE


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rows": []}, "at least one row"),
        ({"rows": ["one"]}, "values has shape"),
        ({"text": ["1"]}, "text holds 1 texts"),
        ({"hover": ["1"]}, "hover holds 1 texts"),
        ({"faint": [True]}, "faint has shape"),
        ({"limit": 0.0}, "limit above 0"),
    ],
)
def test_what_does_not_fit_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        drawn(**more)


def pair(**more: Any) -> go.Figure:
    names = [f"L0H{i}" for i in range(5)]
    given_: dict[str, Any] = {"names": names, "hover": names} | more
    return scatter_pair([1.0, 2, 3, math.nan, 5], [1.0, -2, 3, 4, 0], Words("t", x="x", y="y"), **given_)


def test_heads_keep_their_place_and_their_kind() -> None:
    fig = pair(critical={0, 3}, estimated={1}, labelled={3, 4})
    assert len(fig.data[0].x) == 5
    assert fig.data[0].name == CLICK_TRACE
    assert trace(fig, "may be pruned").x == (3.0, 5.0)
    assert trace(fig, "may be pruned, a score is an estimate").x == (2.0,)
    assert trace(fig, "critical").x == (1.0,)
    assert [text.strip("\u00a0") for text in trace(fig, "labels").text] == ["L0H4"], (
        "the one that is not drawn has none"
    )
    with pytest.raises(InputError, match="critical names head 5"):
        pair(critical={5})
    with pytest.raises(InputError, match="hover holds 1"):
        pair(hover=["1"])
