"""The page "Contexts" in every state that a reader can see, without a browser and without a model."""

from __future__ import annotations

import gc
import re
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fasp_core import defaults
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import Nll
from fasp_core.storage.store import Store
from fasp_core.studies.answers import power
from fasp_core.studies.answers.distributions import gathered
from fasp_core.studies.answers.exact import ExactConfig, Tree
from fasp_core.studies.answers.measures import Estimate
from fasp_core.studies.contexts import audit as asked
from fasp_core.studies.contexts import matrix, outcome, scenarios
from fasp_core.studies.contexts.audit import AuditConfig, Exact, Following, Replies
from fasp_core.studies.contexts.cells import MatrixConfig
from fasp_core.studies.contexts.costing import SetCosts
from fasp_core.studies.contexts.findings import findings
from fasp_core.studies.contexts.generalisation import Carried
from fasp_core.studies.contexts.scenarios import Scenario, Scenarios
from pages.backend.engine import engine
from pages.contexts import audit
from pages.contexts import matrix as contexts_matrix
from pages.widgets.markdown import escape_markdown
from tests.support.contexts import made_up
from tests.support.fakes import MADE, Studio
from tests.support.numbered import NUMBERED, numbered_lm
from tests.support.running import opened, press, run, said

SHARES = {
    ("heads-effect", "same"): 0.5,
    ("heads-effect", "other"): 0.1,
    ("neurons-effect", "same"): 0.9,
    ("neurons-effect", "other"): 0.2,
    ("heads-random", "same"): 0.0,
    ("heads-random", "other"): 0.0,
}


