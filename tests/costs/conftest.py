"""A world that commands about costs find: tiny passages and a task in place of those that are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasp_core.data import passages
from fasp_core.tasks import files
from tests.support.commands import write_sentences
from tests.support.made import tiny_passages, tiny_questions, write_task
from tests.support.worlds import use_scorer, write_model


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with passages, LAMBADA, the model `tiny` of two layers and `axis.csv`; a cache of its own, a scorer."""
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    monkeypatch.setattr(passages, "folder", lambda: tmp_path)
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    use_scorer(monkeypatch, complete=False)
    tiny_passages(tmp_path)
    write_task(tmp_path, "lambada", tiny_questions(60, 1, 3))
    write_model(tmp_path / "tiny", n_layers=2)
    write_sentences(tmp_path / "axis.csv")
    return tmp_path
