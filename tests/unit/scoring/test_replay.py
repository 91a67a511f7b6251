"""Importance weighting against enumerations of all continuations, loops and closed forms."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fasp_core import gap
from fasp_core.errors import InputError
from fasp_core.scoring.replay import first_order_toxicity, reweighted

Floats = NDArray[np.float64]
SHAPES = st.tuples(st.integers(2, 6), st.integers(1, 5))


@st.composite
def pools(draw: st.DrawFn) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Scores and log-weights [n, K], and group codes [n] of two groups."""
    shape = draw(SHAPES)
    scores = draw(arrays(float, shape, elements=st.floats(0, 1, allow_subnormal=False)))
    log_w = draw(arrays(float, shape, elements=st.floats(-1000, 1000, allow_subnormal=False)))
    codes = np.array(draw(st.permutations([i % 2 for i in range(shape[0])])))
    return scores, log_w, codes


class Toy:
    """Texts of two tokens out of three, under a base and a pruned model whose probabilities are multiples of 1/16."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.words = list(product(range(3), repeat=2))
        cuts = [np.array([4, 8, 4]) / 16, np.array([8, 6, 2]) / 16, np.array([2, 4, 10]) / 16, np.array([8, 4, 4]) / 16]
        base, pruned = cuts, [cuts[i] for i in (2, 3, 1, 0)]
        self.p = np.array([base[0][a] * base[1 + a][b] for a, b in self.words])
        self.q = np.array([pruned[0][a] * pruned[1 + a][b] for a, b in self.words])
        self.score = rng.random(9)
        self.log_w = np.log(self.q / self.p)
        self.truth = float(self.q @ self.score)

    def pool(self) -> tuple[Floats, Floats]:
        """[1, 256] scores and log-weights of the base model's texts, each as often as it is to be expected."""
        which = np.repeat(np.arange(9), np.rint(256 * self.p).astype(int))
        return self.score[which][None], self.log_w[which][None]


# weights of exact log-ratios


@pytest.mark.parametrize("seed", range(3))
def test_a_pool_in_exact_proportions_gives_the_exact_expectation(seed: int) -> None:
    toy = Toy(seed)
    scores, log_w = toy.pool()
    assert scores.shape == (1, 256)
    assert reweighted(scores, log_w, np.array([0]))[0] == pytest.approx(toy.truth, rel=1e-12)
    assert abs(scores.mean() - toy.truth) > 0.01  # else the weights did nothing


def test_sampled_pools_converge() -> None:
    toy, rng = Toy(0), np.random.default_rng(0)
    errors = []
    for k in (100, 10_000):
        which = rng.choice(9, size=(50, k), p=toy.p)
        estimate = reweighted(toy.score[which], toy.log_w[which], np.arange(50))  # each prompt a group of its own
        errors.append(float(np.sqrt(np.mean((estimate - toy.truth) ** 2))))
    assert errors[1] < 0.01
    assert 5 < errors[0] / errors[1] < 20  # 10 is expected: the square root of 100


def test_the_gap_of_exact_pools() -> None:
    toys = [Toy(seed) for seed in (0, 1, 2)]
    # groups of 2, 1 and 1 prompts: the overall toxicity counts prompts alike
    scores, log_w = (np.concatenate([t.pool()[i] for t in (toys[0], toys[0], *toys[1:])]) for i in (0, 1))
    codes = np.array([0, 0, 1, 2])
    found = reweighted(scores, log_w, codes)
    overall = (2 * toys[0].truth + toys[1].truth + toys[2].truth) / 4
    assert found.mean() == pytest.approx(overall, rel=1e-12)
    np.testing.assert_allclose([found[codes == g].mean() for g in range(3)], [t.truth for t in toys], rtol=1e-12)
    assert gap.gap(found, codes) == pytest.approx(sum(abs(overall - t.truth) for t in toys), rel=1e-12)


# an unchanged model, bounds, symmetries


@given(pools(), st.sampled_from([0.0, -0.0, 3.7, -800.0]))
def test_equal_weights_are_exactly_the_plain_mean(
    pool: tuple[Floats, Floats, NDArray[np.int64]], constant: float
) -> None:
    scores, _, codes = pool
    assert (reweighted(scores, np.full_like(scores, constant), codes) == scores.mean(1)).all()


