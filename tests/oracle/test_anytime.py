"""Intervals that hold at every look: coverage over all looks by simulation, and the Bayes factor by integration."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from fasp_core.data.text import TextConfig
from fasp_core.gap import anytime, gap
from fasp_core.metrics.cached_runner import BEGIN
from fasp_core.metrics.looks import complete_blocks
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import Nll, perplexity_change, ppl_key
from fasp_core.model.loading import known_id
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.entries import best
from fasp_core.storage.store import Store

AXES = ("race_ethnicity", "gender_and_sex", "nationality", "religion", "sexual_orientation", "age", "ability")
COMMITTED = Path(__file__).resolve().parents[2] / "cache"


def bayes_factor(t: float, n: int) -> float:
    """Marginal likelihood of t under a standardised mean from N(0, 1), over that under 0, by quadrature."""

    def weighed(mean: float) -> float:
        return float(stats.nct.pdf(t, n - 1, math.sqrt(n) * mean) * stats.norm.pdf(mean))

    return integrate.quad(weighed, -6, 6, limit=200)[0] / float(stats.t.pdf(t, n - 1))


@pytest.mark.parametrize("n", [5, 6, 8, 16, 40])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_reach_is_where_the_bayes_factor_says_so(n: int, level: float) -> None:
    assert bayes_factor(anytime.reach(n, level), n) == pytest.approx(1 / (1 - level), rel=1e-4)


def test_few_values_reach_nowhere() -> None:
    for n in (0, 1, 2, 3, 4):
        assert anytime.reach(n) == math.inf
    assert bayes_factor(1e4, 4) < 20  # no t of four values is enough


def missed(values: np.ndarray, reach: list[float], free: int = 1) -> float:
    """Share of rows [S, n] of mean 0 whose interval leaves 0 out at any n from 2 on; `free` numbers are estimated."""
    n = np.arange(1, values.shape[1] + 1)
    mean = values.cumsum(1) / n
    spread = np.sqrt(np.maximum((values**2).cumsum(1) - n * mean**2, 0)[:, 1:] / np.maximum(n[1:] - free, 1))
    return float((np.abs(mean[:, 1:]) > np.array(reach[2:]) * spread / np.sqrt(n[1:])).any(1).mean())


def test_it_covers_at_all_looks_at_once_where_a_fixed_interval_does_not() -> None:
    values = np.random.default_rng(0).normal(size=(4000, 200))
    always = [anytime.reach(n, 0.95) for n in range(201)]
    fixed = [0.0, 0.0, *(float(stats.t.ppf(0.975, n - 1)) for n in range(2, 201))]
    assert missed(values, always) <= 0.05
    assert missed(values, fixed) > 0.3


def test_a_planned_first_look_and_all_later_ones_cover_together() -> None:
    for n in (4, 8, 40):
        assert anytime.planned(n) == pytest.approx(stats.t.ppf(1 - 0.05 / 4, n - 1))
        assert bayes_factor(anytime.reach(n + 2), n + 2) == pytest.approx(1 / 0.025, rel=1e-4)
    assert anytime.planned(3) == math.inf
    values = np.random.default_rng(0).normal(size=(4000, 200))
    for first in (BEGIN, anytime.FIRST):
        assert 0.025 <= missed(values, with_first(first, range(201))) <= 0.05


def with_first(first: int, later: Container[int], free: int = 1) -> list[float]:
    """Student's t at the first look, the confidence sequence at later ones, by number of values up to 200."""
    return [
        anytime.planned(n + 1 - free) if n == first else anytime.reach(n) if n > first and n in later else math.inf
        for n in range(201)
    ]


@pytest.mark.parametrize("shape", [2.0, 4.0])
def test_it_covers_skewed_blocks_where_one_looks(shape: float) -> None:
    """Gamma values are no normal ones: after as many as are looked at, with a number estimated as well as the mean."""
    values = np.random.default_rng(1).gamma(shape, size=(4000, 200)) - shape
    at = [*anytime.looks(200), 200]
    assert missed(values, with_first(at[0], at, free=2), free=2) <= 0.05


CASES = [
    (30, 9, 0.4, 0.3, 1.0, 0.3),
    (72, 7, 0.4, 0.3, 1.0, 0.8),  # sentences of very different toxicity
    (72, 7, 0.9, 0.1, 1.0, 0.3),  # hardly any change
    (48, 2, 0.2, 0.5, 1.0, 0.3),
    (60, 7, 0.0, 1.0, 1.0, 0.5),  # the pruned model's groups have nothing to do with the unpruned one's
    (10, 23, 0.4, 0.3, 1.0, 0.8),  # as few blocks as are looked at before they are whole
    (10, 2, 0.9, 0.1, 1.0, 0.3),
    (12, 7, 0.0, 1.0, 1.0, 0.5),
    (18, 12, 0.4, 0.3, 1.0, 0.8),
    (20, 2, 0.4, 0.3, 1.0, 0.3),
]


def test_looks_begin_with_six_blocks_or_half_of_them_and_end_with_a_third() -> None:
    few = {9: [], 10: [5], 11: [5], 12: [6], 23: [6], 35: [6], 36: [6, 12]}
    assert {blocks: anytime.looks(blocks) for blocks in few} == few
    assert anytime.looks(225) == [6, 12, 24, 48]


