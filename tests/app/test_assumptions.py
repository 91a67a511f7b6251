"""The page "Check the assumptions" in every state that a reader can see, without a browser and without a model."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.studies.additivity import additivity
from fasp_core.studies.robustness import robustness
from pages.assumptions import additive, measures
from pages.backend.engine import engine
from tests.support.fakes import Studio
from tests.support.made.assumptions import add_additivity, add_robustness
from tests.support.running import charts, opened, press, run, said

AXIS = "religion"
ADDING, MEASURES, OPINIONS = "Do effects add up?", "Does the measure matter?", "What the scorer thinks"
WEIGHTS = engine().models.facts(ModelSpec()).id  # type: ignore[union-attr]


@pytest.fixture
def table(studio: Studio) -> ImpactTable:
    """Scores of the built-in model, as the page finds them."""
    studio.add_scores(AXIS)
    found = engine().results.scores(ModelSpec(), BiasConfig(AXIS))
    assert found is not None
    return found


def at_tab(tab: str = ADDING, **state: Any) -> AppTest:
    return opened("assumptions", **{"axis": AXIS, "assumption": tab, **state})


# --- do effects add up? ---


def test_without_scores_the_page_offers_to_make_them(studio: Studio) -> None:
    for tab in (ADDING, MEASURES):
        at = at_tab(tab)
        assert "No scores yet for this model and axis" in said(at)
        assert not charts(at)


def test_without_a_result_the_page_says_what_measuring_means(table: ImpactTable) -> None:
    at = at_tab()
    assert "Not measured yet for religion" in said(at)
    assert "32 growing sets and 39 pairs of heads" in said(at)
    assert "python -m fasp_core study additivity --axis religion" in said(at)
    assert [b.label for b in at.button] == ["Measure"]


def test_names_of_measures_are_broken_into_lines() -> None:
    assert not [name for name in measures.SHORT.values() if "\\" in name]
    assert "terms scored" in measures.SHORT["counted"].split("\n")


@pytest.mark.parametrize(("tab", "study"), [(ADDING, "additivity"), (MEASURES, "robustness")])
def test_the_command_measures_the_same_model(studio: Studio, tab: str, study: str) -> None:
    studio.add_scores(AXIS, "tiny one")
    studio.at_once()
    at = at_tab(tab, model="tiny one", dtype="bfloat16", bos="yes")
    told = "--axis religion --model 'tiny one' --dtype bfloat16 --bos yes`"
    assert f"`python -m fasp_core study {study} {told}" in said(at)


def test_measuring_is_a_job_that_can_be_cancelled_and_ends_in_a_result(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_it(lm: Any, plan: additivity.Plan, store: Any, progress: Any, impacts: ImpactTable) -> None:
        studio._run(progress)
        add_additivity(store, plan, impacts, lm.id)

    monkeypatch.setattr(additivity, "run", run_it)
    studio.open.clear()
    at = press(at_tab(), "Measure")
    assert "Cancel" in [b.label for b in at.button]
    at = press(at, "Cancel")
    studio.finish()
    assert "Cancelled. What was measured is kept" in said(run(at))
    studio.open.set()
    at = press(at, "Measure")
    studio.finish()
    at = run(at)
    assert len(charts(at)) == 4


def test_a_failure_is_told_and_can_be_mended(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise InputError("The scores are of other prompts: score the axis again.")

    monkeypatch.setattr(additivity, "run", fail)
    studio.at_once()
    at = press(at_tab(), "Measure")
    assert [e.value for e in at.error] == ["The scores are of other prompts: score the axis again."]
    assert "Measure" in [b.label for b in at.button]


def test_a_result_has_an_outcome_four_charts_and_tables(studio: Studio, table: ImpactTable) -> None:
    plan = additivity.Plan(AXIS)
    add_additivity(studio.store, plan, table, WEIGHTS)
    entry = additivity.find(plan, table, WEIGHTS, studio.store)
    assert entry is not None
    result = additivity.read(entry)
    at = at_tab()
    assert result.quantities["neutral"].outcome in said(at)
    assert [c["layout"]["title"]["text"].split("<br>")[0] for c in charts(at)] == [
        "Growing sets",
        "Sets: predicted against measured",
        "Strongest 20 of 39 interactions",
        "Pairs: predicted against measured",
    ]
    top = result.quantities["neutral"].pairs[0]
    assert charts(at)[2]["layout"]["yaxis"]["ticktext"][0] == f"{top.first} + {top.second}"
    frames = [d.value for d in at.dataframe]
    assert {len(f) for f in frames} == {6, 39, 32, len(result.quantities["neutral"].heads)}
    assert "Benjamini and Yekutieli" in said(at)
    at.session_state[f"additive quantity {AXIS}"] = "perplexity"
    at = run(at)
    assert result.quantities["perplexity"].outcome in said(at)
    assert not [c for c in at.button_group if c.key == f"additive prediction {AXIS}"]


def test_another_prediction_moves_the_points(studio: Studio, table: ImpactTable) -> None:
    add_additivity(studio.store, additivity.Plan(AXIS), table, WEIGHTS)
    at = at_tab()
    before = charts(at)[1]["data"][1]["x"]
    at.session_state[f"additive prediction {AXIS}"] = "prompt by prompt"
    assert charts(run(at))[1]["data"][1]["x"] != before


def test_numbers_stand_with_their_units(studio: Studio, table: ImpactTable) -> None:
    plan = additivity.Plan(AXIS)
    add_additivity(studio.store, plan, table, WEIGHTS)
    entry = additivity.find(plan, table, WEIGHTS, studio.store)
    assert entry is not None
    q = additivity.read(entry).quantities["neutral"]
    assert additive.text(q.pairs[0].interaction, q).endswith("] ×10⁻³")
    frame = additive.pair_frame(q)
    assert frame["interaction"][0] == q.pairs[0].interaction.value
    assert list(additive.set_frame(q)["size"]) == [p.size for p in q.sets]


# --- does the measure matter? ---


def test_measures_are_offered_with_what_they_are(table: ImpactTable) -> None:
    at = at_tab(MEASURES)
    assert "CrowS-Pairs (religion), StereoSet (religion)" in said(at)
    assert "none is shown" in said(at)


def test_agreement_and_effects_are_matrices(studio: Studio, table: ImpactTable) -> None:
    plan = robustness.Plan(AXIS)
    add_robustness(studio.store, plan, table, WEIGHTS)
    entry = robustness.find(plan, table, WEIGHTS, studio.store)
    assert entry is not None
    result = robustness.read(entry, table)
    at = at_tab(MEASURES)
    assert result.outcome in said(at)
    agreement, effects = charts(at)
    n = len(result.scored)
    cells = next(t for t in agreement["data"] if t.get("name") == "text")["text"]
    assert len(cells) == n * n
    names = list(result.scored)
    assert cells[1] == str(result.agreement(names[0], names[1]).shared)
    columns = effects["layout"]["xaxis"]["ticktext"]
    assert len(next(t for t in effects["data"] if t.get("name") == "text")["text"]) == len(result.sets) * len(columns)
    assert "offensive on purpose" in said(at)
    shown = "\n".join(str(d.value.to_dict()) for d in at.dataframe)
    for half in plan.collections()[0]:
        assert not any(item.stereotyped in shown + said(at) for item in half.items)
    frames = [len(d.value) for d in at.dataframe]
    assert frames == [n, n * (n - 1) // 2, len(result.effects), len(result.sets) + 1]
    assert measures.sentence_frame(result).iloc[0, 0] == "whole model"


def test_an_axis_without_sentence_pairs_says_so(studio: Studio) -> None:
    axis = "political_ideologies"
    studio.add_scores(axis)
    found = engine().results.scores(ModelSpec(), BiasConfig(axis))
    assert found is not None
    add_robustness(studio.store, robustness.Plan(axis), found, WEIGHTS)
    at = at_tab(MEASURES, axis=axis)
    assert "No collection of sentence pairs has a bias type for this axis" in said(at)


# --- what the scorer thinks ---


def test_opinions_need_no_model_and_no_scores(studio: Studio) -> None:
    at = at_tab(OPINIONS)
    assert "the word alone moves the score" in said(at)
    assert "it has no opinion on them" in said(at)
    assert len(charts(at)) == 2
    assert {len(d.value) for d in at.dataframe} == {49}
    assert not at.error


def test_a_model_that_cannot_be_loaded_is_told(studio: Studio) -> None:
    studio.at_once()
    at = at_tab(model="nobody/nothing")
    assert "nobody/nothing" in said(at)
