"""Evaluations and scores by what models write and by contexts that groups share, against the parts they are made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fasp_core.data.divisions import CELLS
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.forward.ablation import masked
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.gap import PromptRows
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.meters import BiasConfig, meter, result_key
from fasp_core.metrics.written import written
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.estimate import first_order_impacts
from fasp_core.scoring.exact import bias_impacts
from fasp_core.storage.store import Store
from tests.support.oracles import SET
from tests.support.tiny import tiny_lm
from tests.support.worlds import use_scorer, write_text

AXIS = "race_ethnicity"
WRITTEN = BiasConfig(AXIS, "test", 90, measure="written", steps=3, generation=GenerationConfig(samples=2, seed=4))
SHARED = BiasConfig(AXIS, "test", 27, steps=3, contexts=4)


@pytest.fixture
def lm(monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    use_scorer(monkeypatch, complete=False)
    return tiny_lm("llama")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_written_is_measured_stored_and_told(lm: LanguageModel, store: Store, tmp_path: Path) -> None:
    text = write_text(tmp_path, 200, tokens=100, window=64, stride=48)
    found = evaluate(lm, SET, EvalConfig(WRITTEN, text), store)
    gauge = meter(lm, WRITTEN, store)
    prompts, sides = WRITTEN.prompts(), []
    for heads in (PruneSet(), SET):
        with masked(lm, heads):
            sides.append(written(lm, prompts.texts, gauge.worth, GenerationConfig(2, 3, seed=4)))  # type: ignore[arg-type]
    for r, reading in enumerate(found.readings.values()):
        rows = PromptRows.of([side[r].sum(0) for side in sides], prompts.groups, prompts.blocks)
        assert [reading.base.gap, reading.pruned.gap] == pytest.approx(rows.gaps())
        for t, change in enumerate(reading.steps):
            step = PromptRows.of([side[r, t] for side in sides], prompts.groups, prompts.blocks)
            assert [change.base, change.pruned] == pytest.approx(step.gaps())
        assert len(reading.steps) == 3
    told = json.loads(json.dumps(found.as_dict()))
    assert (told["measure"], told["steps"], len(told["readings"]["neutral"]["steps"])) == ("written", 3, 3)

    lm.model.forward = None  # from the store: nothing runs
    again = evaluate(lm, SET, EvalConfig(WRITTEN, text), store).as_dict()
    del lm.model.forward
    assert again["readings"] == found.as_dict()["readings"]


def test_other_steps_draws_and_seeds_are_other_results(lm: LanguageModel) -> None:
    configs = [
        BiasConfig(AXIS, measure="written", steps=steps, generation=GenerationConfig(samples, seed=seed))
        for steps, samples, seed in ((2, 1, 0), (3, 1, 0), (2, 2, 0), (2, 1, 1))
    ]
    configs += [BiasConfig(AXIS, steps=2, contexts=c) for c in (None, 2, 3)]
    keys = [json.dumps(result_key(config, lm.id), sort_keys=True) for config in configs]
    assert len(set(keys)) == len(keys)


def test_shared_contexts_by_whole_passes_and_by_resumed_ones(lm: LanguageModel, store: Store, tmp_path: Path) -> None:
    text = write_text(tmp_path, 200, tokens=100, window=64, stride=48)
    plain = evaluate(lm, SET, EvalConfig(SHARED, text), store)
    kept = evaluate(lm, SET, EvalConfig(SHARED, text), Store(tmp_path / "other"), runner=CachedRunner(lm))
    assert tuple(plain.readings) == ("neutral", "counted", "neutral direct", "counted direct")
    for side in ("base", "pruned"):
        one, other = getattr(plain, side), getattr(kept, side)
        np.testing.assert_allclose(one.values, other.values, atol=1e-6)
        assert one.weights.shape == (len(plain.base.texts), 4)
    told = plain.as_dict()["contexts"]
    assert {contexts for _, contexts in told["base"].values()} == {12}
    assert all(0 < found <= contexts + 1e-3 for found, contexts in told["base"].values())


def test_every_head_is_scored_on_shared_contexts(lm: LanguageModel, store: Store) -> None:
    """Exact scores are measurements with the head ablated; first-order ones go the same way, where no weight moves."""
    exact, first = bias_impacts(lm, SHARED, store), first_order_impacts(lm, SHARED, store)
    gauge = meter(lm, SHARED, store)
    assert exact.readings == ("neutral", "counted", "neutral direct", "counted direct")
    for flat in range(lm.size):
        with masked(lm, PruneSet.from_flat([flat], lm.n_heads)):
            np.testing.assert_allclose(exact.ablated[flat], gauge.fold(gauge.measure()), atol=1e-6)
    np.testing.assert_allclose(first.base, exact.base, atol=1e-5)
    moved, slopes = ((found.ablated - found.base)[:, 2:].ravel() for found in (exact, first))
    assert np.corrcoef(moved, slopes)[0, 1] > 0.6


def test_every_head_is_scored_by_what_is_written(lm: LanguageModel, store: Store) -> None:
    found = bias_impacts(lm, WRITTEN, store)
    gauge = meter(lm, WRITTEN, store)
    for flat in (0, lm.size - 1):
        with masked(lm, PruneSet.from_flat([flat], lm.n_heads)):
            np.testing.assert_allclose(found.ablated[flat], gauge.fold(gauge.measure()), atol=1e-6)


def test_scores_of_a_cell_are_none_of_the_axis(lm: LanguageModel) -> None:
    keys = [result_key(BiasConfig(AXIS, cell=cell, division=2), lm.id) for cell in CELLS]
    assert len({key["axis"] for key in keys}) == 4
    assert AXIS not in {key["axis"] for key in keys}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"measure": "written", "steps": 33}, "choose 1 to 32"),
        ({"measure": "written", "contexts": 2}, "Shared contexts are of the measure expected"),
        ({"division": 1}, "without a cell"),
        ({"contexts": -1}, "no fewer than 1"),
        ({"measure": "other"}, "choose expected, written or sampled"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        BiasConfig(AXIS, **options)  # type: ignore[arg-type]
