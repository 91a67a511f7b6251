"""The built-in model: parts of a set's change along its path, beside Shapley values of the same heads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fasp_core.data.text import TextConfig
from fasp_core.gap import gap, group_codes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import meter_of
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter
from fasp_core.model.loading import load
from fasp_core.model.packing import pack
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.entries import find
from fasp_core.storage.store import Store
from fasp_core.studies.explain import explain, shapley
from fasp_core.studies.explain.plan import Plan

COMMITTED = Path(__file__).resolve().parents[2] / "cache"


@pytest.mark.slow
def test_parts_of_a_set_of_thirteen_heads_are_near_their_shapley_values(tmp_path: Path) -> None:
    shutil.copytree(COMMITTED / "words", tmp_path / "words")
    lm, store = load(ModelSpec()), Store(tmp_path)
    table = find(TextConfig(tokens=8192), BiasConfig("race_ethnicity"), lm.id, lm.name, Store(COMMITTED))
    assert table is not None
    heads = PruneSet.of(select(table.head_scores("neutral"), "fasp", 0.3, 0.05).heads)
    assert len(heads.heads) == 13
    bias = BiasConfig("race_ethnicity", "test", 72)
    found = explain.run(lm, Plan(heads, bias, TextConfig(tokens=256, window=128, stride=128)), store)

    runner, prompts = CachedRunner(lm), bias.prompts()
    gauge = meter_of(lm, bias, store, runner)
    assert isinstance(gauge, ExpectedMeter)
    packs, (codes, _) = pack(lm, gauge.rows, bias.steps), group_codes(prompts.groups)
    names = [(layer, head) for layer, head, _ in found.plan.movers]

    def worth(joined: frozenset[int]) -> float:
        some = PruneSet.of([names[i] for i in joined])
        return float(gap(runner.expected(packs, gauge.worth, some)[0], codes))

    values, errors = shapley.sampled(worth, len(names), orders=6)
    parts = np.asarray(found.gap.values)
    assert parts.sum() == pytest.approx(values.sum(), rel=1e-3)
    assert np.corrcoef(parts, values)[0, 1] > 0.85
    assert np.abs(parts - values).mean() < 2 * errors.mean()
