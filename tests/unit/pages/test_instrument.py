"""What passes between the page and the instrument's script."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import streamlit as st
from hypothesis import given
from hypothesis import strategies as some

from fasp_core.figures.cells import cell_colors
from fasp_core.figures.theme import DARK, LIGHT, WASH, veiled
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import METHODS
from fasp_core.scoring.manual_edits import HAND, ManualEdits, apply_manual_edits, nothing
from pages.explore import maps
from pages.instrument import instrument
from pages.instrument.sent import MOST, Act, Rule, Step, acts, effects
from tests.support.fakes import make_table

SIZE = 12
junk = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: (
        some.lists(inner)
        | some.dictionaries(some.sampled_from(["n", "gamma", "alpha", "prune", "keep", "leave", "head", "x"]), inner)
    ),
)


def told(n: int, **more: Any) -> dict[str, Any]:
    shares = {"gamma": 0.3, "alpha": None, "strength": 0.25}
    hand = {"prune": [1], "keep": [2], "leave": [4]}
    return {"n": n, **shares, **hand, "gains": [[3, 0.4], [5, 1]], "head": 1, **more}


def act(n: int = 1, **more: Any) -> Act:
    """One that changes nothing but what is named."""
    none: frozenset[int] = frozenset()
    return Act(**{**dict(n=n, gamma=None, alpha=None, prune=none, keep=none, leave=none, gains={}, head=None), **more})


@given(some.lists(some.integers(1, 60), max_size=40), some.integers(0, 60))
def test_every_act_above_the_last_counts_once_in_order(numbers: list[int], done: int) -> None:
    assert [a.n for a in acts([told(n) for n in numbers], done, SIZE)] == sorted({n for n in numbers if n > done})


@given(junk)
def test_anything_else_from_a_browser_is_passed_over(one: Any) -> None:
    for act in acts(one, 0, SIZE):
        assert isinstance(act, Act)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gamma": 1.1},
        {"alpha": float("nan")},
        {"alpha": True},
        {"strength": 1.5},
        {"strength": "1"},
        {"prune": [12]},
        {"keep": [-1]},
        {"keep": [1]},
        {"prune": [1.0]},
        {"leave": [2]},
        {"leave": None},
        {"alpha": 10**400},  # too large for a float
        {"head": 12},
        {"head": "1"},
        {"n": "1"},
        {"gains": [[3, 1.6]]},
        {"gains": [[3, 0]]},
        {"gains": [[12, 0.5]]},
        {"gains": [3]},
        {"gains": None},
        {"step": 2},
        {"step": True},
        {"step": None},
    ],
)
def test_what_a_script_of_ours_would_not_say_is_passed_over(wrong: dict[str, Any]) -> None:
    hand = {"prune": frozenset({1}), "keep": frozenset({2}), "leave": frozenset({4})}
    assert acts([told(1)], 0, SIZE) == [act(1, gamma=0.3, strength=0.25, **hand, gains={3: 0.4, 5: 1.0}, head=1)]
    assert acts([told(1) | wrong], 0, SIZE) == []


def test_a_queue_that_is_sent_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser sends all acts that it does not know to be done."""
    state: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", state)
    seen: list[int] = []
    back = {"n": 9, "step": -1}
    for queue in ([told(5)], [told(5), told(6)], [told(6), told(7, head=99)], [told(8), back], [back]):
        state[instrument.KEY] = {"acts": queue}
        instrument._tell(SIZE, lambda act: seen.append(act.n))
    assert seen == [5, 6, 8, 9]
    assert instrument.done() == 9
    assert acts([back, {"n": 10, "step": 1}], 8, SIZE) == [Step(9, -1), Step(10, 1)]


def test_the_effects_are_those_of_the_table() -> None:
    """Read back as the script reads them, products of some heads give the gap and the perplexity of `estimate`."""
    table = make_table()
    name, packed = effects(table, "counted")
    assert effects(table, "neutral")[0] != name == effects(table, "counted")[0]
    (length,) = struct.unpack("<I", packed[:4])
    head = json.loads(packed[8 : 8 + length])
    assert (8 + length) % 8 == 0
    steps = np.frombuffer(packed[8 + length :], "<i2").reshape(SIZE, -1)
    heads = [0, 3, 7]
    toxicity = np.array(head["base"]) * np.exp((np.array(head["scale"])[:, None] * steps)[heads].sum(0))
    means = [toxicity[np.array(head["groups"]) == g].mean() for g in range(head["count"])]
    ppl, gap = table.estimate(heads, "counted")
    assert np.abs(toxicity.mean() - means).sum() == pytest.approx(gap, rel=1e-4)
    assert np.exp(head["meanNats"] + sum(head["nats"][h] for h in heads)) == pytest.approx(ppl)


def test_rules_of_methods_and_of_sets_that_were_found() -> None:
    scores = make_table().head_scores("neutral")
    for method in METHODS:
        rule = Rule.of(scores, method, 3)
        assert sorted(rule.cost or []) == list(range(SIZE))
        assert (rule.protect is not None) == (method == "fasp")
    found = apply_manual_edits(nothing(HAND, 0.3, 0.1, 0, 3, 4), ManualEdits(frozenset({4, 2})))
    assert Rule.fixed(found) == Rule(SIZE, None, None, [2, 4], [])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colors_of_cells(theme: Any) -> None:
    """Ends and middle of the scale, what is within noise under a veil, what has no score in gray."""
    drawn = cell_colors([-2.0, 0.0, 2.0, 2.0, np.nan], [0.1, 0.0, 0.1, 2.0, 0.1], theme)
    colors = ["#" + drawn.colors[6 * i : 6 * i + 6].upper() for i in range(5)]
    assert colors[:3] == [theme.scale[0], theme.scale[2], theme.scale[4]]
    assert colors[3] == veiled(theme.scale[4], theme.neutral, WASH)
    assert colors[4] == theme.missing
    assert [at for at, _ in drawn.ticks] == [0, 0.25, 0.5, 0.75, 1]
    plain = cell_colors([-2.0, 0.0, 2.0, 2.0], [9.0] * 4, theme, doubt="none").colors
    assert plain[12:18] == plain[18:24] == theme.scale[4][1:].lower()
    assert cell_colors([1.0, 1e3, np.inf], [0, 0, 0], theme, "symlog", "fade").ticks


