"""The page "Scorecard" in the states that a reader can see, with made-up lines and without a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.spec import ModelSpec
from fasp_core.studies.common import KIND
from fasp_core.studies.scorecard import scorecard
from fasp_core.studies.scorecard.lines import Line
from fasp_core.studies.scorecard.parts import Part
from fasp_core.studies.scorecard.scorecard import Plan
from fasp_core.tasks import files
from tests.support.fakes import MADE, Studio
from tests.support.running import AXIS, opened, press, run, said

LINE = Line("task", "x", "%", 50.0, 40.0, -10.0, "points", (-15.0, -5.0), "higher", "150 items", "worse")


@pytest.fixture
def scored(studio: Studio) -> Studio:
    studio.add_scores(AXIS)
    return studio


def card(**state: Any) -> AppTest:
    return opened("scorecard", **{"alpha": 0.02, "gamma": 0.3, **state})


def heads_of(at: AppTest) -> PruneSet:
    selection = at.session_state["selection"]
    return PruneSet.from_flat(selection.pruned, 9)


def keep(studio: Studio, heads: PruneSet, part: Part, **line: Any) -> None:
    lines = [replace(LINE, **{"name": part.title, **line}).as_dict()]
    key = part.key(studio.load(ModelSpec()).id, heads)
    studio.store.save(KIND, key, arrays={}, meta={"lines": lines, "provenance": MADE})


def test_without_scores_or_a_set(studio: Studio) -> None:
    at = card()
    assert [s.value for s in at.subheader] == ["No scores yet for this model and axis"]
    studio.add_scores(AXIS)
    at = card(alpha=0.0)
    assert "Nothing is removed" in said(at)
    assert not at.dataframe


def test_what_is_not_measured_is_offered_and_comes_line_by_line(
    scored: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = card()
    parts = Plan().parts()
    assert [s.value for s in at.subheader] == [f"{len(parts)} of {len(parts)} parts not measured yet"]
    assert not at.dataframe
    heads = heads_of(at)
    keep(scored, heads, parts[0], outcome="better", name="perplexity <b>")
    run(at)
    assert [s.value for s in at.subheader] == [f"{len(parts) - 1} of {len(parts)} parts not measured yet"]
    assert len(at.dataframe[0].value) == 1
    assert "Of 1 measure 1 got better" in said(at)

    def measured(_lm: Any, heads: PruneSet, part: Part, *_: Any) -> None:
        keep(scored, heads, part)

    monkeypatch.setattr(scorecard, "measured", measured)
    scored.at_once()
    press(at, "Measure")
    assert not at.subheader
    table = at.dataframe[0].value
    assert len(table) == len(parts)
    assert set(table["what it shows"]) == {"▲ better", "▼ worse"}
    assert [d.proto.label for d in at.get("download_button")] == ["Page to print (HTML)", "Numbers (CSV)"]


def test_what_cannot_be_measured_is_said(scored: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise InputError("The package 'x' is not installed.")

    monkeypatch.setattr(files, "folder", missing)
    at = card()
    assert "The package 'x' is not installed" in said(at)
    assert "lambada" not in at.subheader[0].value


def test_what_a_run_could_not_measure_is_said_and_not_offered_again(
    scored: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = card()
    parts = Plan().parts()

    def measured(_lm: Any, heads: PruneSet, part: Part, *_: Any) -> None:
        if part == parts[3]:
            raise InputError("This text is too long.")
        keep(scored, heads, part)

    monkeypatch.setattr(scorecard, "measured", measured)
    scored.at_once()
    press(at, "Measure")
    assert not at.subheader
    assert f"{parts[3].title}: This text is too long." in said(at)


def test_a_demo_measures_nothing(scored: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_DEMO", "1")
    at = card()
    assert "Measure" not in [b.label for b in at.button]


def test_what_is_chosen_is_what_is_measured(scored: Studio) -> None:
    asked = {"scorecard axes": [AXIS], "scorecard tasks": ["piqa"], "scorecard suites": [], "scorecard items": 50}
    at = card(**asked)
    parts = Plan((AXIS,), ("piqa",), (), items=50).parts()
    assert at.subheader[0].value == f"{len(parts)} of {len(parts)} parts not measured yet"
    keep(scored, heads_of(at), parts[3])
    assert at.session_state["scorecard items"] == 50
    run(at)
    assert list(at.dataframe[0].value["measure"]) == [parts[3].title]


def test_a_scorecard_by_the_offline_scorer_is_none_by_another(scored: Studio, judge: str) -> None:
    keep(scored, heads_of(card()), Plan().parts()[0])
    assert card().dataframe
    at = card(scorer=judge)
    assert "Scorecards are of the offline scorer" in said(at)
    assert not at.dataframe
    assert not at.subheader
