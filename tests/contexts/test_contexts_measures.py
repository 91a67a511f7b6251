"""Differences between groups against plain loops and closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.answers.measures import (
    Answers,
    Disparity,
    Estimate,
    distance,
    draws,
    inlier_ratio,
    interval,
    more_often,
    parsed_differences,
    smd,
)
from fasp_core.studies.answers.testing import significance

CODES = np.repeat([0, 1], [5, 7])


def made(shift: float = 0.0, seed: int = 0, samples: int = 6, missing: float = 0.2) -> Answers:
    rng = np.random.default_rng(seed)
    values = rng.normal(50, 10, (len(CODES), samples)) + shift * (CODES == 0)[:, None]
    values[rng.random(values.shape) < missing] = np.nan
    return Answers(values, CODES)


def by_hand(values: np.ndarray, codes: np.ndarray) -> float:
    a, b = (values[codes == g] for g in (0, 1))
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
    return float((a.mean() - b.mean()) / np.sqrt(pooled))


@pytest.mark.parametrize("shift", [0.0, 8.0, -30.0])
def test_smd_by_hand(shift: float) -> None:
    answers = made(shift)
    assert smd(answers.moments(), CODES) == pytest.approx(by_hand(answers.values, CODES))


def test_smd_is_the_t_statistic_without_the_sizes() -> None:
    answers = made(4.0, missing=0.0)
    a, b = answers.values[CODES == 0].ravel(), answers.values[CODES == 1].ravel()
    t = stats.ttest_ind(a, b).statistic
    assert smd(answers.moments(), CODES) == pytest.approx(t * np.sqrt(1 / a.size + 1 / b.size))


def test_resamples_repeat_names_with_all_their_answers() -> None:
    answers, counts = made(5.0), draws(CODES, 50, seed=3)
    assert (counts[:, CODES == 0].sum(1) == 5).all()
    assert (counts[:, CODES == 1].sum(1) == 7).all()
    found = smd(answers.moments(), CODES, counts)
    for drawn, value in zip(counts, found, strict=True):
        again = np.repeat(np.arange(len(CODES)), drawn.astype(int))
        assert value == pytest.approx(by_hand(answers.values[again], CODES[again]))


def test_intervals_cover_the_truth() -> None:
    """Names differ by themselves: an interval that resampled answers alone would be far too narrow."""
    inside, shift, between, within = 0, 6.0, 8.0, 4.0
    codes = np.repeat([0, 1], 30)
    truth = shift / np.sqrt(between**2 + within**2)
    for seed in range(120):
        rng = np.random.default_rng(seed)
        person = rng.normal(0, between, 60) + shift * (codes == 0)
        answers = Answers(person[:, None] + rng.normal(0, within, (60, 8)), codes)
        (one,) = Disparity.of([answers], 300, seed).each()
        inside += one.low <= truth <= one.high
    assert 0.88 <= inside / 120 <= 0.99


def test_mean_absolute_and_its_paired_change() -> None:
    before, after = [made(9.0, 1), made(-9.0, 2)], [made(3.0, 1), made(-3.0, 2)]
    base, pruned = Disparity.of(before, 400), Disparity.of(after, 400)
    mean = base.mean_absolute()
    assert mean.value == pytest.approx(np.mean([abs(by_hand(a.values, CODES)) for a in before]))
    change = base.change(pruned)
    assert change.value == pytest.approx(pruned.mean_absolute().value - mean.value)
    assert change.high < 0
    same = base.change(Disparity.of(before, 400))
    assert same == (0.0, 0.0, 0.0)


def test_noise_is_not_added_a_second_time_to_mean_absolute_differences() -> None:
    """Percentiles of resampled |SMD| would lie above the value itself; around it they mostly hold the true mean."""
    codes, inside = np.repeat([0, 1], 16), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0, 0.3, 10)
        answers = [Answers(rng.normal(0, 1, (32, 4)) + d * (codes == 0)[:, None], codes) for d in truth]
        found = Disparity.of(answers, 200, seed)
        for mean in (found.mean_absolute(), found.of_context(True)):
            assert 0 <= mean.low <= mean.value <= mean.high
        one = found.mean_absolute()
        inside += one.low <= np.abs(truth).mean() <= one.high
    assert inside >= 48  # noise also raises the value itself, a little


def test_a_scenario_without_numbers_is_no_fall() -> None:
    """The largest difference is lost, and nothing else is another: over what can be compared nothing has changed."""
    silent = Answers(np.full((12, 6), np.nan), CODES)
    rest = [made(2.0, seed) for seed in range(3)]
    base, pruned = Disparity.of([made(60.0, 9), *rest], 200), Disparity.of([silent, *rest], 200)
    assert pruned.mean_absolute().value < base.mean_absolute().value / 2
    assert base.change(pruned) == (0.0, 0.0, 0.0)


def test_where_there_is_nothing_to_compare() -> None:
    none = Answers(np.full((12, 3), np.nan), CODES)
    equal = Answers(np.full((12, 3), 20.1), CODES)
    base = Disparity.of([none, equal], 50)
    assert np.isnan(base.values).all()
    assert np.isnan(base.mean_absolute()).all()
    assert none.parsed().tolist() == [0.0, 0.0]
    one = Disparity.of([none, made(9.0)], 50).mean_absolute()
    assert one.value == pytest.approx(abs(by_hand(made(9.0).values, CODES)))
    assert np.isnan(inlier_ratio(none, equal))
    assert np.isnan(distance(none, equal))


def test_parsed_by_group() -> None:
    values = np.ones((12, 2))
    values[0, 0] = values[11] = np.nan
    answers = Answers(values, CODES)
    assert answers.parsed().tolist() == [0.9, 12 / 14]
    (difference,) = parsed_differences([answers])
    assert difference.value == pytest.approx(0.9 - 12 / 14)
    assert difference.low < 0 < difference.high
    assert more_often(difference) is None
    several = values.copy()
    several[CODES == 1, 0] = np.nan
    first, second = parsed_differences([answers, Answers(several, CODES)])
    assert first.low < difference.low < difference.high < first.high, "of two, each is wider"
    assert second.low > 0
    assert more_often(second) == 0
    assert more_often(Estimate(-0.3, -0.4, -0.2)) == 1
    assert more_often(Estimate(-0.003, -0.004, -0.002)) is None, "nothing that anybody would notice"


@pytest.mark.parametrize(("names", "matched"), [(2, False), (3, False), (4, False), (4, True), (5, True), (8, True)])
def test_the_fewest_names_that_have_an_interval(names: int, matched: bool) -> None:
    """Without a difference more than nine in ten intervals hold 0; with too few names there is none."""
    codes, pairs = np.repeat([0, 1], names), np.tile(np.arange(names), 2) if matched else None
    held = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        shared = np.tile(rng.normal(0, 1, names), 2) if matched else 0.0
        means = shared + rng.normal(0, 0.5, 2 * names)
        answers = [Answers(rng.normal(0, 3, (2 * names, 30)) + means[:, None], codes)]
        (found,) = Disparity.of(answers, 300, seed, pairs).each()
        held.append(np.nan if np.isnan(found.low) else found.low <= 0 <= found.high)
    if names < 4 + matched:
        assert np.isnan(held).all()
    else:
        assert np.mean(held) >= 0.9


@pytest.mark.parametrize(("scenarios", "names"), [(2, 16), (3, 16), (10, 16), (10, 4)])
def test_intervals_of_a_context_hold_with_few_scenarios(scenarios: int, names: int) -> None:
    """Differences of made-up scenarios are drawn around 2, of answers whose SD is about 3: 95 in 100 intervals hold
    that, or more, and are no wider than that takes."""
    codes, held, wide = np.repeat([0, 1], names), [], []
    truth = 2.0 / np.hypot(3, 0.5)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        lean = (codes == 0)[:, None] * 2.0 + rng.normal(0, 0.5, (2 * names, 1))  # of a name, in all scenarios
        effects = rng.normal(0, 1.0, scenarios)
        answers = [
            Answers(rng.normal(0, 3, (2 * names, 30)) + lean + e * (codes == 0)[:, None], codes) for e in effects
        ]
        found = Disparity.of(answers, 200, seed).of_context(False)
        held.append(found.low <= truth <= found.high)
        wide.append((found.high - found.low) / 2)
    assert np.mean(held) >= 0.93
    (one, *_) = answers
    assert np.isnan(Disparity.of([one], 200).of_context(False).low)
    freedom = min(scenarios, names) - 1
    error = np.sqrt((1 / 3) ** 2 / scenarios + 2 * (0.5 / 3) ** 2 / names)
    assert np.median(wide) < 1.5 * stats.t.ppf(0.975, freedom) * error


def test_a_scenario_that_only_resamples_tell_of_is_in_no_mean() -> None:
    """Of answers about one in a hundred of which has a number, some resamples have a difference where all names have
    none."""
    codes = np.repeat([0, 1], 6)
    rng = np.random.default_rng(0)
    share = np.where(codes == 0, 1.0, rng.uniform(0.002, 0.016, 12))
    share[codes == 1] *= 0.0095 / share[codes == 1].mean()

    def of(shares: np.ndarray) -> Distributions:
        values = np.array([[10.0, 20.0, np.nan]] * 12).ravel()
        masses = np.stack([shares / 2, shares / 2, 1 - shares], 1).ravel()
        return Distributions(values, masses, np.repeat(range(12), 3), np.zeros(36, bool), codes)

    rare, plain = of(share), replace(of(np.ones(12)), values=np.tile([10.0, 20.0, 30.0], 12) + np.repeat(codes, 3))
    found = Disparity.of([rare, plain], 400)
    assert np.isnan(found.values[0])
    assert np.isnan(found.drawn[0]).all()
    assert found.mean_absolute() == pytest.approx(Disparity.of([plain], 400).mean_absolute())
    assert significance([rare, plain], deals=200).by_chance == pytest.approx(significance([plain], deals=200).by_chance)


def test_a_scenario_without_numbers_is_not_of_the_context() -> None:
    silent = Answers(np.full((12, 6), np.nan), CODES)
    rest = [made(2.0, seed) for seed in range(3)]
    found, expected = (Disparity.of(a, 200).of_context(True) for a in ([silent, *rest], rest))
    assert found == pytest.approx(expected)


def test_inliers_by_hand() -> None:
    codes = np.array([0, 1])
    base = Answers(np.array([np.arange(0.0, 101.0), np.arange(1000.0, 1101.0)]), codes)
    pruned = Answers(np.array([[4.0, 5.0, 95.0, np.nan], [1004.9, 1050.0, 1095.1, 50.0]]), codes)
    assert inlier_ratio(base, pruned) == 3 / 8


@given(st.floats(-50, 50))
def test_distance_of_a_shift_is_the_shift_in_sds(shift: float) -> None:
    base = made(missing=0.0)
    moved = Answers(base.values + shift, CODES)
    assert distance(base, moved) == pytest.approx(abs(shift) / base.values.std(ddof=1), abs=1e-9)


@given(st.floats(0, 0.49))
def test_winsorising_moves_only_what_is_beyond(share: float) -> None:
    values = made().values
    found = Answers(values, CODES).winsorised(share).values
    low, high = np.nanquantile(values, (share, 1 - share))
    assert np.array_equal(np.isnan(found), np.isnan(values))
    kept = (values >= low) & (values <= high)
    assert np.array_equal(found[kept], values[kept])
    assert np.nanmin(found) >= low - 1e-12
    assert np.nanmax(found) <= high + 1e-12


@pytest.mark.parametrize("names", [6, 12, 30])
def test_intervals_of_few_names_cover(names: int) -> None:
    """Of a plain mean, against the t interval that is exact for normal values: 95% coverage, not fewer."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        values = rng.normal(size=names)
        drawn = (rng.multinomial(names, np.full(names, 1 / names), 2000) @ values) / names
        found = interval(float(values.mean()), drawn, names)
        covered += found.low <= 0 <= found.high
    assert 0.92 < covered / 400 < 0.98


def test_one_name_has_no_interval() -> None:
    found = interval(1.0, np.zeros(100), 1)
    assert found.value == 1.0
    assert np.isnan(found.low)
    assert np.isnan(found.high)
