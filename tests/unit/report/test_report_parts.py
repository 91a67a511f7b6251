"""Parts of a report that are there if they are stored: a scorecard, tasks."""

from __future__ import annotations

import datetime
import io
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fasp_core.report import data, page
from fasp_core.storage.store import Store
from fasp_core.studies.scorecard.lines import Line
from fasp_core.studies.scorecard.parts import Text
from tests.support.fakes import MADE
from tests.support.made.report import TOP, Read, asked, facts, numbers, small_lm, small_table
from tests.support.made.tasks import add_answers, use_tasks

WHEN = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_lines_of_a_scorecard_go_along(store: Store) -> None:
    assert "Scorecard" not in page.html(facts(store, asked(), small_table()), WHEN)
    lm, line = (
        small_lm(),
        Line("task", "x", "%", 50.0, 40.0, -10.0, "points", (-15.0, -5.0), "higher", "9 <i>", "worse"),
    )
    text, sentences = Text("paragraphs", 64), Text("perplexity", 64)
    for part, found in ((text, replace(line, name="y", outcome="cannot be told")), (sentences, line)):
        meta = {"lines": [found.as_dict()], "provenance": {**MADE, "created": "2026-02-02"}}
        store.save("experiments", part.key(lm.id, TOP), arrays={}, meta=meta)
    made = facts(store, asked(), small_table())
    read = Read(page.html(made, WHEN))
    assert made.card.sentence == "Of 2 measures 0 got better, 1 got worse, and of 1 no change can be told. Worse: x."
    assert read.said["scorecard"] == made.card.sentence
    assert read.rows["scorecard", "x"] == [
        "x", "50.0 %", "40.0 %", "-10.0 points [-15.0, -5.00]", "higher", "9 <i>", "▼ worse"
    ]  # fmt: skip
    assert read.rows["scorecard", "y"][-1] == "cannot be told"
    assert "2026-02-02" in read.text
    assert page.document(made, WHEN)["scorecard"] == made.card.as_dict()
    (again,) = (c for c in read.commands if " scorecard " in c)
    assert shlex.split(again)[-2:] == ["--heads", TOP.format()]
    assert not [c for c in read.commands if "--scorecard" in c]
    assert made.card == facts(store, asked(measure=False), small_table()).card


def test_tasks_that_both_models_answered(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tasks(tmp_path / "tasks", monkeypatch, 40)
    plain = page.html(facts(store, asked(), small_table()), WHEN)
    assert "Still able" not in plain
    add_answers(store, small_lm().id, TOP, "lambada", 100, 4)
    add_answers(store, small_lm().id, TOP, "piqa", 25, 0)
    made = facts(store, asked(), small_table())
    read = Read(page.html(made, WHEN))
    assert list(made.able.tasks) == ["lambada", "piqa"]
    for name, task in made.able.tasks.items():
        title, items, chance, both, points, nats, shows = read.rows["tasks", name]
        a = task.accuracy
        assert title.lower() == name
        assert numbers(items) == [len(task.items.items)]
        assert numbers(chance) == [100 * task.items.chance]
        assert numbers(both) == pytest.approx([100 * a.base, 100 * a.pruned], abs=0.051)
        assert numbers(points) == pytest.approx([a.points, *a.interval], abs=0.051)
        assert numbers(nats) == pytest.approx([task.likelihood["change"]], abs=0.0051)
        assert shows == task.sentence
    document = page.document(made, WHEN)
    assert document["utility"] == made.able.as_dict()
    (line,) = (c for c in read.commands if " utility " in c)
    assert shlex.split(line)[-4:] == ["--tasks", "lambada,piqa", "--items", "40"]
    # what the JSON and CSV of "Take home" hold
    frame = pd.read_csv(io.BytesIO(data.tasks_csv(made.able)))
    told = json.loads(data.tasks_json(made.able))["tasks"]
    for row in frame.to_dict("records"):
        task = told[row["task"]]
        assert row["points"] == pytest.approx(task["points"])
        assert [row["points_interval_low"], row["points_interval_high"]] == pytest.approx(task["points_interval"])
        assert row["nats_change"] == pytest.approx(task["likelihood"]["change"])
        assert row["said"] == task["said"]
