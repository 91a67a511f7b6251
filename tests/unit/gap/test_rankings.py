"""Choices and correlations of rankings against FASP in each resample, Fisher and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fasp_core.errors import InputError
from fasp_core.gap import (
    choice_probability,
    ranking_correlation_interval,
)
from fasp_core.heads.selection import HeadScores, select

# rankings


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 8), st.data())
def test_choice_is_that_of_fasp_in_each_resample(n: int, resamples: int, k: int, data: st.DataObject) -> None:
    cell = st.integers(-2, 2)  # many ties
    effects = np.array(data.draw(st.lists(cell, min_size=n * resamples, max_size=n * resamples))).reshape(n, -1)
    n_critical = data.draw(st.integers(0, n))
    critical = np.isin(np.arange(n), data.draw(st.permutations(range(n)))[:n_critical])
    chosen = np.zeros(n)
    for column in effects.T.astype(float):
        scores = HeadScores(1, n, z_ppl=critical.astype(float), z_bias=column)
        chosen[list(select(scores, "fasp", n_critical / n, min(k, n) / n).pruned)] += 1
    expected = chosen / resamples
    np.testing.assert_allclose(choice_probability(effects, k, critical), expected)
    same = np.repeat(critical[:, None], resamples, axis=1)
    np.testing.assert_allclose(choice_probability(effects, k, same), expected)


def test_critical_heads_may_differ_between_resamples() -> None:
    effects = [[3, 3], [2, 2], [1, 1]]
    critical = [[True, False], [False, True], [False, True]]
    assert choice_probability(effects, 2, critical).tolist() == [0.5, 0.5, 0.5]


def test_unusable_choices_are_named() -> None:
    effects = np.zeros((3, 2))
    with pytest.raises(InputError, match="finite"):
        choice_probability([[math.nan]], 1, [False])
    with pytest.raises(InputError, match="finite"):
        choice_probability([0.1], 1, [False])
    with pytest.raises(InputError, match="True or False"):
        choice_probability(effects, 1, [0, 1, 0])
    with pytest.raises(InputError, match="True or False"):
        choice_probability(effects, 1, [False, True])
    with pytest.raises(InputError, match="0 or more"):
        choice_probability(effects, -1, [False] * 3)


def test_correlations_have_fishers_interval_and_that_of_the_loop() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal(40)
    y = np.round(x + rng.standard_normal(40), 1)
    r, low, high = ranking_correlation_interval(x, y, 0.9, kind="pearson")
    half = stats.norm.ppf(0.95) / math.sqrt(37)
    assert r == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert (low, high) == pytest.approx((math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)))
    rho, low, high = ranking_correlation_interval(x, y, 0.9)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    drawn = [stats.spearmanr(x[at], y[at]).statistic for at in rng.integers(40, size=(500, 40))]
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=0.04)
    assert ranking_correlation_interval(x, y, 0.9) == (rho, low, high)
    assert ranking_correlation_interval(x, y, 0.9, seed=1) != (rho, low, high)


def test_rankings_that_agree_or_say_nothing() -> None:
    x = np.arange(20.0)
    assert ranking_correlation_interval(x, x**3) == pytest.approx((1, 1, 1))
    for kind in ("pearson", "spearman"):
        assert np.isnan(ranking_correlation_interval(x, 0 * x, kind=kind)).all()


def test_unusable_rankings_are_named() -> None:
    for x, y in (([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, math.inf], [1, 2, 3]), ([[1, 2, 3]], [[1, 2, 3]])):
        with pytest.raises(InputError, match="same 3 or more"):
            ranking_correlation_interval(x, y)
    with pytest.raises(InputError, match="level"):
        ranking_correlation_interval([1, 2, 3], [1, 2, 3], level=95)
    with pytest.raises(InputError, match="no correlation"):
        ranking_correlation_interval([1, 2, 3], [1, 2, 3], kind="kendall")  # type: ignore[arg-type]
