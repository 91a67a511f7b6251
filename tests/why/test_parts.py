"""Parts of a change along a path: against integrals by hand, Shapley values in closed form, and what has to hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.gap import PromptRows, gap
from fasp_core.gap.parts import antiderivatives, gap_parts, nodes, split_gaps
from fasp_core.metrics.perplexity import Nll
from fasp_core.studies.explain import shapley
from fasp_core.studies.explain.explain import nats_parts
from fasp_core.typing import Floats

GROUPS = 3


def polynomial(n: int, h: int, seed: int, crossed: bool = True) -> tuple[Floats, Callable[[Floats], Floats], Floats]:
    """Toxicities at no gate moved [n], with gates moved by `t` [h], and slopes along the line at 6 nodes."""
    rng = np.random.default_rng(seed)
    base, own, pairs = rng.normal(size=n), rng.normal(size=(h, n)), rng.normal(size=(h, h, n))
    pairs = (pairs + pairs.transpose(1, 0, 2)) * crossed / 2

    def at(t: Floats) -> Floats:
        return np.asarray(base + t @ own + np.einsum("i,j,ijn->n", t, t, pairs * (1 - np.eye(h))[..., None]) / 2)

    slopes = np.stack([own + t * (pairs * (1 - np.eye(h))[..., None]).sum(1) for t in nodes(6)[0]])
    return base, at, slopes


def codes_of(n: int) -> np.ndarray:
    return np.arange(n) % GROUPS


def test_a_polynomial_is_integrated_from_0_to_every_place() -> None:
    for k in (1, 2, 5, 12):
        at, weights = nodes(k)
        reached = antiderivatives(k, 10)
        assert weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(reached[-1], weights, atol=1e-12)
        places = np.linspace(0, 1, 11)
        for power in range(k):
            np.testing.assert_allclose(reached @ at**power, places ** (power + 1) / (power + 1), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), h=st.integers(1, 6))
def test_parts_sum_to_the_change_across_all_kinks_and_under_every_weighting(seed: int, h: int) -> None:
    n = 24
    base, at, slopes = polynomial(n, h, seed)
    codes, end = codes_of(n), at(np.ones(h))
    weights = np.vstack([np.ones(n), np.random.default_rng(seed).integers(1, 4, (3, n))]).astype(float)
    found = split_gaps(base, slopes, codes, weights)
    for w, parts in zip(weights.astype(int), found, strict=True):
        drawn = np.repeat(np.arange(n), w)  # a prompt that is drawn twice stands there twice
        change = gap(end[drawn], codes[drawn]) - gap(base[drawn], codes[drawn])
        assert parts.sum() == pytest.approx(change, abs=1e-9)


def test_parts_are_the_integral_by_hand_where_groups_change_sides() -> None:
    n, h, fine = 24, 4, 4000
    base, at, slopes = polynomial(n, h, 3)
    codes = codes_of(n)
    places = (np.arange(fine) + 0.5) / fine
    at_nodes = nodes(6)[0]
    fit = np.polynomial.polynomial.polyfit(at_nodes, slopes.reshape(6, -1), 1)  # they are lines in t
    expected, kinks = np.zeros(h), 0
    for t in places:
        now, slope = at(np.full(h, t)), (fit[0] + t * fit[1]).reshape(h, n)
        for g in range(GROUPS):
            mine = codes == g
            side = np.sign(now.mean() - now[mine].mean())
            expected += side * (slope.mean(1) - slope[:, mine].mean(1)) / fine
    for g in range(GROUPS):
        ends = [v.mean() - v[codes == g].mean() for v in (base, at(np.ones(h)))]
        kinks += ends[0] * ends[1] < 0
    assert kinks, "this is about kinks"
    found = split_gaps(base, slopes, codes, np.ones((1, n)))[0]
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("h", [1, 3, 8])
def test_they_are_shapley_values_where_nothing_but_pairs_interacts(h: int, crossed: bool) -> None:
    """Of sums of effects and of products of two gates, Aumann-Shapley and Shapley values are the same."""
    n = 12
    base, at, slopes = polynomial(n, h, h, crossed)
    codes = codes_of(n)
    shift = 1e3 * np.array([0.0, 1.0, -3.0])[codes]  # groups far apart: no kinks, so the gap is linear in toxicities

    def worth(joined: frozenset[int]) -> float:
        return float(gap(at(np.isin(np.arange(h), list(joined)).astype(float)) + shift, codes))

    found = split_gaps(base + shift, slopes, codes, np.ones((1, n)))[0]
    np.testing.assert_allclose(found, shapley.exact(worth, h), atol=1e-8)


def test_intervals_hold_what_resampling_whole_blocks_would_give() -> None:
    rng, blocks = np.random.default_rng(1), 200
    codes = np.tile(np.arange(GROUPS), blocks)
    n = len(codes)
    base = np.array([0.0, 0.2, 3.0])[codes] + rng.normal(size=n)
    mean = np.array([0.0, -0.2, -1.0])  # of each group, what the first head adds; the second adds noise, the third none
    slopes = np.stack([mean[codes] + 0.3 * rng.normal(size=n), 0.3 * rng.normal(size=n), np.zeros(n)])
    rows = PromptRows.of(
        np.stack([base, base + slopes.sum(0)]), [f"g{c}" for c in codes], np.repeat(np.arange(blocks), GROUPS)
    )
    found = gap_parts(rows, np.stack([slopes] * 3))
    assert found.error == pytest.approx(0, abs=1e-12)
    assert found.beyond_noise.tolist() == [-1, 0, 0]
    # no kinks: the part is the mean over blocks of a sum with fixed signs
    side = np.sign(base.mean() - np.array([base[codes == g].mean() for g in range(GROUPS)]))
    each = (side.sum() / GROUPS - side[codes]) * slopes[0]
    per_block = each.reshape(blocks, GROUPS).sum(1)
    assert found.values[0] == pytest.approx(per_block.mean())
    assert found.standard_errors[0] == pytest.approx(per_block.std(ddof=1) / np.sqrt(blocks), rel=0.1)
    low, high = found.intervals[0]
    assert high - low == pytest.approx(2 * 1.96 * found.standard_errors[0], rel=0.1)
    assert found.intervals[2].tolist() == [0, 0]


def test_nats_are_split_with_an_interval_over_windows() -> None:
    rng = np.random.default_rng(1)
    tokens = np.array([64, 64, 64, 40])
    base = Nll(np.full(4, 200.0), tokens)
    slopes = rng.normal(size=(4, 2, 4)) + np.array([3.0, 0.0])[:, None]
    end = Nll(base.sums + np.einsum("k,khw->w", nodes(4)[1], slopes), tokens)
    found = nats_parts(base, end, slopes, tokens)
    assert found.error == pytest.approx(0, abs=1e-12)
    rows = np.einsum("k,khw->hw", nodes(4)[1], slopes)
    np.testing.assert_allclose(found.values, rows.sum(1) / tokens.sum())
    assert (found.intervals[:, 0] < found.values).all()
    alone = nats_parts(Nll(base.sums[:1], tokens[:1]), Nll(end.sums[:1], tokens[:1]), slopes[..., :1], tokens[:1])
    assert np.isnan(alone.intervals).all(), "one window has no spread"
    assert not alone.beyond_noise.any()


def test_exact_shapley_values_of_games_whose_values_are_known() -> None:
    weights = np.array([0.3, -1.2, 4.0])
    np.testing.assert_allclose(shapley.exact(lambda s: float(weights[list(s)].sum()), 3), weights)
    np.testing.assert_allclose(shapley.exact(lambda s: float({0, 1} <= s), 3), [0.5, 0.5, 0], atol=1e-12)
    # one seller, two buyers: the seller has two thirds (Shapley 1953)
    np.testing.assert_allclose(shapley.exact(lambda s: float(0 in s and len(s) > 1), 3), [2 / 3, 1 / 6, 1 / 6])
    # votes of 50, 49 and 1: the last two have as much power as each other
    votes = np.array([50, 49, 1])
    np.testing.assert_allclose(shapley.exact(lambda s: float(votes[list(s)].sum() > 50), 3), [2 / 3, 1 / 6, 1 / 6])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
def test_sampled_orders_sum_to_the_change_and_come_near_the_exact_values(seed: int, n: int) -> None:
    table = np.random.default_rng(seed).normal(size=2**n)
    asked: list[frozenset[int]] = []

    def worth(joined: frozenset[int]) -> float:
        asked.append(joined)
        return float(table[sum(1 << i for i in joined)])

    exact = shapley.exact(worth, n)
    assert len(asked) == 2**n
    asked.clear()
    values, errors = shapley.sampled(worth, n, 400, seed)
    assert len(asked) == len(set(asked)), "no subset is asked for twice"
    assert values.sum() == pytest.approx(table[-1] - table[0])
    assert exact.sum() == pytest.approx(table[-1] - table[0])
    assert (np.abs(values - exact) <= 5 * errors + 1e-12).all()


def test_what_cannot_be_enumerated_or_sampled_is_refused() -> None:
    for n in (0, 9):
        with pytest.raises(InputError, match="sample orders"):
            shapley.exact(lambda s: 0.0, n)
    for n, orders in ((0, 3), (3, 0)):
        with pytest.raises(InputError, match="tell nothing"):
            shapley.sampled(lambda s: 0.0, n, orders)
    values, errors = shapley.sampled(lambda s: float(len(s)), 4, 1)
    assert values.tolist() == [1] * 4
    assert np.isnan(errors).all()


def test_exact_shapley_values_are_means_over_all_orders() -> None:
    """The last ones are those that `shapiq` 1.4.1 gives (`ExactComputer`), which brings more than one test is worth."""
    n = 6
    table = np.random.default_rng(7).normal(size=2**n)

    def worth(joined: Iterable[int]) -> float:
        return float(table[sum(1 << i for i in joined)])

    added = np.zeros(n)
    for order in permutations(range(n)):
        for k, i in enumerate(order):
            added[i] += (worth(order[: k + 1]) - worth(order[:k])) / math.factorial(n)
    found = shapley.exact(worth, n)
    np.testing.assert_allclose(found, added, atol=1e-12)
    theirs = [-0.1273209583, -0.1711247638, -0.0681519106, -0.2717216867, -0.5919530897, 0.0418477279]
    np.testing.assert_allclose(found, theirs, atol=1e-9)
