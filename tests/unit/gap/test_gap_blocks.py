"""Statistics of prompts in blocks, and of rankings, against loops, enumerations and simulations."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from fasp_core.errors import InputError
from fasp_core.gap import (
    PromptRows,
    bootstrap_counts,
    gap_stats,
    head_standard_errors,
    paired_gap_changes,
    paired_mean_change,
    resampled_effects,
    split_half_reliability,
    z_bias,
)
from fasp_core.gap.further import further_stats
from fasp_core.gap.resampling import random_halves, shuffled
from tests.support.oracles import gap_by_hand

together = PromptRows.paired

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def names(codes: Codes) -> list[str]:
    return [f"group {c}" for c in codes]


def designed(n_blocks: int, n_groups: int, seed: int = 0) -> tuple[Codes, Codes]:
    """Codes and blocks of a complete design, its rows in any order and its blocks with any numbers."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_blocks * n_groups)
    numbers = np.sort(rng.choice(np.arange(-50, 50), n_blocks, replace=False))
    return (np.arange(order.size) % n_groups)[order], numbers.repeat(n_groups)[order]


def with_sentences(rng: np.random.Generator, blocks: Codes, codes: Codes, effects: list[float]) -> Floats:
    """Toxicities in which sentences differ far more than groups do."""
    index = np.unique(blocks, return_inverse=True)[1]
    sentence = rng.normal(0.5, 0.3, index.max() + 1)
    return np.asarray(sentence[index] + np.array(effects)[codes] + rng.normal(0, 0.05, codes.size))


@st.composite
def incomplete(draw: st.DrawFn) -> tuple[Codes, Codes]:
    """Codes and blocks: three complete blocks and up to six others, in any order."""
    n_groups = draw(st.integers(2, 4))
    some = st.sets(st.integers(0, n_groups - 1), min_size=1)
    held = [set(range(n_groups))] * 3 + draw(st.lists(some, max_size=6))
    rows = draw(st.permutations([(g, block) for block, groups in enumerate(held) for g in groups]))
    codes, blocks = np.array(rows).T
    return codes, blocks


# draws


@given(incomplete(), st.integers(0, 9))
def test_whole_blocks_are_drawn_and_no_group_is_lost(design: tuple[Codes, Codes], seed: int) -> None:
    codes, blocks = design
    counts = bootstrap_counts(codes, 20, seed, blocks)
    first = np.unique(blocks, return_index=True)[1]
    np.testing.assert_array_equal(counts[:, first].sum(1), first.size)
    np.testing.assert_array_equal(counts, counts[:, first][:, blocks])
    assert all((counts[:, codes == g].sum(1) > 0).all() for g in set(codes.tolist()))
    np.testing.assert_array_equal(counts, bootstrap_counts(codes, 20, seed, 7 * blocks - 30))


def test_counts_of_blocks_are_multinomial() -> None:
    codes, blocks = designed(8, 3)
    counts = bootstrap_counts(codes, 20_000, 0, blocks)
    same = blocks[:, None] == blocks
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.04)
    np.testing.assert_allclose(np.cov(counts.T), same - 1 / 8, atol=0.05)


def test_resamples_without_a_group_are_drawn_again() -> None:
    codes, blocks = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 2])  # one full block, and one of each group
    wanted = Counter(
        tuple(draw.count(b) for b in range(3))
        for draw in product(range(3), repeat=3)
        if 0 in draw or {1, 2} <= set(draw)
    )
    counts = bootstrap_counts(codes, 20_000, 1, blocks)[:, [0, 2, 3]]
    found = Counter(tuple(int(c) for c in row) for row in counts)
    assert found.keys() == wanted.keys()
    for draw, times in wanted.items():
        assert found[draw] / 20_000 == pytest.approx(times / wanted.total(), abs=0.012)