@pytest.mark.parametrize(("blocks", "groups", "share", "own", "noise", "skew"), CASES)
def test_partial_gaps_cover_the_true_change_at_all_looks(
    blocks: int, groups: int, share: float, own: float, noise: float, skew: float
) -> None:
    """Blocks with a known true gap; every number of blocks from the first look on is looked at."""
    rng = np.random.default_rng(0)
    effect = np.linspace(-1, 1, groups)
    after = share * effect + own * np.cos(2.1 * np.arange(groups))
    truth = np.abs(after - after.mean()).sum() / np.abs(effect - effect.mean()).sum() - 1
    codes, at = np.tile(np.arange(groups), blocks), np.arange(blocks * groups).reshape(blocks, groups)
    misses, runs, begun = 0, 150, anytime.looks(blocks)[0]
    for _ in range(runs):
        sentence = np.exp(rng.normal(0, skew, (blocks, 1)) - skew**2 / 2)
        both = rng.normal(0, noise, (blocks, groups))
        alone = rng.normal(0, noise / 2, (blocks, groups))
        base, pruned = sentence * (5 + effect + both), sentence * (4 + after + share * both + alone)
        found = [
            anytime.partial_gap(base.ravel(), codes, at, pruned[:done], first=done == begun).interval
            for done in range(begun, blocks + 1, 4)
        ]
        misses += not all(ends is not None and ends[0] <= truth <= ends[1] for ends in found)
    assert misses / runs <= 0.05


def test_partial_perplexities_cover_the_true_change_at_all_looks() -> None:
    rng = np.random.default_rng(0)
    misses, runs, blocks = 0, 300, 64
    counts = rng.integers(40, 65, blocks)
    for _ in range(runs):
        base = counts * rng.normal(3.3, 0.4, blocks)
        sums = base + counts * rng.normal(0.1, 0.15, blocks)
        found = [
            partial(base, sums, counts, np.arange(n), anytime.reach if i else anytime.planned)
            for i, n in enumerate(range(BEGIN, blocks + 1, 4))
        ]
        misses += not all(low <= 0.1 <= high for low, high in found)
    assert misses / runs <= 0.05


def test_looks_at_real_text_cover_what_the_whole_sample_says() -> None:
    """All 270 heads of the built-in model on its text: the beginning of a window, which has less context than the rest
    of it, then another window; against two windows, as many as pages begin with."""
    identity = known_id(ModelSpec())
    assert identity is not None
    scores = Store(COMMITTED).load("scores", ppl_key(TextConfig(tokens=8192), identity))
    assert scores is not None
    base, sums, counts = (scores.arrays[name] for name in ("base_sums", "sums", "counts"))
    misses, first = [], []
    for w in range(0, 16, 2):
        two = np.arange(8 * w, 8 * w + 16)
        for head in sums[:, two]:
            truth = (head.sum() - base[two].sum()) / counts[two].sum()
            looks = [(np.arange(BEGIN), anytime.planned), (np.r_[:BEGIN, 8:16], anytime.reach)]
            ends = [partial(base[two], head, counts[two], *look) for look in looks]
            held = [low <= truth <= high for low, high in ends]
            misses.append(not all(held))
            first.append(not held[0])
    assert 0.005 < np.mean(first) < 0.03
    assert np.mean(misses) < 0.05


@pytest.mark.parametrize("axis", AXES)
def test_looks_at_real_prompts_cover_what_the_whole_sample_says(axis: str) -> None:
    """Heads of the built-in model taken out; with identity terms scored few sentences hold much of some gaps."""
    identity = known_id(ModelSpec())
    assert identity is not None
    table = best(TextConfig(tokens=8192), BiasConfig(axis), identity, "built-in", Store(COMMITTED))
    assert table is not None
    bias, rng = table.bias, np.random.default_rng(1)
    assert bias.blocks is not None
    codes = np.asarray(bias.codes)
    whole = complete_blocks(tuple(bias.groups[c] for c in codes), tuple(bias.blocks))
    for which in range(len(bias.readings)):
        misses = []
        for _ in range(24):
            drawn = whole[rng.permutation(len(whole))[:48]]
            at = np.arange(drawn.size).reshape(drawn.shape)
            base, labels = bias.base[which][drawn.ravel()], codes[drawn.ravel()]
            for head in bias.ablated[::18, which][:, drawn.ravel()]:
                truth = gap(head, labels) / gap(base, labels) - 1
                found = [
                    anytime.partial_gap(base, labels, at, head[at[:n]], first=not i).interval
                    for i, n in enumerate(anytime.looks(len(at)))
                ]
                misses.append(not all(ends is not None and ends[0] <= truth <= ends[1] for ends in found))
        assert np.mean(misses) <= 0.05, bias.readings[which]


def partial(
    base: np.ndarray, sums: np.ndarray, counts: np.ndarray, at: np.ndarray, reach: Callable[[int], float]
) -> tuple[float, float]:
    return perplexity_change(Nll(base[at], counts[at]), Nll(sums[at], counts[at]), reach=reach).interval
