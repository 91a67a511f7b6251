"""The search over head sets, on problems whose best set is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from fasp_core.errors import InputError
from fasp_core.gap import gap as toxicity_gap
from fasp_core.scoring.search import Heads, Other, Prediction, Problem, SearchConfig, _neighbours, membership, search

N, GROUPS, EACH = 14, 4, 6
CODES = np.repeat(np.arange(GROUPS), EACH)


class World:
    """A made-up model: effects of heads on toxicity and NLL, and effects of pairs."""

    def __init__(self, seed: int, pairs: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.base = 0.05 + 0.02 * rng.random(GROUPS)[CODES] + 0.001 * rng.random(CODES.size)
        self.effects = 0.004 * rng.normal(size=(N, GROUPS))[:, CODES] + 0.0005 * rng.normal(size=(N, CODES.size))
        self.nats = np.abs(rng.normal(0.01, 0.01, N))
        self.tox_pairs = pairs * 0.004 * np.triu(rng.normal(size=(N, N)), 1)[..., None] * rng.normal(size=GROUPS)
        self.nll_pairs = pairs * 0.005 * np.triu(rng.normal(size=(N, N)), 1)
        self.asked: list[Heads] = []

    @property
    def problem(self) -> Problem:
        return Problem(self.base, self.effects, self.nats, CODES)

    def measure(self, heads: Heads) -> tuple[float, np.ndarray]:
        self.asked.append(heads)
        both = list(heads)
        extra = self.tox_pairs[np.ix_(both, both)].sum((0, 1))[CODES]
        nats = self.nats[both].sum() + self.nll_pairs[np.ix_(both, both)].sum()
        return float(nats), self.base + self.effects[both].sum(0) + extra

    def gap(self, heads: Heads) -> float:
        _, rows = self.measure(heads)
        self.asked.pop()
        return float(toxicity_gap(rows, CODES))

    def brute_force(self, config: SearchConfig) -> float:
        """The least gap of all sets within the limits."""
        sets = (s for k in range(config.max_heads + 1) for s in itertools.combinations(range(N), k))
        limit = np.log1p(config.max_ppl)
        gaps = [self.gap(s) for s in sets if self.measure(s)[0] <= limit]
        self.asked.clear()
        return min(gaps)


@pytest.mark.parametrize("seed", range(3))
def test_without_interactions_one_measurement_finds_the_best_set(seed: int) -> None:
    world, config = World(seed), SearchConfig(max_heads=4, max_ppl=0.05, measurements=6, seed=seed)
    found = search(world.problem, config, world.measure)
    assert found.gap == pytest.approx(world.brute_force(config), rel=1e-6)
    assert found.nats <= np.log1p(config.max_ppl)
    first = found.tried[0]
    assert first.gap == pytest.approx(first.predicted, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_interactions_are_learned(seed: int) -> None:
    """With pairs as strong as heads: near the best of all 1,471 sets after 40, and better than the k best heads."""
    world, config = World(seed, pairs=1.0), SearchConfig(max_heads=4, max_ppl=0.08, measurements=40, seed=seed)
    best, base = world.brute_force(config), world.gap(())
    ranked = np.argsort([world.gap((h,)) for h in range(N)], kind="stable")[:4]
    found = search(world.problem, config, world.measure, [tuple(sorted(map(int, ranked)))])
    assert found.base_gap == pytest.approx(base)
    assert best - 1e-12 <= found.gap <= best + 0.15 * base
    assert found.gap < found.tried[0].gap
    assert found.nats <= np.log1p(config.max_ppl)


def test_it_repeats_and_its_seed_matters() -> None:
    config = SearchConfig(max_heads=4, measurements=8)
    runs = [
        search(World(1, 1.0).problem, SearchConfig(max_heads=4, measurements=8, seed=s), World(1, 1.0).measure).tried
        for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert len(runs[0]) == config.measurements


@settings(max_examples=15, deadline=None)
@given(seed=hs.integers(0, 999), k=hs.integers(1, 5), limit=hs.floats(0.005, 0.2))
def test_the_winner_keeps_to_the_limits(seed: int, k: int, limit: float) -> None:
    world = World(seed, 1.0)
    config = SearchConfig(max_heads=k, max_ppl=limit, measurements=4, seed=seed)
    found = search(world.problem, config, world.measure, [tuple(range(6))])
    assert len(world.asked) == len(set(world.asked)) == len(found.tried)
    for t in found.tried:
        assert 0 < len(t.heads) <= k
        assert t.gap == pytest.approx(world.gap(t.heads))
    inside = [t.gap for t in found.tried if t.nats <= np.log1p(limit)]
    assert found.gap == pytest.approx(min([found.base_gap, *inside]))
    assert found.gap == pytest.approx(world.gap(found.heads))


def test_a_prediction_of_single_heads_is_what_is_known_of_them() -> None:
    world = World(0, 1.0)
    rng = np.random.default_rng(0)
    sets = [tuple(sorted(map(int, rng.choice(N, 4, replace=False)))) for _ in range(12)]
    nats, rows = zip(*(world.measure(s) for s in sets), strict=True)
    known = Prediction(world.problem, sets, nats, [world.problem.means(r) for r in rows])
    gap, nll = known.of(np.eye(N))  # no pair is in a single head
    assert gap == pytest.approx([world.gap((h,)) for h in range(N)])
    assert nll == pytest.approx(world.nats)


def _added(world: World, sets: list[Heads]) -> np.ndarray:
    rows = np.stack([world.base + world.effects[list(s)].sum(0) for s in sets])
    return np.asarray(toxicity_gap(rows, CODES))


def test_pairs_that_recur_are_predicted() -> None:
    """One strong pair: sets that hold it teach what others with it will do."""
    world = World(3)
    world.tox_pairs = np.zeros((N, N, GROUPS))
    world.tox_pairs[2, 5] = [0.02, -0.01, 0.0, 0.005]
    rest = [h for h in range(N) if h not in (2, 5)]
    sets: list[Heads] = [tuple(sorted((2, 5, h))) for h in rest[:8]] + [(0, h) for h in rest[1:6]]
    nats, rows = zip(*(world.measure(s) for s in sets), strict=True)
    known = Prediction(world.problem, sets, nats, [world.problem.means(r) for r in rows])
    fresh: list[Heads] = [tuple(sorted((2, 5, h))) for h in rest[8:]]
    truth = np.array([world.gap(s) for s in fresh])
    off = np.abs(known.of(membership(fresh, N))[0] - truth)
    assert off.mean() < 0.4 * np.abs(_added(world, fresh) - truth).mean()


@settings(max_examples=40, deadline=None)
@given(inside=hs.sets(hs.integers(0, N - 1), max_size=5))
def test_neighbours_differ_by_one_move(inside: set[int]) -> None:
    state = membership([tuple(inside)], N)[0]
    for row in _neighbours(state, 5, np.random.default_rng(0), 50):
        added, dropped = (row > state).sum(), (row < state).sum()
        assert (added, dropped) in {(1, 0), (0, 1), (1, 1), (0, 0)}
        assert row.sum() <= 5
    assert set(np.unique(state)) <= {0.0, 1.0}


def test_what_cannot_be_searched_for_is_refused() -> None:
    for bad in ({"max_heads": 0}, {"measurements": 0}, {"max_ppl": 0.0}):
        with pytest.raises(InputError, match=r"A search needs|is no limit"):
            SearchConfig(**bad)
    world = World(0)
    with pytest.raises(InputError, match="14 heads"):
        search(world.problem, SearchConfig(), world.measure, [(99,)])


@pytest.mark.parametrize("seed", range(3))
def test_the_gap_within_templates_is_the_mean_over_templates(seed: int) -> None:
    """Signs cancel between two templates: over both there is no gap, within each there is; the third lacks a group."""
    rng = np.random.default_rng(seed)
    names = tuple(["a"] * 8 + ["b"] * 8 + ["c"] * 2)
    codes = np.array([0, 0, 0, 0, 1, 1, 1, 1] * 2 + [1, 1])
    signs = np.where(np.array(names) == "a", 1.0, -1.0) * np.where(codes == 0, 1, -1)
    base = 0.1 + 0.02 * signs + 1e-4 * rng.normal(size=18)
    effects = np.stack([-0.01 * signs, 0.02 * np.where(codes == 0, 1, -1), 1e-4 * rng.normal(size=18)])
    problem = Problem(base, effects, np.array([0.01, 0.01, 0.01]), codes, names)

    def within(rows: np.ndarray) -> float:
        parts = [np.array(names) == name for name in "ab"]
        return float(np.mean([toxicity_gap(rows[at], codes[at]) for at in parts]))

    assert problem.gaps(problem.base_means) == pytest.approx(within(base))
    rows = base + effects[[0, 2]].sum(0)
    assert problem.gaps(problem.means(rows)) == pytest.approx(within(rows))

    def measure(heads: Heads) -> tuple[float, np.ndarray]:
        return 0.01 * len(heads), base + effects[list(heads)].sum(0)

    found = search(problem, SearchConfig(max_heads=1, measurements=3, seed=seed), measure)
    assert found.heads == (0,)
    assert found.gap == pytest.approx(within(base + effects[0]))
    pooled = Problem(base, effects, np.array([0.01, 0.01, 0.01]), codes)
    assert pooled.gaps(pooled.base_means) < 0.2 * problem.gaps(problem.base_means)


def test_without_a_template_of_every_group_it_is_refused() -> None:
    with pytest.raises(InputError, match="every group"):
        Problem(np.zeros(2), np.zeros((1, 2)), np.zeros(1), np.array([0, 1]), ("a", "b"))


@pytest.mark.parametrize("seed", range(3))
def test_another_cost_is_kept_within_its_limit(seed: int) -> None:
    """Without interactions the best of all sets within both limits; the most useful heads cost most of the other."""
    world = World(seed)
    config = SearchConfig(max_heads=4, max_ppl=0.2, measurements=12, seed=seed)
    free = search(world.problem, config, world.measure)
    effects = np.where(np.isin(np.arange(N), free.heads[:2]), 0.5, 0.05)
    other = Other(effects, 0.4, lambda heads: float(effects[list(heads)].sum()))
    found = search(world.problem, config, world.measure, (), None, other)
    sets = (s for k in range(5) for s in itertools.combinations(range(N), k))
    inside = [s for s in sets if effects[list(s)].sum() <= 0.4 and world.measure(s)[0] <= np.log1p(0.2)]
    assert found.gap == pytest.approx(min(world.gap(s) for s in inside), rel=1e-6)
    assert effects[list(found.heads)].sum() <= 0.4 < effects[list(free.heads)].sum()
    assert all(t.other == pytest.approx(effects[list(t.heads)].sum()) for t in found.tried)


def test_the_best_set_that_fits_is_taken_and_few_are_asked() -> None:
    world, config = World(1), SearchConfig(max_heads=4, max_ppl=0.2, measurements=10)
    free = search(world.problem, config, world.measure)
    asked: list[Heads] = []

    def fits(heads: Heads) -> bool:
        asked.append(heads)
        return free.heads[0] not in heads

    said: list[str] = []
    found = search(world.problem, config, world.measure, (), lambda _d, _t, text: said.append(text), None, fits)
    assert said[-1] == "search: done"
    assert sum("other limits of set" in text for text in said) == len(asked)
    inside = [t for t in found.tried if t.nats <= np.log1p(0.2) and t.gap < found.base_gap]
    best = min((t for t in inside if free.heads[0] not in t.heads), key=lambda t: t.gap)
    assert found.heads == best.heads
    assert asked == [t.heads for t in sorted(inside, key=lambda t: t.gap)][: len(asked)]
    assert search(world.problem, config, world.measure, (), None, None, lambda _: False).heads == ()
