"""Methods compared where their sets keep as many answers in the usual range, and measures that no set blows up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.metrics.perplexity import Nll
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.answers.measures import (
    Answers,
    Disparity,
    Estimate,
    at_once,
    interval,
    symmetric_interval,
)
from fasp_core.studies.contexts.cells import Cell
from fasp_core.studies.contexts.findings import chosen, findings
from fasp_core.studies.contexts.generalisation import Carried, Compared, error_of_sets, grown, intercepts, told
from fasp_core.studies.contexts.scenarios import by_turns
from fasp_core.studies.contexts.settings import settings
from tests.contexts.test_contexts_matrix import EVERY, made_up
from tests.support.contexts import WORLD

NLL = Nll(np.ones(2), np.ones(2, dtype=np.int64))

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


CHANCE = [
    (m, k) for m in ("heads-effect", "heads-random", "neurons-effect", "neurons-random") for k in ("same", "other")
]


def test_the_part_that_carries_over_is_a_ratio_with_its_interval() -> None:
    made = made_up(dict(zip(EVERY, (0.6, 0.3, 0.6, 0.3), strict=True)))
    carried = Carried(replace(made, config=replace(made.config, exact=ExactConfig())))
    cells = [c for kind in ("heads", "neurons") for c in chosen(carried, kind)]
    own = {(c.method, c.setting.tested): c for c in cells if c.setting.kind == "same"}
    far = [c for c in cells if c.setting.kind == "other"]
    ratios = []
    for side in (far, [own[c.method, c.setting.tested] for c in far]):
        ratios.append(np.mean([carried._changes([c])[0] for c in side], axis=0))
    ratio = ratios[0] / ratios[1]
    assert 0.3 < ratio[0] < 0.7, "half of the fall is lost on the way"
    told_ratio = interval(float(ratio[0]), ratio[1:], carried.names)
    expected = "{:.0%} [{:.0%}, {:.0%}] of it carries over".format(*told_ratio)
    assert expected in findings(carried)[1].sentence
    nothing = made_up(dict.fromkeys(EVERY, 0.0), noise=0.5)
    said = findings(Carried(replace(nothing, config=replace(nothing.config, exact=ExactConfig()))))[1].sentence
    assert "which part carries over cannot be told" in said


def test_what_beats_chance_is_said_of_all_kinds_at_once() -> None:
    shares = dict(zip(CHANCE, (0.5, 0.5, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0), strict=True))
    carried = Carried(made_up(shares))
    m = carried.matrix
    beats = findings(carried)[2]
    assert beats.holds is None, "one side each"
    assert beats.verdict == (
        "Heads by effect, chosen on the same scenario, lower; neurons by effect, chosen on the same scenario, raise "
        "differences by more than chance on these scenarios"
    )
    every = []
    for kind in ("heads", "neurons"):
        for where in ("same", "other"):
            sides = (m.of(f"{kind}-{how}", where) for how in ("effect", "random"))  # type: ignore[arg-type]
            every.append(list(zip(*sides, strict=True)))
    for pairs, e in zip(every, carried.simultaneous(every), strict=True):
        alone = carried.difference(pairs).difference
        assert e.value == pytest.approx(alone.value)
        assert e.low < alone.low < alone.high < e.high, "wider than one by itself"
        assert told(e) in beats.sentence
    raised = findings(Carried(made_up({("heads-effect", "same"): 0.0, ("heads-random", "same"): 0.5})))[2]
    assert raised.holds is False
    same = findings(Carried(made_up(dict.fromkeys(CHANCE, 0.2), noise=0.5)))[2]
    assert same.holds is None
    assert "cannot tell" in same.verdict


def test_a_few_sets_at_random_are_allowed_for() -> None:
    """Where chosen sets are random ones, too, they seldom beat chance, however few sets many tests share."""
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        of, names = np.repeat(range(4), 15), rng.normal(0, 0.02, 400)
        mine, other = (np.repeat(rng.normal(0, 0.05, 4), 15)[:, None] for _ in (0, 1))
        noise = [rng.normal(0, 0.01, (60, 1)) for _ in (0, 1)]
        changes = [x + e + np.append(0, names) * sign for x, e, sign in zip((mine, other), noise, (1, -1), strict=True)]
        error, freedom = error_of_sets(changes[1], of)
        assert freedom == 3
        rows = (changes[0] - changes[1]).mean(0)
        rows[1:] += error * rng.standard_t(freedom, 400)
        (one,) = at_once(rows[:1], rows[None, 1:], 32)
        found.append(one.low > 0 or one.high < 0)
    assert np.mean(found) < 0.12, "of which half is that the chosen sets are few as well"
    assert error_of_sets(changes[1][:15], of[:15]) == (0.0, 0), "one set says nothing of chance"
    same = np.random.default_rng(0).normal(0, 0.02, (1, 401)).repeat(60, 0)
    assert error_of_sets(same, of)[0] == pytest.approx(0), "names alone are no spread of sets"


@pytest.mark.parametrize(
    ("relative", "expected"), [(0.134, "+13.4%"), (-0.02, "-2.0%"), (9.5, "+950.0%"), (1.79e12, "1.79e+12 times")]
)
def test_what_is_left_of_a_model_is_told_in_few_digits(relative: float, expected: str) -> None:
    assert grown(relative) == expected


def test_intervals_at_once_hold_all_together() -> None:
    """Of eight independent means, all within their intervals in about 95% of samples; of one it is its own interval."""
    rng = np.random.default_rng(5)
    held, n, k = [], 40, 8
    for _ in range(400):
        sample = rng.normal(size=(n, k))
        counts = rng.multinomial(n, np.full(n, 1 / n), 400)
        found = at_once(sample.mean(0), (counts @ sample / n).T, n)
        held.append(all(e.low <= 0 <= e.high for e in found))
    assert 0.92 < np.mean(held) < 0.985
    value, drawn = 0.3, rng.normal(0.3, 0.1, 500)
    (one,) = at_once(np.array([value]), drawn[None], 12)
    np.testing.assert_allclose(one, symmetric_interval(value, drawn, 12))
    rows = np.stack([drawn, np.full(500, np.nan), np.full(500, 0.3)])
    first, lost, fixed = at_once(np.array([value, np.nan, 0.3]), rows, 12)
    np.testing.assert_allclose(first, one)
    assert np.isnan(lost).all()
    assert tuple(fixed) == (0.3, 0.3, 0.3)
    assert all(np.isnan(e.low) for e in at_once(np.array([value, np.nan]), rows[:2], 1))


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


def with_shares(shares: Sequence[float], names: int = 12) -> Carried:
    """Sets of neurons that take a share of a difference of 1 from each scenario, beside heads that take none."""
    rng, codes = np.random.default_rng(0), np.repeat([0, 1], names)
    scenarios = tuple(replace(WORLD.scenarios[0], name=str(i)) for i in range(len(shares)))
    base = [np.expm1(3 + rng.normal(0, 0.3, 2 * names) + (codes == 0)) for _ in shares]
    cells = [
        Cell(method, setting, 1, 1, "", (Answers(np.expm1(np.log1p(x) - take * (codes == 0))[:, None], codes),), NLL)
        for method, kept in (("neurons-effect", 1.0), ("heads-effect", 0.0))
        for setting, x, share in zip(settings(scenarios)[: len(shares)], base, shares, strict=True)
        for take in [kept * share]
    ]
    whole = tuple(Answers(x[:, None], codes) for x in base)
    made = made_up({("heads-effect", "same"): 0.0})
    return Carried(replace(made, scenarios=scenarios, base=whole, other=whole, cells=tuple(cells)))


def neurons_against_heads(carried: Carried) -> Compared:
    by_method = [carried.matrix.of(method, "same") for method in ("neurons-effect", "heads-effect")]  # type: ignore[arg-type]
    return carried.difference(list(zip(*by_method, strict=True)))


def test_other_scenarios_may_differ_by_as_much_as_these_do() -> None:
    alike, apart = (
        neurons_against_heads(with_shares(s)) for s in ([0.3] * 8, [0.0, 0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.6])
    )
    for one in (alike, apart):
        assert one.elsewhere.value == pytest.approx(one.difference.value)
    width, wider = (one.elsewhere.high - one.elsewhere.low for one in (alike, apart))
    by_names = apart.difference.high - apart.difference.low
    assert wider > 2 * max(width, by_names)
    assert "for other scenarios of their kind" in apart.said


def test_a_few_scenarios_say_nothing_of_others() -> None:
    found = neurons_against_heads(with_shares([0.1, 0.2, 0.3, 0.4]))
    assert np.isnan(found.elsewhere.low)
    assert "other scenarios" not in found.said


@pytest.mark.parametrize("scenarios", [5, 12])
def test_intervals_for_other_scenarios_hold(scenarios: int) -> None:
    """Shares of made-up scenarios are drawn around .3; about 95 in 100 intervals hold that."""
    rng, held = np.random.default_rng(2), []
    for _ in range(60):
        carried = with_shares(rng.normal(0.3, 0.1, scenarios).tolist())
        spread = carried._values[: len(carried.matrix.scenarios)].mean()
        found = neurons_against_heads(carried).elsewhere
        held.append(found.low <= -0.3 * spread <= found.high)
    assert np.mean(held) >= 0.88


def test_resamples_without_numbers_cost_no_interval() -> None:
    carried = with_shares([0.1, 0.2, 0.3, 0.4, 0.3, 0.2])
    rng = np.random.default_rng(0)
    lost = rng.random(carried._drawn.shape) < 0.02
    carried._drawn = np.where(lost, np.nan, carried._drawn)
    found = neurons_against_heads(carried)
    assert np.isfinite(found.difference.low)
    assert np.isfinite(found.elsewhere.low)


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(0.1234, 0.05, 0.2), "+0.12 [+0.05, +0.20]"),
        (Estimate(0.0012, -0.0071, 0.0094), "+0.001 [-0.007, +0.009]"),
        (Estimate(-0.0001, -0.0002, 0.0), "+0.000 [+0.000, +0.000]"),
        (Estimate(0.5, np.nan, np.nan), "+0.50 (no interval)"),
    ],
)
def test_narrow_intervals_are_told_with_a_digit_more(estimate: Estimate, expected: str) -> None:
    assert told(estimate) == expected
