"""Exact answers of the built-in model against many samples of the same distributions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import scenarios
from fasp_core.studies.contexts.audit import AuditConfig, Following, audit, exactly

SAMPLES = 400
NAMES = 32  # of each group
CONTEXTS = ("purchases", "activities", "finance")


SEEDS = range(4)  # of the draws that finish exact answers


def mean_logs(found: Distributions) -> NDArray[np.float64]:
    """[names] mean log(1 + number)."""
    logs = found.changed(np.log1p)
    return np.array([np.average(logs.values[mine], weights=logs.masses[mine]) for mine in parts(logs)])


def parts(found: Distributions) -> list[NDArray[np.bool_]]:
    """Where the numbers of each name lie."""
    return [found.given & (found.names == i) for i in range(len(found.codes))]


@pytest.mark.slow
@pytest.mark.timeout(7200)  # 77,000 sampled answers
def test_means_of_samples_lie_within_their_noise(tmp_path: Path) -> None:
    """In logs, where means of so many samples are near normal: within 1.96 standard errors for 95% of names, about.

    The noise of draws is that between their seeds, of a scenario's names together.
    """
    lm, world, store = load(ModelSpec()), scenarios.read().smaller(NAMES), Store(tmp_path)
    inside = []
    for context in CONTEXTS:
        scenario = world.of(context)[0]
        config = AuditConfig(SAMPLES)
        following = [Following(world, config, ExactConfig(seed=seed)) for seed in SEEDS]
        exact = np.array([mean_logs(exactly(lm, scenario, one, store).found) for one in following])  # [seeds, names]
        of_draws = exact.var(0, ddof=1).mean() / len(SEEDS)
        drawn = np.log1p(audit(lm, scenario, world, config, store).answers.values)
        errors = np.sqrt(np.nanvar(drawn, axis=1, ddof=1) / np.isfinite(drawn).sum(1) + of_draws)
        inside += (abs(np.nanmean(drawn, axis=1) - exact.mean(0)) <= 1.96 * errors).tolist()
    assert np.mean(inside) >= 0.93
