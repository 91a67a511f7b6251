"""The command `report` on a tiny model: its file, what it prints, how it refuses, and that `evaluate` says the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fasp_core.cli.main import main
from fasp_core.export import checking
from fasp_core.heads.prune_set import PruneSet
from fasp_core.studies.scorecard import scorecard
from tests.support.commands import Run, runner, write_sentences
from tests.support.made.report import Read
from tests.support.made.tasks import use_tasks
from tests.support.tiny import HEADS, tiny_model, tiny_tokenizer

LAYERS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, an axis of three groups, and the scores in a cache."""
    folder = tmp_path_factory.mktemp("report")
    model = tiny_model("llama", n_layers=LAYERS)
    model.config.max_position_embeddings = 512  # a window of the scores' text
    model.save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    write_sentences(folder / "axis.csv", people=("person", "man", "woman", "child"))
    scores = [*named(folder), "--estimator", "exact", "--out", str(folder / "scores")]
    assert main(["score", *scores, "--cache", str(folder / "cache")]) == 0
    return folder


def named(folder: Path) -> list[str]:
    return ["--model", str(folder / "tiny"), "--axis", str(folder / "axis.csv"), "--device", "cpu"]


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    plain = runner(capsys, last=("--cache", place / "cache"))
    return lambda command, *args: plain(command, *named(place), *args)


def test_figures_are_those_of_evaluate(run: Run, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    status, printed, err = run("report", "--alpha", 0.25, "--prompts", 90, "--out", out, "--json")
    assert status == 0, err
    found = json.loads(printed)
    assert found["file"] == str(out)
    read = Read(out.read_text())
    assert read.said["verdict"] == found["verdict"]
    heads = PruneSet.parse(found["prune_set"])
    assert len(heads) == LAYERS * HEADS // 4
    measured = ("--heads", found["prune_set"], "--split", "test", "--prompts", 90, "--json")
    status, printed, err = run("evaluate", *measured)
    assert status == 0, err
    other = json.loads(printed)
    assert found["measured"]["readings"] == other["readings"]
    assert found["measured"]["prompts"] == other["prompts"] == 90
    assert found["measured"]["perplexity"]["text"]["skip"] > 8192  # no score saw it
    assert read.rows["outcome", "neutral"][-1] == "90 test prompts"
    # made again, nothing is measured and only the time may differ
    before = out.read_text()
    status, printed, _ = run("report", "--alpha", 0.25, "--prompts", 90, "--out", out)
    assert status == 0
    assert printed.startswith(found["verdict"])
    lines = zip(before.splitlines(), out.read_text().splitlines(), strict=True)
    assert all(a == b or "<time" in a for a, b in lines)


def test_a_set_of_select_is_taken(run: Run, place: Path, tmp_path: Path) -> None:
    given = ["--scores", str(place / "scores"), "--alpha", ".25", "--out", str(tmp_path / "set.json")]
    assert main(["select", *given]) == 0
    both = []
    for how in (("--prune-set", tmp_path / "set.json"), ("--alpha", 0.25)):
        status, printed, err = run("report", *how, "--no-measure", "--out", tmp_path / "r.html", "--json")
        assert status == 0, err
        both.append(json.loads(printed))
    assert both[0]["prune_set"] == both[1]["prune_set"] != ""
    assert (both[0]["method"], both[1]["method"]) == (None, "fasp")
    assert both[0]["measured"] is None
    assert "Nothing was measured" in both[0]["missing"]
    assert both[0]["by_hand"] == {"prune": "", "keep": ""}
    status, printed, _ = run(
        "report", "--method", "fasp", "--alpha", 0.25, "--heads", "", "--no-measure", "--out", tmp_path / "r.html"
    )
    assert (status, "No head is removed" in printed) == (0, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--heads", "L0H0", "--prune-set", "x"), "either --heads or --prune-set"),
        (("--heads", "L9H0"), "L9H0 does not exist"),
        (("--heads", "all"), "'all' is not a head"),
        (("--prune-set", "nowhere.json"), "nowhere.json"),
        (("--max-ppl", 0), "--max-ppl"),
        (("--alpha", 2), "alpha"),
        (("--method", "best"), "best"),
        (("--reading", "loud"), "loud"),
        (("--prompts", 0), "At least 1 prompt"),
        (("--utility", "--no-measure"), "leave out --utility or --no-measure"),
        (("--utility", "--items", 0), "0 items"),
        (("--items", 10), "add --utility"),
        (("--scorecard", "--no-measure"), "leave out --scorecard or --no-measure"),
    ],
)
def test_what_cannot_be_reported_is_refused(run: Run, args: tuple[object, ...], words: str, tmp_path: Path) -> None:
    status, printed, err = run("report", *args, "--out", tmp_path / "r.html")
    assert (status, printed) == (2, "")
    assert words in err.splitlines()[-1]
    assert not list(tmp_path.glob("*"))


