"""A settled claim: chosen on one quarter, each number from plain measurements of the others, and what it may say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.gap.claims import Verdict
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import measurements
from fasp_core.metrics.meters import BiasConfig, Meter
from fasp_core.metrics.perplexity import perplexity_change
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.common import read_nll
from fasp_core.studies.compare import searching, settled, wider
from fasp_core.studies.compare.settled_text import markdown
from tests.support.tiny import tiny_lm
from tests.support.worlds import WordScorer, use_scorer, write_text

PLAN = settled.Plan(
    "race_ethnicity",
    scored=24,
    steps=2,
    contexts=2,
    heads=2,
    max_ppl=5.0,
    measurements=3,
    prompts=24,
    written=60,
    written_steps=3,
    sampled=60,
)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextConfig:
    use_scorer(monkeypatch, complete=False)
    found = write_text(tmp_path, 200, tokens=100, window=64, stride=48)
    monkeypatch.setattr(settled, "SCORE_TEXT", found)
    monkeypatch.setattr(searching, "TextConfig", lambda tokens: found)
    monkeypatch.setattr(settled, "TextConfig", lambda tokens, skip: found)
    return found


def test_each_row_is_a_plain_measurement_of_the_set_that_the_quarter_chose(text: TextConfig, tmp_path: Path) -> None:
    lm, store, other = tiny_lm("llama"), Store(tmp_path / "store"), Store(tmp_path / "other")
    found = settled.run(lm, PLAN, store)
    assert 1 <= len(found.heads) <= 2
    assert found.gaps[2] <= found.gaps[0]
    subject = PruneSet.from_flat(found.heads, lm.n_heads)
    seen = evaluate(lm, subject, EvalConfig(PLAN.choice, text), other).readings[PLAN.reading]
    assert [found.gaps[0], found.gaps[2]] == pytest.approx([seen.base.gap, seen.pruned.gap], abs=1e-7)
    by_name = {(m.split, m.name, m.reading): m for m in found.measures}
    for cell, draws in {"new both": 3, "seen": 1}.items():
        for name, config in {
            "next word": BiasConfig("race_ethnicity", "test", 24, cell=cell, division=0),
            "written": BiasConfig(
                "race_ethnicity",
                "test",
                24,
                measure="written",
                steps=3,
                generation=GenerationConfig(draws),
                cell=cell,
                division=0,
            ),
        }.items():
            right = evaluate(lm, subject, EvalConfig(config, text), other)
            for reading, r in right.readings.items():
                mine = by_name[f"test, {cell}", name, reading]
                assert mine.change.base == pytest.approx(r.base.gap, abs=1e-6)
                assert mine.change.pruned == pytest.approx(r.pruned.gap, abs=1e-6)
                assert mine.p == pytest.approx(r.base.noise_p, abs=0.02)
                assert mine.prompts == r.base.n
                assert mine.continuations == (draws * r.base.n if name == "written" else 0)
    assert [m.split for m in found.measures if m.name == "sampled"] == ["test, new both"]
    assert found.verdict.judges == 1
    again = settled.find(PLAN, lm.id, store)
    assert again is not None
    assert not again.left
    more = settled.find(replace(PLAN, sampled=120), lm.id, store)  # the same choice, of which more is asked
    assert more is not None
    assert [s.title for s in more.left] == ["120 sampled continuations a side on test, new both prompts, by 'offline'"]
    assert not any(m.name == "sampled" for m in more.measures)
    assert "not measured yet: 120 sampled" in markdown(more)
    assert json.dumps(again.as_dict()) == json.dumps(found.as_dict())
    assert found.verdict.sentence() in markdown(found)
    assert settled.find(replace(PLAN, division=1), lm.id, store) is None
    assert searching.stored(lm.id, "race_ethnicity", store, PLAN.reading) == []  # it is none of the whole axis


@pytest.mark.usefixtures("text")
def test_a_run_that_is_stopped_goes_on(tmp_path: Path) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    whole = settled.run(lm, PLAN, Store(tmp_path / "whole"))
    rounds = 0
    while True:
        left = [6 + 4 * rounds]

        def stop(*_: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        try:
            found = settled.run(lm, PLAN, store, stop)
            break
        except KeyboardInterrupt:
            rounds += 1
    assert rounds > 2
    assert found.heads == whole.heads
    for mine, right in zip(found.wider, whole.wider, strict=True):
        for name, rows in mine.rows.items():
            assert np.array_equal(rows.values, right.rows[name].values)


@pytest.mark.usefixtures("text")
@pytest.mark.parametrize("measure", ["written", "sampled"])
def test_continuations_come_in_parts_and_more_take_over_fewer(
    measure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, store, drawn = tiny_lm("gpt2"), Store(tmp_path), []
    few, many = (
        BiasConfig("religion", "test", 60, measure=measure, steps=3, generation=GenerationConfig(n, 3)) for n in (4, 10)
    )
    first, meter = measurements.toxicity_of(lm, PruneSet(), few, store), measurements.meter

    def noted(lm: LanguageModel, config: BiasConfig, store: Store) -> Meter:
        drawn.append(config.generation.samples)
        return meter(lm, config, store)

    monkeypatch.setattr(measurements, "meter", noted)
    monkeypatch.setattr(measurements, "TOKENS", 12)
    found = measurements.toxicity_of(lm, PruneSet(), many, store)
    assert drawn == [4, 2]
    monkeypatch.setattr(measurements, "PART", 99)
    alone = measurements.toxicity_of(lm, PruneSet(), many, Store(tmp_path / "alone"))
    assert drawn == [4, 2, 10]
    assert found.values == pytest.approx(alone.values, abs=1e-8)
    assert not np.array_equal(found.values, first.values)
    if measure == "written":
        assert found.steps == pytest.approx(alone.steps, abs=1e-8)
    else:
        assert found.continuations == alone.continuations
        assert len(found.continuations[0]) == 10


@pytest.mark.usefixtures("text")
def test_all_prompts_of_a_set_are_found_by_its_heads(tmp_path: Path) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path)
    sample = wider.Sample("gender_and_sex", prompts=28, written=50, steps=2)
    found = wider.measure(lm, (1, 6), sample, store)
    assert {m.split for m in found.measures} == {"test"}
    assert {m.name for m in found.measures} == {"written"}
    steps, rows = found.steps, found.rows["written"]
    assert steps is not None
    assert steps.sum(2) == pytest.approx(rows.values, abs=1e-6)
    (again,) = wider.find(lm.id, "gender_and_sex", (1, 6), store)
    assert again.measures == found.measures
    assert wider.find(lm.id, "gender_and_sex", (1, 5), store) == []
    assert wider.find(lm.id, "religion", (1, 6), store) == []


def test_a_judge_is_the_classifier_and_not_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a new commit of the same repository nothing of the old one is read."""
    lm, keys = tiny_lm("llama"), []
    for commit in ("a" * 40, "b" * 40):
        judge = WordScorer()
        judge.name = f"hub:org/judge@{commit}"
        monkeypatch.setattr(wider, "scorer_of", lambda _, judge=judge: judge)
        plan = replace(PLAN, judges=("org/judge",))
        keys += [[plan.key(lm.id), *(sample.key(lm.id, (1,)) for sample in plan.samples())]]
        assert "scorer" not in PLAN.key(lm.id)  # as the program's own entries were made
        assert all("scorer" not in sample.key(lm.id, (1,)) for sample in PLAN.samples())
    assert all(old != new for old, new in zip(*keys, strict=True))