@given(pools())
def test_bounds(pool: tuple[Floats, Floats, NDArray[np.int64]]) -> None:
    scores, log_w, codes = pool
    found = reweighted(scores, log_w, codes)
    for g in (0, 1):
        inside = scores[codes == g]
        assert inside.min() - 1e-12 <= found[codes == g].mean() <= inside.max() + 1e-12


@given(pools(), st.floats(-300, 300))
def test_order_and_common_factors_do_not_matter(pool: tuple[Floats, Floats, NDArray[np.int64]], shift: float) -> None:
    scores, log_w, codes = pool
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(scores)), rng.permutation(scores.shape[1])
    mixed = reweighted(scores[rows][:, columns], log_w[rows][:, columns] + shift, codes[rows])
    np.testing.assert_allclose(mixed, reweighted(scores, log_w, codes)[rows], atol=1e-9)


def test_one_heavy_weight_is_one_continuation() -> None:
    scores, log_w = np.array([[0.2, 0.9, 0.4]]), np.array([[0.0, 5000.0, -5000.0]])
    assert reweighted(scores, log_w, np.array([0]))[0] == pytest.approx(0.9, rel=1e-12)


# first order


def test_first_order_toxicity_by_loops() -> None:
    rng = np.random.default_rng(2)
    scores, s = rng.random((3, 2)), rng.normal(size=(3, 2, 4))
    found = first_order_toxicity(scores, s)
    assert found.shape == (4, 3)
    for h, i in product(range(4), range(3)):
        others = [scores[j, k] for j in range(3) for k in range(2) if j != i]
        baseline = sum(others) / len(others)
        assert found[h, i] == pytest.approx(
            sum((scores[i, k] - baseline) * s[i, k, h] for k in range(2)) / 2, rel=1e-12
        )


def test_first_order_toxicity_is_the_derivative() -> None:
    """A softmax model p(g) over five words, gates g weighing two 'heads' of logits; pool in exact proportions."""
    rng = np.random.default_rng(3)
    heads = rng.normal(size=(2, 5))
    score = rng.random(5)

    def model(gates: Floats) -> Floats:
        e = np.exp(gates @ heads)
        return np.asarray(e / e.sum())

    p = model(np.ones(2))
    s = -(heads - (heads @ p)[:, None])  # [2, 5]: -d log p(v) / d gate
    counts = np.rint(200_000 * p).astype(int)
    which = np.repeat(np.arange(5), counts)
    # two prompts with the same model; other scores move the baseline, which must not move the result
    scores = np.stack([score[which], 5 * score[which] + 1])
    effects = first_order_toxicity(scores, np.broadcast_to(s.T[which], (2, len(which), 2)))
    for h in range(2):
        up, down = (model(np.ones(2) + by * np.eye(2)[h]) @ score for by in (1e-5, -1e-5))
        slope = (down - up) / 2e-5
        assert abs(slope) > 0.01
        assert effects[h, 0] == pytest.approx(slope, abs=2e-4)
        assert effects[h, 1] == pytest.approx(5 * slope, abs=2e-4)


def test_the_baseline_takes_variance_away() -> None:
    rng = np.random.default_rng(4)
    scores, s = 0.5 + 0.01 * rng.random((200, 1)), rng.normal(size=(200, 1, 1))
    assert first_order_toxicity(scores, s).std() < 0.05 * (scores * s[..., 0]).std()
    assert not first_order_toxicity(np.full((3, 2), 0.25), rng.normal(size=(3, 2, 4))).any()


# refusals


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(bad: float) -> None:
    fine, broken = np.zeros((2, 2)), np.array([[0, 0], [bad, 0]])
    for scores, log_w in ((fine, broken), (broken, fine)):
        with pytest.raises(InputError, match="not finite"):
            reweighted(scores, log_w, np.array([0, 1]))
        with pytest.raises(InputError, match="not finite"):
            first_order_toxicity(scores, log_w[..., None])


def test_shapes_must_fit() -> None:
    x = np.zeros((3, 2))
    for scores, log_w in ((x, x[:2]), (x[0], x[0]), (x[:0], x[:0])):
        with pytest.raises(InputError, match="prompts by continuations"):
            reweighted(scores, log_w, np.zeros(len(scores), dtype=int))
    with pytest.raises(InputError, match="at least two prompts"):
        first_order_toxicity(x[:1], np.zeros((1, 2, 4)))
    with pytest.raises(InputError, match="continuations by heads"):
        first_order_toxicity(x, np.zeros((3, 2)))
