"""`gains` and `repair` on the command line: a tiny model, made-up passages, sets that other commands take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fasp_core.cli.gains import RATES
from fasp_core.heads.prune_set import PruneSet
from fasp_core.scoring.score_files import read_prune_set
from tests.support.commands import Run, refused, runner
from tests.support.tiny import HEADS

LAYERS = 2


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tiny_world: Path) -> Run:
    inner = runner(capsys)
    model, axis = ("--model", str(tiny_world / "tiny"), "--device", "cpu"), ("--axis", str(tiny_world / "axis.csv"))
    return lambda command, *args: inner(command, *model, *(axis if command == "gains" else ()), *args)


def test_gains_see_paragraphs_and_make_a_set(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "set.json"
    asked = ("--steps", 3, "--passages", 2)
    status, text, err = run("gains", *asked, "--out", out, "--json")
    assert status == 0, err
    document = json.loads(text)
    assert (document["config"]["paragraphs"], document["config"]["rate"]) == (2, RATES["gains"])
    assert set(document["curve"][0]) == {"step", "gap_relative", "text_nats", "last_word_nats", "paragraph_nats"}
    assert (document["steps"], document["gates_of_step"]) == (3, 3)
    assert document["unseen_curve"] == []
    file = read_prune_set(out)
    assert (file.shape, file.reading, file.method, file.ablation) == ((LAYERS, HEADS), "neutral", "gains", "zero")
    written = file.parts
    assert written == PruneSet.parse(document["prune_set"])
    assert written.gains
    status, told, _ = run("gains", *asked)  # stored
    assert status == 0
    assert "paragraphs +" in told or "paragraphs -" in told
    assert "root mean square" in told
    assert "evaluate --text paragraphs-test" in told
    status, text, _ = run("gains", *asked, "--paragraphs", 0, "--json")
    assert status == 0
    assert "paragraph_nats" not in json.loads(text)["curve"][0]


def test_hard_concrete_gates_remove_heads_that_repair_makes_up_for(run: Run, tmp_path: Path) -> None:
    out, mended = tmp_path / "set.json", tmp_path / "mended.json"
    asked = ("--method", "hard-concrete", "--heads", 2, "--steps", 2, "--passages", 0, "--out", out)
    status, text, err = run("gains", *asked, "--json")
    assert status == 0, err
    document = json.loads(text)
    assert document["config"]["rate"] == RATES["hard-concrete"]
    removed = read_prune_set(out).parts
    assert (len(removed.heads), removed.gains) == (2, frozenset())
    status, text, err = run("repair", "--prune-set", out, "--tokens", 300, "--window", 60, "--out", mended, "--json")
    assert status == 0, err
    document = json.loads(text)
    repaired = read_prune_set(mended).parts
    assert repaired == PruneSet.parse(document["prune_set"])
    assert repaired.heads == removed.heads
    assert document["before"] == removed.format()
    assert [one["layer"] for one in document["layers"]] == sorted({layer for layer, _ in removed.heads})
    assert all(one["lost_after"] <= one["lost_before"] for one in document["layers"])
    assert document["tokens"] < 300  # the first token of all has no context
    gates = repaired.gates(LAYERS, HEADS)
    assert ((gates >= 0) & (gates <= 1.5)).all()
    status, told, _ = run("repair", "--heads", removed.format(), "--tokens", 300, "--window", 60)
    assert status == 0
    assert told.rstrip().endswith(repaired.format())
    assert np.isfinite(float(document["layers"][0]["lost_after"]))
    status, _, err = run("repair", "--prune-set", out, "--tokens", 300, "--window", 60)
    assert (status, "was learned with heads taken out" in err) == (0, False)
    status, told, _ = run("repair", "--heads", "L0H0-3,L1H0", "--tokens", 300, "--window", 60)
    assert status == 0
    assert "nothing of them was rescaled: 0." in told


def test_text_that_steps_saw_is_told_of_beside_perplexity(run: Run, tiny_world: Path) -> None:
    asked = ("--axis", tiny_world / "axis.csv", "--split", "valid", "--prompts", 8, "--tokens", 100, "--window", 50)
    for heads, text, told in (
        ("L0H1*0.5", "bold", 1),
        ("L0H1", "bold", 0),
        ("L0H1*0.5", "paragraphs", 1),
        ("L0H1*0.5", "paragraphs-test", 0),
    ):
        status, out, err = run("evaluate", *asked, "--heads", heads, "--text", text, "--json")
        assert status == 0, err
        assert sum("evaluate --text paragraphs-test" in note for note in json.loads(out)["notes"]) == told


def test_the_next_step_is_told_with_what_shaped_the_gates(run: Run, tmp_path: Path) -> None:
    """A set to learn around may end in a gain, which is no file of that ending."""
    around = "L0H1,L1H2*0.4"
    asked = ("--steps", 1, "--passages", 0, "--paragraphs", 0, "--ablation", "mean", "--around", around)
    out = tmp_path / "set.json"
    status, told, err = run("gains", *asked, "--out", out)
    assert status == 0, err
    assert "evaluate --model " in told
    assert "--ablation mean --axis " in told
    assert {"L0H1", "L1H2*0.4"} <= set(told.split()[-1].split(","))
    status, _, err = run("repair", "--prune-set", out, "--tokens", 300, "--window", 60)
    assert status == 0
    assert "was learned with heads taken out by 'mean'" in err


def test_what_means_nothing_is_refused(run: Run) -> None:
    refused(run("gains", "--cells", "mean", "--steps", 1), "cannot be divided")
    refused(run("gains", "--patience", 5, "--steps", 1), "cannot be divided")
    refused(run("gains", "--cell", "seen", "--steps", 1), "cannot be divided")
    refused(run("gains", "--method", "hard-concrete", "--keep", 1), "leave --keep out")
    refused(run("gains", "--method", "hard-concrete", "--heads", 8), "not fewer than the model's 8")
    refused(run("gains", "--rate", 0), "a rate above 0")
    refused(run("gains", "--heads", 5), "--heads is read with --method hard-concrete alone")
    refused(run("gains", "--sparsity", 2), "--sparsity is read with --method hard-concrete alone")
    refused(run("gains", "--across", "worst"), "--across is read with --axis all alone")
    refused(run("gains", "--words", 4), "--words is read with --contexts alone")
    refused(run("gains", "--contexts", 2, "--words", 65), "choose 1 to 64")
    refused(run("gains", "--contexts", -1), "-1 contexts are none")
    refused(run("gains", "--contexts", 2, "--axis", "all"), "--contexts is read without --axis all, --cells")
    refused(run("gains", "--contexts", 2, "--patience", 5), "--contexts is read without --axis all, --cells")
    refused(run("gains", "--axis", "all", "--cell", "seen"), "--cell is of one axis")
    refused(run("gains", "--passages", -1), "passages and paragraphs of a step are whole numbers from 0 up")
    refused(run("gains", "--around", "sets/no such.json"), "No such file")
    refused(run("gains", "--around", "L0H1*x"), "L0H1*x")
    refused(run("gains", "--around", "L0N1"), "no neurons")
    refused(run("gains", "--contexts", 2, "--steps", 1), "Shared contexts need blocks")  # a CSV file has none
    for option in ("--max-nats", "--rate", "--keep"):
        for value in ("nan", "inf"):
            refused(run("gains", option, value), "a number, 0 or more")
    refused(run("gains", "--strength", 2), "from 0 to 1")
    refused(run("gains", "--steps", 1, "--out", "."), "'.' is a folder")
    refused(run("repair", "--heads", "L0H1", "--out", "/"), "'/' is a folder")
    refused(run("repair"), "--heads or --prune-set")
    refused(run("repair", "--heads", "L0H1", "--window", 9999), "Windows of 9,999 tokens do not fit")
    refused(run("repair", "--heads", "L0H9"), "L0H9 does not exist")
    refused(run("repair", "--heads", "L0N1"), "the set names none")
    refused(run("repair", "--heads", "L0H1", "--text", "paragraphs-test"), "Claims are made on 'paragraphs-test'")
    refused(run("repair", "--heads", "L0H1", "--text", "bold", "--tokens", 16_385), "16,384 tokens of 'bold'")