def test_of_more_acts_than_are_read_at_once_the_first_come_first() -> None:
    """Each says what it changes alone, so none may be left out; the browser sends again what is not done."""
    found = acts([told(n) for n in range(1, MOST + 50)], 0, SIZE)
    assert [one.n for one in found] == [*range(1, MOST + 1)]


HEADS = 9


@dataclass(frozen=True)
class Drawn:
    """What acts read of the settings."""

    spec: Any
    method: str = "fasp"
    strength: float = 1.0


FASP: Any = Drawn(SimpleNamespace(source="m"))


LEARNED = np.ones((3, HEADS))
LEARNED[1, 2:4] = 0.8, 0.7


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The session of a reader who changed things elsewhere on the page after the instrument was drawn."""
    state: dict[str, Any] = {"model": "m", "gamma": 0.5, "alpha": 0.05, "strength": 1.0, "neurons": "L1N2"}
    state["by_hand m"] = ManualEdits(frozenset({1}), frozenset({2}))
    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(maps.shared, "_known", lambda _: SimpleNamespace(n_layers=3, n_heads=HEADS))
    return state


def neurons(state: dict[str, Any]) -> PruneSet:
    return PruneSet.parse(str(state["neurons"]))


def test_only_what_the_hand_changed_is_applied(state: dict[str, Any]) -> None:
    maps._act(FASP, HEADS, act(1, prune=frozenset({7}), head=7))
    assert (state["gamma"], state["alpha"], state["neurons"]) == (0.5, 0.05, "L1N2")
    assert state["by_hand m"] == ManualEdits(frozenset({1, 7}), frozenset({2}))
    maps._act(FASP, HEADS, act(2, alpha=0.1, leave=frozenset({1}), keep=frozenset({7})))
    assert (state["gamma"], state["alpha"]) == (0.5, 0.1)
    assert state["by_hand m"] == ManualEdits(frozenset(), frozenset({2, 7}))


def test_acts_that_come_together_know_one_another(state: dict[str, Any]) -> None:
    """A gain that is set and taken back before the page is drawn again is gone."""
    for n, gains, wanted in (
        (1, {3: 0.6}, "L1N2,L0H3*0.6"),
        (2, {4: 1.2}, "L1N2,L0H3*0.6,L0H4*1.2"),
        (3, {}, "L1N2,L0H3*0.6,L0H4*1.2"),
        (4, {3: 1.0, 4: 1.0}, "L1N2"),
    ):
        maps._act(FASP, HEADS, act(n, gains=gains))
        assert neurons(state) == PruneSet.parse(wanted)


def test_an_act_is_one_step(state: dict[str, Any]) -> None:
    """A gate that is drawn to 0 takes its gain along: one step back has both again."""
    state["neurons"] = "L0H3*0.6"
    maps._act(FASP, HEADS, act(1, prune=frozenset({3}), gains={3: 1.0}, head=3))
    assert (state["neurons"], 3 in state["by_hand m"].prune) == ("", True)
    maps.shared.undo()
    assert (state["neurons"], 3 in state["by_hand m"].prune) == ("L0H3*0.6", False)


def test_gates_of_heads_that_were_learned_to_be_scaled(state: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1 such a head is kept, at its learned gate nothing is told, and elsewhere it has a gain of its own."""
    monkeypatch.setattr(maps.learned, "prune_set", lambda s: PruneSet.from_gates(1 + s.strength * (LEARNED - 1)))
    drawn: Any = Drawn(FASP.spec, "gains")
    state.update({"neurons": "", "by_hand m": ManualEdits()})
    for n, gain, more, own, by_hand in (
        (1, 0.6, {}, "L1H2*0.6", ManualEdits()),
        (2, 0.8, {}, "", ManualEdits()),
        (3, 1.0, {}, "", ManualEdits(keep=frozenset({11}))),
        (4, 0.8, {}, "L1H2*0.8", ManualEdits(keep=frozenset({11}))),
        (5, 1.0, {"prune": frozenset({11})}, "", ManualEdits(frozenset({11}))),
    ):
        maps._act(drawn, HEADS, act(n, gains={11: gain}, **more))
        assert (state["neurons"], state["by_hand m"]) == (own, by_hand), n


def test_a_gate_is_the_learned_one_at_the_strength_of_the_act(
    state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strength and gates come in acts of their own, and the page may have been drawn before either."""
    monkeypatch.setattr(maps.learned, "prune_set", lambda s: PruneSet.from_gates(1 + s.strength * (LEARNED - 1)))
    drawn: Any = Drawn(FASP.spec, "gains")
    state["neurons"] = ""
    maps._act(drawn, HEADS, act(1, strength=0.5))
    assert state["strength"] == 0.5
    maps._act(drawn, HEADS, act(2, gains={11: 0.8}))
    assert neurons(state) == PruneSet.parse("L1H2*0.8"), "learned is 0.9 there"
    maps._act(drawn, HEADS, act(3, strength=1.0, gains={11: 0.8}))
    assert (state["strength"], state["neurons"]) == (1.0, "")
    maps.shared.undo()
    assert (state["strength"], state["neurons"]) == (0.5, "L1H2*0.8")