def test_another_models_set_and_no_scores_are_refused(run: Run, place: Path, tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text('{"heads": [[0, 1]], "shape": [12, 12]}')
    status, _, err = run("report", "--prune-set", tmp_path / "set.json", "--out", tmp_path / "r.html")
    assert (status, "12 layers of 12 heads" in err) == (2, True)
    status, _, err = run("report", "--dtype", "bfloat16", "--out", tmp_path / "r.html")
    assert (status, "There are no scores to report: run 'python -m fasp_core score" in err) == (2, True)
    status, _, err = run("report", "--out", tmp_path)
    assert (status, "is a folder" in err) == (2, True)


def test_scores_on_another_text_are_found(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ("--tokens", "96", "--window", "48")
    command = ["score", *named(place), *text, "--out", str(tmp_path / "scores"), "--cache", str(tmp_path / "cache")]
    assert main(command) == 0
    capsys.readouterr()
    run = runner(capsys, last=("--cache", tmp_path / "cache"))
    out = tmp_path / "r.html"
    status, printed, err = run("report", *named(place), "--no-measure", "--out", out, "--json")
    assert status == 0, err
    assert " ".join(text) in json.loads(printed)["repeat"][0]
    assert "94 tokens in windows of" in out.read_text()


def test_the_file_is_written_whole_or_not_at_all(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r.html"
    out.write_text("before")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("fasp_core.storage.atomic.os.fsync", full)
        status, printed, err = run("report", "--no-measure", "--out", out)
    assert (status, printed) == (2, "")
    assert "No space left" in err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("r.html", "before")]
    assert os.fsync is not full


def test_tasks_are_asked_where_that_is_wished(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tasks(tmp_path / "tasks", monkeypatch, 12)
    out = tmp_path / "r.html"
    status, printed, err = run(
        "report", "--alpha", 0.25, "--prompts", 90, "--utility", "--items", 10, "--out", out, "--json"
    )
    assert status == 0, err
    found = json.loads(printed)
    assert [task["items"] for task in found["utility"]["tasks"].values()] == [10, 10, 10]
    assert {kind for kind, _ in Read(out.read_text()).rows if kind == "tasks"}
    (line,) = (line for line in found["repeat"] if " report " in line)
    assert "--utility --items 10" in line
    same = ("--heads", found["prune_set"], "--items", 10, "--model", place / "tiny", "--device", "cpu", "--json")
    assert main([str(word) for word in ("utility", *same, "--cache", place / "cache")]) == 0
    # what is stored is told without being asked for
    status, printed, _ = run("report", "--alpha", 0.25, "--no-measure", "--out", out)
    assert status == 0
    assert "piqa: " in printed


def test_a_scorecard_is_measured_where_that_is_wished(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tasks(tmp_path / "tasks", monkeypatch, 12)
    monkeypatch.setattr(checking, "REPEATS", 2)
    monkeypatch.setattr(scorecard, "TEXTS", ("perplexity",))
    monkeypatch.setattr(scorecard.Plan.__init__, "__defaults__", ((), ("piqa", "chess"), (), 90, 10, 96))
    out = tmp_path / "r.html"
    status, printed, err = run("report", "--alpha", 0.25, "--prompts", 90, "--scorecard", "--out", out, "--json")
    assert status == 0, err
    found = json.loads(printed)
    parts = [line["part"] for line in found["scorecard"]["lines"]]
    assert parts == ["perplexity", "task", "task", "toxicity gap", "toxicity gap", "checkpoint", "checkpoint"]
    (why,) = found["scorecard"]["impossible"]
    assert "no task 'chess'" in why
    assert len(Read(out.read_text()).tables["scorecard"]) == 8
    (line,) = (line for line in found["repeat"] if " report " in line)
    assert "--scorecard" in line
    # what is stored is told without being asked for
    status, printed, _ = run("report", "--alpha", 0.25, "--no-measure", "--out", out)
    assert status == 0
    assert f"Scorecard: {found['scorecard']['sentence']}" in printed
