"""Order, scale and doubt of the grid, lines of the scatter, and the chart of tried sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.figures import (
    CLICK_TRACE,
    Marks,
    Words,
    clicked_heads,
    head_grid,
    scatter_impacts,
    tried_sets,
)
from fasp_core.figures.scales import center_of, symlog
from fasp_core.figures.theme import LIGHT, WASH, veil
from fasp_core.heads.selection import HeadScores, select
from pages.explore.grid_options import GridOptions, order, shown
from pages.explore.grids import lines
from tests.support.fakes import make_table
from tests.support.figures import named, parted

numbers = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


def grid(values: Any, n_layers: int, n_heads: int, **more: Any) -> Any:
    hover = [f"L{i // n_heads}H{i % n_heads}" for i in range(n_layers * n_heads)]
    return head_grid(values, n_layers, n_heads, hover=hover, **parted({"title": "t", "unit": "u"} | more))


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5), st.integers(1, 6), st.randoms(use_true_random=False), st.data())
def test_a_click_on_a_sorted_grid_hits_the_head_that_stands_there(
    n_layers: int, n_heads: int, rng: Any, data: st.DataObject
) -> None:
    """The cell under the point of a head has its value, its label and its marks; the event names that head."""
    n = n_layers * n_heads
    across = [
        i for layer in range(n_layers) for i in rng.sample(range(layer * n_heads, (layer + 1) * n_heads), n_heads)
    ]
    off = data.draw(st.frozensets(st.integers(0, n - 1)))
    values = np.arange(1, n + 1) / n
    fig = grid(values, n_layers, n_heads, order=across, pruned=off)
    points, cells = named(fig, CLICK_TRACE), named(fig, "impact")
    assert fig.data.index(points) == 0
    assert fig.layout.xaxis.title.text == "rank in its layer"
    for flat in range(n):
        x, y = points.x[flat], points.y[flat]
        assert across[y * n_heads + x] == flat
        assert cells.z[y][x] == values[flat]
        assert f"L{flat // n_heads}H{flat % n_heads}" in points.text[flat]
        event = {"selection": {"points": [{"curve_number": 0, "point_index": flat}]}}
        assert clicked_heads(event, n_heads, n_layers) == [divmod(flat, n_heads)]
    crosses = named(fig, "pruned")
    assert {(x, y) for x, y in zip(crosses.x, crosses.y, strict=True) if x is not None} == {
        (points.x[i], points.y[i]) for i in off
    }


def test_an_order_is_of_each_layers_own_heads() -> None:
    for wrong in ([0, 1, 2], [0, 0, 2, 3], [2, 1, 0, 3], [0, 1, 2, 4]):
        with pytest.raises(InputError, match="An order names each head once"):
            grid([1.0] * 4, 2, 2, order=wrong)


def as_number(label: str) -> float:
    """`−2.1×10⁸` or `0.02`."""
    plain = label.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-"))
    if not any(c in label for c in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"):
        return float(plain)
    times, _, power = plain.rpartition("10")
    sign, times = (-1, times[1:]) if times.startswith("-") else (1, times)
    return sign * float(times.rstrip("×") or 1) * 10.0 ** int(power)


@settings(deadline=None, max_examples=15)
@given(st.lists(numbers, min_size=1, max_size=12))
def test_a_logarithmic_scale_keeps_order_sign_and_true_ticks(values: list[float]) -> None:
    fig = grid(values, 1, len(values), scale="symlog")
    cells = named(fig, "impact")
    z, colors = np.array(values), np.array(cells.z[0])
    assert (np.sign(colors) == np.sign(z)).all()
    assert (np.diff(colors[np.argsort(z)]) >= 0).all()
    assert cells.zmin == -cells.zmax
    assert cells.zmax >= np.abs(colors).max()  # nothing is clipped
    assert "logarithmic" in fig.layout.title.text
    assert "beyond" not in fig.layout.title.text
    center = center_of(z)
    for at, label in zip(cells.colorbar.tickvals, cells.colorbar.ticktext, strict=True):
        if label == "0":
            assert at == 0
            continue
        assert at == pytest.approx(float(symlog(np.array(as_number(label)), center)), rel=0.06)


def test_doubt_fades_by_degrees() -> None:
    fig = grid([0.0, 0.98, 1.96, 5.0], 1, 4, se=np.ones(4), doubt="fade")
    veils = named(fig, "doubt")
    assert np.allclose(veils.z[0], [1, 0.5, 0, 0])
    assert [color for _, color in veils.colorscale] == [veil(LIGHT.neutral, 0), veil(LIGHT.neutral, WASH)]
    assert "Paler" in fig.layout.title.text
    assert "sign within noise" not in [t.name for t in fig.data]
    quiet = grid([0.0, 0.98, 1.96, 5.0], 1, 4, se=np.ones(4), doubt="none")
    assert np.isnan(np.array(named(quiet, "within noise").z, dtype=float)).all()
    assert "s.e." not in quiet.layout.title.text


def test_units_and_order_of_the_page() -> None:
    table = make_table(3, 4)
    bias, se = table.bias.z_bias("neutral"), table.bias.standard_errors("neutral")
    plain = ("thousandths", 1000.0)
    assert order(GridOptions(), table, "neutral") is None
    ranks = order(GridOptions(ranked=True), table, "neutral")
    assert ranks is not None
    for layer in range(3):
        own = ranks[4 * layer : 4 * layer + 4]
        assert sorted(own) == list(range(4 * layer, 4 * layer + 4))
        assert (np.diff(bias[own]) <= 0).all()
    for unit, factor in (("difference", 1000.0), ("share", 100 / 0.02)):
        values, errors, _ = shown(GridOptions(unit=unit), bias, se, 0.02, plain)
        assert np.allclose(values, factor * bias)
        assert np.allclose(errors, factor * se)
    values, errors, name = shown(GridOptions(unit="errors"), bias, se, 0.02, plain)
    assert np.allclose(values, bias / se)
    assert (errors == 1).all()
    assert name == "in s.e."


def test_picked_heads_are_ringed_in_grid_and_scatter() -> None:
    values = np.arange(6.0)
    fig = grid(values, 2, 3, picked={4})
    assert (named(fig, "picked").x, named(fig, "picked").y) == ((1,), (1,))
    assert "picked" not in [t.name for t in grid(values, 2, 3).data]
    assert named(fig, "picked").marker.color == LIGHT.series[2]  # an open symbol wears its own color, not its line's
    points = scatter_impacts(values, -values, Words("t"), hover=list("abcdef"), marked=Marks(picked={4}))
    assert (named(points, "picked").x, named(points, "picked").y) == ((4.0,), (-4.0,))


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["fasp", "bias-only", "ppl-only", "random"]),
)
def test_the_lines_part_the_heads_as_the_method_does(seed: int, gamma: float, alpha: float, method: str) -> None:
    rng = np.random.default_rng(seed)
    z_ppl, z_bias = rng.normal(size=12), rng.normal(size=12)
    told = rng.permutation(12)[:2]
    chosen = select(HeadScores(3, 4, z_ppl, z_bias), method, gamma, alpha, locked=told[:1], forced=told[1:])
    across, upwards = lines(chosen, z_ppl, z_bias)
    critical = set(chosen.critical)
    free = set(range(12)) - set(told.tolist())
    off = set(chosen.pruned)
    if method == "fasp" and across is not None:
        assert {h for h in range(12) if z_ppl[h] > across[0]} == critical
    if method in ("fasp", "bias-only") and upwards is not None:
        assert {h for h in free - critical if z_bias[h] > upwards[0]} == off & free
    if method == "ppl-only":
        assert upwards is None
        if across is not None:
            assert {h for h in free if z_ppl[h] < across[0]} == off & free
    if method == "random":
        assert (across, upwards) == (None, None)


def test_the_lines_are_drawn_where_they_are() -> None:
    fig = scatter_impacts([0, 1], [1, 2], Words("t"), hover=["a", "b"], x_line=(0.5, "γ <b>"), y_line=(1.5, "α"))
    assert [(s.x0, s.x1) for s in fig.layout.shapes if s.yref == "y domain"] == [(0.5, 0.5)]
    assert [(s.y0, s.y1) for s in fig.layout.shapes if s.xref == "x domain"] == [(1.5, 1.5)]
    assert [a.text for a in fig.layout.annotations] == ["γ &lt;b&gt;", "α"]
    assert not scatter_impacts([0.0], [1.0], Words("t"), hover=["a"]).layout.shapes


def test_tried_sets_stand_where_they_were_measured() -> None:
    nan = float("nan")
    fig = tried_sets(
        [[1, -10], [2, -20]],
        [[nan, nan], [3, -12]],
        [[[nan, nan]] * 2, [[2.5, 3.5], [-15, -8]]],
        Words("t", x="x", y="y"),
        hover=["a", "b"],
        current=1,
    )
    points, filled = named(fig, CLICK_TRACE), named(fig, "measured, 95%")
    assert (points.x, points.y) == ((1, 3), (-10, -12))
    assert (filled.x, filled.y) == ((3,), (-12,))
    assert (filled.error_x.arrayminus, filled.error_x.array) == ((0.5,), (0.5,))
    assert (filled.error_y.arrayminus, filled.error_y.array) == ((3,), (4,))
    assert named(fig, "estimate").x == (1, 2)
    assert named(fig, "now").x == (3,)
    with pytest.raises(InputError, match="There is no set 2"):
        tried_sets([[1, 2]], [[1, 2]], [[[1, 2]] * 2], Words(""), hover=["a"], current=2)
    with pytest.raises(InputError, match="measured has shape"):
        tried_sets([[1, 2]], [[1]], [[[1, 2]] * 2], Words(""), hover=["a"], current=0)
