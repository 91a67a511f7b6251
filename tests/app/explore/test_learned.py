"""Learned gains as a method of the page "Explore heads": one slider, stored gains at once, else the offer to learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import BUILT_IN_SHAPE, ModelSpec
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gains import Gains
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.storage.store import Store
from fasp_core.studies import strengths
from fasp_core.studies.strengths import Strengths
from pages.backend.engine import engine
from pages.shell import learned
from tests.support.fakes import Studio
from tests.support.made.strengths import add_strengths
from tests.support.running import (
    AXIS,
    change,
    exploring,
    instrument,
    labels,
    marked,
    opened,
    press,
    removed,
    requested,
    run,
    said,
)

CONFIG = GainsConfig(steps=2, passages=0, paragraphs=0)


@pytest.fixture
def studio(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """Gains at some strengths are on straight lines, as soon as they are asked for."""
    studio.add_scores(AXIS)
    studio.at_once()
    monkeypatch.setattr(strengths, "run", straight)
    return studio


def straight(lm: Any, found: Gains, bias: BiasConfig, store: Store, _progress: Any = None) -> Strengths:
    """In place of `strengths.run`."""
    return add_strengths(store, found, bias, lm.id)


def keep(studio: Studio, seed: int = 0, steps: int = 2, axis: str = AXIS) -> np.ndarray:
    """Gains in the store; their gates [L, H], one of which is 0."""
    gates = np.round(np.random.default_rng(seed).uniform(0.2, 1.5, BUILT_IN_SHAPE), 2)
    gates[3, 1] = 0.0
    path = np.stack([np.ones(BUILT_IN_SHAPE)] * steps + [gates]).astype(np.float32)
    text = TextConfig(tokens=defaults.SCORE_TOKENS)
    config = GainsConfig(steps=steps, passages=0, paragraphs=0, seed=seed, average=1)
    key = gains.gains_key(studio.load(ModelSpec()).id, BiasConfig(axis), text, config)
    arrays = {"path": path, "losses": np.ones((steps, 3))}
    studio.store.save(gains.KIND, key, arrays=arrays, meta={"base_gap": 0.004, "provenance": {}})
    return gates


def learned_at(shown: dict[str, Any]) -> np.ndarray:
    """[L, H] gates of the set that the instrument draws, as its script makes them."""
    told = shown["strength"]
    gates = np.round(np.clip(1 + told["value"] * (np.array(told["gates"]) - 1), 0, 1.5), 4)
    return gates.reshape(shown["layers"], shown["heads"])


def test_one_slider_stands_in_the_place_of_the_others(studio: Studio) -> None:
    gates = keep(studio, steps=1)
    keep(studio, seed=1, steps=1)  # of as many steps the lowest seed
    at = exploring(method="gains")
    assert not {s.key for s in at.slider} & {"gamma", "alpha", "strength"}, "the instrument has the only one"
    assert requested(at) == PruneSet.from_gates(gates)
    assert removed(at) == 1
    assert "Gains learned in 1 steps (seed 0)" in said(at)
    assert not at.error
    shown = instrument(at)
    assert PruneSet.from_gates(learned_at(shown)) == requested(at)
    assert (shown["gains"], marked(at, "pruned")) == ({}, {(3, 1)})
    assert [shown["sliders"][name][2] for name in ("gamma", "alpha", "strength")] == [False, False, True]
    for strength in (0.5, 0.0, 1.0, 0.5):  # as an act of the instrument sets it
        at.session_state["strength"] = strength
        run(at)
        assert requested(at) == PruneSet.from_gates(1 + strength * (gates - 1))
        assert instrument(at)["strength"]["value"] == strength
    assert at.query_params["strength"] in ("0.5", ["0.5"])
    press(at, "undo")
    assert at.session_state["strength"] == 1.0
    change(at, method="fasp")
    assert {s.key for s in at.slider} & {"gamma", "alpha", "strength"} == {"gamma", "alpha"}
    assert not requested(at).gains


def test_the_sidebar_has_the_slider_where_there_is_no_instrument(studio: Studio) -> None:
    keep(studio)
    at = opened("take_home", query={"method": "gains", "strength": "0.35"})
    (slider,) = [s for s in at.slider if s.key == "strength"]
    assert slider.value == 0.35


def test_an_estimate_of_learned_gains_is_a_first_guess_until_strengths_are_measured(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is done in the background; then it lies on straight lines between them, and says so."""
    keep(studio)
    with monkeypatch.context() as patch:
        patch.setattr(learned, "measure", lambda _: None)
        shown = instrument(opened(query={"method": "gains", "strength": "0.4"}))
    assert shown["strength"]["at"] == []
    assert (shown["taught"], shown["off"]) == ([1.0, 1.0], ["", ""])
    at = opened(query={"method": "gains", "strength": "0.4"})
    told, guess = instrument(at)["strength"], at.session_state["estimated"][0]
    assert told["at"] == [0, 0.25, 0.5, 0.75, 1]
    assert told["nats"] == pytest.approx([0.1 * s for s in told["at"]], abs=1e-6)
    assert told["gap"] == pytest.approx([-0.4 * s for s in told["at"]], abs=1e-4)
    assert "straight lines between strengths 0, 0.25, 0.5, 0.75, 1" in told["learnt"]
    table = engine().results.scores(ModelSpec(), BiasConfig(AXIS))
    assert table is not None
    assert guess.alone
    assert guess.perplexity == pytest.approx(table.ppl.base.perplexity * np.exp(0.04))
    assert guess.gap == pytest.approx(0.84 * table.bias.gap("neutral").gap, rel=1e-3)
    by_hand = opened(query={"method": "gains", "strength": "0.4", "prune": "L0H0"}).session_state["estimated"][0]
    assert by_hand.strengths is not None
    assert not by_hand.alone


