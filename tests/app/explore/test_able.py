"""The tab "Still able" of Explore with a tiny model that really answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fasp_core import defaults
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits
from fasp_core.storage.store import Store
from fasp_core.tasks import answers, files
from fasp_core.tasks.utility import utility
from pages.backend.engine import engine
from pages.backend.requests import Able
from tests.support.fakes import Studio
from tests.support.made import Question, write_task
from tests.support.made.tasks import add_answers, use_tasks
from tests.support.running import AXIS, change, exploring, press, run, said
from tests.support.tiny import tiny_lm
from tests.support.tiny_studio import SOURCE, TinyStudio

TAB, ITEMS = "Still able", 40


@pytest.fixture
def kind() -> type[Studio]:
    return TinyStudio


@pytest.fixture
def table(studio: TinyStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImpactTable:
    use_tasks(tmp_path / "tasks", monkeypatch, ITEMS)
    return studio.add_scores(AXIS, SOURCE)


def at_tab(name: str = TAB, **state: Any) -> AppTest:
    return exploring(model=SOURCE, details=name, alpha=0.25, **state)


def rows(at: AppTest) -> pd.DataFrame:
    (found,) = [d.value for d in at.main.dataframe if "what it shows" in d.value]
    return found


def test_it_is_asked_on_request_and_narrows(
    studio: TinyStudio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.at_once()
    scored = []
    real = answers.log_likelihoods
    monkeypatch.setattr(
        answers, "log_likelihoods", lambda lm, pairs, *a: scored.append(len(pairs)) or real(lm, pairs, *a)
    )
    at = at_tab()
    assert "Not asked yet" in said(at)
    assert "job able" not in at.session_state
    press(at, "measure able")
    job = at.session_state["job able"]
    heads = at.session_state["job main"].key.heads
    assert job.key == Able(ModelSpec(SOURCE), heads, defaults.TASKS, defaults.TASK_ITEMS)
    assert sum(scored) == 2 * ITEMS * (1 + 2 + 3), "more items take over those of fewer"
    frame, tasks = rows(at), job.result.tasks
    assert frame.task.tolist() == ["LAMBADA", "PIQA", "ARC-Easy"]
    assert frame["items"].tolist() == ["40"] * 3
    assert frame["what it shows"].tolist() == [task.sentence for task in tasks.values()]
    samples = [files.sample(task, defaults.TASK_ITEMS) for task in defaults.TASKS]
    alone = utility(tiny_lm("llama"), heads, samples, 0, 300, Store(studio.store.root / "other"))
    assert [t.as_dict() for t in alone.tasks.values()] == [t.as_dict() for t in tasks.values()]
    assert "holds 40 items: all of them were taken" in said(at)

    # another reader sees what is stored at once, of the same set alone
    again = at_tab()
    assert "Stored answers" in said(again)
    assert rows(again).equals(frame)
    assert "job able" not in again.session_state
    again.session_state[f"by_hand {SOURCE}"] = ManualEdits(prune=frozenset({0, 1, 2}))
    assert "Not asked yet" in said(run(again))
    again.session_state[f"by_hand {SOURCE}"] = ManualEdits(keep=frozenset(range(8)))
    assert "Nothing is removed" in said(run(again))
    again.session_state[f"by_hand {SOURCE}"] = ManualEdits()
    # of other tasks, those that are stored
    run(again)
    change(again, **{"able tasks": ["piqa", "boolq"]})
    assert rows(again).task.tolist() == ["PIQA"]
    change(again, **{"able tasks": []})
    assert "Choose a task" in said(again)
    assert again.button(key="measure able").disabled


def test_it_follows_every_gap_where_that_is_wished(studio: TinyStudio, table: ImpactTable) -> None:
    studio.at_once()
    at = at_tab("Groups")
    assert "job able" not in at.session_state
    at.session_state["details"] = TAB
    run(at)
    change(at, **{"able auto": True})
    first = at.session_state["job able"].key
    assert first.heads == at.session_state["job main"].key.heads
    at.session_state["details"] = "Groups"
    at.session_state[f"by_hand {SOURCE}"] = ManualEdits(prune=frozenset({0, 1, 2}))
    run(at)
    second = at.session_state["job able"]
    assert second.key.heads == at.session_state["job main"].key.heads != first.heads
    assert second.state == "done"


def test_it_can_be_cancelled_and_is_not_asked_again_by_itself(
    studio: TinyStudio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine().models.get(ModelSpec(SOURCE))

    def slowly(_lm: Any, pairs: Any, progress: Any) -> Any:
        while not studio.open.wait(0.01):
            progress(0, len(pairs), "waiting")
        raise InputError("This is as far as it goes.")

    at = at_tab(**{"able auto": True, "able tasks": ["piqa"]})
    studio.finish()
    studio.open.clear()
    monkeypatch.setattr(answers, "log_likelihoods", slowly)
    run(at)
    job = at.session_state["job able"]
    assert job.state in ("waiting", "running")
    press(at, "cancel able")
    assert job.wait(20)
    assert job.state == "cancelled"
    run(at)
    assert at.session_state["job able"] is job
    assert "Not asked yet" in said(at)
    press(at, "measure able")
    other = at.session_state["job able"]
    at.session_state[f"by_hand {SOURCE}"] = ManualEdits(prune=frozenset({0, 1, 2}))
    change(at, **{"able auto": False})
    assert other.wait(20)
    assert other.state == "cancelled", "another set does not wait behind it"
    studio.open.set()
    press(at, "measure able")
    studio.finish()
    run(at)
    assert "This is as far as it goes" in said(at)


def test_what_is_missing_or_damaged_is_one_sentence(
    studio: TinyStudio, table: ImpactTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.at_once()
    write_task(tmp_path / "tasks", "piqa", [Question("What?", (" <b>x</b>", " y"), 0)]).write_bytes(b"not gzip")
    at = at_tab()
    press(at, "measure able")
    (error,) = at.error
    assert "reinstall them with" in error.value

    def missing() -> Path:
        raise InputError("The data package 'x' is not installed: run 'pip install y'.")

    monkeypatch.setattr(files, "folder", missing)
    at = at_tab()
    assert "run 'pip install y'" in said(at)
    assert not [b for b in at.button if b.key == "measure able"]


def test_a_task_that_the_model_cannot_do_tells_nothing(studio: TinyStudio, table: ImpactTable) -> None:
    studio.at_once()
    at = at_tab()
    heads, lm = at.session_state["job main"].key.heads, tiny_lm("llama")
    add_answers(studio.store, lm.id, heads, "lambada", 40, 5)
    add_answers(studio.store, lm.id, heads, "piqa", 40, 6, wrong=5)
    run(at)
    shown = rows(at).set_index("task")["what it shows"]
    assert shown["LAMBADA"].startswith("lost ")
    assert shown["PIQA"].startswith("tells nothing: the unpruned model's interval begins at ")


def test_a_demo_asks_few_items(studio: TinyStudio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = PruneSet.parse("L0H1")
    monkeypatch.setenv("FASP_DEMO", "1")
    Able(ModelSpec(), heads, ("piqa",), 100).check()
    for asked, words in (
        (Able(ModelSpec(), heads, ("piqa",), 101), "at most 100 items"),
        (Able(ModelSpec("org/other"), heads, ("piqa",), 10), "other models only"),
    ):
        with pytest.raises(InputError, match=words):
            engine().able(asked, "me")
    studio.add_scores(AXIS)
    studio.at_once()
    at = exploring(details=TAB)
    assert at.select_slider(key="able most").options == ["25", "100"]
