"""What a head is worth at least: against a loop over draws, and on heads that help in one template alone."""

from __future__ import annotations

import numpy as np
import pytest

from fasp_core.gap import PromptRows
from fasp_core.gap.cautious import at_least
from fasp_core.gap.gaps import gap

T, D = 8, 4  # templates, descriptors of each of two groups
TEMPLATES = tuple(f"t{t}" for t in range(T) for _ in range(2 * D))
CODES = np.array([g for _ in range(T) for g in (0, 1) for _ in range(D)])
DESCRIPTORS = tuple(f"d{d}" for _ in range(T) for _ in (0, 1) for d in range(D))  # the same words in both groups


def rows_of(effects: list[np.ndarray]) -> PromptRows:
    base = 0.1 + 0.02 * CODES
    return PromptRows.paired(base, [base - effect for effect in effects], CODES)


def test_a_head_that_helps_everywhere_comes_before_one_that_helps_more_in_one_template() -> None:
    everywhere = 0.008 * CODES
    once = 0.08 * CODES * (np.array(TEMPLATES) == "t3")
    one_word = 0.04 * CODES * (np.array(DESCRIPTORS) == "d1")
    rows = rows_of([everywhere, once, one_word])
    means = rows.gaps()[0] - rows.gaps()[1:]
    assert means[0] < min(means[1:])
    found = at_least(rows, TEMPLATES, DESCRIPTORS)
    assert found[0] == pytest.approx(means[0])  # the same in every draw
    assert found[0] > max(found[1:])
    assert found[1] <= 1e-12  # a draw in three has no such template


def test_against_a_loop_over_draws() -> None:
    rng = np.random.default_rng(1)
    rows = rows_of(list(0.01 * rng.normal(size=(3, len(CODES)))))
    found = at_least(rows, TEMPLATES, DESCRIPTORS, resamples=3000)
    effects = []
    for _ in range(3000):
        t = rng.integers(T, size=T)
        d = rng.integers(D, size=(2, D))
        at = [2 * D * i + D * g + j for i in t for g in (0, 1) for j in d[g]]
        gaps = gap(rows.values[:, at], CODES[at])
        effects.append(gaps[0] - gaps[1:])
    assert found == pytest.approx(np.quantile(effects, 0.1, axis=0), abs=0.0005)
    assert np.ptp(found) > 0.001


def test_a_quantile_of_one_half_is_about_the_mean() -> None:
    rng = np.random.default_rng(2)
    rows = rows_of(list(0.002 * rng.normal(size=(2, len(CODES)))))
    means = rows.gaps()[0] - rows.gaps()[1:]
    assert at_least(rows, TEMPLATES, DESCRIPTORS, quantile=0.5) == pytest.approx(means, abs=0.0004)