@pytest.fixture
def studio(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setattr(audit, "audit", answered)
    monkeypatch.setattr(audit, "exactly", followed)
    return studio


def answered(
    lm: Any,
    scenario: Scenario,
    world: Scenarios,
    config: AuditConfig,
    store: Any,
    removed: PruneSet,
    groups: tuple[str, ...] | None = None,
    **_: Any,
) -> Replies:
    """The second group is offered twice as much by the whole model, and is answered less often."""
    compared = asked.several(world, groups)
    people = tuple(person for person in world.people if person[1] in compared)
    rng = np.random.default_rng(len(scenario.name))
    numbers = rng.integers(10, 20, (len(people), config.samples))
    factor = [1 + (group == "white" and not removed) for _, group in people]
    texts = tuple(
        tuple(f"${n * f}" if group == "black" or i else "no <b>idea</b>" for i, n in enumerate(row))
        for row, f, (_, group) in zip(numbers.tolist(), factor, people, strict=True)
    )
    return Replies(scenario, people, compared, texts, (), MADE)


def followed(lm: Any, scenario: Scenario, following: Following, store: Any, removed: PruneSet, *_: Any) -> Exact:
    """The same, as if the samples were all that there is."""
    config = following.config
    said = answered(lm, scenario, following.scenarios, config, store, removed, following.groups)
    n = config.samples
    trees = [
        Tree(list(texts), list(values), [1 / n] * n, 0.0)
        for texts, values in zip(said.texts, said.answers.values.tolist(), strict=True)
    ]
    found, texts = gathered(trees, said.answers.codes)
    return Exact(scenario, said.people, said.groups, found, texts, ExactConfig(), MADE)


def test_nothing_was_run_yet(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[MatrixConfig] = []

    def run_matrix(lm: Any, world: Scenarios, config: MatrixConfig, store: Any, **_: Any) -> None:
        asked.append(config)

    monkeypatch.setattr(matrix, "run", run_matrix)
    at = opened("contexts", bos="yes")
    assert "Nothing was run with this model yet" in said(at)
    assert "`python -m fasp_core study contexts --names 8 --per-context 2 --tokens 256 --model built-in" in said(at)
    studio.at_once()
    press(at, "Run")
    (config,) = asked
    assert (config.names, config.exact, config.scenarios) == (8, ExactConfig(), 2)
    at.main.selectbox(key="matrix how").set_value("sampled")
    run(at)
    assert "--per-context 2 --samples 4 --answer-tokens 6 --tokens 256 --model built-in --bos yes`" in said(at)
    press(at, "Run")
    assert (asked[-1].audit.samples, asked[-1].exact) == (4, None)


def test_a_group_of_one_name_that_is_not_compared_hides_nothing(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = scenarios.read()
    third = replace(world, groups={**world.groups, "third": ("Bo",)})
    monkeypatch.setattr(scenarios, "read", lambda *_: third)
    at = opened("contexts")
    assert "Nothing was run with this model yet" in said(at)
    assert {t.label for t in at.tabs} >= {"Audit"}
    assert not at.error


def test_the_findings_and_the_matrices(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(SHARES)
    monkeypatch.setattr(engine().results, "matrices", lambda spec: [found])
    at = opened("contexts")
    every = findings(Carried(found, defaults.WINSORISE))
    assert [i.value for i in at.main.info] == [escape_markdown(f"{f.verdict}.") for f in every]
    for f in every:
        assert re.sub(r"-(?=\d)", "−", f.sentence) in said(at).replace("\\", "")
    assert [f.holds for f in every] == [True, True, True]
    charts: Any = at.get("plotly_chart")
    assert len(charts) == 3  # by generality, heads, neurons
    (table,) = (f.value for f in at.dataframe if "chosen on" in f.value)
    assert len(table) == 3 * (2 + 2)  # each method: the same scenario and one other context, in two contexts
    assert "Click a cell" in said(at)
    at.session_state["contexts open"] = ("neurons-effect", 0, 1)
    run(at)
    assert "neurons, by effect: chosen on the same scenario, tested on parts" in said(at)
    assert len(at.get("plotly_chart")) == 4
    cell = found.of("neurons-effect", "same", tested_on="parts")[0]
    for estimate in Carried(found, defaults.WINSORISE).signed(cell):
        assert contexts_matrix.estimate(estimate) in said(at)
    at.session_state["contexts open"] = ("neurons-effect", 1, 0)  # chosen on days, tested on days
    run(at)
    assert "There is nothing of this kind" in said(at)


def test_what_sets_take_from_the_model_stands_beside(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(SHARES)
    texts = {"": Nll(np.array([24.0, 26.0]), np.array([8, 8])), "L0H0-2": Nll(np.array([25.0, 27.0]), np.array([8, 8]))}
    right = {"": np.array([1.0, 1.0, 0.0, 0.0]), "L0H0-2": np.array([1.0, 0.0, 0.0, 0.0])}
    costs = SetCosts(texts, right, {})
    monkeypatch.setattr(engine().results, "matrices", lambda spec: [found])
    monkeypatch.setattr(engine().results, "set_costs", lambda spec, matrix: costs)
    at = opened("contexts")
    (table,) = (f.value for f in at.dataframe if "chosen on" in f.value)
    assert table["paragraphs"].tolist() == pytest.approx([np.expm1(1 / 8)] * len(table))
    assert table["LAMBADA, points"].tolist() == pytest.approx([-25.0] * len(table))
    at.session_state["contexts open"] = ("neurons-effect", 0, 1)
    run(at)
    assert "paragraphs +13.3% [+13.3, +13.3] (16 tokens)" in said(at)
    assert "LAMBADA −25.0 points [−60.9, +27.6] (4 passages)" in said(at)


def test_a_cell_of_another_run_is_forgotten(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up({("heads-effect", "same"): 0.5})
    monkeypatch.setattr(engine().results, "matrices", lambda spec: [found])
    at = opened("contexts", **{"contexts open": ("neurons-effect", 0, 0)})
    assert "neurons, by effect: chosen" not in said(at)


def test_groups_of_a_file_are_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = SimpleNamespace(groups=("[a](http://b)", "**c**"), base={"days": None})
    cell: Any = SimpleNamespace(setting=SimpleNamespace(tested="days"))
    monkeypatch.setattr(contexts_matrix, "parsed_differences", lambda _: {"days": Estimate(0.5, 0.4, 0.6)})
    said = contexts_matrix.parsing(found, cell)
    assert said == f"The whole model gives a number more often for {escape_markdown('[a](http://b)')}."
    assert "[a](" not in said


def test_numbers_of_an_audit_are_never_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept by where the answers lie in memory, so these must not go before them."""

    class Found(list[Any]):
        pass

    monkeypatch.setattr(outcome, "disparities", lambda *_: [])
    monkeypatch.setattr(outcome, "scenarios_of", lambda *_: ([], None))
    found = Found()
    kept = weakref.ref(found)
    audit._said(found, id(found), 0.0, False, None)
    del found
    gc.collect()
    assert kept() is not None
    audit._said.clear()


def test_an_audit_of_whole_distributions(studio: Studio) -> None:
    at = opened("contexts")
    studio.at_once()
    press(at, "Ask")
    assert "100% of the probability of the answers was followed" in said(at)
    assert "a number is given 25.0 points more often for black" in said(at)
    assert len(at.get("plotly_chart")) == 2  # type: ignore[arg-type]
    (table,) = (f.value for f in at.dataframe if "scenario" in f.value)
    assert (table["median, white"] > 1.5 * table["median, black"]).all()
    assert (table["p, all"] < 0.05).all()
    at.main.toggle(key="audit texts").set_value(True)
    run(at)
    (texts,) = (f.value for f in at.dataframe if "answer begins" in f.value)
    assert set(texts.group) == {"black", "white"}
    assert texts["answer begins"].str.contains("<b>idea</b>").any()  # as text


@pytest.fixture
def three(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    world = scenarios.read()
    groups = {"third": ("Bo", "Al", "Cy", "Di"), **world.groups}
    monkeypatch.setattr(scenarios, "read", lambda *_: replace(world, groups=groups))
    return studio


def test_any_two_of_several_groups_or_one_and_all_others(three: Studio) -> None:
    at = opened("contexts")
    three.at_once()
    for second, sides in (("white", ("third", "white")), (scenarios.ALL_OTHERS, ("third", scenarios.ALL_OTHERS))):
        at.main.selectbox(key="audit second third True").set_value(second)
        run(at)
        press(at, "Ask")
        (table,) = (f.value for f in at.dataframe if "scenario" in f.value)
        assert {f"mean, {side}" for side in sides} <= set(table)
        assert {"log difference", "median difference, low"} <= set(table)
    assert (table[f"mean, {scenarios.ALL_OTHERS}"] > table["mean, third"]).all()
    at.main.selectbox(key="audit how").set_value("sampled")
    run(at)
    assert scenarios.ALL_OTHERS not in at.main.selectbox(key="audit second third False").options


def test_matched_names_narrow_what_is_paired(studio: Studio) -> None:
    at = opened("contexts")
    studio.at_once()
    press(at, "Ask")
    (before,) = (f.value for f in at.dataframe if "scenario" in f.value)
    at.main.toggle(key="audit matched").set_value(True)
    run(at)
    (after,) = (f.value for f in at.dataframe if "scenario" in f.value)
    assert after["SMD"].tolist() == before["SMD"].tolist()
    assert after["low"].tolist() != before["low"].tolist()


def test_names_of_groups_that_differ_in_size_are_no_pairs(three: Studio) -> None:
    at = opened("contexts", **{"audit names": 8})
    at.main.toggle(key="audit matched").set_value(True)
    run(at)
    assert "Matched names come in pairs of two groups, here 4 of third and 8 of black" in said(at)


def test_what_would_be_found_is_said_before_anybody_is_asked(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "exactly", followed)
    at = opened("contexts")
    at.main.toggle(key="audit plan").set_value(True)
    run(at)
    assert "4 names of each group are asked in one scenario" in said(at)
    studio.at_once()
    press(at, "Plan")
    found, pilot = asked.planned(
        None,  # type: ignore[arg-type]
        "purchases",
        Following(scenarios.read().smaller(8), AuditConfig(4, 8), groups=("black", "white")),
        defaults.WINSORISE,
        None,  # type: ignore[arg-type]
    )
    assert (found.names, found.scenarios, len(pilot.people)) == ((8, 8), 10, 8)
    assert escape_markdown(power.sentence(found, 8, "chair")) in [i.value for i in at.main.info]
    at.main.toggle(key="audit matched").set_value(True)
    run(at)
    assert "of two groups whose names are no pairs" in said(at)


def test_the_command_names_the_file_of_scenarios(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever Unicode it is."""
    monkeypatch.setattr(engine().results, "matrices", lambda *_: [])
    own = NUMBERED.encode("utf-16")
    at = opened("contexts", **{"file of contexts file": ("my rooms.toml", own)})
    assert "study contexts --scenarios 'my rooms.toml' --names 8" in said(at)
    assert "rooms" in at.main.selectbox(key="audit context").options[0].lower()


def test_another_file_has_contexts_of_its_own(studio: Studio) -> None:
    at = opened("contexts")
    at.main.selectbox(key="audit context").set_value("finance")
    run(at)
    assert "Ask about" in said(at)
    at.session_state["file of contexts file"] = ("mine.toml", NUMBERED.encode())
    run(at)
    assert not at.error
    assert "Ask about rooms" in said(at)


def test_the_largest_difference_comes_first_and_none_last() -> None:
    assert audit.by_size([0.1, float("nan"), -0.5, 0.3]) == [2, 3, 0, 1]


def test_an_audit_of_samples(studio: Studio) -> None:
    at = opened("contexts")
    at.main.selectbox(key="audit how").set_value("sampled")
    run(at)
    assert "Ask about purchases" in said(at)
    studio.at_once()
    press(at, "Ask")
    assert "Mean |SMD|" in said(at)
    assert "over 10 scenarios" in said(at)
    assert "a number is given 25.0 points more often for black" in said(at)
    (table,) = (f.value for f in at.dataframe if "scenario" in f.value)
    assert len(table) == 10
    assert (table["parsed, black"] == 1.0).all()
    assert table["parsed, white"].iloc[0] == 0.75
    assert (table["mean, white"] > 1.5 * table["mean, black"]).all()
    at.main.text_input(key="audit heads").set_value("L0H3,L5N17")
    run(at)
    press(at, "Ask")
    assert "Without L0H3,L5N17" in said(at)
    (table,) = (f.value for f in at.dataframe if "scenario" in f.value)
    assert "inlier ratio" in table
    at.main.toggle(key="audit texts").set_value(True)
    run(at)
    (texts,) = (f.value for f in at.dataframe if "answer" in f.value)
    assert len(texts) == 16 * 4
    assert texts.answer.str.contains("<b>idea</b>").any()  # as text


def test_what_cannot_be_read_is_told(studio: Studio) -> None:
    at = opened("contexts")
    at.main.text_input(key="audit heads").set_value("everything")
    run(at)
    assert "'everything' is not a head" in said(at)


def test_a_model_without_a_chat_is_told(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise InputError("This model has no chat template: an audit needs an instruct model, such as 'built-in'.")

    monkeypatch.setattr(audit, "exactly", refuse)
    at = opened("contexts")
    studio.at_once()
    press(at, "Ask")
    assert "has no chat template" in said(at)


@pytest.mark.parametrize("exact", [True, False])
def test_a_model_is_asked(tmp_path: Path, exact: bool) -> None:
    """A tiny one, really: the answers that the functions behind the page give, in the order that it shows."""
    world = scenarios.parse(NUMBERED.replace('["house"]', '["house", "red"]'), "rooms.toml")
    lm, config, store = numbered_lm(), AuditConfig(samples=2, tokens=2), Store(tmp_path)
    removed = [PruneSet(), PruneSet.parse("L0H1")]
    told: list[float] = []
    following = Following(world, config)
    found = audit.ask(lm, world.scenarios, following, exact, removed, store, lambda done, *_: told.append(done))
    assert told == sorted(told)
    for who, answered in zip(removed, found, strict=True):
        for scenario, one in zip(world.scenarios, answered, strict=True):
            if exact:
                wanted: Any = asked.exactly(lm, scenario, asked.Following(world, config), store, who)
            else:
                wanted = asked.audit(lm, scenario, world, config, store, who)
            assert (one.scenario, one.texts) == (wanted.scenario, wanted.texts)


def test_stand_ins_are_called_as_what_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ask", lambda *_, **__: None)
    with pytest.raises(TypeError, match="missing a required argument: 'asked'"):
        audit.ask(None)  # type: ignore[call-arg, arg-type]
    monkeypatch.setattr(engine().results, "matrices", lambda *_: [])
    with pytest.raises(TypeError, match="'spec'"):
        engine().results.matrices()  # type: ignore[call-arg]
