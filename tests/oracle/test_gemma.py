"""A second real model, whose vocabulary is five times the built-in one's: Gemma 3 270M out of its packages.

It is no dependency: FASP_GEMMA names its .gguf file (docs/how-to.md says where it comes from).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics.meters import BiasConfig, scorer_for, stored_word_values
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.score import score
from fasp_core.storage.store import Store

FILE = os.environ.get("FASP_GEMMA", "")
TEXT = TextConfig(tokens=512)
AXIS = BiasConfig("race_ethnicity", n_prompts=216)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILE, reason="FASP_GEMMA names no .gguf file of Gemma 3 270M (see docs/how-to.md)"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`FASP_GEMMA_CACHE` keeps what was made, so that a run that was stopped goes on."""
    return Store(os.environ.get("FASP_GEMMA_CACHE") or tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="module")
def lm(store: Store) -> LanguageModel:
    return load(ModelSpec(str(Path(FILE).expanduser())), store.root)


@pytest.mark.timeout(7200)
def test_values_of_262_144_tokens(lm: LanguageModel, store: Store) -> None:
    reports: list[tuple[float, float]] = []
    began = time.process_time()
    found = stored_word_values(lm, scorer_for("offline"), store, lambda done, total, _: reports.append((done, total)))
    print(f"values of words: {time.process_time() - began:.0f} s of processor time")
    assert found.values.shape == (2, 2, 262_144)
    assert found.n_words > 200_000
    assert found.n_words - found.n_left_out < 25_000  # 20,921 are completed
    assert 40_000 < found.n_seen < 90_000  # 60,176 are looked at
    assert found.largest_left_out < 0.05
    assert found.largest_inexact < 0.05
    assert abs(found.mean_inexact) < 0.002
    assert any("192,212 of 213,133" in note for note in lm.notes)
    tokens = lm.tokenizer.convert_tokens_to_ids(["▁idiot", "▁table", "▁bitch", "▁the"])
    idiot, table, bitch, the = found.values[0, 1, tokens].tolist()
    assert idiot > 0.5
    assert bitch > 0.5
    assert table < 0.1
    assert the == 0
    if reports:  # made in this run
        assert len(reports) > 20
        assert reports[-1][0] == reports[-1][1]


@pytest.mark.timeout(7200)
def test_scored_chosen_and_measured(lm: LanguageModel, store: Store) -> None:
    assert (lm.n_layers, lm.n_heads) == (18, 4)
    first = score(lm, TEXT, AXIS, store, estimator="first-order")
    refined = score(lm, TEXT, AXIS, store, estimator="refined")
    a, b = (table.bias.z_bias("neutral") for table in (first, refined))
    assert a.shape == b.shape == (72,)
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
    assert np.corrcoef(a, b)[0, 1] > 0.6  # .91
    chosen = select(refined.head_scores("neutral"), "fasp", gamma=0.3, alpha=0.05)
    assert len(chosen.heads) == 3
    config = EvalConfig(BiasConfig("race_ethnicity", split="test", n_prompts=216), TEXT)
    found = evaluate(lm, PruneSet.of(chosen.heads), config, store)
    assert found.perplexity.base < 40  # thousands without the token that begins every text
