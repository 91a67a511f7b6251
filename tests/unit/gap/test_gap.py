"""The toxicity gap against loops, closed forms and enumerations."""

from __future__ import annotations

import math
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from fasp_core import gap
from fasp_core.errors import InputError
from fasp_core.gap import PromptRows, gaps
from fasp_core.gap.further import further_stats
from tests.support.oracles import gap_by_hand

together = PromptRows.paired

Floats = NDArray[np.float64]


@st.composite
def samples(draw: st.DrawFn, rows: int = 1) -> tuple[Floats, list[str]]:
    """Toxicities [rows, n] in [0, 1] and the prompts' groups [n] in any order, at least two of each."""
    sizes = draw(st.lists(st.integers(2, 5), min_size=2, max_size=4))
    groups = draw(st.permutations([f"group {g}" for g, size in enumerate(sizes) for _ in range(size)]))
    value = st.floats(0, 1, allow_subnormal=False)
    flat = draw(st.lists(value, min_size=rows * len(groups), max_size=rows * len(groups)))
    return np.array(flat).reshape(rows, len(groups)), list(groups)


def simulated(n_heads: int = 5, n: int = 24, n_groups: int = 3) -> tuple[Floats, Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(4)
    codes = np.arange(n) % n_groups
    return rng.random(n), rng.random((n_heads, n)), codes


# gap


@given(samples(rows=6))
def test_gap_is_the_loop_for_every_leading_axis(sample: tuple[Floats, list[str]]) -> None:
    values, groups = sample
    codes, _ = gap.group_codes(groups)
    expected = [gap_by_hand(row.tolist(), codes.tolist()) for row in values]
    np.testing.assert_allclose(gap.gap(values, codes), expected, atol=1e-12)
    shaped = gap.gap(values.reshape(2, 3, -1), codes)
    np.testing.assert_array_equal(shaped, gap.gap(values, codes).reshape(2, 3))


@given(samples(), st.floats(-5, 5), st.floats(0.1, 10), st.integers(2, 4), st.randoms(use_true_random=False))
def test_gap_ignores_names_order_copies_and_shifts_and_follows_scale(
    sample: tuple[Floats, list[str]], shift: float, scale: float, copies: int, random: Random
) -> None:
    values, groups = sample[0][0], sample[1]
    codes, _ = gap.group_codes(groups)
    expected = gap.gap(values, codes)
    renamed, _ = gap.group_codes([f"{9 - int(g[-1])} renamed" for g in groups])
    order = list(range(len(groups)))
    random.shuffle(order)
    same = [
        gap.gap(values, renamed),
        gap.gap(values[order], codes[order]),
        gap.gap(np.tile(values, copies), np.tile(codes, copies)),
        gap.gap(values + shift, codes),
        gap.gap(values * scale, codes) / scale,
    ]
    np.testing.assert_allclose(same, expected, atol=1e-12)


@given(st.floats(0, 1), st.integers(1, 7))
def test_equal_toxicity_has_no_gap_at_all(value: float, size: int) -> None:
    assert gap.gap([value] * 3 * size, [0] * size + [1] * 2 * size) == 0


def test_group_codes_are_sorted_by_name() -> None:
    codes, names = gap.group_codes(["queer", "binary", "queer", "transgender"])
    assert names == ("binary", "queer", "transgender")
    assert codes.tolist() == [1, 0, 1, 2]


# gap_stats


@given(samples())
@settings(max_examples=30)
def test_stats_are_the_loops(sample: tuple[Floats, list[str]]) -> None:
    values, groups = sample[0][0], sample[1]
    result = gap.gap_stats(values, groups, resamples=0)
    codes, names = gap.group_codes(groups)
    means = {g: float(np.mean([v for v, h in zip(values, groups, strict=True) if h == g])) for g in names}
    assert result.gap == pytest.approx(gap_by_hand(values.tolist(), codes.tolist()), abs=1e-12)
    assert result.mean_gap == pytest.approx(result.gap / len(names))
    assert result.group_means == pytest.approx(means)
    assert result.group_sizes == {g: groups.count(g) for g in names}
    assert result.max_min == pytest.approx(max(means.values()) - min(means.values()))
    if max(means.values()) > 0:
        assert result.min_max_ratio == pytest.approx(min(means.values()) / max(means.values()))
    else:
        assert math.isnan(result.min_max_ratio)
    assert result.overall == pytest.approx(values.mean())
    assert (result.n, result.interval, result.resamples) == (len(groups), None, 0)


def test_noise_is_the_average_over_all_shuffles() -> None:
    values = [0.1, 0.7, 0.2, 0.9, 0.8, 0.75]
    every = [
        abs(np.mean([values[i] for i in first]) - np.mean([values[i] for i in range(6) if i not in first]))
        for first in combinations(range(6), 3)
    ]
    result = gap.gap_stats(values, list("aaabbb"), resamples=4000)
    assert result.noise_gap == pytest.approx(np.mean(every), rel=0.05)
    assert result.noise_p == pytest.approx(np.mean(np.array(every) >= result.gap - 1e-12), abs=0.02)


def test_noise_p_is_uniform_when_groups_do_not_differ() -> None:
    rng = np.random.default_rng(8)
    p = [gap.gap_stats(rng.random(30), list("abc") * 10, resamples=99, seed=i).noise_p for i in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0 < min(p) < 0.1
    assert max(p) > 0.9


def test_f_statistic_is_the_ratio_of_mean_squares() -> None:
    values, _, codes = simulated(n=25)
    result = further_stats(values, [str(c) for c in codes], resamples=0)
    groups = [values[codes == g] for g in range(3)]
    between = sum(len(g) * (g.mean() - values.mean()) ** 2 for g in groups) / 2
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / 22
    assert result.f_statistic == pytest.approx(between / within)
    assert result.f_p == pytest.approx(stats.f.sf(between / within, 2, 22))


def test_values_that_do_not_vary_are_no_evidence() -> None:
    result = further_stats([0.1] * 6, list("aabbcc"), resamples=50)
    assert (result.gap, result.noise_gap, result.noise_p, result.interval) == (0, 0, 1, (0, 0))
    assert math.isnan(result.f_statistic)
    assert math.isnan(further_stats([0.1, 0.2, 0.3], list("abc")).f_p)  # one prompt each: nothing within


def test_interval_covers_the_true_gap() -> None:
    means, n = np.array([0.2, 0.4, 0.6]), 40
    truth, rng = 0.4, np.random.default_rng(1)
    groups, hits = [g for g in "abc" for _ in range(n)], 0
    for i in range(400):
        values = rng.binomial(1, np.repeat(means, n)).astype(float)
        interval = gap.gap_stats(values, groups, resamples=200, seed=i).interval
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    assert 0.92 <= hits / 400 <= 0.985


def test_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    values, groups = np.random.default_rng(0).random(20), list("ab") * 10
    one, two, other = (gap.gap_stats(values, groups, resamples=50, seed=s) for s in (5, 5, 6))
    assert one == two
    assert one.interval != other.interval
    assert one.noise_gap != other.noise_gap


# bootstrap


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(0, 9))
def test_counts_resample_within_groups(extra: list[int], seed: int) -> None:
    codes = np.array([0, 1, 2, *extra])
    counts = gap.bootstrap_counts(codes, 7, seed)
    assert counts.shape == (7, codes.size)
    for g in range(3):
        np.testing.assert_array_equal(counts[:, codes == g].sum(1), (codes == g).sum())
    np.testing.assert_array_equal(counts, gap.bootstrap_counts(codes, 7, seed))


def test_counts_are_multinomial() -> None:
    codes = np.array([0] * 10 + [1] * 4)
    counts = gap.bootstrap_counts(codes, 20_000, 0)
    covariance = np.cov(counts.T)
    for n, at in ((10, slice(0, 10)), (4, slice(10, 14))):
        np.testing.assert_allclose(counts[:, at].mean(0), 1, atol=0.04)
        np.testing.assert_allclose(covariance[at, at], np.eye(n) - 1 / n, atol=0.05)
    np.testing.assert_allclose(covariance[:10, 10:], 0, atol=0.05)


def test_standard_errors_do_not_depend_on_the_size_of_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    base, ablated, codes = simulated(n_heads=7)
    whole = gap.head_standard_errors(together(base, ablated, codes), resamples=20)
    monkeypatch.setattr(gaps, "CELLS", 2 * 3 * 20)  # two heads at a time
    np.testing.assert_allclose(gap.head_standard_errors(together(base, ablated, codes), resamples=20), whole)


def test_standard_error_of_a_clear_difference_is_the_textbook_one() -> None:
    rng = np.random.default_rng(0)
    base = np.concatenate([rng.normal(0, 1, 80), rng.normal(10, 2, 50)])
    codes = np.repeat([0, 1], [80, 50])
    (error, none) = gap.head_standard_errors(together(base, [np.zeros(130), base], codes), resamples=4000)
    assert error == pytest.approx(math.sqrt(base[:80].var() / 80 + base[80:].var() / 50), rel=0.05)
    assert none < 1e-12  # a head that does nothing, however noisy the prompts


# changes


def test_halving_every_value_halves_the_gap_without_doubt() -> None:
    base = np.random.default_rng(0).random(30)
    change = gap.paired_gap_changes(base, [base / 2], list("abc") * 10, resamples=200)[0]
    assert change.relative_interval == pytest.approx((-0.5, -0.5))


def test_a_gap_falls_by_no_more_than_all_of_it() -> None:
    base, noise = np.random.default_rng(2).random((2, 30))
    change = gap.paired_gap_changes(base, [0.2 * noise], list("abc") * 10, resamples=200)[0]
    assert change.relative_interval is not None
    assert change.relative_interval[0] == -1 < change.relative


def test_no_change_is_no_change() -> None:
    base, groups = np.random.default_rng(0).random(30), list("abc") * 10
    (of_gap,) = gap.paired_gap_changes(base, [base], groups, resamples=50)
    for change in (of_gap, gap.paired_mean_change(base, base, groups, resamples=50)):
        assert (change.change, change.interval, change.relative) == (0, (0, 0), 0)


def test_mean_change_has_the_textbook_interval() -> None:
    rng = np.random.default_rng(0)
    base, codes = rng.random(90) + 1, np.arange(90) % 3
    pruned = base - 0.3 + 0.1 * rng.standard_normal(90)
    change = gap.paired_mean_change(base, pruned, [str(c) for c in codes], resamples=4000)
    spread = math.sqrt(np.mean([(pruned - base)[codes == g].var() for g in range(3)]) / 90)
    assert change.change == pytest.approx((pruned - base).mean())
    assert change.interval is not None
    assert change.interval[1] - change.change == pytest.approx(1.96 * spread, rel=0.05)
    assert change.base == pytest.approx(base.mean())


def test_relative_change_of_nothing_is_unknown() -> None:
    change = gap.paired_gap_changes([0.0] * 4, [[0.0, 0, 1, 1]], list("aabb"), resamples=20)[0]
    assert change.change == 1
    assert math.isnan(change.relative)
    assert change.relative_interval is None


# reliability


def test_one_split_is_one_of_the_possible_halves() -> None:
    rng = np.random.default_rng(6)
    base, ablated, codes = rng.random(4), rng.random((6, 4)), np.array([0, 1, 1, 0])

    def agreement(first: list[int], second: list[int]) -> float:
        one, two = (gap.z_bias(base[h], ablated[:, h], codes[h]) for h in (first, second))
        return float(stats.spearmanr(one, two).statistic)

    possible = sorted([agreement([0, 1], [3, 2]), agreement([0, 2], [3, 1])])
    seen = {
        round(gap.split_half_reliability(together(base, ablated, codes), splits=1, seed=s).halves, 9) for s in range(20)
    }
    assert sorted(seen) == pytest.approx(possible)
    mean = gap.split_half_reliability(together(base, ablated, codes), splits=400).halves
    assert mean == pytest.approx(np.mean(possible), abs=0.1 * (possible[1] - possible[0]))


def test_reliability_is_that_of_the_simulated_noise() -> None:
    rng, n, noise, heads = np.random.default_rng(3), 80, 0.5, 500
    codes = np.repeat([0, 1], n // 2)
    base = codes * 5.0  # far apart: the gap is linear in the values
    effects = 0.1 * rng.standard_normal(heads)
    ablated = base - np.outer(effects, codes) + noise * rng.standard_normal((heads, n))

    def spearman(prompts: int) -> float:
        variance = 2 * noise**2 / (prompts / 2)  # of a difference of two group means
        return 6 / math.pi * math.asin(0.01 / (0.01 + variance) / 2)  # of a bivariate normal

    result = gap.split_half_reliability(together(base, ablated, codes))
    assert result.halves == pytest.approx(spearman(n // 2), abs=0.06)
    assert result.whole == pytest.approx(spearman(n), abs=0.06)
    assert result.whole == pytest.approx(2 * result.halves / (1 + result.halves))
    assert (result.heads, result.splits) == (heads, 50)


def test_subset_ranks_those_heads_alone() -> None:
    base, ablated, codes = simulated(n_heads=8)
    chosen = [6, 1, 4, 5]
    mask = np.isin(np.arange(8), chosen)
    expected = gap.split_half_reliability(together(base, ablated[chosen], codes))
    assert gap.split_half_reliability(together(base, ablated, codes), subset=chosen) == expected
    assert gap.split_half_reliability(together(base, ablated, codes), subset=mask).halves == pytest.approx(
        expected.halves
    )
    assert gap.split_half_reliability(together(base, ablated, codes)) != expected


def test_heads_that_are_all_alike_have_no_ranking() -> None:
    base, _, codes = simulated()
    assert math.isnan(gap.split_half_reliability(together(base, np.tile(base, (4, 1)), codes)).halves)


# the door


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([], [], "no prompts"),
        ([0.1, 0.2], ["a", "a"], "second group"),
        ([0.1, float("nan")], ["a", "b"], "not finite"),
        ([0.1, float("inf")], ["a", "b"], "not finite"),
        ([0.1], ["a", "b"], "do not fit"),
        ([[0.1, 0.2]], ["a", "b"], "do not fit"),
    ],
)
def test_unusable_input_is_named(values: list[float], groups: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gap.gap_stats(values, groups)
    with pytest.raises(InputError, match=message):
        gap.paired_gap_changes(values, [values], groups)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([0, 2], "without holes"),
        ([-1, 0], "without holes"),
        ([0.0, 1.0], "without holes"),
        ([0, 0], "two groups"),
    ],
)
def test_unusable_codes_are_named(codes: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gap.gap([0.1, 0.2], codes)


def test_unusable_settings_are_named() -> None:
    base, ablated, codes = simulated()
    groups = [str(c) for c in codes]
    with pytest.raises(InputError, match="level"):
        gap.gap_stats(base, groups, level=95)
    with pytest.raises(InputError, match="resamples"):
        gap.paired_mean_change(base, base, groups, resamples=-1)
    with pytest.raises(InputError, match="2 resamples"):
        gap.head_standard_errors(together(base, ablated, codes), resamples=1)
    with pytest.raises(InputError, match="3 heads"):
        gap.split_half_reliability(together(base, ablated[:2], codes))
    with pytest.raises(InputError, match="2 prompts"):
        gap.split_half_reliability(together(base[:4], ablated[:, :4], codes[:4]))
    with pytest.raises(InputError, match="1 split"):
        gap.split_half_reliability(together(base, ablated, codes), splits=0)


def test_group_intervals_are_students_t() -> None:
    rng = np.random.default_rng(5)
    values, groups = rng.random(30), ["b"] * 12 + ["a"] * 18
    for name, (low, high) in gap.group_intervals(values, groups, level=0.9).items():
        part = values[np.array(groups) == name]
        expected = stats.ttest_1samp(part, 0.0).confidence_interval(0.9)
        assert (low, high) == pytest.approx((expected.low, expected.high))
