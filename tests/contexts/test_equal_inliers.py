"""Methods compared where their sets keep as many answers in the usual range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.studies.contexts.generalisation import Carried, intercepts
from tests.contexts.test_contexts_matrix import EVERY, made_up

NUMBER = st.floats(-10, 10)


@given(a=NUMBER, b=NUMBER, x=st.lists(NUMBER, min_size=3, max_size=9, unique_by=lambda v: round(v, 3)))
def test_points_of_a_line_give_where_it_begins(a: float, b: float, x: list[float]) -> None:
    at = np.array(x)
    y = np.column_stack([a + b * at, np.full(len(x), a)])
    np.testing.assert_allclose(intercepts(at, y), [a, a], atol=1e-6)


def test_it_is_what_a_fit_gives_and_unknown_points_count_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=12), rng.normal(size=(12, 5))
    expected = np.polynomial.polynomial.polyfit(x, y, 1)[0]
    np.testing.assert_allclose(intercepts(x, y), expected)
    y[3, 1] = np.nan
    kept = np.delete(np.arange(12), 3)
    expected[1] = np.polynomial.polynomial.polyfit(x[kept], y[kept, 1], 1)[0]
    np.testing.assert_allclose(intercepts(x, y), expected)
    assert np.isnan(intercepts(x[:2], y[:2])).all()
    assert np.isnan(intercepts(np.ones(12), y)).all()


def test_the_finding_says_it() -> None:
    """As a fit of the pairs one by one."""
    carried = Carried(made_up(dict(zip(EVERY, (0.5, 0.1, 0.9, 0.2), strict=True))))
    pairs = [(n, h) for n in carried._chosen("neurons") for h in carried._chosen("heads") if n.setting == h.setting]
    found = carried.at_equal_inliers(pairs)
    assert found is not None
    shares = np.array([carried._inliers(n) - carried._inliers(h) for n, h in pairs])
    changes = np.array([carried.difference([pair]).difference.value for pair in pairs])
    expected = np.polynomial.polynomial.polyfit(shares, changes, 1)[0]
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    assert f"the difference is {found.value:+.2f}" in carried.findings()[0].sentence
