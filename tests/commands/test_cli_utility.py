"""The command `utility` with a tiny model and made-up tasks: what it says, stores and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.tasks import answers, files, utility
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods
from tests.support.commands import Run, refused, runner
from tests.support.made import Question, tiny_questions, write_task
from tests.support.tiny import tiny_lm, tiny_text

HEADS = "L0H1,L1H2"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    lm = tiny_lm("llama")
    write_task(tmp_path, "piqa", tiny_questions(30, 2), bare=True)
    write_task(tmp_path, "lambada", tiny_questions(12, 1, 1))
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: lm)
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    return runner(capsys, "utility", last=["--model", "tiny"])


def test_both_models_on_the_same_items_and_stored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run("--heads", HEADS, "--tasks", "piqa,lambada", "--items", 20, "--json")
    assert status == 0, err
    document = json.loads(out)
    assert document["prune_set"] == HEADS
    assert list(document["tasks"]) == ["piqa", "lambada"]
    seen = {task: files.sample(task, 20).seen for task in ("piqa", "lambada")}
    said = "items are of the half that choices may have been made on."
    assert document["notes"] == [
        f"piqa: {seen['piqa']} {said}",
        "lambada holds 12 items: all of them were taken.",
        f"lambada: {seen['lambada']} {said}",
    ]
    lm, task = tiny_lm("llama"), document["tasks"]["piqa"]
    sides = []
    for heads in ("", HEADS):
        own, by_bytes, nats = [], [], []
        for item in files.sample("piqa", 20).items:
            with masked(lm, PruneSet.parse(heads)):
                pairs = [encode_pair(lm, item.contexts[0], answer) for answer in item.continuations]
                values = np.array([log_likelihoods(lm, [pair]).values[0] for pair in pairs])
            own.append(values.argmax() == item.right)
            sizes = [len(answer.strip().encode()) for answer in item.continuations]
            by_bytes.append((values / sizes).argmax() == item.right)
            nats.append(values[item.right])
        sides.append((np.array(own), np.array(by_bytes), np.array(nats)))
    (base, base_bytes, base_nats), (pruned, pruned_bytes, pruned_nats) = sides
    lost, gained = int((base & ~pruned).sum()), int((pruned & ~base).sum())
    assert (task["items"], task["available"], task["chance"], task["cut"]) == (20, 30, 0.5, 0)
    assert task["accuracy_base"] == pytest.approx(base.mean())
    assert task["accuracy_pruned"] == pytest.approx(pruned.mean())
    assert task["points"] == pytest.approx(100 * (pruned.mean() - base.mean()))
    assert task["mcnemar_p"] == pytest.approx(binomtest(lost, lost + gained).pvalue if lost + gained else 1)
    assert task["by_bytes"]["accuracy_base"] == pytest.approx(base_bytes.mean())
    assert task["by_bytes"]["accuracy_pruned"] == pytest.approx(pruned_bytes.mean())
    assert task["likelihood"]["base"] == pytest.approx(base_nats.mean(), abs=1e-4)
    assert task["likelihood"]["change"] == pytest.approx((pruned_nats - base_nats).mean(), abs=1e-4)
    assert document["tasks"]["lambada"]["by_bytes"] is None
    assert document["tasks"]["lambada"]["chance"] == 0

    monkeypatch.setattr(answers, "log_likelihoods", lambda *_: pytest.fail("measured again"))
    again = run("--heads", HEADS, "--tasks", "piqa,lambada", "--items", 20, "--json")
    assert (again[0], again[1]) == (0, out)
    status, text, _ = run("--heads", HEADS, "--tasks", "piqa", "--items", 20)
    assert status == 0
    assert "McNemar p" in text
    assert "piqa: " in text


def test_a_task_at_chance_tells_nothing(run: Run) -> None:
    task = json.loads(run("--heads", "L0H0", "--tasks", "piqa", "--json")[1])["tasks"]["piqa"]
    assert task["tells"] == (task["accuracy_base_interval"][0] > task["chance"])
    assert task["said"].startswith("tells nothing") != task["tells"]


def test_a_loss_of_likelihood_is_said_where_accuracy_shows_none() -> None:
    rng = np.random.default_rng(0)
    right, base = np.arange(100) < 60, rng.normal(-4, 1, 100)
    items = files.Items("lambada", (files.Item(("a",), (" b",), 0),) * 100, 100)
    sides = [utility.Answers(right, right, nats, 0, {}) for nats in (base, base - 1 + rng.normal(0, 0.1, 100))]
    assert utility.TaskChange(items, *sides).sentence.startswith("no change of accuracy can be told; the right answer")
    assert "less likely (-1.0" in utility.TaskChange(items, *sides).sentence
    assert utility.TaskChange(items, sides[0], sides[0]).sentence == "no change of accuracy can be told"
    worse = utility.Answers(np.arange(100) < 30, right, base, 0, {})
    assert utility.TaskChange(items, sides[0], worse).sentence.startswith("lost 2")


def test_what_is_cut_is_said(run: Run, tmp_path: Path) -> None:
    write_task(tmp_path, "sciq", [Question(tiny_text(400), (" red house", " song"), 0)])
    document = json.loads(run("--heads", "L0H0", "--tasks", "sciq", "--items", 1, "--json")[1])
    assert document["tasks"]["sciq"]["cut"] == 1
    assert document["notes"] == ["sciq: 1 items are too long for the model and lost their beginning."]
    assert document["tasks"]["sciq"]["likelihood"]["change_interval"] is None


def test_a_time_chooses_the_items_and_says_how_many(run: Run) -> None:
    status, out, err = run("--heads", HEADS, "--tasks", "piqa,lambada", "--minutes", 5, "--json")
    assert status == 0, err
    timed = json.loads(out)
    budget = timed.pop("budget")
    assert (budget["minutes"], budget["items"]) == (5, timed["items"])
    assert budget["estimated_minutes"] <= 5
    assert set(budget["seconds_per_item"]) == {"piqa", "lambada"}
    said, *notes = timed.pop("notes")
    assert f"in 5 minutes: {budget['items']}, for which both models take an estimated" in said
    same = json.loads(run("--heads", HEADS, "--tasks", "piqa,lambada", "--items", budget["items"], "--json")[1])
    assert (same.pop("notes"), same) == (notes, timed)
    assert "Note: Items of each task in 5 minutes" in run("--heads", HEADS, "--tasks", "piqa", "--minutes", 5)[1]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--heads", "L0H0", "--tasks", "mmlus"], ["no task 'mmlus'", "lambada", "or say all"]),
        (["--heads", "L0H0", "--tasks", ","], ["No task is named"]),
        (["--heads", "L0H0", "--tasks", "boolq"], ["cannot be read", "requirements-data.txt"]),
        (["--heads", "L0H0", "--items", "0"], ["0 items"]),
        (["--heads", "L0H0", "--tasks", "piqa", "--minutes", "0"], ["0 minutes", "a number above 0"]),
        (["--heads", "L0H0", "--minutes", "1", "--items", "5"], ["leave one out"]),
        (["--heads", "L9H0", "--tasks", "piqa"], ["L9H0", "layers 0 to 1"]),
        (["--tasks", "piqa"], ["--heads"]),
    ],
)
def test_bad_input_is_one_sentence(run: Run, args: list[str], words: list[str]) -> None:
    refused(run(*args), *words)
