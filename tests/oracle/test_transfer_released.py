"""Correlations between axes in the scores that the FASP authors released."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fasp_core import released as published
from fasp_core.heads.selection import critical_heads
from fasp_core.studies.transfer.correlation import KINDS, over_heads

JSON = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "fasp_released" / "head_contributions.json"
pytestmark = pytest.mark.skipif(not JSON.is_file(), reason=f"no released scores: {JSON} does not exist")


@pytest.mark.parametrize("model", ["gpt2", "distilgpt2"])
def test_released_axes_correlate_as_scipy_says(model: str) -> None:
    released = published.read(JSON)
    axes = released.axes(model)
    scores = {axis: released.head_scores(model, axis) for axis in axes}
    z = {axis: np.asarray(s.z_bias) for axis, s in scores.items() if np.isfinite(np.asarray(s.z_bias)).all()}
    assert len(z) > 1
    drawn = {axis: np.repeat(x[:, None], 300, 1) for axis, x in z.items()}  # no prompts: over heads alone
    raw = json.loads(JSON.read_text())[model]
    ppl = np.array(raw["cont_to_ppl"])
    everything = np.arange(len(ppl))
    free = np.argsort(-ppl, kind="stable")[int(0.3 * len(ppl)) :]
    assert set(free) == set(everything) - set(critical_heads(ppl, 0.3).tolist())
    for ids in (everything, free):
        for kind, reference in zip(KINDS, (stats.spearmanr, stats.pearsonr), strict=True):
            for (one, other), found in over_heads(z, drawn, ids, kind).items():
                metric = [np.array(raw[f"cont_to_{axis}_bias"])[ids] for axis in (one, other)]
                assert found.value == pytest.approx(reference(*metric).statistic)
                assert found.low <= found.value <= found.high