def test_what_is_set_by_hand_goes_before_what_was_learned(studio: Studio) -> None:
    gates = keep(studio)
    at = opened(query={"method": "gains", "prune": "L0H0", "keep": "L1H2,L3H1", "neurons": "L5N7,L4H4*0.3"})
    found = requested(at)
    gates[0, 0], gates[1, 2], gates[3, 1], gates[4, 4] = 0.0, 1.0, 1.0, 0.3
    assert found == PruneSet.from_gates(gates, [(5, 7)])


def test_where_none_are_stored_they_are_offered(studio: Studio) -> None:
    at = exploring(method="gains")
    assert "No gains are learned yet for this model, axis and reading" in [s.value for s in at.subheader]
    assert not len(requested(at))


def test_what_is_learned_so_far_is_seen_while_it_goes_on_and_once_it_was_stopped(studio: Studio) -> None:
    text, config = TextConfig(tokens=defaults.SCORE_TOKENS), GainsConfig()
    key = gains.course_key(studio.load(ModelSpec()).id, BiasConfig(AXIS), text, config)
    state = {"path": np.ones((3, *BUILT_IN_SHAPE)), "losses": np.array([[1.0, 0, 0, 0], [0.8, 0.01, 0.1, 0]])}
    studio.store.parts(gains.KIND, key).save("state", state)
    at = exploring(method="gains")
    assert "2 of 60 steps are made" in said(at)
    assert "Learn" in [b.label for b in at.main.button]
    assert not at.error
    gone = exploring(method="fasp")
    assert "steps are made" not in said(gone)


def test_how_stored_gains_were_learned_is_shown(studio: Studio) -> None:
    keep(studio, steps=3)
    at = exploring(method="gains")
    assert "How these gains were learned: 3 steps" in [e.label for e in at.expander]
    assert not at.error


def test_gains_of_all_axes_serve_where_an_axis_has_none(studio: Studio) -> None:
    gates = keep(studio, seed=1, axis=defaults.ALL_AXES)
    at = exploring(method="gains")
    assert requested(at) == PruneSet.from_gates(gates)
    assert "Gains learned on all axes at once in 2 steps (seed 1)" in said(at)
    own = keep(studio, steps=1)
    at = exploring(method="gains")
    assert requested(at) == PruneSet.from_gates(own)
    assert "on all axes" not in said(at)


def test_gains_by_the_offline_scorer_are_none_by_another(studio: Studio, judge: str) -> None:
    keep(studio)
    at = exploring(method="gains", scorer=judge)
    assert not len(requested(at))
    assert "Learned gains are of the offline scorer" in said(at)
    assert "Learn" not in labels(at)
    assert not any("gains were learned" in e.label for e in at.expander)
