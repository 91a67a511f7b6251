"""What pruning costs on the command line, and heads that are critical by last words: a tiny model, made-up passages."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from fasp_core.data import passages
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import Nll
from fasp_core.tasks import files
from fasp_core.tasks.costs import Cost, compared
from fasp_core.tasks.last_words import passages as last_words
from tests.support.commands import Run, refused, runner, write_sentences
from tests.support.made import tiny_passages, tiny_questions, write_task
from tests.support.oracles import without
from tests.support.tiny import HEADS, tiny_lm, tiny_text
from tests.support.worlds import write_model

LAYERS, PRUNED = 3, "L0H0,L2H1"
COSTS = "paragraphs,repeated,lambada"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    monkeypatch.setattr(passages, "folder", lambda: tmp_path)
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    tiny_passages(tmp_path)
    write_task(tmp_path, "lambada", tiny_questions(60, 1, 3))
    write_model(tmp_path / "tiny", n_layers=LAYERS)
    (tmp_path / "text.txt").write_text(tiny_text(700))
    write_sentences(tmp_path / "axis.csv")
    common = [
        *("--model", str(tmp_path / "tiny"), "--axis", str(tmp_path / "axis.csv"), "--prompts", "60"),
        *("--device", "cpu", "--text", str(tmp_path / "text.txt"), "--tokens", "300", "--window", "100"),
    ]
    inner = runner(capsys)

    def call(command: str, *args: object) -> tuple[int, str, str]:
        return inner(command, *(common if command in ("score", "evaluate") else ()), *args)

    return call


def test_evaluate_tells_what_else_a_set_costs(run: Run) -> None:
    asked = ("--heads", PRUNED, "--costs", COSTS, "--cost-tokens", 400, "--cost-items", 12)
    status, out, err = run("evaluate", *asked, "--json")
    assert status == 0, err
    document = json.loads(out)
    costs = document["costs"]
    assert list(costs) == COSTS.split(",")
    lm, last = tiny_lm("llama", n_layers=LAYERS), costs["lambada"]
    rows = []
    for model in (lm.model, without(lm, PruneSet.parse(PRUNED).heads)):
        own = []
        for item in last_words("test", 12).items:
            before, whole = (lm.tokens(text) for text in (item.contexts[0], item.contexts[0] + item.continuations[0]))
            import torch

            with torch.no_grad():
                log_p = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            own.append(-sum(float(log_p[t - 1, whole[t]]) for t in range(len(before), len(whole))))
        rows.append(np.array(own))
    assert last["base"] == pytest.approx(rows[0].mean(), abs=1e-4)
    assert last["pruned"] == pytest.approx(rows[1].mean(), abs=1e-4)
    assert last["change"] == pytest.approx((rows[1] - rows[0]).mean(), abs=1e-4)
    low, high = last["change_interval"]
    assert low < last["change"] < high
    assert last["accuracy"]["points"] == pytest.approx(
        100 * (last["accuracy"]["accuracy_pruned"] - last["accuracy"]["accuracy_base"])
    )
    for name, unit in (("paragraphs", "token"), ("repeated", "token"), ("lambada", "word")):
        one = costs[name]
        assert (one["unit"], one["direction"], one["split"]) == (f"nats a {unit}", "lower is better", "test")
        assert one["relative_change"] == pytest.approx(math.expm1(one["change"]))
        assert one["perplexity_base"] == pytest.approx(math.exp(one["base"]))
    assert 0 < costs["repeated"]["items"] < costs["paragraphs"]["items"] < 400
    plain = json.loads(run("evaluate", "--heads", PRUNED, "--json")[1])
    assert {**document, "costs": None, "provenance": None} == {**plain, "costs": None, "provenance": None}
    status, text, _ = run("evaluate", *asked)
    assert status == 0
    assert "right, points" in text
    assert all(one["said"] in text for one in costs.values())


def test_a_cost_of_one_block_has_no_interval_and_says_so() -> None:
    alone = [{"repeated": Cost(Nll(np.array([nats]), np.array([40])))} for nats in (80.0, 120.0)]
    (found,) = compared(*alone, "test")
    assert found.said == (
        "No change of the perplexity of repeated tokens is shown (+171.8% no interval of one block), on 40 tokens."
    )


def test_costs_of_the_side_that_heads_are_chosen_on(run: Run) -> None:
    sizes = ("--cost-tokens", 300, "--cost-items", 8)
    both = [
        json.loads(run("evaluate", "--heads", PRUNED, "--costs", COSTS, "--split", s, *sizes, "--json")[1])["costs"]
        for s in ("valid", "test")
    ]
    assert all(both[0][name]["base"] != both[1][name]["base"] for name in COSTS.split(","))
    refused(run("evaluate", "--heads", PRUNED, "--costs", "lambada", "--split", "all"), "name valid or test")
    refused(run("evaluate", "--heads", PRUNED, "--costs", "paragraphs,lambda"), "'lambda'", "paragraphs, repeated")
    refused(run("evaluate", "--heads", PRUNED, "--costs", ","), "choose of")
    refused(run("evaluate", "--heads", PRUNED, "--costs", "lambada", "--cost-items", 0), "1 or more")
    refused(run("evaluate", "--heads", PRUNED, "--cost-items", 7), "--cost-items is read with --costs lambada alone")
    refused(
        run("evaluate", "--heads", PRUNED, "--costs", "lambada", "--cost-tokens", 7), "--costs paragraphs or repeated"
    )
    empty = json.loads(run("evaluate", "--heads", "", "--json")[1])["notes"]
    assert "The set is empty, so both models are the unpruned one." in empty


def test_paragraphs_are_a_text_like_others(run: Run) -> None:
    found = json.loads(run("evaluate", "--heads", PRUNED, "--text", "paragraphs", "--json")[1])["perplexity"]
    other = json.loads(run("evaluate", "--heads", PRUNED, "--text", "paragraphs-test", "--json")[1])["perplexity"]
    assert found["text"]["source"] == "paragraphs"
    assert 200 < found["tokens"] < 300
    assert found["base"] != other["base"]
    refused(run("evaluate", "--heads", PRUNED, "--text", "paragraph"), "'paragraphs'")


def test_heads_are_scored_for_a_task_and_critical_by_it(run: Run, tmp_path: Path) -> None:
    out, asked = tmp_path / "scores", ("--task", "lambada", "--task-items", 20)
    status, said, err = run("score", "--out", out, *asked, "--task-exact", 6, "--json")
    assert status == 0, err
    task = json.loads(said)["task"]
    assert (task["name"], task["passages"], task["passages_removed"], task["estimator"]) == (
        "lambada",
        20,
        6,
        "two-phase",
    )
    with (out / "scores.csv").open(newline="") as handle:
        z = [float(row["z_task"]) for row in csv.DictReader(handle)]
    chosen = {}
    for protect in ("perplexity", "task", "worse"):
        text = run("select", "--scores", out, "--alpha", 0.25, "--protect", protect, "--json")[1]
        chosen[protect] = json.loads(text)
        assert chosen[protect].get("protect", "perplexity") == protect
    order = sorted(range(LAYERS * HEADS), key=lambda i: (-z[i], i))[:3]
    assert sorted(chosen["task"]["critical_heads"]) == [list(divmod(i, HEADS)) for i in sorted(order)]
    assert chosen["task"]["critical_heads"] != chosen["perplexity"]["critical_heads"]
    plain = json.loads(run("select", "--scores", out, "--alpha", 0.25, "--json")[1])
    assert plain == chosen["perplexity"]
    assert "--estimator exact" in chosen["task"]["notes"][-1]
    assert not any("--estimator exact" in note for note in plain["notes"])
    assert "(critical by task)" in run("select", "--scores", out, "--protect", "task")[1]
    assert "two-phase: first-order on 20" in run("score", "--out", out, *asked, "--task-exact", 6)[1]


def test_scores_without_a_task_are_as_before(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    plain = json.loads(run("score", "--out", out, "--json")[1])
    assert "task" not in plain
    assert "z_task" not in (out / "scores.csv").read_text()
    refused(run("select", "--scores", out, "--protect", "task"), "score --task lambada")
    refused(run("score", "--out", out, "--task", "lambada", "--task-exact", 400), "--task-exact 0 to 300")
    refused(run("score", "--out", out, "--task", "lambada", "--task-items", 0), "1 or more")
    run("score", "--out", out, "--task", "lambada", "--task-items", 8)
    again = json.loads(run("score", "--out", out, "--json")[1])
    assert {**again, "provenance": None} == {**plain, "provenance": None}
