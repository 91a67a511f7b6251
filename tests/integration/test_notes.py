"""What a sample of prompts leaves out is told by every command that uses prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fasp_core.cli.main import main
from tests.support.worlds import write_model, write_text

NONE = "2 of 123 rows have no group and were left out: 'NaN' (1), 'n/a' (1)."
CASE = "'Red' and 'red' are 2 groups here: spell them the same if they are one."
SMALL = "Groups with fewer than 2 prompts were left out: old (1)."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a text, and prompts with small, double and missing groups."""
    folder = tmp_path_factory.mktemp("notes")
    write_model(folder / "tiny")
    write_text(folder, 700)
    people = ["person", "man", "woman", "child", "friend"]
    ends = ["kind", "nice", "good", "bad"]
    rows = [
        f"The {g} {who} {verb} {end}.;{g}"
        for g in ("Red", "red", "green")
        for who in people
        for verb in ("is", "was")
        for end in ends
    ]
    rows += ["The old man is tall.;old", "The tall man is old.;NaN", "The short man is old.;n/a"]
    (folder / "axis.csv").write_text("text;group\n" + "\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("command", ["prompts", "evaluate", "score", "plan"])
def test_a_command_tells(
    command: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    text = ("--text", place / "text.txt", "--tokens", "300", "--window", "100")
    axis = ("--axis", place / "axis.csv")
    options: tuple[object, ...] = {
        "prompts": (*axis, "--per-group", "5"),
        "evaluate": (*axis, "--model", place / "tiny", "--heads", "L0H1", "--split", "all", "--prompts", "15", *text),
        "score": (
            *axis,
            "--model",
            place / "tiny",
            "--split",
            "all",
            "--prompts",
            "15",
            *text,
            "--out",
            tmp_path / "s",
        ),
        "plan": (*axis, "--config", place / "tiny", "--prompts", "15"),
    }[command]
    assert main([command, *map(str, options)]) == 0
    told = capsys.readouterr().out
    assert main([command, *map(str, options), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    small = SMALL if command != "plan" else SMALL.replace("prompts", "validation prompts").replace("(1)", "(0)")
    for note in (NONE, CASE, small):
        assert note in told or command == "plan"
        assert note in notes or command == "plan"
    assert all(note in told for note in notes)
    assert NONE in notes


def test_a_small_file_is_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path := tmp_path / "small.csv").write_text(
        "text,group\n" + "".join(f"The {g} man {i},{g}\n" for i in range(3) for g in "ab")
    )
    assert (
        main(["evaluate", "--axis", str(path), "--model", str(place / "tiny"), "--heads", "L0H0", "--split", "valid"])
        == 2
    )
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: 'small.csv' has 6 rows with a group, and about a fifth of them are for validation")
    assert said.endswith("so give every group about 26 rows.")
    assert "minimum" not in said
