"""Answers of the built-in model, item by item, against lm-evaluation-harness's own model class on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.tasks import files
from fasp_core.tasks.answers import answers_of

HEADS = ((2, 5), (4, 0), (8, 1), (8, 3), (10, 7))
ITEMS = 4


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load(ModelSpec(device="cpu"))


@contextmanager
def zeroed(lm: LanguageModel, heads: tuple[tuple[int, int], ...]) -> Iterator[None]:
    """The weights behind these heads are zero for the time of the `with` block."""
    size, kept = lm.head_dim, {}
    for layer, head in heads:
        columns = lm.model.model.layers[layer].self_attn.o_proj.weight.data[:, head * size : (head + 1) * size]
        kept[layer, head] = columns.clone()
        columns.zero_()
    try:
        yield
    finally:
        for (layer, head), columns in kept.items():
            lm.model.model.layers[layer].self_attn.o_proj.weight.data[:, head * size : (head + 1) * size] = columns


@pytest.mark.slow
@pytest.mark.parametrize("heads", [(), HEADS], ids=["unpruned", "pruned"])
@pytest.mark.parametrize("task", ["lambada", "arc_easy"])
def test_the_same_numbers_item_by_item(
    lm: LanguageModel, task: str, heads: tuple[tuple[int, int], ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    sample = files.sample(task, ITEMS)
    store = Store(tmp_path_factory.mktemp("answers"))
    ours = answers_of(lm, PruneSet.of(heads), sample, 0, store)
    harness = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, device="cpu", batch_size=1)
    with zeroed(lm, heads), torch.no_grad():
        pairs = [pair for item in sample.items for pair in item.pairs]
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        theirs = harness.loglikelihood(requests, disable_tqdm=True)
    (entry,) = store.entries("tasks")
    values, greedy = (store.load("tasks", entry.config).arrays[name] for name in ("values", "greedy"))  # type: ignore[union-attr]
    np.testing.assert_allclose(values, [value for value, _ in theirs], atol=1e-3)
    assert greedy.tolist() == [bool(mine) for _, mine in theirs]
    at = 0
    for i, item in enumerate(sample.items):
        own = theirs[at : at + len(item.continuations)]
        at += len(own)
        right = bool(own[0][1]) if len(own) == 1 else int(np.argmax([v for v, _ in own])) == item.right
        assert ours.right[i] == right
