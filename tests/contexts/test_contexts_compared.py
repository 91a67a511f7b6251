"""Methods compared where their sets keep as many answers in the usual range, and measures that no set blows up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.studies.answers.measures import Answers, Disparity, Estimate
from fasp_core.studies.contexts.findings import chosen, findings
from fasp_core.studies.contexts.generalisation import Carried, intercepts, told
from fasp_core.studies.contexts.scenarios import by_turns
from tests.contexts.test_contexts_matrix import EVERY, made_up

NUMBER = st.floats(-10, 10)


@given(a=NUMBER, b=NUMBER, x=st.lists(NUMBER, min_size=3, max_size=9, unique_by=lambda v: round(v, 3)))
def test_points_of_a_line_give_where_it_begins(a: float, b: float, x: list[float]) -> None:
    at = np.array(x)
    y = np.column_stack([a + b * at, np.full(len(x), a)])
    np.testing.assert_allclose(intercepts(at, y), [a, a], atol=1e-6)


def test_it_is_what_a_fit_gives_and_unknown_points_count_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=12), rng.normal(size=(12, 5))
    expected = np.polynomial.polynomial.polyfit(x, y, 1)[0]
    np.testing.assert_allclose(intercepts(x, y), expected)
    y[3, 1] = np.nan
    kept = np.delete(np.arange(12), 3)
    expected[1] = np.polynomial.polynomial.polyfit(x[kept], y[kept, 1], 1)[0]
    np.testing.assert_allclose(intercepts(x, y), expected)
    assert np.isnan(intercepts(x[:2], y[:2])).all()
    assert np.isnan(intercepts(np.ones(12), y)).all()


def test_the_finding_says_it() -> None:
    """As a fit of the pairs one by one."""
    carried = Carried(made_up(dict(zip(EVERY, (0.5, 0.1, 0.9, 0.2), strict=True))))
    pairs = [(n, h) for n in chosen(carried, "neurons") for h in chosen(carried, "heads") if n.setting == h.setting]
    found = carried.at_equal_inliers(pairs)
    assert found is not None
    shares = np.array([carried._moved(n)[0] - carried._moved(h)[0] for n, h in pairs])
    changes = np.array([carried.difference([pair]).difference.value for pair in pairs])
    expected = np.polynomial.polynomial.polyfit(shares, changes, 1)[0]
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    assert f"the difference is {told(found)}" in findings(carried)[0].sentence


def test_a_set_that_leaves_no_spread_has_a_difference_in_the_whole_models() -> None:
    """All but the same answer for everybody: over its own spread such a difference is any number."""
    made = made_up({("heads-effect", "same"): 0.0})
    values = np.where(made.codes == 0, 40.0, 40.001)[:, None] + np.zeros((1, 3))
    values[0, 0] += 1e-6
    cells = tuple(replace(c, halvings=(Answers(values, made.codes),)) for c in made.cells)
    found = Carried(replace(made, cells=cells)).summary(list(cells))
    assert found is not None
    assert found.after.value < 0.01
    assert found.change.high < 0.1
    own = Disparity.of([Answers(values, made.codes)])
    assert abs(own.values[0]) > 100


@pytest.mark.parametrize("codes", [[0, 0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1]])
def test_halves_are_every_second_name_of_a_group(codes: list[int]) -> None:
    names = {g: [f"{g}{i}" for i in range(codes.count(g))] for g in (0, 1)}
    people = [f"{g}{codes[:i].count(g)}" for i, g in enumerate(codes)]
    turns = by_turns(np.array(codes))
    for h in (0, 1):
        assert {p for p, t in zip(people, turns, strict=True) if t == h} == {n for g in (0, 1) for n in names[g][h::2]}


def with_shares(heads: tuple[float, float], neurons: tuple[float, float]) -> Carried:
    """Sets for the scenario itself that take these shares of the difference in two scenarios, all names alike."""
    made = made_up({("heads-effect", "same"): 0.0, ("neurons-effect", "same"): 0.0})
    cells = []
    for cell in made.cells:
        share = (heads if cell.method == "heads-effect" else neurons)[cell.setting.tested]
        whole = made.base[cell.setting.tested]
        assert isinstance(whole, Answers)
        values = whole.values - 10 * share * (made.codes == 0)[:, None]
        cells.append(replace(cell, halvings=(Answers(values, made.codes),)))
    return Carried(replace(made, cells=tuple(cells)))


def test_other_scenarios_may_differ_by_as_much_as_these_do() -> None:
    alike, apart = with_shares((0.0, 0.0), (0.1, 0.1)), with_shares((0.0, 0.0), (0.0, 0.4))
    found = []
    for carried in (alike, apart):
        by_method = [carried.matrix.of(method, "same") for method in ("neurons-effect", "heads-effect")]
        found.append(carried.difference(list(zip(*by_method, strict=True))))
    for one in found:
        assert one.elsewhere.value == pytest.approx(one.difference.value)
        assert one.elsewhere.low <= one.difference.low < one.difference.high <= one.elsewhere.high
    width = [one.elsewhere.high - one.elsewhere.low for one in found]
    assert found[1].difference.high - found[1].difference.low < width[1] / 1.5
    assert width[0] < width[1]
    assert "for other scenarios of their kind" in found[1].said
    (single,) = [carried.difference([(a, b)]) for a, b in zip(*by_method, strict=True)][:1]
    assert np.isnan(single.elsewhere.low)
    assert "other scenarios" not in single.said


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(0.1234, 0.05, 0.2), "+0.12 [+0.05, +0.20]"),
        (Estimate(0.0012, -0.0071, 0.0094), "+0.001 [-0.007, +0.009]"),
        (Estimate(-0.0001, -0.0002, 0.0), "+0.000 [+0.000, +0.000]"),
        (Estimate(0.5, np.nan, np.nan), "+0.50 [+nan, +nan]"),
    ],
)
def test_narrow_intervals_are_told_with_a_digit_more(estimate: Estimate, expected: str) -> None:
    assert told(estimate) == expected