def test_groups_that_never_meet_cannot_be_resampled() -> None:
    with pytest.raises(InputError, match="Too few blocks"):
        bootstrap_counts(np.arange(12), 50, 0, np.arange(12))


@given(incomplete(), st.integers(0, 9))
@settings(max_examples=50)
def test_halves_are_made_of_whole_blocks_and_hold_every_group(design: tuple[Codes, Codes], seed: int) -> None:
    codes, blocks = design
    halves = random_halves(codes, 10, np.random.default_rng(seed), blocks)
    first = np.unique(blocks, return_index=True)[1]
    np.testing.assert_array_equal(halves, halves[:, first][:, blocks])
    assert set(halves.ravel()) == {0, 1}
    assert (abs(halves[:, first].sum(1) - first.size / 2) <= 0.5).all()
    for g in set(codes.tolist()):
        assert halves[:, codes == g].max(1).all()
        assert not halves[:, codes == g].min(1).any()


def test_every_split_of_complete_blocks_is_as_likely() -> None:
    codes, blocks = np.array([0, 1] * 4), np.arange(8) // 2
    found = Counter(tuple(h) for h in random_halves(codes, 6000, np.random.default_rng(0), blocks)[:, ::2])
    assert len(found) == 6
    assert max(abs(times / 6000 - 1 / 6) for times in found.values()) < 0.02


def test_blocks_that_cannot_be_halved_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="2 blocks"):
        random_halves(np.array([0, 1, 0, 0]), 5, rng, np.array([0, 0, 1, 2]))
    with pytest.raises(InputError, match="cannot be split"):  # of three blocks two share a half
        random_halves(np.array([0, 1, 1, 2, 2, 0]), 5, rng, np.array([0, 0, 1, 1, 2, 2]))


@given(incomplete(), st.integers(0, 9))
def test_shuffles_stay_inside_their_blocks(design: tuple[Codes, Codes], seed: int) -> None:
    _, blocks = design
    values = np.arange(blocks.size, dtype=float)
    for row in shuffled(values, np.random.default_rng(seed), 8, blocks):
        for b in set(blocks.tolist()):
            assert set(row[blocks == b]) == set(values[blocks == b])


# statistics against loops over the same draws


def simulated() -> tuple[Floats, Floats, Codes, Codes]:
    codes, blocks = designed(8, 3)
    codes, blocks = codes[:-2], blocks[:-2]  # two blocks lack a prompt
    rng = np.random.default_rng(4)
    return rng.random(codes.size), rng.random((5, codes.size)), codes, blocks


@pytest.mark.parametrize("paired", [True, False])
def test_gap_interval_is_the_loop(paired: bool) -> None:
    values, _, codes, numbers = simulated()
    blocks = numbers if paired else None
    result = gap_stats(values, names(codes), resamples=101, level=0.8, seed=3, blocks=blocks)
    counts = bootstrap_counts(codes, 101, 3, blocks)
    half = sorted(abs(gap_by_hand(values, codes, row) - result.gap) for row in counts)[80]
    assert result.interval == pytest.approx((max(0.0, result.gap - half), result.gap + half))


@pytest.mark.parametrize("paired", [True, False])
def test_changes_are_the_loop(paired: bool) -> None:
    base, (pruned, *_), codes, numbers = simulated()
    blocks = numbers if paired else None
    counts = bootstrap_counts(codes, 101, 9, blocks)

    def mean(values: Floats, codes: Codes, weights: Floats | None = None) -> float:
        return float(np.average(values, weights=weights))

    drawn: dict[str, Any] = {"resamples": 101, "level": 0.8, "seed": 9, "blocks": blocks}
    changes = (
        paired_gap_changes(base, [pruned], names(codes), **drawn)[0],
        paired_mean_change(base, pruned, names(codes), **drawn),
    )
    for change, loop in zip(changes, (gap_by_hand, mean), strict=True):
        before, after = (np.array([loop(v, codes, w) for w in counts]) for v in (base, pruned))
        delta = loop(pruned, codes) - loop(base, codes)
        half = sorted(abs(after - before - delta))[80]
        assert change.change == pytest.approx(delta)
        assert change.interval == pytest.approx((delta - half, delta + half))
        relative = delta / change.base
        half = sorted(abs((after - before) / before - relative))[80]
        assert change.relative == pytest.approx(relative)
        assert change.relative_interval == pytest.approx((max(-1, relative - half), relative + half))
        assert (change.n, change.level, change.resamples) == (codes.size, 0.8, 101)


