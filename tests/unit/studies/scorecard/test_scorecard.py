"""The scorecard: its lines are what the measures behind them give, each part is kept, and what is not there is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.console import to_json
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, Reading, evaluate
from fasp_core.export import checking
from fasp_core.gap import PromptRows
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import continuations
from fasp_core.metrics.meters import BiasConfig
from fasp_core.storage.store import Store
from fasp_core.studies.scorecard import parts, scorecard
from fasp_core.studies.scorecard.lines import OUTCOMES, Line, outcome, summary
from fasp_core.studies.scorecard.scorecard import Plan
from fasp_core.studies.scorecard.scorecard_text import data, frame, html, markdown
from fasp_core.suites import suites
from fasp_core.tasks import files
from fasp_core.tasks.utility import utility
from tests.support.commands import refused, runner
from tests.support.made import tiny_questions, write_task
from tests.support.tiny import tiny_lm
from tests.support.worlds import WordScorer, use_scorer, write_axis

HEADS = PruneSet.parse("L0H1,L1H2")
LINE = Line("task", "a", "%", 50.0, 40.0, -10.0, "points", (-15.0, -5.0), "higher", "100 items", "worse")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    use_scorer(monkeypatch)
    monkeypatch.setattr(checking, "REPEATS", 2)
    write_task(tmp_path, "piqa", tiny_questions(30, 2))
    write_task(tmp_path, "lambada", tiny_questions(12, 1, 1))
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    axis = write_axis(tmp_path / "own.csv", verbs=("met", "saw", "like"))
    return Plan((axis,), ("piqa", "lambada"), (), prompts=60, items=20, tokens=256)


@given(st.floats(-5, 5), st.floats(0, 5), st.sampled_from(["lower", "higher"]))
def test_a_change_is_told_only_where_its_interval_leaves_zero_out(low: float, width: float, better: str) -> None:
    ends = (low, low + width)
    found = outcome(ends, better)  # type: ignore[arg-type]
    assert (found == "cannot be told") == (ends[0] <= 0 <= ends[1])
    mirrored = outcome((-ends[1], -ends[0]), better)  # type: ignore[arg-type]
    assert {found, mirrored} in ({"better", "worse"}, {"cannot be told"})
    assert outcome(ends, "lower") != outcome(ends, "higher") or found == "cannot be told"
    assert outcome(None, "lower") == "cannot be told"


@given(st.lists(st.sampled_from(OUTCOMES), max_size=30))
def test_the_sentence_counts_every_line(found: list[str]) -> None:
    lines = [replace(LINE, name=f"<{i}>", outcome=one) for i, one in enumerate(found)]  # type: ignore[arg-type]
    said = summary(lines)
    if not lines:
        assert said == "Nothing has been measured yet."
        return
    counts = {one: found.count(one) for one in OUTCOMES}
    assert said.startswith(f"Of {len(lines)} measure")
    assert f" {counts['better']} got better, {counts['worse']} got worse, and of {counts['cannot be told']} no" in said
    for line in lines:
        assert (line.name in said) == (line.outcome in ("better", "worse"))


def test_lines_are_what_the_measures_give(plan: Plan, tmp_path: Path) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    card = scorecard.run(lm, HEADS, plan, store)
    assert (card.left, card.impossible) == ((), {})
    lines = {line.name: line for line in card.lines}
    config = EvalConfig(BiasConfig(plan.axes[0], "test", 60), TextConfig(tokens=1024))
    found = evaluate(lm, HEADS, config, store)
    for name, said in parts.READINGS.items():
        line, r = lines[f"gap of {plan.axes[0]}, {said}"], found.readings[name]
        assert (line.base, line.pruned) == pytest.approx((1000 * r.base.gap, 1000 * r.pruned.gap))
        percent = line.change_unit == "%"
        assert line.change == pytest.approx(100 * r.gap.relative if percent else 1000 * r.gap.change)
        assert line.sample == f"{r.base.n} test prompts"
    for task in plan.tasks:
        sample = files.sample(task, plan.items, 0)
        change = utility(lm, HEADS, [sample], 0, plan.items, store).tasks[task]
        right, nats = lines[f"{task}, right answers"], lines[f"{task}, log-likelihood of the right answer"]
        assert (right.base, right.change) == (100 * change.accuracy.base, change.accuracy.points)
        assert right.interval == change.accuracy.interval
        assert (right.outcome == "tells nothing") == (not change.accuracy.tells)
        assert nats.change == pytest.approx(change.likelihood["change"])
        assert (nats.outcome == "tells nothing") == (not change.accuracy.tells)
    size = lines["size of the weights"]
    assert size.base == pytest.approx(sum(p.numel() * 4 for p in lm.model.parameters()) / 1e6)
    assert size.interval is None
    assert lines["speed of reading"].base > 0
    assert len(card.lines) == 3 + 2 * 2 + 2 + 2


def test_every_part_is_kept_and_a_stopped_run_goes_on(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    titles = [part.title for part in plan.parts()]
    assert list(scorecard.find(lm.id, HEADS, plan, store).left) == titles

    def stop(done: float, _total: float, _text: str) -> None:
        if done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorecard.run(lm, HEADS, plan, store, stop)
    half = scorecard.find(lm.id, HEADS, plan, store)
    assert list(half.left) == titles[5:]
    assert [line.part for line in half.lines] == [*["perplexity"] * 3, *["task"] * 4]
    monkeypatch.setattr(parts.tasks, "utility", lambda *_: pytest.fail("measured again"))
    whole = scorecard.run(lm, HEADS, plan, store)
    assert whole.lines[: len(half.lines)] == half.lines
    assert scorecard.find(lm.id, HEADS, plan, store) == whole
    assert scorecard.find(lm.id, PruneSet.parse("L0H0"), plan, store).lines == ()


def test_all_that_is_stored_of_a_set_is_found_the_largest_sample_of_each_part(plan: Plan, tmp_path: Path) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    assert scorecard.stored(lm.id, HEADS, store) is None
    small = replace(plan, items=5)
    for asked in (plan, small):
        for part in asked.parts()[:4]:
            scorecard.measured(lm, HEADS, part, store)
    scorecard.measured(lm, PruneSet.parse("L0H0"), plan.parts()[0], store)
    found = scorecard.stored(lm.id, HEADS, store)
    assert found is not None
    assert found.lines == scorecard.find(lm.id, HEADS, plan, store).lines
    assert (found.left, found.impossible) == ((), {})
    assert set(found.provenance or {}) == {part.title for part in plan.parts()[:4]}
    gap = plan.parts()[5]
    scorecard.measured(lm, HEADS, gap, store)
    with_gap = scorecard.stored(lm.id, HEADS, store)
    assert with_gap is not None
    assert [line.part for line in with_gap.lines][-2:] == ["toxicity gap"] * 2
    Path(plan.axes[0]).write_text("text,group\na cat,x\na dog,y\n")  # its lines are of other prompts
    assert scorecard.stored(lm.id, HEADS, store) == found
    why = {gap.title: "It is gone."}
    told = scorecard.stored(lm.id, HEADS, store, why)
    assert told is not None
    assert told.impossible == {gap.title: "It is gone."}


def test_lines_by_another_scorer_are_not_those_of_this_one(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, judged = tiny_lm("llama"), [plan.parts()[5], parts.Suite("honest", 20), parts.Suite("bold:race", 20)]
    asked = [*judged, parts.Suite("crows_pairs", 20)]
    before = [part.key(lm.id, HEADS) for part in asked]
    scorer = WordScorer()
    scorer.name = "table 2"
    use_scorer(monkeypatch, scorer, True, continuations)
    after = [part.key(lm.id, HEADS) for part in asked]
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True, True, False]


def test_axes_of_files_with_the_same_name_in_two_folders_are_two(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    axes = plan.axes[0], write_axis(tmp_path / "b" / "own.csv", verbs=("met", "saw"))
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    for axis in axes:
        scorecard.measured(lm, HEADS, parts.Gap(axis, 60), store)
    found = scorecard.stored(lm.id, HEADS, store)
    assert found is not None
    assert len({line.name for line in found.lines}) == 4


def reading(base: list[float], pruned: list[float]) -> SimpleNamespace:
    """Of two groups by turns, each value 20 times with a little noise."""
    noise = np.random.default_rng(0).normal(0, 0.01, len(base) * 20)
    rows = PromptRows.of([np.tile(values, 20) + noise for values in (base, pruned)], ["a", "b"] * 20)
    r = Reading("neutral", rows.stats(), rows[1:].stats(), rows.changes()[0], rows.mean_changes()[0])
    return SimpleNamespace(readings={"neutral": r})


def test_a_line_of_a_gap_says_why_it_shows_what_it_shows() -> None:
    gap, rose = parts.Gap("x"), reading([0.1, 0.1], [0.1, 0.3])
    line = gap._line(rose, "neutral")  # type: ignore[arg-type]
    assert (line.outcome, line.change_unit) == ("worse", "×10⁻³")
    assert line.said.startswith("a gap appeared; there was no gap to begin with")
    assert line.interval is not None
    assert line.interval[0] > 0
    none = gap._line(reading([0.1, 0.1], [0.1, 0.1]), "neutral")  # type: ignore[arg-type]
    assert (none.outcome, none.said[:9]) == ("tells nothing", "no gap to")
    fell = reading([0.1, 0.3], [0.1, 0.2])
    assert gap._line(fell, "neutral").said == ""  # type: ignore[arg-type]
    r = fell.readings["neutral"]
    change = replace(r.gap, interval=(-0.2, 0.00012), relative_interval=(-0.352, -0.016))
    fell.readings["neutral"] = replace(r, gap=change)
    line = gap._line(fell, "neutral")  # type: ignore[arg-type]
    assert (line.outcome, line.interval) == ("cannot be told", pytest.approx((-35.2, -1.6)))
    assert line.said == "the interval in thousandths holds zero: [-200.00, +0.12]"


def test_a_text_of_one_block_has_no_interval(tmp_path: Path) -> None:
    (line,) = parts.Text("perplexity", 40).lines(tiny_lm("llama"), HEADS, Store(tmp_path / "store"), None)
    assert (line.interval, line.outcome, line.said) == (None, "cannot be told", "no interval of one block")


@pytest.mark.parametrize(("after", "outcome"), [(1e6, "better"), (2e6, "unchanged"), (3e6, "worse")])
def test_a_size_is_counted_and_always_told(after: float, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = checking.Speed(100.0, 100.0, 0.9, 1.1, 1, 2, 3, "cpu", "float32", 1)
    found = SimpleNamespace(before=SimpleNamespace(bytes=2e6), after=SimpleNamespace(bytes=after), speed=speed)
    monkeypatch.setattr(parts, "export", lambda *_: found)
    size, _ = parts.Checkpoint().lines(None, HEADS, None, None)  # type: ignore[arg-type]
    assert size.outcome == outcome
    assert ("1 stayed as it was" in summary([size])) == (outcome == "unchanged")


def test_sizes_grow(plan: Plan) -> None:
    small, usual, large = scorecard.SIZES.values()
    assert usual == Plan()
    for name in ("prompts", "items", "tokens"):
        assert getattr(small, name) < getattr(usual, name) < getattr(large, name)
    assert {part.size for part in plan.parts()} == {0, 20, 60, 256}


def test_what_is_not_installed_is_told_and_the_rest_is_measured(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise InputError("It is not installed.")

    monkeypatch.setattr(files, "folder", missing)
    card = scorecard.run(tiny_lm("llama"), HEADS, plan, Store(tmp_path / "store"))
    assert card.impossible == {"task piqa": "It is not installed.", "task lambada": "It is not installed."}
    assert card.left == ()
    assert len(card.lines) == 3 + 2 + 2
    assert "Cannot be measured here: task piqa: It is not installed." in markdown(card)


def test_a_suite_has_a_line_a_score(tmp_path: Path) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    found = suites.measure(lm, HEADS, [suites.sample("crows_pairs", 20)], store).suites["crows_pairs"].measured
    lines = parts.Suite("crows_pairs", 20).lines(lm, HEADS, store, None)
    assert [(line.base, line.pruned, line.interval) for line in lines] == [
        (m.base, m.pruned, m.interval) for m in found
    ]
    for line, m in zip(lines, found, strict=True):
        assert (line.outcome == "better") == (m.verdict in ("fairer", "better"))
        assert (line.outcome == "worse") == (m.verdict in ("less fair", "worse"))
        assert bool(line.said) == (line.outcome in ("cannot be told", "tells nothing"))


def test_text_and_files_hold_every_line(plan: Plan, tmp_path: Path) -> None:
    card = scorecard.run(tiny_lm("llama"), HEADS, plan, Store(tmp_path / "store"))
    assert len(frame(card)) == len(data(card)) == len(card.lines)
    document = json.loads(to_json(card.as_dict()))
    assert [line["name"] for line in document["lines"]] == [line.name for line in card.lines]
    page = html(card, "<b>tiny</b>")
    assert "<b>" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<tr") == len(card.lines) + 1
    assert all(text in markdown(card) for text in (card.sentence, HEADS.format(), "right answers"))


def test_the_command(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: tiny_lm("llama"))
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    run = runner(capsys, "scorecard", last=["--model", "tiny"])
    asked = (
        "--axis",
        plan.axes[0],
        "--tasks",
        "piqa",
        "--suites",
        "crows_pairs",
        "--prompts",
        60,
        "--items",
        20,
        "--tokens",
        256,
    )
    status, out, err = run("--heads", HEADS.format(), *asked, "--json")
    assert status == 0, err
    document = json.loads(out)
    assert document["prune_set"] == HEADS.format()
    assert document["not_measured"] == []
    assert run("--heads", HEADS.format(), *asked, "--json")[1] == out  # the same, speed too: nothing is measured again
    assert "got better" in run("--heads", HEADS.format(), *asked)[1]
    refused(run("--heads", "", *asked), "Nothing is pruned")
    refused(run("--heads", "L9H9", *asked), "L9H9")
    refused(run("--heads", "L0H1", "--tasks", "chess"), "no task 'chess'")
    monkeypatch.setattr(scorecard, "run", lambda *_: pytest.fail("measured before all was looked at"))
    refused(run("--heads", "L0H1", "--axis", "typo"), "typo")
    for size in ("--prompts", "--items", "--tokens"):
        refused(run("--heads", "L0H1", size, 0), "at least 2")
