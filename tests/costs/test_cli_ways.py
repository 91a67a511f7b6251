"""`study ablations`, `study axes` and `--ablation` on the command line: tiny models, made-up passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.metrics import calibration
from fasp_core.studies.costs import ablations
from tests.support.commands import Run, refused, runner, write_sentences
from tests.support.tiny import tiny_text


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_world: Path) -> Run:
    (tiny_world / "text.txt").write_text(tiny_text(300, seed=4))
    short = TextConfig(str(tiny_world / "text.txt"), 90, window=40, stride=40)
    monkeypatch.setattr(calibration, "TEXT", short)
    inner = runner(capsys)
    model = ("--model", str(tiny_world / "tiny"), "--device", "cpu")
    return lambda command, *args: inner(*command.split(), *model, *args)


def test_a_set_is_measured_by_either_way(run: Run, tmp_path: Path) -> None:
    asked = ("--axis", tmp_path / "axis.csv", "--text", tmp_path / "text.txt", "--tokens", 200, "--window", 60)
    found: dict[str, Any] = {}
    for how in ("zero", "mean", "resample"):
        status, text, err = run("evaluate", "--heads", "L0H1,L1H2", *asked, "--ablation", how, "--json")
        assert status == 0, err
        assert ("taken out by" in err) == (how != "zero")
        found[how] = json.loads(text)
        assert found[how]["provenance"].get("ablation") == (None if how == "zero" else how)
    assert len({one["perplexity"]["base"] for one in found.values()}) == 1
    assert len({one["perplexity"]["pruned"] for one in found.values()}) == 3
    status, _, err = run("evaluate", "--heads", "L0H1", *asked, "--ablation", "median")
    assert status == 2
    assert "Heads cannot be taken out by 'median'" in err
    refused(run("repair", "--heads", "L0H1", "--ablation", "mean"), "leave --ablation out")


def test_a_set_that_is_not_there_is_told_before_heads_are_scored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablations, "score", lambda *_: pytest.fail("scored"))
    for heads in ("L99H0", "L0N999999"):
        refused(run("study ablations", "--axis", tmp_path / "axis.csv", "--heads", heads), f"{heads} does not exist")


@pytest.mark.slow
def test_ways_are_compared_on_the_same_sets(run: Run, tmp_path: Path) -> None:
    asked = ("--axis", tmp_path / "axis.csv", "--prompts", 12, "--tokens", 200, "--items", 10)
    sizes = ("--alpha", 0.3, "--scored", 12, "--scored-tokens", 200)
    status, text, err = run("study ablations", *asked, *sizes, "--heads", "L1H0", "--json")
    assert status == 0, err
    document = json.loads(text)
    ways = [(one["ranked_by"], one["removed_by"]) for one in document["sets"]]
    assert ways == [(by, how) for how in ("zero", "mean") for by in ("given", "zero", "mean", "resample")]
    assert [one["ablation"] for one in document["rankings"]] == ["zero", "mean", "resample"]
    first = document["rankings"][0]
    assert first["z_bias_as_zero"] == pytest.approx(1)
    given = [one for one in document["sets"] if one["ranked_by"] == "given"]
    assert given[0]["prune_set"] == given[1]["prune_set"] == "L1H0"
    assert given[0]["ppl_change_pct"] != given[1]["ppl_change_pct"]
    status, told, _ = run("study ablations", *asked, *sizes, "--heads", "L1H0")
    assert status == 0
    assert "| chosen by | removed by |" in told
    refused(run("study ablations", "--ablation", "mean"), "leave --ablation out")


def test_one_set_on_every_axis(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sentences(tmp_path / "other.csv")
    paths = (str(tmp_path / "axis.csv"), str(tmp_path / "other.csv"))
    asked = ("--heads", "L0H1*0.4", "--axis", paths[0], "--axis", paths[1], "--prompts", 12, "--tokens", 200)
    status, text, err = run("study axes", *asked, "--items", 10, "--json")
    assert status == 0, err
    document = json.loads(text)
    assert set(document["axes"]) == set(paths)
    falls = [one["reduction_pct"] for one in document["axes"].values()]
    assert document["least_reduction_pct"] == min(falls)
    assert set(document["costs"]) == {"paragraphs", "lambada"}
    status, told, _ = run("study axes", *asked, "--items", 10)
    assert status == 0
    assert "Mean over the axes" in told
    assert len(defaults.AXES) == 7
