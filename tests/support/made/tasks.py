"""Tasks in files of their own, and answers of a made-up model where the program looks for stored ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasp_core import defaults
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.identity import ModelId
from fasp_core.storage.store import Store
from fasp_core.tasks import answers, files
from tests.support.fakes import MADE
from tests.support.made import tiny_questions, write_task


def use_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch, items: int = 40) -> None:
    """Let the tasks that are usually asked be these: items of 1, 2 and 3 answers in words of the tiny tokenizer."""
    for seed, task in enumerate(defaults.TASKS):
        write_task(folder, task, tiny_questions(items, seed + 1, seed))
    monkeypatch.setattr(files, "folder", lambda: folder)


def add_answers(
    store: Store, model: ModelId, heads: PruneSet, task: str, items: int, lost: int, seed: int = 0, wrong: int = 0
) -> None:
    """Store that of every ten items the unpruned model has the first `wrong` wrong, and the pruned one `lost`."""
    put_answers(store, model, heads, files.sample(task, items, seed), lost, seed, wrong)


def put_answers(
    store: Store, model: ModelId, heads: PruneSet, sample: files.Items, lost: int, seed: int = 0, wrong: int = 0
) -> None:
    """The same of a sample that was drawn."""
    for side, missed in ((PruneSet(), wrong), (heads, lost)):
        at = 0
        for part in answers.parts(sample):
            values, greedy = [], []
            for i, item in enumerate(part.items, start=at):
                right = i % 10 >= missed
                own = np.full(len(item.continuations), -5.0)
                own[item.right] = -1.0 if right else -9.0
                values += own.tolist()
                greedy += [right] * len(own)
            at += len(part.items)
            n = len(values)
            arrays = {"values": np.array(values), "greedy": np.array(greedy), "cut": np.zeros(n, dtype=bool)}
            store.save(answers.KIND, answers.key(model, side, part, seed), arrays=arrays, meta={"provenance": MADE})