@pytest.mark.parametrize("paired", [True, False])
def test_effects_are_the_loop_and_standard_errors_their_spread(paired: bool) -> None:
    base, ablated, codes, numbers = simulated()
    blocks = numbers if paired else None
    effects = resampled_effects(together(base, ablated, codes, blocks), 60, 2)
    counts = bootstrap_counts(codes, 60, 2, blocks)
    expected = [[gap_by_hand(base, codes, w) - gap_by_hand(row, codes, w) for w in counts] for row in ablated]
    np.testing.assert_allclose(effects, expected)
    errors = head_standard_errors(together(base, ablated, codes, blocks), 60, 2)
    np.testing.assert_allclose(errors, np.std(expected, axis=1, ddof=1))


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_reliability_is_the_loop(kind: Any) -> None:
    base, ablated, codes, blocks = simulated()
    halves = random_halves(codes, 7, np.random.default_rng(1), np.unique(blocks, return_inverse=True)[1])
    r = []
    for half in halves.astype(bool):
        one, two = (z_bias(base[at], ablated[:, at], codes[at]) for at in (half, ~half))
        r.append({"spearman": stats.spearmanr, "pearson": stats.pearsonr}[kind](one, two).statistic)
    result = split_half_reliability(together(base, ablated, codes, blocks), splits=7, seed=1, kind=kind)
    assert result.halves == pytest.approx(np.mean(r))


@pytest.mark.parametrize("paired", [True, False])
def test_corrected_gap_is_the_loop(paired: bool) -> None:
    values, _, codes, numbers = simulated()
    index = np.unique(numbers, return_inverse=True)[1] if paired else None
    total = 0.0
    for half in random_halves(codes, 50, np.random.default_rng([6, 2]), index).astype(bool):
        for signs, sizes in ((half, ~half), (~half, half)):
            for g in range(3):
                sign, size = (values[at].mean() - values[at & (codes == g)].mean() for at in (signs, sizes))
                total += np.sign(sign) * size / 100
    result = further_stats(values, names(codes), resamples=0, seed=6, blocks=numbers if paired else None)
    assert result.corrected == pytest.approx(total)


# enumerations and closed forms


def test_noise_is_the_average_over_all_shuffles_inside_blocks() -> None:
    codes, blocks = np.array([2, 0, 1, 0, 1, 2, 0, 2]), np.array([5, 5, 5, 3, 3, 3, 9, 9])
    values = np.array([0.1, 0.3, 0.2, 0.9, 0.8, 0.75, 0.4, 0.6])
    every = [
        gap_by_hand(values[[*one, *two, *three]], codes)
        for one, two, three in product(permutations(range(3)), permutations(range(3, 6)), permutations(range(6, 8)))
    ]
    result = gap_stats(values, names(codes), resamples=4000, blocks=blocks)
    assert result.noise_gap == pytest.approx(np.mean(every), rel=0.03)
    assert result.noise_p == pytest.approx(np.mean(np.array(every) >= result.gap - 1e-12), abs=0.03)


