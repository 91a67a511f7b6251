"""The smallest difference that is found, against simulated audits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fasp_core.errors import InputError
from fasp_core.studies.answers import power
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.answers.measures import Answers
from fasp_core.studies.answers.power import Power
from fasp_core.studies.answers.testing import significance


def pilot(between: float, names: int = 200, seed: int = 0) -> Distributions:
    """Names whose means differ by `between` SDs of the answers, each with 30 equally likely ones."""
    rng = np.random.default_rng(seed)
    values = 50 + 10 * (between * rng.normal(size=(names, 1)) + np.sqrt(1 - between**2) * _normal(30))
    n = values.size
    codes = np.repeat([0, 1], names // 2)
    return Distributions(values.ravel(), np.full(n, 1 / 30), np.repeat(np.arange(names), 30), np.zeros(n, bool), codes)


def _normal(n: int) -> np.ndarray:
    x = stats.norm.ppf((np.arange(n) + 0.5) / n)
    out: np.ndarray = x / x.std()
    return out


@pytest.mark.parametrize("between", [0.1, 0.4])
def test_the_smallest_difference_is_found_in_four_of_five_audits(between: float) -> None:
    found = Power.of(pilot(between), (20, 24), 3)
    assert found.between == pytest.approx(between, rel=0.15)
    rng, hits, runs, shift = np.random.default_rng(1), 0, 2000, found.smallest()
    for _ in range(runs):
        a, b = rng.normal(shift, between, 20), rng.normal(0, between, 24)
        hits += stats.ttest_ind(a, b).pvalue < 0.05
    assert hits / runs == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize(("names", "ever"), [(2, False), (3, False), (4, True)])
def test_few_names_find_nothing_however_far_apart(names: int, ever: bool) -> None:
    """Groups that lie a hundred SDs apart, by the very test that an audit makes."""
    codes = np.repeat([0, 1], names)
    rng = np.random.default_rng(names)
    values = np.where(codes == 0, 100.0, 0.0)[:, None] + rng.normal(size=(2 * names, 4))
    p = significance([Answers(values, codes)], deals=2000).each[0]
    found = Power(0.2, 6, (names, names), 1).smallest()
    assert (p <= power.LEVEL) == ever == np.isfinite(found)
    assert Power(0.2, 6, (names, names), 1).smallest(scenarios=3) == float("inf")  # 2 of 70 deals are more than .05 / 3


def test_how_names_differ_is_known_by_an_interval() -> None:
    """95% of pilots hold the SD that names were drawn with."""
    inside = 0
    for seed in range(200):
        low, high = (end.between for end in Power.of(pilot(0.3, 8, seed), (20, 20), 1).ends())
        inside += low <= 0.3 <= high
    assert 0.9 <= inside / 200 <= 0.99


def test_samples_and_more_scenarios_ask_for_more() -> None:
    found = Power.of(pilot(0.2), (32, 32), 19)
    assert found.smallest() < found.smallest(64) < found.smallest(4)
    assert found.smallest(scenarios=19) > found.smallest()
    said = power.document(found)
    assert said["smallest_smd"] == found.smallest()
    assert said["smallest_smd_sampled"]["16"] == found.smallest(16)


def test_nothing_to_plan_with() -> None:
    none = Distributions(np.full(4, np.nan), np.ones(4), np.arange(4), np.zeros(4, bool), np.array([0, 0, 1, 1]))
    with pytest.raises(InputError, match="Nothing can be planned"):
        Power.of(none, (3, 3), 1)
