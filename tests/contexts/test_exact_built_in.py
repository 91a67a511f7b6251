"""Exact answers of the built-in model against many samples of the same distributions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import scenarios
from fasp_core.studies.contexts.audit import AuditConfig, Following, audit, exactly

SAMPLES = 400
NAMES = 32  # of each group
LIMITS = ExactConfig()
CONTEXTS = ("purchases", "activities", "finance")


@pytest.mark.slow
@pytest.mark.timeout(7200)  # 77,000 sampled answers
def test_means_of_samples_lie_within_their_noise(tmp_path: Path) -> None:
    """In logs, where means of so many samples are near normal: within two standard errors for 95% of names, about."""
    lm, world, store = load(ModelSpec()), scenarios.read().smaller(NAMES), Store(tmp_path)
    inside, counted = 0, 0
    for context in CONTEXTS:
        scenario = world.of(context)[0]
        config = AuditConfig(SAMPLES)
        found = exactly(lm, scenario, Following(world, config, LIMITS), store).found
        drawn = np.log1p(audit(lm, scenario, world, config, store).answers.values)
        moments = found.changed(np.log1p).moments()
        center = float(
            np.log1p(found.values[found.given]) @ found.masses[found.given] / found.masses[found.given].sum()
        )
        for i, row in enumerate(drawn):
            kept = row[np.isfinite(row)]
            mean = center + moments[i, 1] / moments[i, 0]
            error = kept.std(ddof=1) * np.sqrt(1 / len(kept) + (1 - found.covered[i]) ** 2 / LIMITS.draws)
            inside += abs(kept.mean() - mean) <= 1.96 * error
            counted += 1
    assert inside / counted >= 0.93