@given(st.integers(2, 6), st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=30)
def test_f_is_that_of_least_squares_with_and_without_groups(n_blocks: int, n_groups: int, seed: int) -> None:
    codes, blocks = designed(n_blocks, n_groups, seed)
    values = with_sentences(np.random.default_rng(seed), blocks, codes, [0.1 * g for g in range(n_groups)])
    block_dummies = (blocks[:, None] == np.unique(blocks)).astype(float)
    both = np.hstack([block_dummies, (codes[:, None] == np.arange(1, n_groups)).astype(float)])

    def misfit(columns: Floats) -> float:
        return float(((values - columns @ np.linalg.lstsq(columns, values)[0]) ** 2).sum())

    between, within = n_groups - 1, codes.size - both.shape[1]
    f = (misfit(block_dummies) - misfit(both)) / between / (misfit(both) / within)
    result = further_stats(values, names(codes), resamples=0, blocks=blocks)
    assert result.f_statistic == pytest.approx(f, rel=1e-6)
    assert result.f_p == pytest.approx(stats.f.sf(f, between, within), rel=1e-6)


@pytest.mark.parametrize(
    ("codes", "blocks"),
    [
        ([0, 1, 2], [0, 0, 0]),  # one block
        ([0, 1, 0, 1], [0, 0, 1, 1]),  # the groups differ by as much in all blocks
        ([0, 1, 0, 1, 0], [0, 0, 1, 1, 2]),
        ([0, 1, 0, 0], [0, 0, 1, 1]),  # as many prompts as a complete design
    ],
)
def test_f_of_other_designs_is_unknown(codes: list[int], blocks: list[int]) -> None:
    values = np.array([0.1, 0.3, 0.6, 0.8, 0.2])[: len(codes)]
    result = further_stats(values, names(np.array(codes)), resamples=0, blocks=blocks)
    assert math.isnan(result.f_statistic)
    assert math.isnan(result.f_p)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_blocks_of_one_prompt_split_as_no_blocks_do_and_shuffle_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(14) % 3)
    base, ablated, alone = rng.random(14), rng.random((6, 14)), np.arange(14)
    paired = split_half_reliability(together(base, ablated, codes, alone), seed=seed)
    assert paired == split_half_reliability(together(base, ablated, codes), seed=seed)
    result = further_stats(base, names(codes), resamples=20, seed=seed, blocks=alone)
    assert result.corrected == further_stats(base, names(codes), resamples=0, seed=seed).corrected
    assert result.noise_gap == pytest.approx(result.gap)
    assert result.noise_p == 1


def test_one_block_is_one_draw_and_any_shuffle() -> None:
    values, codes = np.array([0.1, 0.4, 0.3, 0.9]), np.arange(4)
    result = further_stats(values, names(codes), resamples=50, blocks=[3] * 4)
    assert result.interval == pytest.approx((result.gap, result.gap))
    assert result.noise_gap == pytest.approx(result.gap)  # groups of one prompt: the gap is the same for all shuffles
    assert math.isnan(result.corrected)


# simulations


def test_blocks_give_shorter_intervals_that_still_cover() -> None:
    (codes, blocks), truth, runs = designed(40, 3), 0.2, 200  # |-.1| + |0| + |.1|
    rng, hits, lengths = np.random.default_rng(1), np.zeros(2), np.zeros(2)
    for i in range(runs):
        values = with_sentences(rng, blocks, codes, [0.2, 0.3, 0.4])
        for j, paired in enumerate((blocks, None)):
            interval = gap_stats(values, names(codes), resamples=200, seed=i, blocks=paired).interval
            assert interval is not None
            hits[j] += interval[0] <= truth <= interval[1]
            lengths[j] += interval[1] - interval[0]
    assert 0.9 <= hits[0] / runs <= 0.99
    assert lengths[0] < lengths[1] / 3
    assert hits[1] / runs > 0.99  # far too long without the pairing


def test_standard_errors_are_the_spread_over_samples() -> None:
    (codes, blocks), rng, z = designed(40, 3), np.random.default_rng(2), []
    for _ in range(400):
        base = with_sentences(rng, blocks, codes, [0.2, 0.3, 0.4])
        ablated = base - 0.1 * (codes == 2) + rng.normal(0, 0.02, codes.size)
        z.append(float(z_bias(base, ablated, codes)))
    errors = head_standard_errors(together(base, ablated[None], codes, blocks), 400)
    assert errors[0] == pytest.approx(np.std(z), rel=0.25)
    assert errors[0] < head_standard_errors(together(base, ablated[None], codes), 400)[0] / 2


