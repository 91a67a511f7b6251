"""Learned gains as a method of the page "Explore heads": one slider, stored gains at once, else the offer to learn."""

from __future__ import annotations

import numpy as np
import pytest

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import BUILT_IN_SHAPE, ModelSpec
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gates import GainsConfig
from tests.support.fakes import Studio
from tests.support.running import AXIS, change, exploring, instrument, labels, marked, opened, removed, requested, said

CONFIG = GainsConfig(steps=2, passages=0, paragraphs=0)


@pytest.fixture
def studio(studio: Studio) -> Studio:
    studio.add_scores(AXIS)
    studio.at_once()
    return studio


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


def test_one_slider_stands_in_the_place_of_the_others(studio: Studio) -> None:
    gates = keep(studio, steps=1)
    keep(studio, seed=1, steps=1)  # of as many steps the lowest seed
    at = exploring(method="gains")
    assert {s.key for s in at.slider} & {"gamma", "alpha", "strength"} == {"strength"}
    assert requested(at) == PruneSet.from_gates(gates)
    assert removed(at) == 1
    assert "Gains learned in 1 steps (seed 0)" in said(at)
    assert not at.error
    shown, (scaled, off) = instrument(at), (requested(at).gains, {(3, 1)})
    assert {tuple(divmod(int(head), shown["heads"])): gain for head, gain in shown["gains"].items()} == {
        (layer, head): gain for layer, head, gain in scaled
    }
    assert marked(at, "pruned") == off
    assert not shown["sliders"]["gamma"][2] | shown["sliders"]["alpha"][2]
    change(at, strength=0.5)
    assert requested(at) == PruneSet.from_gates(1 + 0.5 * (gates - 1))
    assert at.query_params["strength"] in ("0.5", ["0.5"])
    change(at, strength=0.0)
    assert not len(requested(at))
    change(at, method="fasp")
    assert {s.key for s in at.slider} & {"gamma", "alpha", "strength"} == {"gamma", "alpha"}
    assert not requested(at).gains


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
    assert "2 of 40 steps are made" in said(at)
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
