"""The command `explain` on a tiny model: one document, text for people, and one line for what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import Run, refused, runner, write_sentences
from tests.support.tiny import tiny_text
from tests.support.worlds import write_model


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "tiny", "gpt2")
    (tmp_path / "text.txt").write_text(tiny_text(300))
    write_sentences(tmp_path / "axis.csv")
    common = [
        *(
            "--model",
            str(tmp_path / "tiny"),
            "--axis",
            str(tmp_path / "axis.csv"),
            "--prompts",
            "60",
            "--device",
            "cpu",
        ),
        *("--text", str(tmp_path / "text.txt"), "--tokens", "200", "--window", "100", "--split", "all"),
    ]
    inner = runner(capsys)
    return lambda command, *args: inner(command, *common, *args)


def test_parts_of_a_set_as_json_and_as_text(run: Run) -> None:
    status, out, err = run("explain", "--heads", "L0H1,L1H2*0.5", "--json")
    assert status == 0, err
    d = json.loads(out)
    assert [h["head"] for h in d["heads"]] == ["L0H1", "L1H2*0.5"]
    for name in ("gap", "nats"):
        assert sum(h[name]["part"] for h in d["heads"]) == pytest.approx(d[name]["sum_of_parts"])
        assert d[name]["quadrature_error"] == pytest.approx(d[name]["sum_of_parts"] - d[name]["change"])
    assert d["nodes"] == 5
    assert d["windows"] == 2
    status, out, err = run("explain", "--heads", "L0H1,L1H2*0.5")
    assert status == 0, err
    assert d["said"] in out
    assert "quadrature error" in out


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((), "give either --heads or --prune-set"),
        (("--heads", "L0N3"), "no neurons"),
        (("--heads", "L9H0"), "L9H0 does not exist"),
        (("--heads", "L0H1", "--nodes", "99"), "choose 1 to 32"),
        (("--heads", "L0H1", "--measure", "sampled"), "choose that measure"),
    ],
)
def test_what_cannot_be_explained_is_one_line(run: Run, asked: tuple[str, ...], words: str) -> None:
    refused(run("explain", *asked), words)