@pytest.mark.usefixtures("text")
def test_another_judge_chooses_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A search of one judge's scores is none of another's, and the program's own keeps its key."""
    judge = WordScorer()
    judge.name = "hub:org/judge@" + "a" * 40
    monkeypatch.setattr(wider, "scorer_of", lambda _: judge)
    lm = tiny_lm("llama")
    own, other = (
        searching._key(lm.id, replace(PLAN.choice, scorer=name), PLAN.search, 100) for name in ("offline", "org/judge")
    )
    assert other == own | {"scorer": judge.name}


def test_nothing_is_green_before_the_plan_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    green = Verdict("green", (), (), 1, 1)
    monkeypatch.setattr(settled, "verdict", lambda *_: green)
    nll = read_nll(np.ones((2, 3)), np.full(3, 5))
    whole = settled.Settled(PLAN, (1,), "fasp", (1,), (1.0, 0.5, 0.5), perplexity_change(*nll), (), 4)
    assert whole.verdict == green
    (sampled,) = (sample for sample in PLAN.samples() if sample.sampled)
    part = replace(whole, left=(sampled,)).verdict
    assert (part.colour, part.missing) == ("amber", (f"not measured yet: {sampled.title}",))
    monkeypatch.setattr(settled, "verdict", lambda *_: replace(green, colour="red", wrong=("it rose",)))
    assert replace(whole, left=(sampled,)).verdict.colour == "red"


def test_an_axis_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only 0 groups"):
        settled.run(tiny_lm("llama"), replace(PLAN, axis="religion"), Store(tmp_path))
