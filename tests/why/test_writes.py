"""Lists of words that heads write: which are marked as toxic, and weights that wait elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import cpu_offload

from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.explain import writes
from tests.support.tiny import STARTS, tiny_lm
from tests.support.words import COLORS, TableScorer
from tests.support.worlds import use_scorer, write_axis


@pytest.fixture
def bias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BiasConfig:
    use_scorer(monkeypatch, TableScorer(), complete=False)
    axis = write_axis(tmp_path / "axis.csv", ("person", "house", "team"), ("met", "saw"), STARTS[:4], COLORS)
    return BiasConfig(axis, "valid", 30)


def written(lm: LanguageModel, bias: BiasConfig, store: Store) -> pd.DataFrame:
    return writes.run(lm, bias, 1, store).frame


@pytest.mark.parametrize("place", [0, 1])
def test_toxic_words_are_marked_wherever_they_begin(
    place: int, bias: BiasConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts may end in a full stop: a word begins there without the mark of one."""
    lm, token = tiny_lm("llama"), 7
    values = np.zeros((2, 2, len(lm.tokenizer)), dtype=np.float32)
    values[place, 1, token] = 0.9
    monkeypatch.setattr(writes, "stored_word_values", lambda *_: SimpleNamespace(values=values))
    monkeypatch.setattr(writes, "WORDS", len(lm.tokenizer))
    frame = written(lm, bias, Store(tmp_path / "store"))
    assert set(frame.loc[frame["toxicity"] >= writes.TOXIC, "token"]) == {lm.tokenizer.decode([token])}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text", "opt"])
def test_weights_may_wait_in_main_memory(kind: str, bias: BiasConfig, tmp_path: Path) -> None:
    lm = tiny_lm(kind)
    whole = written(lm, bias, Store(tmp_path / "whole"))
    cpu_offload(lm.model, torch.device("cpu"))
    assert lm.out_proj(1).weight.is_meta
    found = written(lm, bias, Store(tmp_path / "offloaded"))
    pd.testing.assert_frame_equal(found, whole)
    assert lm.out_proj(1).weight.is_meta
