"""The page "Take home" in every state that a reader can see, without a browser and without a model."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fasp_core.cli.main import main
from fasp_core.data.text import SCORE_TEXT, TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig
from fasp_core.heads.prune_files import read
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHAPE, ModelSpec
from fasp_core.report import data
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits
from fasp_core.studies.compare.plan import HELD_OUT
from fasp_core.studies.scorecard.lines import Line
from fasp_core.studies.scorecard.parts import Text
from fasp_core.studies.verdict import verdict
from fasp_core.tasks import utility
from pages.session import shared
from pages.take_home import data as take_data
from pages.take_home.report import Written
from tests.support.fakes import MADE, Studio
from tests.support.made.report import Read
from tests.support.made.tasks import add_answers, use_tasks
from tests.support.running import AXIS, HAND, N_HEADS, metric, opened, press, removed, run, said

RUN = "Measure and write the report"


@pytest.fixture
def table(studio: Studio) -> ImpactTable:
    return studio.add_scores(AXIS)


def taking(**state: Any) -> AppTest:
    at = opened("take_home", **{"alpha": 0.02, "gamma": 0.3, **state})
    while "load job" in at.session_state and at.session_state["load job"].state in ("waiting", "running"):
        run(at)  # the checkpoint's part needs the model
    return run(at)


def start(at: AppTest) -> AppTest:
    return press(at, RUN)


def written(at: AppTest) -> Written:
    (job,) = at.session_state["jobs seen"].values()
    result: Written = job.result
    return result


def downloads(at: AppTest) -> list[str]:
    return [d.proto.label for d in at.get("download_button")]


def test_without_scores_they_are_offered(studio: Studio) -> None:
    at = taking()
    assert [s.value for s in at.subheader] == ["No scores yet for this model and axis"]
    assert [b.label for b in at.button] == ["Score all heads"]
    assert not downloads(at)


def test_what_is_about_to_be_taken(studio: Studio, table: ImpactTable) -> None:
    at = taking(**{HAND: ManualEdits(frozenset({0}), frozenset()), "neurons": "L3N7"})
    chosen = select(table.head_scores("neutral"), "fasp", 0.3, 0.02).pruned
    around = select(table.head_scores("neutral"), "fasp", 0.3, 0.02, forced=(0,)).pruned
    expected = PruneSet(PruneSet.from_flat(around, N_HEADS).heads, frozenset({(3, 7)}))
    assert removed(at) == len(expected.heads)
    assert at.code[0].value == expected.format()
    assert "1 set by hand" in said(at)
    assert "And 1 neuron." in said(at)
    parts = ["Report", "No report on this set yet", "Data", "Figures", "Pruned checkpoint", "Write the checkpoint"]
    assert [s.value for s in at.subheader] == parts
    assert downloads(at)[:6] == ["Write it without measuring", "CSV", "Parquet", "JSON", "Set (JSON)", "Set (text)"]
    assert downloads(at)[6:] == ["Interactive"] * 3
    assert not studio.asked  # nothing runs unasked
    assert removed(press(at, "reset")) == len(chosen)


def test_the_report_is_measured_on_test_prompts_and_kept(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    at = start(taking())
    result = written(at)
    e = result.evaluation
    assert e is not None
    assert e.config == EvalConfig(BiasConfig(AXIS, "test", 450), TextConfig(tokens=1024, skip=HELD_OUT))
    assert {text.skip for _, text in studio.asked} == {HELD_OUT}
    r = e.readings["neutral"]
    expected, good = verdict(r, e.perplexity.relative, f"{r.base.n} test prompts")
    assert good
    assert expected in [s.value for s in at.success]
    parsed = Read(result.content.decode())
    assert parsed.said["verdict"] == expected
    assert parsed.said["set"] == at.code[0].value
    assert any(label.startswith("Download the report (HTML") for label in downloads(at))
    assert downloads(at).count("Interactive") == 4  # the groups, too
    assert RUN not in [b.label for b in at.button]
    # another set has no report yet
    at.session_state[HAND] = ManualEdits(frozenset({0}), frozenset())
    assert RUN in [b.label for b in run(at).button]
    assert downloads(at).count("Interactive") == 3


def test_groups_by_the_offline_scorer_are_no_figure_of_another(studio: Studio, table: ImpactTable, judge: str) -> None:
    studio.at_once()
    at = start(taking())
    assert downloads(at).count("Interactive") == 4
    at.session_state["scorer"] = judge
    assert downloads(run(at)).count("Interactive") == 3
    assert "write the report, above" not in said(at)  # there is none for this scorer


@pytest.mark.parametrize(
    ("state", "options"),
    [
        ({}, ["--method", "fasp", "--gamma", "0.3", "--alpha", "0.02"]),
        ({"method": "magnitude"}, ["--method", "magnitude", "--alpha", "0.02"]),
        ({"lambada_points": 2.0}, ["--alpha", "0.02", "--max-lambada-points", "2"]),
        (
            {HAND: ManualEdits(frozenset({0}), frozenset()), "reading": "counted", "neurons": "L3N7"},
            ["--method", "fasp", "--alpha", "0.02", "--reading", "counted", "--force", "L0H0", "--heads"],
        ),
    ],
)
def test_page_and_command_write_the_same_report(
    studio: Studio,
    table: ImpactTable,
    state: dict[str, Any],
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studio.at_once()
    at = start(taking(**state))
    of_the_page = written(at).content.decode()
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda spec, _cache: studio.load(spec))
    heads = [at.code[0].value] if options[-1] == "--heads" else []
    given = [*options, *heads, "--cache", str(studio.store.root), "--out", str(tmp_path / "r.html")]
    assert main(["report", "--axis", AXIS, *given]) == 0
    of_the_command = (tmp_path / "r.html").read_text()
    assert timeless(of_the_command) == timeless(of_the_page)
    # and so does the line that the report itself names
    (line,) = (c for c in Read(of_the_page).commands if " report " in c)
    words = line.replace("report.html", str(tmp_path / "again.html")).split()[3:]
    assert main([*words, "--cache", str(studio.store.root)]) == 0
    assert timeless((tmp_path / "again.html").read_text()) == timeless(of_the_page)


def timeless(html: str) -> str:
    return re.sub(r"<time.*?</time>", "<time>", html)


def test_running_cancelled_failed(studio: Studio, table: ImpactTable) -> None:
    studio.open.clear()
    at = start(taking())
    assert "Cancel" in [b.label for b in at.button]
    assert RUN not in [b.label for b in at.button]
    assert "Write it without measuring" not in downloads(at)
    (cancel,) = (b for b in at.button if b.label == "Cancel")
    cancel.click()
    studio.running().cancel()
    studio.finish()
    assert "Cancelled. What was measured is kept" in said(run(at))
    studio.open.set()
    studio.error = InputError("The model is too large: choose a smaller one.")
    at = start(at)
    studio.finish()
    assert "The model is too large: choose a smaller one." in said(run(at))
    assert RUN in [b.label for b in at.button]


def test_where_nothing_is_removed(studio: Studio, table: ImpactTable) -> None:
    at = taking(alpha=0.0)
    assert removed(at) == 0
    assert "Nothing is removed" in said(at)
    assert RUN not in [b.label for b in at.button]
    assert "Write it without measuring" in downloads(at)


def test_a_gap_that_is_not_there_is_no_success(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    studio.base_gap = studio.pruned_gap = 0.0
    at = start(taking())
    assert not at.success
    assert any(w.value.startswith("No gap is shown to begin with") for w in at.warning)


# --- data ---


def test_scores_are_the_same_in_every_form_and_select_reads_them(
    table: ImpactTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = select(table.head_scores("neutral"), "fasp", 0.3, 0.02)
    told = {"forced": {0}, "locked": plain.pruned[:1]}
    selection = select(table.head_scores("neutral"), "fasp", 0.3, 0.02, **told)
    rows = data.frame(table, selection)
    off = selection.pruned
    assert 0 in off
    assert plain.pruned[0] not in off
    assert [i for i, x in enumerate(rows.removed) if x] == sorted(off)
    assert [i for i, x in enumerate(rows.critical) if x] == list(selection.critical)
    assert sum(rows.by_hand) == 2
    parts = PruneSet.from_flat(off, N_HEADS)
    document, raw = data.set_json(selection, parts, model=BUILT_IN, axis=AXIS, reading="neutral")
    assert read(raw, "set", BUILT_IN_SHAPE).parts == parts
    about = json.loads(data.scores_json(table, BiasConfig(AXIS), SCORE_TEXT, rows, document))
    assert about["set"] == document
    assert about["prompts"] == len(table.bias.codes)
    for found in (
        pd.read_csv(io.BytesIO(data.csv(rows))),
        pd.read_parquet(io.BytesIO(data.parquet(rows))),
        pd.DataFrame(about["scores"]),
    ):
        assert [*found] == [*rows]
        np.testing.assert_allclose(found.to_numpy(float), rows.to_numpy(float))
    for name, content in (("s.csv", data.csv(rows)), ("s.parquet", data.parquet(rows))):
        (tmp_path / name).write_bytes(content)
        capsys.readouterr()
        hand = ["--force", "L0H0", "--lock", PruneSet.from_flat(plain.pruned[:1], N_HEADS).format()]
        assert main(["select", "--scores", str(tmp_path / name), "--alpha", "0.02", *hand, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["heads"] == [list(h) for h in selection.heads]


def test_a_set_that_is_used_is_exactly_what_is_off(studio: Studio, table: ImpactTable) -> None:
    """What the button does, and then both pages."""
    wanted = PruneSet.parse("L0H1,L5H5,L18H8,L3N7")
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shared.st, "session_state", found)
        take_data.use(wanted)
    at = taking(**found)
    assert at.code[0].value == wanted.format()
    assert removed(opened(**found)) == 3
    assert at.session_state[HAND] == ManualEdits(frozenset(wanted.flat(N_HEADS)))


def upload(at: AppTest, name: str, content: bytes) -> AppTest:
    at.get_by_key("set file").set_value((name, content, "application/json"))
    return run(at)


def test_an_uploaded_set_is_shown_and_used(studio: Studio, table: ImpactTable) -> None:
    content = json.dumps({"heads": [[0, 1], [5, 5]], "neurons": [[3, 7]], "model": "<b>x</b>", "axis": AXIS})
    at = upload(taking(), "mine.json", content.encode())
    assert metric(at, "The file holds").value == "2 of 270 heads and 1 neuron"
    assert any("chosen for another model" in w.value for w in at.warning)
    assert [t.value for t in at.text] == [f"<b>x</b>, {AXIS}"]  # as text, never as markup
    press(at, "use set")
    assert removed(at) == 2
    assert at.title[0].value == "Which heads carry bias?"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "is not a head"),
        (b"{}", "holds no prune set"),
        (b"L30H0", "L30H0 does not exist"),
        (b'{"heads": [], "shape": [12, 12]}', "12 layers of 12 heads"),
        (b" " * 1_000_001, "larger than 1 MB"),
    ],
)
def test_an_unusable_upload_is_told(studio: Studio, table: ImpactTable, content: bytes, words: str) -> None:
    at = upload(taking(), "mine.json", content)
    assert [e.value for e in at.error if words in e.value and "mine.json" in e.value]
    assert "Use this set on Explore heads" not in [b.label for b in at.button]


def test_tasks_go_along_where_they_were_asked(
    studio: Studio, table: ImpactTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tasks(tmp_path / "tasks", monkeypatch, 40)
    studio.at_once()
    at = taking()
    assert "Tasks (CSV)" not in downloads(at)
    before = written(start(at)).content.decode()
    add_answers(studio.store, studio.load(ModelSpec()).id, PruneSet.parse(at.code[0].value), "lambada", 40, 4)
    run(at)
    assert {"Tasks (CSV)", "Tasks (JSON)"} <= set(downloads(at))
    assert RUN in [b.label for b in at.button], "with them it is another report"
    start(at)
    after = at.session_state["report measured"][0]
    assert after[2] == PruneSet.parse(at.code[0].value)
    (found,) = {job.result.content.decode() for job in at.session_state["jobs seen"].values()} - {before}
    assert "LAMBADA" in Read(found).rows["tasks", "lambada"][0]
    assert "Still able" not in before


def test_a_report_that_asks_tasks_is_found_when_they_are_stored(
    studio: Studio, table: ImpactTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tasks(tmp_path / "tasks", monkeypatch, 40)

    def asks(lm: Any, subject: PruneSet, samples: list[Any], *_: Any) -> None:
        for sample in samples:
            add_answers(studio.store, lm.id, subject, sample.task, len(sample.items), 4)

    monkeypatch.setattr(utility, "utility", asks)
    studio.at_once()
    at = taking()
    at.select_slider(key="report items").set_value(100)
    start(run(at))
    assert RUN not in [b.label for b in at.button]
    assert len(Read(written(at).content.decode()).tables["tasks"]) == 4


def test_a_scorecard_goes_along_once_it_is_measured(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    at = taking()
    assert "its scorecard (page Scorecard) once that is measured" in said(at)
    before = written(start(at)).content.decode()
    heads, part = PruneSet.parse(at.code[0].value), Text("perplexity", 640)
    line = Line("perplexity", "of x", "", 20.0, 22.0, 10.0, "%", (8.0, 12.0), "lower", "640 tokens", "worse")
    key = part.key(studio.load(ModelSpec()).id, heads)
    studio.store.save("experiments", key, arrays={}, meta={"lines": [line.as_dict()], "provenance": MADE})
    assert "the 1 lines of its scorecard" in said(run(at))
    start(at)
    (found,) = {job.result.content.decode() for job in at.session_state["jobs seen"].values()} - {before}
    assert Read(found).rows["scorecard", "of x"][-1] == "▼ worse"
