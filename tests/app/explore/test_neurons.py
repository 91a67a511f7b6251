"""Neurons beside heads on the page "Explore heads"."""

from __future__ import annotations

import pytest

from fasp_core.heads.prune_set import PruneSet
from pages.explore.named import NamedSet, from_json, to_json
from pages.session import shared
from tests.support.fakes import Studio
from tests.support.running import AXIS, change, exploring, instrument, removed, requested, said


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
    assert "**And 4 neurons**; estimates leave neurons out" in said(at)
    assert studio.asked[-1][0] == both


@pytest.mark.parametrize(
    ("written", "told"), [("nonsense", "'nonsense' is not a head"), ("L0H1,L2N3", "Only neurons and gains stand here")]
)
def test_what_is_no_neuron_is_told(studio: Studio, written: str, told: str) -> None:
    at = exploring(neurons=written)
    assert told in " ".join(e.value for e in at.sidebar.error)
    found: PruneSet = at.session_state["job main"].key.heads
    assert found.neurons == PruneSet.parse("L2N3" if "N3" in written else "").neurons


def test_gains_are_measured_with_the_pruned_heads(studio: Studio) -> None:
    studio.add_scores(AXIS)
    pruned = requested(exploring()).heads
    layer, head = min(pruned)
    at = exploring(neurons=f"L5N17,L1H0*0.4,L{layer}H{head}*1.2")
    assert (1, 0) not in pruned
    found = requested(at)
    assert found == PruneSet(pruned, frozenset({(5, 17)}), frozenset({(1, 0, 0.4)}))  # what is pruned stays so
    drawn = instrument(at)
    gains = {9: 0.4, layer * drawn["heads"] + head: 1.2}
    assert {int(flat): gain for flat, gain in drawn["gains"].items()} == gains, "it is scaled again once it is on"
    assert "**And 1 neuron and 1 scaled head**; estimates leave neurons out" in said(at)


def test_a_set_that_is_too_long_for_a_link(studio: Studio) -> None:
    at = exploring()
    text = ",".join(f"L{layer}N{i}" for layer in range(30) for i in range(0, 400, 2))
    change(at, neurons=text)
    assert any(m.value == shared.TOO_LONG for m in at.main.markdown)
    assert at.query_params == {}  # rather than an address that opens another set
    change(at, neurons="L5N17-19")
    assert not any(m.value == shared.TOO_LONG for m in at.main.markdown)
    assert at.query_params["neurons"] in ("L5N17-19", ["L5N17-19"])
    named = {"long": NamedSet("built-in", text, "by hand")}
    assert from_json(to_json(named).encode(), {})["long"].heads == PruneSet.parse(text)
