"""Two models on the same items: shares, paired intervals that cover, and McNemar's test against its closed form."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fasp_core.tasks.paired import mean_change, paired

ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def closed_form(lost: int, gained: int) -> float:
    n = lost + gained
    tail = sum(comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n
    return min(1.0, 2 * tail)


@given(ANSWERS)
def test_shares_changes_and_mcnemars_p(answers: list[tuple[bool, bool]]) -> None:
    base, pruned = (np.array(side) for side in zip(*answers, strict=True))
    found = paired(base, pruned, 0.5)
    lost, gained = sum(a and not b for a, b in answers), sum(b and not a for a, b in answers)
    assert (found.lost, found.gained) == (lost, gained)
    assert found.mcnemar_p == pytest.approx(closed_form(lost, gained))
    assert found.points == pytest.approx(100 * (found.pruned - found.base))
    assert found.interval[0] <= found.points <= found.interval[1]
    assert -100 <= found.interval[0] < found.interval[1] <= 100
    assert found.base_interval[0] <= found.base + 1e-12
    assert found.tells == (found.base_interval[0] > 0.5)


@given(ANSWERS)
def test_swapped_models_change_the_sign(answers: list[tuple[bool, bool]]) -> None:
    base, pruned = (np.array(side) for side in zip(*answers, strict=True))
    one, other = paired(base, pruned, 0), paired(pruned, base, 0)
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
    assert one.mcnemar_p == pytest.approx(other.mcnemar_p)


@pytest.mark.parametrize(
    ("n", "lost", "gained"), [(50, 0.1, 0.02), (300, 0.11, 0.03), (300, 0.01, 0.01), (30, 0.2, 0.2)]
)
def test_the_interval_of_points_covers(n: int, lost: float, gained: float) -> None:
    rng = np.random.default_rng(1)
    tables = rng.multinomial(n, [lost, gained, 1 - lost - gained], size=4000)
    covered = 0
    for (down, up, _), times in zip(*np.unique(tables, axis=0, return_counts=True), strict=True):
        base = np.arange(n) < down
        pruned = (np.arange(n) >= down) & (np.arange(n) < down + up)
        low, high = paired(base, pruned, 0).interval
        covered += times * (low <= 100 * (gained - lost) <= high)
    assert covered / len(tables) >= 0.94


def test_a_model_at_chance_tells_nothing() -> None:
    half, most = np.arange(100) < 55, np.arange(100) < 75
    assert not paired(half, half, 0.5).tells
    assert paired(most, half, 0.5).tells
    assert not paired(np.zeros(100), half, 0).tells  # a last word that is never right


def test_changes_of_means() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(-4, 2, 80)
    pruned = base - 0.5 + rng.normal(0, 0.3, 80)
    found = mean_change(base, pruned)
    ends = stats.ttest_rel(pruned, base).confidence_interval(0.95)
    assert found["change_interval"] == pytest.approx([ends.low, ends.high])
    assert found["change"] == pytest.approx(found["pruned"] - found["base"])
    assert mean_change([1.0], [2.0]) == {"base": 1.0, "pruned": 2.0, "change": 1.0, "change_interval": None}
