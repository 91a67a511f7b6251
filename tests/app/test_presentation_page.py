"""The page "Presentation": five steps with live or stored numbers, links to a step, and what a missing one says."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html import unescape
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from fasp_core.errors import InputError
from fasp_core.figures.theme import LIGHT
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.studies.compare.outcome import ClaimConfig
from pages.backend.engine import engine
from pages.backend.requests import Gather
from pages.backend.results import Results
from pages.presentation import deck, markup, pictures, slides
from pages.presentation.slides import ALL
from tests.support.fakes import MadeUp, Studio, add_claim, add_comparison
from tests.support.made import made_settled
from tests.support.running import APP, AXIS, N_HEADS, instrument, labels, opened, run, texts

SMALL = {"prompts": "90", "tokens": "512", "alpha": "0.02", "gamma": "0.3"}
STEPS = range(1, len(ALL) + 1)


def raw(at: AppTest) -> list[str]:
    """What the page draws of its own, as it is."""
    found: Any = at.get("html")
    return [one.proto.body for one in found if "<style>" not in one.proto.body]


def screen(at: AppTest) -> str:
    """Words of the step that is shown."""
    return words(" ".join(body for body in raw(at) if "fasp-handout" not in body))


def paper(at: AppTest) -> str:
    """Words of the hand-out."""
    return words(" ".join(body for body in raw(at) if "fasp-handout" in body))


def words(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", markup)).split())


@pytest.fixture
def at_once(studio: Studio) -> Studio:
    studio.add_scores(AXIS)
    studio.at_once()
    return studio


def presented(step: int, **query: str) -> AppTest:
    return opened("presentation", {**SMALL, **query, "step": str(step)})


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_a_message_and_is_on_paper(at_once: Studio, step: int) -> None:
    at = presented(step)
    assert f"fasp-step-{step}" in " ".join(raw(at))
    (message,) = re.findall(r"<h1>(.*?)</h1>", " ".join(body for body in raw(at) if "fasp-handout" not in body))
    assert unescape(message) in paper(at)
    assert at.query_params["step"] in (str(step), [str(step)])
    assert [f"{i}." in paper(at) for i in STEPS] == [True] * len(ALL)
    assert "Say first what will be decided" not in screen(at) + paper(at), "notes are for the speaker"


def test_numbers_are_those_of_the_scores(at_once: Studio) -> None:
    table = engine().results.scores(ModelSpec(), BiasConfig(AXIS))
    assert table is not None
    z, errors = table.bias.z_bias("neutral"), table.bias.standard_errors("neutral")
    said = screen(presented(2))
    assert said.startswith(f"{int((z > 1.96 * errors).sum())} of 270 heads each widen the gap")
    assert f"is {1000 * table.bias.gap('neutral').gap:.2f} thousandths" in said
    assert f"{len(table.bias.codes):,} validation prompts" in said


def test_the_cut_is_the_instrument_and_its_sentence_is_the_rule(at_once: Studio) -> None:
    at = presented(3)
    assert instrument(at)["alpha"] == 0.02
    result = at.session_state["job main"].result
    shown = result.readings["neutral"]
    assert f"{shown.gap.relative:+.0%}" in screen(at)
    assert "The gap fell by" in screen(at) or "No reduction" in screen(at) or "No gap" in screen(at)
    none = screen(presented(3, alpha="0"))
    assert none.startswith("Nothing is cut")


def test_the_price_is_measured_on_test_prompts(at_once: Studio) -> None:
    at = presented(4)
    job = at.session_state["job presented test"]
    assert job.key.config.bias.split == "test"
    p = job.result.perplexity
    said = screen(at)
    assert f"{p.relative:+.1%} perplexity" in said
    assert f"on {p.tokens:,} tokens" in said
    assert "python -m fasp_core compare --axis race_ethnicity --run" in said, "no comparison is stored"


def test_the_head_that_is_shown_is_called_what_it_is(at_once: Studio) -> None:
    table = engine().results.scores(ModelSpec(), BiasConfig(AXIS))
    assert table is not None
    head = "L{}H{}".format(*divmod(int(table.bias.z_bias("neutral").argmin()), N_HEADS))
    for query, reason in (
        ({}, "of the heads that are cut later, the one that widens the gap most."),
        ({"alpha": "0"}, "of all heads, the one that widens the gap most."),
        ({"method": "hand", "prune": head}, "none of which widens the gap, the one that narrows it least."),
    ):
        assert reason in screen(presented(1, **query)), query


def test_a_speaker_is_told_nothing_of_what_is_not_there(at_once: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(deck, "draw", told.extend)
    monkeypatch.setattr(slides, "CHANCE", 1.0)
    for step in STEPS:
        presented(step, method="hand", prune="L0H0")
    notes = " ".join(told)
    for absent in ("sits more in some parts", "Drag α", "the curve", "blue lines"):
        assert absent not in notes
    assert "point at none of them" in notes
    assert "promise nothing about them" in notes


def test_what_is_missing_names_its_command(at_once: Studio) -> None:
    said = screen(presented(5))
    assert "python -m fasp_core study settle --axis race_ethnicity" in said
    assert "nothing was measured yet" in said


@pytest.mark.parametrize("settled", [True, False])
def test_what_is_stored_of_another_set_is_not_told_of_this_one(
    at_once: Studio, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    if settled:
        monkeypatch.setattr(Results, "settled", lambda _self, _spec, plan: made_settled(plan))
        same, beginning = PruneSet.parse("L0H3,L1H8"), "Another set, of 2 heads: on new sentences"
    else:
        monkeypatch.setattr(ClaimConfig.__init__, "__defaults__", (360, 1280, 90, 2, 4))
        table = engine().results.scores(ModelSpec(), BiasConfig(AXIS))
        assert table is not None
        world = MadeUp(table, strength=10)
        compared = add_comparison(at_once.store, AXIS, world, gammas=(0.2,), alphas=(0.02,), seeds=1, prompts=180)
        claim = add_claim(at_once.store, AXIS, world, compared)
        same = PruneSet.from_flat(claim.candidate.heads, N_HEADS)
        beginning = f"Another set, of {len(same)} heads: gap reduced"
    at = presented(5, method="hand", prune="L0H0")
    assert screen(at).startswith(beginning)
    assert beginning in paper(at)
    (told,) = re.findall(r'alt="(Changes of the gap: [^"]*)"', " ".join(raw(at)[:-1]))
    measured = told.removeprefix("Changes of the gap: ").split("; ")
    assert {row.startswith("Another set, of ") for row in measured if "This set: " not in row} == {True}
    at = presented(5, method="hand", prune=same.format())
    assert "nother set, of" not in " ".join(raw(at))


def test_what_is_stored_by_the_offline_scorer_is_not_told_of_another(
    at_once: Studio, monkeypatch: pytest.MonkeyPatch, judge: str
) -> None:
    monkeypatch.setattr(Results, "settled", lambda _self, _spec, plan: made_settled(plan))
    table = engine().results.scores(ModelSpec(), BiasConfig(AXIS))
    assert table is not None
    add_comparison(at_once.store, AXIS, MadeUp(table), gammas=(0.2,), alphas=(0.02,), seeds=1, prompts=180)
    for step in (4, 5):
        said = screen(opened("presentation", {**SMALL, "step": str(step)}, scorer=judge))
        assert "are of the offline scorer: choose it in the sidebar" in said
        assert "people the gap still falls" not in said
        assert "heads that FASP cuts" not in said
        assert "fasp_core compare" not in said
        assert "fasp_core study" not in said


@pytest.mark.parametrize("step", [4, 5])
def test_a_command_is_of_the_same_model(at_once: Studio, step: int) -> None:
    at_once.add_scores(AXIS, "tiny one")
    at = opened("presentation", {"alpha": "0.2", "step": str(step)}, model="tiny one", dtype="float16", bos="yes")
    assert "--model 'tiny one' --dtype float16 --bos yes" in screen(at)
    assert paper(at).count("--model 'tiny one' --dtype float16 --bos yes") == 2


def test_a_link_to_no_step_is_told_and_begins_at_the_first(at_once: Studio) -> None:
    at = opened("presentation", {**SMALL, "step": "9"})
    assert "fasp-step-1" in " ".join(raw(at))
    assert "step=9" in texts(at)
    assert at.session_state[deck.STEP] == 1


def test_a_set_of_the_link_is_the_one_that_is_told(at_once: Studio) -> None:
    at = opened("presentation", {"step": "3", "method": "hand", "prune": "L0H3,L2H1", "prompts": "90", "tokens": "512"})
    assert "2 of 270 heads are cut" in screen(at)
    assert "L0H3,L2H1" in paper(at)


def test_no_scores_yet(studio: Studio) -> None:
    at = opened("presentation")
    assert [one.value for one in at.title] == ["Nothing to present yet"]
    assert "Score all heads" in labels(at)


def test_a_demo_begins_with_it_and_a_link_to_a_set_does_not(at_once: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_DEMO", "1")
    at = run(AppTest.from_file(APP, default_timeout=120))
    assert "fasp-step-1" in " ".join(raw(at))
    linked = AppTest.from_file(APP, default_timeout=120)
    linked.query_params["alpha"] = "0.02"
    run(linked)
    assert not [body for body in raw(linked) if "fasp-step" in body]


def test_a_demo_reads_stored_results_of_its_models_alone(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_DEMO", "1")
    Gather(ModelSpec(), AXIS, "neutral").check()
    for asked in (Gather(ModelSpec("tiny one"), AXIS, "neutral"), Gather(ModelSpec(), "/etc/passwd", "neutral")):
        with pytest.raises(InputError, match="demo"):
            asked.check()


def test_a_picture_of_many_heads_is_small() -> None:
    """One path a color: a hand-out holds three of these."""
    values = np.random.default_rng(0).normal(0, 1, 80 * 64)
    made = pictures.heads(values, np.full(80 * 64, 0.5), (80, 64), LIGHT, "all", range(100), 7, range(100, 1500))
    drawn = base64.b64decode(re.findall(r"base64,([^\"]+)", made)[0])
    every = [one for one in ElementTree.fromstring(drawn) if one.tag.endswith("path")]
    paths = [one for one in every if one.attrib["fill"] != "none"]
    assert [one.attrib["d"].count("M") for one in every if one not in paths] == [2 * 100] * 2  # crosses
    assert sum(one.attrib["d"].count("M") for one in paths) == 80 * 64
    outlined = [one for one in paths if "stroke" in one.attrib]
    assert sum(one.attrib["d"].count("M") for one in outlined) == 1400
    colors = [(one.attrib["fill"], "stroke" in one.attrib) for one in paths]
    assert len(set(colors)) == len(colors)
    assert len(drawn) < 250_000


def test_texts_of_others_are_letters() -> None:
    """Names of groups and models come from files."""
    evil = '<img src=x onerror="alert(1)">'
    made = pictures.groups([evil, "b"], np.array([1.0, 2.0]), [(0.5, 1.5), (1.5, 2.5)], 1.5, LIGHT, evil)
    made += pictures.attention([evil, "b"], [0.5, 0.5], evil, LIGHT)
    made += pictures.changes([pictures.Row(evil, evil, evil, -0.5, (-0.6, -0.4), True)], LIGHT, evil)
    slide = slides.Slide(evil, "", (evil,), evil, (), evil)
    made += markup.on_screen(slide, 1) + markup.on_screen(replace(slide, command=""), 2)
    drawn = [base64.b64decode(found).decode() for found in re.findall(r"base64,([^\"]+)", made)]
    assert [ElementTree.fromstring(one).tag.endswith("svg") for one in drawn] == [True] * 3
    for one in (made, *drawn):
        assert "<img src=x" not in one
        assert "&lt;img" in one
