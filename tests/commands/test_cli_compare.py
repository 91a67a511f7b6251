"""The command `compare`: what it prints of stored results, what it makes with --run, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fasp_core import defaults
from fasp_core.console import to_json
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model import loading
from fasp_core.model.identity import ModelId
from fasp_core.model.spec import BUILT_IN_SHA256
from fasp_core.scoring.search import Found, SearchConfig
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare, methods, outcome, searching
from fasp_core.tasks import utility
from tests.support.commands import Run, refused, runner
from tests.support.fakes import MadeUp, Studio, add_claim, add_comparison, made_up, made_up_lm
from tests.support.made import OUTCOME_KEYS as KEYS
from tests.support.made.tasks import add_answers, use_tasks

AXIS = "race_ethnicity"
SMALL: dict[str, Any] = {"gammas": (0.2, 0.4), "alphas": (0.02, 0.05), "seeds": 2, "prompts": 180, "tokens": 640}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def load(*_: Any) -> Any:
        pytest.fail("nothing is to be made, so no model is needed")

    monkeypatch.setattr(compare.Plan.__init__, "__defaults__", ("neutral", *SMALL.values()))
    monkeypatch.setattr(outcome.ClaimConfig.__init__, "__defaults__", (360, 1280, 90, 2, 4))
    monkeypatch.setattr(loading, "load", load)

    return runner(capsys, "compare", "--axis", AXIS)


@pytest.fixture
def world(tmp_cache: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    """A made-up model with scores in the store, by which FASP is right."""
    return MadeUp(Studio(tmp_cache, monkeypatch).add_scores(AXIS), strength=10)


def test_what_is_not_there_is_named_with_its_mend(
    world: MadeUp, run: Run, tmp_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(run(), "No comparison", f"compare --model built-in --axis {AXIS} --reading neutral --run")
    refused(run("--outcome"), "No comparison", "--run")
    refused(run("--max-ppl", "0"), "--max-ppl .1")
    add_comparison(Store(tmp_cache), AXIS, world, **SMALL)
    refused(run("--outcome"), "was not measured on test prompts", "--outcome --run")
    refused(run("--outcome", "--max-ppl", ".00001"), "raise --max-ppl")
    refused(run("--axis", "shoe_size"), "no axis 'shoe_size'")
    refused(run("--limit-items", "50"), "add such a limit")
    refused(run("--outcome", "--within", "--methods", "fasp"), "leave out --within or --methods")
    refused(run("--axis", "age", "--run"), "no scores", "python -m fasp_core score --model built-in --axis age")


def test_a_stored_comparison_is_printed(world: MadeUp, run: Run, tmp_cache: Path) -> None:
    result = add_comparison(Store(tmp_cache), AXIS, world, **SMALL)
    status, out, _ = run("--json")
    assert status == 0
    document = json.loads(out)
    assert len(document["candidates"]) == len(result.candidates)
    frame = result.frame("test")
    for i, row in enumerate(document["candidates"]):
        assert row["set"] == frame["set"][i]
        assert row["change_neutral_test"] == frame.change_neutral[i]
        assert row["gamma"] == result.candidates[i].gamma
    picked = compare.choose(result, "neutral", 0.1)
    assert picked is not None
    assert document["chosen"]["alpha"] == picked.alpha
    assert document["unpruned"]["valid"]["neutral"]["gap"] == result.base_gap_value("valid", "neutral")
    assert document["plan"]["alphas"] == [0.02, 0.05]
    status, out, _ = run()
    assert status == 0
    assert f"Chosen on validation: {picked.method}" in out
    assert "noise alone" in out
    assert "for looking" in out
    shown = [line for line in out.splitlines() if line.startswith("fasp")]
    assert shown


def test_a_stored_claim_is_printed(world: MadeUp, run: Run, tmp_cache: Path) -> None:
    store = Store(tmp_cache)
    result = add_comparison(store, AXIS, world, **SMALL)
    claim = add_claim(store, AXIS, world, result)
    status, out, _ = run("--outcome", "--json")
    assert status == 0
    assert json.loads(out) == json.loads(to_json(claim.as_dict())) | {"divided": None}
    assert json.loads(out).keys() >= KEYS
    status, out, _ = run("--outcome")
    assert out.startswith(claim.sentence())
    assert f"sampled ({2 * claim.change['sampled'].n} continuations a side)" in out
    # the measurement belongs to the set, whatever limit it was chosen by; the claim is of the limit that is asked
    same = [x for x in (0.08, 0.12, 0.15) if compare.choose(result, "neutral", x) == claim.candidate]
    for limit in same:
        usual, asked = (json.loads(run("--outcome", "--json", *more)[1]) for more in ((), ("--max-ppl", str(limit))))
        assert asked.pop("chosen_on").endswith(f"perplexity at most {limit:.0%} up")
        assert all(asked[name] == usual[name] for name in asked if name != "claim")


def test_cautions_are_printed(world: MadeUp, run: Run, tmp_cache: Path) -> None:
    store = Store(tmp_cache)
    world.by, world.fall = "counted", {"neutral": -0.3, "counted": 0.9, "sampled": 0.9}
    claim = add_claim(store, AXIS, world, add_comparison(store, AXIS, world, "counted", **SMALL))
    status, out, _ = run("--outcome", "--reading", "counted")
    assert status == 0
    assert out.startswith("No reduction was shown")
    assert "Warning: Not a success" in out
    assert json.loads(run("--outcome", "--reading", "counted", "--json")[1])["cautions"] == list(claim.cautions())


def test_run_makes_what_is_missing_and_only_that(
    world: MadeUp, run: Run, tmp_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load", lambda *_: made_up_lm())
    with made_up(world):
        status, out, error = run("--run", "--outcome", "--json")
    assert status == 0, error
    first = json.loads(out)
    assert first.keys() >= KEYS
    sides = [side for side, _ in world.asked]
    sets = len({s for side, s in world.asked if side == "valid"})
    assert sides.count("valid") == sets
    assert sides.count("test") == sets + 2  # and the claim
    world.asked.clear()
    with made_up(world):
        assert json.loads(run("--run", "--outcome", "--json")[1]) == first
    assert not world.asked
    assert json.loads(run("--outcome", "--json")[1]) == first


def test_more_alphas_join_the_stored_ones(
    world: MadeUp, run: Run, tmp_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = add_comparison(Store(tmp_cache), AXIS, world, **SMALL)
    monkeypatch.setattr(loading, "load", lambda *_: made_up_lm())
    world.asked.clear()
    with made_up(world):
        status, out, error = run("--run", "--alphas", ".05, .1", "--json")
    assert status == 0, error
    rows = json.loads(out)["candidates"]
    assert {row["alpha"] for row in rows} == {0.02, 0.05, 0.1}
    assert len(rows) == 1.5 * len(result.candidates)
    again = {subject for _, subject in world.asked} & {
        PruneSet.from_flat(s, result.n_heads).format() for s in result.sets
    }
    assert world.asked
    assert not again
    with made_up(world):
        world.asked.clear()
        assert len(json.loads(run("--run", "--alphas", ".1", "--json")[1])["candidates"]) == len(rows)
    assert not world.asked
    refused(run("--alphas", ".1"), "--run")
    for wrong in ("x", "0", ".1,2", "nan"):
        refused(run("--run", "--alphas", wrong), "--alphas .02,.04")


def test_run_takes_in_what_a_search_found(
    world: MadeUp, run: Run, tmp_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = add_comparison(Store(tmp_cache), AXIS, world, **SMALL)
    heads = tuple(range(3, 8))
    monkeypatch.setattr(loading, "load", lambda *_: made_up_lm())
    found = Found(SearchConfig(max_heads=13), heads, gap=0.001, nats=0.05, base_gap=0.002, tried=())
    monkeypatch.setattr(searching, "stored", lambda *_: [found])
    with made_up(world):
        status, out, _ = run("--run", "--json")
    assert status == 0
    rows = json.loads(out)["candidates"]
    assert len(rows) == len(result.candidates) + 1
    assert (rows[-1]["method"], rows[-1]["set"]) == ("search", "L0H3-7")
    stored = compare.stored(ModelId(f"sha256:{BUILT_IN_SHA256}"), AXIS, "neutral", Store(tmp_cache), "built-in")
    assert stored is not None
    assert stored.candidates[-1].heads == heads


def test_tasks_of_the_claimed_set(
    world: MadeUp, run: Run, tmp_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tasks(tmp_path / "tasks", monkeypatch, 40)
    store, lm = Store(tmp_cache), made_up_lm()
    claim = add_claim(store, AXIS, world, add_comparison(store, AXIS, world, **SMALL))
    heads = PruneSet.from_flat(claim.candidate.heads, claim.n_heads)
    refused(run("--utility"), "add --outcome")
    refused(run("--outcome", "--items", 9), "add --utility")
    refused(run("--outcome", "--utility"), "300 items of each task", "--outcome --utility --items 300 --run")
    for task in defaults.TASKS[:2]:
        add_answers(store, lm.id, heads, task, 30, 4)
    refused(run("--outcome", "--utility", "--items", 30), "30 items of each task were not asked")
    refused(run("--outcome", "--utility", "--items", 0), "0 items")
    plain = json.loads(run("--outcome", "--json")[1])
    assert list(plain["utility"]["tasks"]) == list(defaults.TASKS[:2])  # what is stored is told anyway

    def asks(lm: Any, subject: PruneSet, samples: list[Any], *_: Any) -> None:
        for sample in samples:
            add_answers(store, lm.id, subject, sample.task, len(sample.items), 4 * (sample.task != "arc_easy"))

    monkeypatch.setattr(utility, "utility", asks)
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: lm)
    status, out, err = run("--outcome", "--utility", "--items", 40, "--run", "--json")
    assert status == 0, err
    document = json.loads(out)
    assert [task["items"] for task in document["utility"]["tasks"].values()] == [40] * 3
    assert document["utility"]["tasks"]["lambada"]["points"] == -40
    assert "% perplexity; LAMBADA lost " in document["sentence"]
    assert "ARC-Easy" not in document["sentence"]
    assert document["claim"] == claim.as_dict()["claim"]  # the colour is the same
    monkeypatch.setattr(utility, "utility", lambda *_: pytest.fail("measured again"))
    status, out, _ = run("--outcome", "--utility", "--items", 40)
    assert status == 0
    assert "arc_easy: no change of accuracy can be told" in out


def test_methods_stand_beside_the_claim(
    world: MadeUp, run: Run, tmp_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_cache)
    claim = add_claim(store, AXIS, world, add_comparison(store, AXIS, world, **SMALL))
    refused(run("--methods", "gains"), "add --outcome to --methods")
    refused(
        run("--outcome", "--methods", "gains,fasp"),
        "No gates of 'gains'",
        f"fasp_core gains --model built-in --axis {AXIS}",
    )
    refused(run("--outcome", "--methods", "obd"), "no method 'obd'", "hard-concrete")
    refused(run("--outcome", "--methods", "fasp", "--items", 0), "0 items")
    told = {
        "reduction_pct": 61.2,
        "interval_pct": [50.0, 70.1],
        "within_templates_reduction_pct": 40.0,
        "ppl_change_pct": 1.5,
        "paragraphs_change_pct": -0.4,
        "lambada_points": -2.0,
        "lambada_interval": [-4.0, 0.1],
        "prompts": 360,
        "items": 7,
        "heads_removed": 3,
        "heads_scaled": 1,
        "chosen": "fasp, gamma 0.2, alpha 0.02",
    }
    asked: list[Any] = []

    def beside(bench: methods.Bench, names: list[str], sample: methods.Sample) -> dict[str, Any]:
        asked.append((bench.axis, bench.limits.max_ppl, names, sample))
        return {"fasp": told, "search": {"reduction_pct": None, "note": "No set of it keeps to the limits (of some)."}}

    monkeypatch.setattr(methods.Bench, "beside", beside)
    document = json.loads(run("--outcome", "--methods", "fasp, search", "--items", 7, "--json")[1])
    assert document["methods"]["fasp"] == told
    assert {name: value for name, value in document.items() if name != "methods"} == json.loads(
        to_json(claim.as_dict() | {"divided": None})
    )
    assert asked == [(AXIS, defaults.MAX_PPL, ["fasp", "search"], methods.Sample(AXIS, items=7))]
    text = run("--outcome", "--methods", "fasp,search")[1]
    for said in ("3 removed, 1 scaled", "-61.2%", "[-70.1%, -50.0%]", "+1.5%", "-2.0 points", "search: No set of it"):
        assert said in text
