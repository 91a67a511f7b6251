"""Figures: what the app relies on in their structure, colors by WCAG's formula, and events back to heads."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.figures import (
    BASE,
    CLICK_CURVE,
    CLICK_TRACE,
    PRUNED,
    GroupMeans,
    Words,
    clip_limit,
    escape,
    group_bars,
    head_grid,
    scatter_impacts,
)
from tests.support.figures import parted, sent

drawing = settings(deadline=None, max_examples=10)  # Plotly checks each setting of each trace: 25 ms a figure
finite = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, min_value=-1e300, max_value=1e300)


def grid(values: Any, n_layers: int, n_heads: int, **more: Any) -> go.Figure:
    texts = [f"L{i // n_heads}H{i % n_heads}\nimpact {value!r}" for i, value in enumerate(values)]
    given: dict[str, Any] = {"title": "Impact on bias", "unit": "gap", "hover": texts} | more
    return head_grid(values, n_layers, n_heads, **parted(given))


def trace(figure: go.Figure, name: str) -> Any:
    (found,) = [t for t in figure.data if t.name == name and (t.type != "scatter" or t.mode == "markers")]
    return found


def marked(figure: go.Figure, name: str, n_heads: int) -> set[int]:
    """Flat ids of the marks of one kind in a grid."""
    marks = trace(figure, name)
    return {y * n_heads + x for x, y in zip(marks.x, marks.y, strict=True) if x is not None}


def filled(figure: go.Figure, name: str) -> set[int]:
    """Flat ids of the cells that a heatmap paints."""
    return set(np.flatnonzero(~np.isnan(np.asarray(trace(figure, name).z, float)).ravel()).tolist())


# --- limits and words


@given(st.lists(finite | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=40))
@example([0.0, math.nan])
@example([])
@example([1e300, 1e300])
def test_clip_limit_lies_between_the_percentile_and_the_largest(values: list[float]) -> None:
    limit = clip_limit(values)
    sizes = sorted(abs(v) for v in values if math.isfinite(v))
    assert 0 < limit < math.inf
    if not any(sizes):
        assert limit == 1
        return
    place = 0.97 * (len(sizes) - 1)  # linear between order statistics
    below, above = sizes[math.floor(place)], sizes[math.ceil(place)]
    percentile = below + (above - below) * (place - math.floor(place))
    smallest = next(size for size in sizes if size > 0)
    assert limit >= max(percentile, smallest) * (1 - 1e-12)
    assert limit <= max(sizes[-1], 1e-300) * 1.2  # rounding up to an even second digit adds 2 in 10 at most
    assert clip_limit([-v for v in values]) == limit
    assert len(f"{limit:.15g}".split("e")[0].replace(".", "").strip("0")) <= 2
    if sizes[-1] <= 1.5 * percentile:
        assert limit >= sizes[-1]  # nothing is clipped that a small stretch would show


def test_one_wrecking_head_does_not_blank_the_others() -> None:
    values = np.full(270, 0.02)
    values[5] = 2.1e8
    assert clip_limit(values) == 0.02
    assert clip_limit([0.0] * 99 + [3.0]) == 3  # the percentile is 0 here


def test_markup_in_names_is_shown_not_followed() -> None:
    assert escape("<b>a</b> & b\nc") == "&lt;b&gt;a&lt;/b&gt; &amp; b<br>c"
    figure = grid([1.0], 1, 1, title="<i>x</i>", unit="<u>", hover=["<b>L0H0</b>\n1 < 2"])
    assert figure.data[CLICK_CURVE].text == ("<b>&lt;b&gt;L0H0&lt;/b&gt;</b><br>1 &lt; 2",)
    assert figure.layout.title.text.startswith("&lt;i&gt;x&lt;/i&gt;<br>")
    assert trace(figure, "impact").colorbar.title.text.startswith("&lt;u&gt;")
    bars = group_bars(["<s>"], GroupMeans([0.1], 0.1), GroupMeans([0.2], 0.2), Words(""))
    assert bars.layout.yaxis.ticktext == ("&lt;s&gt;",)
    assert all("<s>" not in text for bar in bars.data[:2] for text in bar.hovertext)


# --- the grid


@pytest.mark.parametrize(("n_layers", "n_heads"), [(1, 1), (6, 12), (30, 9), (5, 64)])
@pytest.mark.parametrize("dark", [False, True])
def test_points_stand_in_flat_order_on_their_cells(n_layers: int, n_heads: int, dark: bool) -> None:
    values = np.random.default_rng(0).normal(size=n_layers * n_heads)
    figure = sent(grid(values, n_layers, n_heads, dark=dark))
    points = figure["data"][CLICK_CURVE]
    assert points["name"] == CLICK_TRACE
    flat = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    assert list(zip(points["y"], points["x"], strict=True)) == flat
    assert [text.split("<br>")[0] for text in points["text"]] == [f"<b>L{layer}H{head}</b>" for layer, head in flat]
    impact = next(t for t in figure["data"] if t.get("name") == "impact")
    assert impact["zmid"] == 0
    assert impact["zmin"] == -impact["zmax"]


def test_the_chart_leaves_clicks_and_hover_to_the_points() -> None:
    figure = grid([0.5, -1.0, math.nan, 9.0], 2, 2, pruned={0, 1}, by_hand={1, 2}, critical={3}, se=[1.0] * 4)
    layout = figure.layout
    assert layout.dragmode is None  # "select" would swallow single clicks
    for axis, n in ((layout.xaxis, 2), (layout.yaxis, 2)):
        assert axis.range == (-0.5, n - 0.5)
        assert axis.fixedrange is True
    assert layout.hoverdistance == -1  # else wide cells have dead edges
    assert [i for i, t in enumerate(figure.data) if t.hoverinfo != "skip"] == [CLICK_CURVE]
    assert figure.data[CLICK_CURVE].marker.color == "rgba(0,0,0,0)"
    for t in figure.data:
        assert t.customdata is None
        if t.type == "scatter" and t.mode == "markers":  # a selection fades nothing
            shown = 1 if t.marker.opacity is None else t.marker.opacity
            assert t.selected.marker.opacity == t.unselected.marker.opacity == shown
    assert layout.uirevision
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"


@drawing
@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_marks_lie_exactly_on_the_heads_they_speak_of(n_layers: int, n_heads: int, data: st.DataObject) -> None:
    n = n_layers * n_heads
    pruned, by_hand, critical = (data.draw(st.sets(st.integers(0, n - 1))) for _ in range(3))
    figure = grid(np.arange(n), n_layers, n_heads, pruned=pruned, by_hand=by_hand, critical=critical)
    by_method, crossed = marked(figure, "pruned", n_heads), marked(figure, "pruned by hand", n_heads)
    assert by_method | crossed == pruned
    assert crossed == pruned & by_hand
    assert by_method.isdisjoint(crossed)
    assert marked(figure, "kept by hand", n_heads) == by_hand - pruned
    (path,) = [t for t in figure.data if t.type == "scatter" and t.mode == "lines"]
    corners = [(x, y) for x, y in zip(path.x, path.y, strict=True) if not math.isnan(x)]
    assert {round(y) * n_heads + round(x) for x, y in corners} == critical
    assert len(corners) == 5 * len(critical)  # a closed square each


def test_colors_are_clipped_and_the_label_tells_the_truth() -> None:
    values = [2.1e8, -0.5, 0.25, math.inf] + [0.5] * 36
    figure = grid(values, 4, 10)
    impact = trace(figure, "impact")
    limit = clip_limit(values)
    assert limit == 0.5
    np.testing.assert_allclose(np.ravel(impact.z), np.clip(values, -limit, limit))
    assert figure.data[CLICK_CURVE].text[0] == "<b>L0H0</b><br>impact 210000000.0"
    assert "Colors end at ±0.5; 2 heads lie beyond." in figure.layout.title.text
    assert impact.colorbar.ticktext == ("≤ −0.5", "−0.25", "0", "0.25", "≥ 0.5")
    sent(figure)
    unclipped = grid([0.5, -0.25], 1, 2)
    assert "beyond" not in unclipped.layout.title.text
    assert trace(unclipped, "impact").colorbar.ticktext[-1] == "0.5"


def test_heads_without_a_score_are_gray_and_say_so() -> None:
    figure = grid([1.0, math.nan, -1.0], 1, 3, pruned={1})
    assert filled(figure, "not scored") == {1}
    assert filled(figure, "impact") == {0, 2}
    assert [("not scored yet" in text) for text in figure.data[CLICK_CURVE].text] == [False, True, False]
    assert marked(figure, "pruned", 3) == {1}


numbers = finite | st.just(math.nan)


@drawing
@given(st.lists(st.tuples(numbers, st.floats(0, 1e6) | st.just(math.nan)), min_size=1, max_size=30))
def test_faint_cells_are_those_within_noise(pairs: list[tuple[float, float]]) -> None:
    values, errors = zip(*pairs, strict=True)
    figure = grid(values, 1, len(values), se=errors)
    # comparisons with NaN are false: an unknown value or error makes nothing faint
    expected = {i for i, (value, error) in enumerate(pairs) if -1.96 * error < value < 1.96 * error}
    assert filled(figure, "within noise") == expected
    assert "Faint: |z| &lt; 1.96 s.e." in figure.layout.title.text


def test_without_errors_nothing_is_faint_nor_said_to_be() -> None:
    figure = grid([1e-9, 1.0], 1, 2)
    assert filled(figure, "within noise") == set()
    assert "Faint" not in figure.layout.title.text
    assert "sign within noise" not in [t.name for t in figure.data]


def test_the_height_depends_on_layers_alone() -> None:
    heights = {}
    for n_layers, n_heads in ((6, 12), (30, 9), (32, 32), (80, 64)):
        empty = grid(np.zeros(n_layers * n_heads), n_layers, n_heads)
        full = grid(
            np.arange(n_layers * n_heads) ** 5.0, n_layers, n_heads, pruned={0}, critical={1}, by_hand={2},
            se=np.ones(n_layers * n_heads),
        )  # fmt: skip
        assert empty.layout.height == full.layout.height
        assert empty.layout.margin == full.layout.margin
        heights[n_layers] = full.layout.height
        # neighbors must not share a spot, else the chart may give either
        inner = full.layout.height - full.layout.margin.t - full.layout.margin.b
        assert full.data[CLICK_CURVE].marker.size < min(inner / n_layers, 400 / n_heads)
    assert list(heights.values()) == sorted(heights.values())
    assert min(heights.values()) >= 320
    assert max(heights.values()) <= 900


def test_the_largest_model_is_drawn_at_once() -> None:
    values = np.random.default_rng(0).standard_t(2, size=80 * 64)
    started = time.process_time()
    text = grid(values, 80, 64, pruned=set(range(500)), critical=set(range(1000, 2500)), se=np.ones(80 * 64)).to_json()
    assert time.process_time() - started < 1
    assert len(text) < 1_500_000  # it travels with every click


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": [1.0] * 5}, {"values": [[1.0] * 6]}, {"values": ["a"] * 6}, {"se": [1.0]}, {"se": [-1.0] * 6},
        {"hover": ["one"]}, {"hover": "sixsix"}, {"pruned": {6}}, {"critical": {-1}}, {"by_hand": {99}},
        {"n_layers": 0},
    ],
)  # fmt: skip
def test_a_grid_of_bad_input_is_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "n_layers": 2,
        "n_heads": 3,
        "title": "",
        "unit": "",
        "hover": ["x"] * 6,
        "values": [1.0] * 6,
    }
    head_grid(**parted(good))
    with pytest.raises(InputError):
        head_grid(**parted(good | wrong))


# --- cost against benefit


def scatter(z_ppl: Any, z_bias: Any, **more: Any) -> go.Figure:
    given: dict[str, Any] = {"hover": ["x"] * len(z_ppl)} | more
    return scatter_impacts(z_ppl, z_bias, **parted(given))


def test_scatter_keeps_the_place_of_every_head() -> None:
    z_ppl, z_bias = [0.1, math.nan, 0.3, -0.1], [1.0, 2.0, math.nan, -1.0]
    figure = scatter(z_ppl, z_bias, hover=list("abcd"), pruned={0}, by_hand={3}, critical={2})
    points = sent(figure)["data"][CLICK_CURVE]
    assert points["name"] == CLICK_TRACE
    assert points["x"] == [0.1, None, None, -0.1]
    assert points["y"] == [1.0, None, None, -1.0]
    assert trace(figure, "pruned").x == (0.1,)
    assert trace(figure, "kept by hand").y == (-1.0,)
    assert len(trace(figure, "kept").x) == 2
    assert figure.layout.dragmode is None


def test_scatter_puts_wrecking_heads_at_the_edge_and_says_so() -> None:
    z_ppl = [0.02] * 98 + [1e8, math.inf]
    figure = scatter(z_ppl, np.arange(100))
    assert max(figure.data[CLICK_CURVE].x) == clip_limit(z_ppl)
    assert "2 heads lie beyond" in figure.layout.title.text
    assert figure.data[CLICK_CURVE].y == tuple(range(100))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_a_scatter_of_nothing_is_empty(value: float) -> None:
    sent(scatter([value] * 3, [value] * 3))


@pytest.mark.parametrize("wrong", [{"z_ppl": [1.0]}, {"z_bias": [1.0] * 3}, {"pruned": {2}}, {"critical": {-1}}])
def test_a_scatter_of_bad_input_is_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"z_ppl": [1.0, 2.0], "z_bias": [1.0, 2.0], "hover": ["a", "b"]}
    scatter(**good)
    with pytest.raises(InputError):
        scatter(**(good | wrong))


# --- groups


def bars(n: int = 3, **more: Any) -> go.Figure:
    base = [0.1, 0.3, 0.2][:n] + [0.05] * (n - 3)
    given: dict[str, Any] = {
        "groups": [f"group {i}" for i in range(n)], "base_means": base, "pruned_means": [v / 2 for v in base],
        "overall_base": 0.2, "overall_pruned": 0.1, "title": "Toxicity", "unit": "toxicity",
    }  # fmt: skip
    given |= more
    base, pruned = [
        GroupMeans(given[f"{side}_means"], given[f"overall_{side}"], given.get(f"{side}_intervals"))
        for side in ("base", "pruned")
    ]
    return group_bars(given["groups"], base, pruned, Words(given["title"], unit=given["unit"]))


def test_groups_are_sorted_by_the_unpruned_mean_from_the_top() -> None:
    figure = bars(base_intervals=[[0.05, 0.12], [0.2, 0.5], [0.2, 0.2]])
    base, pruned = figure.data[:2]
    assert list(base.x) == [0.3, 0.2, 0.1]
    assert list(pruned.x) == [0.15, 0.1, 0.05]
    assert figure.layout.yaxis.ticktext == ("group 1", "group 2", "group 0")
    assert figure.layout.yaxis.range == (2.5, -0.5)  # place 0 is on top
    np.testing.assert_allclose(base.error_x.array, [0.2, 0, 0.02], atol=1e-15)
    np.testing.assert_allclose(base.error_x.arrayminus, [0.1, 0, 0.05], atol=1e-15)
    assert "0.3 [0.2, 0.5]" in base.hovertext[0]
    assert np.isnan(pruned.error_x.array).all()
    assert (base.marker.color, pruned.marker.color) == (BASE, PRUNED)
    sent(figure)


def test_overall_means_are_lines_across_all_groups() -> None:
    lines = {t.line.color: t for t in bars().data if t.type == "scatter" and t.showlegend}
    assert lines[BASE].x == (0.2, 0.2)
    assert lines[PRUNED].x == (0.1, 0.1)
    assert lines[BASE].y == lines[PRUNED].y == (-0.5, 2.5)


def test_groups_before_the_pruned_model_is_measured() -> None:
    figure = sent(bars(pruned_means=[math.nan] * 3, overall_pruned=math.nan))
    assert len(figure["data"]) == 6


def test_fifty_groups_stay_readable() -> None:
    figure = bars(50)
    inner = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    assert inner / 50 >= 24  # px a pair
    assert len(figure.layout.yaxis.ticktext) == 50
    long = bars(groups=["a" * 80, "b", "c"])
    assert max(map(len, long.layout.yaxis.ticktext)) < 40
    assert any("a" * 80 in text for text in long.data[0].hovertext)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_means": [1.0]}, {"pruned_means": [1.0] * 4}, {"base_intervals": [[0, 1]]}, {"groups": "abc"},
        {"base_intervals": [[1.0, 0.0]] * 3}, {"pruned_intervals": [0.0, 1.0, 2.0]},
    ],
)  # fmt: skip
def test_bars_of_bad_input_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        bars(**wrong)


def test_no_template_of_the_process_leaks_in(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for name in ("plotly_dark", "none"):
        monkeypatch.setattr(pio.templates, "default", name)
        drawn.append([f.to_json() for f in (grid([1.0], 1, 1), bars(), scatter([1.0], [1.0]))])
    assert drawn[0] == drawn[1]