def test_noise_p_is_uniform_without_a_gap_and_sees_a_gap_behind_the_sentences() -> None:
    (codes, blocks), rng = designed(12, 3), np.random.default_rng(8)
    none, gap = (
        [
            further_stats(with_sentences(rng, blocks, codes, effects), names(codes), resamples=99, seed=i, blocks=b)
            for i, b in enumerate([blocks] * 200 + [None] * 20)
        ]
        for effects in ([0.0, 0.0, 0.0], [0.0, 0.1, 0.2])
    )
    assert stats.kstest([s.noise_p for s in none[:200]], "uniform").pvalue > 0.01
    assert np.mean([s.f_p < 0.05 for s in none[:200]]) == pytest.approx(0.05, abs=0.04)
    assert np.mean([s.noise_p <= 0.02 for s in gap[:200]]) > 0.95
    assert np.mean([s.noise_p <= 0.02 for s in gap[200:]]) < 0.5


@pytest.mark.parametrize("paired", [True, False])
def test_corrected_gap_is_not_pushed_up_by_noise(paired: bool) -> None:
    codes, blocks = designed(20, 4)
    sentences, rng, runs = blocks if paired else np.arange(80), np.random.default_rng(3), 200

    def measured(scale: float) -> tuple[Floats, Floats]:
        rows = []
        for seed in range(runs):
            values = with_sentences(rng, sentences, codes, [scale * g for g in range(4)])
            result = further_stats(values, names(codes), resamples=0, seed=seed, blocks=blocks if paired else None)
            rows.append((result.corrected, result.gap))
        corrected, plain = np.array(rows).T
        return corrected, plain

    corrected, plain = measured(0.0)
    error = corrected.std() / math.sqrt(runs)
    assert abs(corrected.mean()) < 3 * error < plain.mean() / 3
    corrected, plain = measured(1.0)
    np.testing.assert_allclose(corrected, plain)  # both halves are sure of all signs
    assert corrected.mean() == pytest.approx(4.0, abs=0.05)  # effects -1.5, -.5, .5, 1.5


def test_corrected_gap_of_too_few_prompts_is_unknown() -> None:
    assert math.isnan(further_stats([0.1, 0.5, 0.3], list("abb"), resamples=0).corrected)
    assert math.isnan(further_stats([0.1, 0.5, 0.3, 0.2], list("abba"), resamples=0, blocks=[1, 1, 1, 1]).corrected)


# the door


@pytest.mark.parametrize("blocks", [[0, 0, 1], [0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"], [[0, 0, 1, 1]], []])
def test_unusable_blocks_are_named(blocks: list[object]) -> None:
    values, groups, codes = np.array([0.1, 0.2, 0.3, 0.4]), list("abab"), np.array([0, 1, 0, 1])
    rows = np.tile(values, (3, 1))
    for call in (
        lambda: gap_stats(values, groups, blocks=blocks),
        lambda: paired_gap_changes(values, [values], groups, blocks=blocks),
        lambda: paired_mean_change(values, values, groups, blocks=blocks),
        lambda: head_standard_errors(together(values, rows, codes, blocks)),
        lambda: split_half_reliability(together(values, rows, codes, blocks)),
        lambda: bootstrap_counts(codes, 5, 0, blocks),
    ):
        with pytest.raises(InputError, match="one whole number for each of the 4 prompts"):
            call()


def test_effects_need_a_resample() -> None:
    with pytest.raises(InputError, match="0 times"):
        resampled_effects(together([0.1, 0.2], [[0.1, 0.2]], [0, 1]), resamples=0)
