"""What passes between the page and the instrument's script."""

from __future__ import annotations

import json
import struct
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
from pages.instrument.sent import Act, Rule, Step, acts, effects
from tests.support.fakes import make_table

SIZE = 12
junk = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: (
        some.lists(inner)
        | some.dictionaries(some.sampled_from(["n", "gamma", "alpha", "prune", "keep", "head", "x"]), inner)
    ),
)


def told(n: int, **more: Any) -> dict[str, Any]:
    return {"n": n, "gamma": 0.3, "alpha": 0.05, "prune": [1], "keep": [2], "gains": [[3, 0.4]], "head": 1, **more}


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
        {"prune": [12]},
        {"keep": [-1]},
        {"keep": [1]},
        {"prune": [1.0]},
        {"alpha": 10**400},  # too large for a float
        {"head": 12},
        {"head": "1"},
        {"n": "1"},
        {"gains": [[3, 1.6]]},
        {"gains": [[3, 1]]},
        {"gains": [[12, 0.5]]},
        {"gains": [3]},
        {"gains": None},
        {"step": 2},
        {"step": True},
        {"step": None},
    ],
)
def test_what_a_script_of_ours_would_not_say_is_passed_over(wrong: dict[str, Any]) -> None:
    assert acts([told(1)], 0, SIZE) == [Act(1, 0.3, 0.05, ManualEdits(frozenset({1}), frozenset({2})), {3: 0.4}, 1)]
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


def test_acts_that_come_together_know_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain that is set and taken back before the page is drawn again is gone."""
    state: dict[str, Any] = {"neurons": "L1N2"}
    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(maps.shared, "step", lambda: None)
    monkeypatch.setattr(maps.shared, "tell", lambda *_: None)
    monkeypatch.setattr(maps.shared, "adopt", state.update)
    drawn: Any = SimpleNamespace(spec=SimpleNamespace(source="m"), method="fasp", neurons=PruneSet.parse("L1N2"))
    for n, gains, wanted in (
        (1, {3: 0.6}, "L1N2,L0H3*0.6"),
        (2, {3: 0.6, 4: 1.2}, "L1N2,L0H3*0.6,L0H4*1.2"),
        (3, {}, "L1N2"),
    ):
        maps._act(drawn, 9, Act(n, 0.3, 0.05, ManualEdits(), gains, 3))
        assert PruneSet.parse(state["neurons"]) == PruneSet.parse(wanted)
