"""Curves of a comparison against loops over its candidates, the Pareto front against brute force, and the figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.figures import DARK, LIGHT, Curve, Points, Words, method_curves, pareto_front, tradeoff
from fasp_core.figures.curves import DASHES, SYMBOLS
from fasp_core.figures.theme import Theme
from fasp_core.studies.compare.compare import choose
from fasp_core.studies.compare.curves import ORDER, best_gammas, best_of_each, both_sides, curves, values
from fasp_core.studies.compare.plan import SIDES
from tests.support.figures import contrast, rgb, sent
from tests.support.made import comparison

THEMES = [pytest.param(LIGHT, id="light"), pytest.param(DARK, id="dark")]
few = st.integers(0, 6).map(float)  # small whole numbers: ties and equal points are common
point = st.tuples(few | st.just(math.nan) | st.just(math.inf), few)


# the front


@given(st.lists(point, max_size=25))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    there = {i for i, p in enumerate(points) if all(map(math.isfinite, p))}
    unbeaten = set()
    for i in there:
        (a, b) = points[i]
        beaten = any(x <= a and y <= b and (x < a or y < b) for x, y in (points[j] for j in there))
        if not beaten:
            unbeaten.add(i)
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    front = pareto_front(x, y).tolist()
    assert set(front) == unbeaten
    assert len(front) == len(unbeaten)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
    assert [points[i][1] for i in front] == sorted((points[i][1] for i in front), reverse=True)


# curves of a comparison


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("gamma", [None, 0.2, 0.5])
def test_curves_are_the_candidates_of_a_method(side: Any, gamma: float | None) -> None:
    c = comparison(2)
    drawn = curves(c, side, "counted", gamma, 0.1)
    table = values(c, side, "counted")
    best = best_gammas(c, 0.1)
    assert list(drawn.method) == sorted(drawn.method, key=ORDER.index)
    for row in drawn.itertuples():
        mine = [i for i, k in enumerate(c.candidates) if k.method == row.method and k.alpha == row.alpha]
        if row.method == "fasp":
            mine = [i for i in mine if c.candidates[i].gamma == (best[row.alpha] if gamma is None else gamma)]
            assert row.gamma == c.candidates[mine[0]].gamma
        assert row.seeds == len(mine)
        gaps, ppl = [table.gap[i] for i in mine], [table.ppl[i] for i in mine]
        assert (row.gap, row.ppl) == pytest.approx((np.mean(gaps), np.mean(ppl)))
        if len(mine) > 1:
            assert (row.gap_low, row.gap_high) == (min(gaps), max(gaps))
            assert (row.ppl_low, row.ppl_high) == (min(ppl), max(ppl))
        else:
            assert row.gap_low <= row.gap <= row.gap_high
            assert row.ppl_low <= row.ppl <= row.ppl_high
    assert set(zip(drawn.method, drawn.alpha, strict=True)) == {(k.method, k.alpha) for k in c.candidates}


def test_values_have_units() -> None:
    c = comparison(1)
    table = values(c, "test", "neutral")
    base = c.base_gap_value("test", "neutral")
    np.testing.assert_allclose(table.gap, table.gap_neutral)
    np.testing.assert_allclose(table.gap, base * (1 + table.change_neutral))
    np.testing.assert_allclose(table.gap_high, base * (1 + table.high_neutral))
    np.testing.assert_allclose(table.ppl_high / table.ppl, (1 + table.ppl_change_high) / (1 + table.ppl_change))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 300), st.floats(0.005, 0.3), st.sampled_from(("neutral", "counted")))
def test_best_gammas_by_brute_force_on_validation(seed: int, limit: float, reading: str) -> None:
    c = comparison(seed, reading)
    for alpha, gamma in best_gammas(c, limit).items():
        mine = [k for k in c.candidates if k.method == "fasp" and k.alpha == alpha]
        ppl = {k.gamma: c.perplexity(k, "valid").relative for k in mine}
        gap = {k.gamma: c.change(k, "valid", reading).pruned for k in mine}
        inside = [g for g in ppl if ppl[g] <= limit]
        assert gamma == (min(inside, key=gap.__getitem__) if inside else min(ppl, key=ppl.__getitem__))


def test_best_of_each_is_what_is_chosen_of_each() -> None:
    c = comparison(5)
    table = best_of_each(c, 0.12)
    assert list(table.method) == [m for m in ORDER if any(k.method == m for k in c.candidates)]
    for row in table.itertuples():
        chosen = choose(c, "neutral", 0.12, [row.method])
        if chosen is None:
            assert math.isnan(row.heads)
            continue
        assert (row.alpha, row.heads) == (chosen.alpha, len(chosen.heads))
        assert row.ppl_test == c.perplexity(chosen, "test").relative
        assert row.counted_valid == c.change(chosen, "valid", "counted").relative
    assert len(best_of_each(c, 1e-9)) == len(table)  # those with nothing within the limit are still named


def test_both_sides_are_one_row_a_candidate() -> None:
    c = comparison(0)
    table = both_sides(c)
    assert len(table) == len(c.candidates)
    assert list(table.columns[:6]) == ["method", "gamma", "alpha", "seed", "heads", "set"]
    np.testing.assert_array_equal(table.gap_neutral_test, c.frame("test").gap_neutral)
    np.testing.assert_array_equal(table.ppl_change_valid, c.frame("valid").ppl_change)
    assert table.columns.is_unique


# figures


def line(name: str = "FASP", style: int = 0, band: bool = False, scale: float = 1.0) -> Curve:
    x = np.array([0.02, 0.04, 0.06])
    y = scale * np.array([3.0, 2.0, 1.0])
    return Curve(name, style, x, y, y - 0.5, y + 0.7, [f"{name} {i}\n<b>" for i in range(3)], band)


def trace(figure: go.Figure, name: str) -> Any:
    (found,) = [t for t in figure.data if t.name == name and t.showlegend is not False]
    return found


@pytest.mark.parametrize("dark", [False, True])
def test_lines_bars_and_bands(dark: bool) -> None:
    theme = DARK if dark else LIGHT
    fig = method_curves(
        [line(), line("random", 5, band=True)], Words("Gap", "n", "α", "gap", dark=dark), reference=4.0,
        floor=0.5, chosen=(0.04, 2.0),
    )  # fmt: skip
    data = sent(fig)
    assert fig.layout.template.layout.to_plotly_json() == {}
    first, many = trace(fig, "FASP"), trace(fig, "random")
    np.testing.assert_allclose(first.y, [3, 2, 1])
    np.testing.assert_allclose(first.error_y.array, 0.7)
    np.testing.assert_allclose(first.error_y.arrayminus, 0.5)
    assert (first.marker.color, first.marker.symbol) == (theme.series[0], SYMBOLS[0])
    assert many.error_y.array is None
    (band,) = [t for t in fig.data if t.fill == "toself"]
    assert max(band.y) == pytest.approx(3.7)
    assert min(band.y) == pytest.approx(0.5)
    assert not band.showlegend
    assert band.legendgroup == many.legendgroup
    np.testing.assert_allclose(trace(fig, "unpruned: 4").y, 4)
    np.testing.assert_allclose(trace(fig, "noise alone: 0.5").y, 0.5)
    assert (trace(fig, "chosen").x, trace(fig, "chosen").y) == ((0.04,), (2.0,))
    assert first.text[0] == "<b>FASP 0</b><br>&lt;b&gt;"  # markup in a text is shown, not followed
    assert data["layout"]["xaxis"]["ticktext"] == ["0.02", "0.04", "0.06"]


def test_bars_of_several_lines_stand_side_by_side() -> None:
    fig = method_curves([line(), line("b", 1), line("c", 2)], Words("t"), reference=1.0)
    xs = np.array([trace(fig, name).x for name in ("FASP", "b", "c")])
    assert (np.diff(xs, axis=0) > 0).all()
    assert (np.abs(xs - [0.02, 0.04, 0.06]) < 0.01).all()  # nearer to their own alpha than to the next
    np.testing.assert_allclose(xs.mean(0), [0.02, 0.04, 0.06])


def test_what_a_picture_leaves_out_is_said() -> None:
    fig = method_curves([line(), line("b", 1, scale=10)], Words("t", "n."), reference=3.0, cap=6.0)
    assert "3 of 6 points lie above" in fig.layout.title.text
    assert fig.layout.yaxis.range == (0, 6.0)
    log = method_curves([line()], Words("t"), reference=3.0, cap=1.0, log_y=True)
    assert log.layout.yaxis.type == "log"
    assert "lie above" not in log.layout.title.text
    sent(method_curves([], Words("t"), reference=3.0))


def scattered(n: int = 8, **more: Any) -> go.Figure:
    rng = np.random.default_rng(0)
    x, y, hover = rng.uniform(0, 30, n), rng.uniform(0, 6, n), [f"candidate {i}" for i in range(n)]
    styles = more.pop("styles", [i % 3 for i in range(n)])
    points = Points(x, y, hover, styles, ["FASP", "magnitude", "gradient"])
    words = Words("t", "n.", "ppl", "gap", dark=more.pop("dark", False))
    return tradeoff(points, words, reference=(0.0, 5.0), limit=10.0, **more)


@pytest.mark.parametrize("dark", [False, True])
def test_the_tradeoff_shows_front_limit_and_choice(dark: bool) -> None:
    fig = scattered(chosen=2, floor=0.4, dark=dark)
    sent(fig)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 30, 8), rng.uniform(0, 6, 8)
    front = pareto_front(np.append(x, 0.0), np.append(y, 5.0))
    np.testing.assert_allclose(trace(fig, "Pareto front").x, np.append(x, 0.0)[front])
    assert trace(fig, "Pareto front").line.shape == "hv"
    for style, name in enumerate(("FASP", "magnitude", "gradient")):
        at = np.arange(8) % 3 == style
        np.testing.assert_allclose(trace(fig, name).x, x[at])
        np.testing.assert_allclose(trace(fig, name).y, y[at])
        assert trace(fig, name).text == tuple(f"<b>candidate {i}</b>" for i in np.flatnonzero(at))
        assert trace(fig, name).marker.symbol == SYMBOLS[style]
    assert (trace(fig, "chosen").x[0], trace(fig, "chosen").y[0]) == (x[2], y[2])
    assert any(s.x0 == s.x1 == 10.0 for s in fig.layout.shapes)
    assert any(s.y0 == s.y1 == 0.4 for s in fig.layout.shapes)
    assert {a.text for a in fig.layout.annotations} == {"limit", "noise alone"}


def test_points_beyond_the_picture_stand_at_its_edge() -> None:
    fig = scattered(caps=(10.0, 4.0))
    xs = np.concatenate([trace(fig, name).x for name in ("FASP", "magnitude", "gradient")])
    ys = np.concatenate([trace(fig, name).y for name in ("FASP", "magnitude", "gradient")])
    assert xs.max() == 10.0
    assert ys.max() <= 4.0
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 30, 8), rng.uniform(0, 6, 8)
    assert f"{((x > 10) | (y > 4)).sum()} of 8 lie beyond the edge" in fig.layout.title.text


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="styles must be 8"):
        scattered(styles=[0] * 7)
    with pytest.raises(InputError, match="each below 3"):
        scattered(styles=[3] * 8)
    with pytest.raises(InputError, match="no candidate 8"):
        scattered(chosen=8)
    with pytest.raises(InputError, match="hover holds"):
        tradeoff(Points([1], [1], "x", [0], ["a"]), Words(""), reference=(0, 1), limit=1)
    bad = Curve("a", 9, [1.0], [1.0], [1.0], [1.0], ["x"])
    with pytest.raises(InputError, match="no style 9"):
        method_curves([bad], Words(""), reference=1.0)
    short = Curve("a", 0, [1.0, 2.0], [1.0], [1.0], [1.0], ["x"])
    with pytest.raises(InputError, match="x has shape"):
        method_curves([short], Words(""), reference=1.0)


@pytest.mark.parametrize("theme", THEMES)
def test_methods_are_told_apart_without_color(theme: Theme) -> None:
    assert len(theme.series) == len(SYMBOLS) == len(DASHES) == len(ORDER) == len(set(SYMBOLS)) == len(set(theme.series))
    for color in theme.series:  # WCAG 1.4.11
        assert contrast(rgb(color), rgb(theme.page)) >= 3
