"""Neurons beside heads on the page "Explore heads"."""

from __future__ import annotations

import pytest

from fasp_core.heads.prune_set import PruneSet
from tests.support.fakes import Studio
from tests.support.running import AXIS, change, exploring, removed, said


@pytest.fixture
def studio(studio: Studio) -> Studio:
    studio.add_scores(AXIS)
    studio.at_once()
    return studio


def test_neurons_are_measured_with_the_heads(studio: Studio) -> None:
    at = exploring()
    heads: PruneSet = at.session_state["job main"].key.heads
    assert not heads.neurons
    change(at, neurons="L5N17,L6N0-2")
    both: PruneSet = at.session_state["job main"].key.heads
    assert both == PruneSet(heads.heads, PruneSet.parse("L5N17,L6N0-2").neurons)
    assert removed(at) == len(heads.heads)  # the card counts heads, and names the neurons
    assert "**And 4 neurons**, which estimates leave out" in said(at)
    assert studio.asked[-1][0] == both


@pytest.mark.parametrize(
    ("written", "told"), [("nonsense", "'nonsense' is not a head"), ("L0H1,L2N3", "Only neurons stand here")]
)
def test_what_is_no_neuron_is_told(studio: Studio, written: str, told: str) -> None:
    at = exploring(neurons=written)
    assert told in " ".join(e.value for e in at.sidebar.error)
    found: PruneSet = at.session_state["job main"].key.heads
    assert found.neurons == PruneSet.parse("L2N3" if "N3" in written else "").neurons
