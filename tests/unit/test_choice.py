"""Hand-made changes against a model that keeps one instruction a head, and the words about each head."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.impacts.table import ImpactTable
from fasp_core.masks import PruneSet
from fasp_core.selection import METHODS, Selection, select
from pages.common.choice import ByHand, hover, prune_set, reasons
from tests.app.fakes import make_table

N = 12  # heads
heads_of = st.frozensets(st.integers(0, N - 1))
instructions = st.dictionaries(st.integers(0, N - 1), st.booleans())  # head -> off


def by_hand_of(told: dict[int, bool]) -> ByHand:
    return ByHand(
        prune=frozenset(h for h, off in told.items() if off), keep=frozenset(h for h, off in told.items() if not off)
    )


def is_off(head: int, told: dict[int, bool], chosen: frozenset[int]) -> bool:
    """The rule, head by head: an instruction counts, else the method's choice."""
    return told.get(head, head in chosen)


@given(instructions, heads_of)
def test_heads_that_are_off(told: dict[int, bool], chosen: frozenset[int]) -> None:
    by_hand = by_hand_of(told)
    assert len(by_hand) == len(told)
    assert by_hand.apply(chosen) == {h for h in range(N) if is_off(h, told, chosen)}
    # what counts as changed is exactly where the outcome differs from the method's choice
    assert by_hand.effective(chosen) == by_hand.apply(chosen) ^ chosen
    assert ByHand().apply(chosen) == chosen
    assert not ByHand().effective(chosen)


@given(instructions, heads_of, heads_of)
def test_toggling(told: dict[int, bool], chosen: frozenset[int], turned: frozenset[int]) -> None:
    before = by_hand_of(told)
    after = before.toggled(turned, chosen)
    assert after.apply(chosen) == before.apply(chosen) ^ turned  # those and no others
    assert not after.prune & after.keep
    assert after.toggled(turned, chosen).apply(chosen) == before.apply(chosen)
    for head in turned:  # a change that only repeats the method's choice is none
        assert (head in after.prune | after.keep) == (head in after.effective(chosen))
    assert (after.prune - turned, after.keep - turned) == (before.prune - turned, before.keep - turned)


@given(heads_of, heads_of, heads_of)
def test_a_change_outlives_the_methods_choice(
    one: frozenset[int], other: frozenset[int], turned: frozenset[int]
) -> None:
    by_hand = ByHand().toggled(turned, one)
    off = by_hand.apply(other)
    assert off & turned == turned - one  # as it was told, whatever the method says now
    assert off - turned == other - turned  # and where nothing was told, the method decides
    assert by_hand.apply(one) == one ^ turned  # back at the first choice nothing was forgotten


@given(st.lists(st.tuples(st.sampled_from(["click", "slide"]), heads_of), max_size=12))
def test_any_history_of_clicks_and_slides(history: list[tuple[str, frozenset[int]]]) -> None:
    chosen: frozenset[int] = frozenset()
    by_hand, told = ByHand(), dict[int, bool]()
    for what, heads in history:
        if what == "slide":
            chosen = heads
            continue
        by_hand = by_hand.toggled(heads, chosen)
        for head in heads:
            off = not is_off(head, told, chosen)
            told.pop(head, None)
            if off != (head in chosen):
                told[head] = off
        assert by_hand == by_hand_of(told)
    assert by_hand.apply(chosen) == {h for h in range(N) if is_off(h, told, chosen)}


def test_a_head_named_twice_is_turned_once() -> None:
    assert ByHand().toggled([3, 3], [1]).apply([1]) == {1, 3}


# what is measured, and why


@pytest.fixture(scope="module")
def table() -> ImpactTable:
    return make_table(3, 4)


@pytest.fixture(scope="module")
def selection(table: ImpactTable) -> Selection:
    return select(table.head_scores("neutral"), "fasp", 0.25, 0.25)


def test_the_set_that_is_measured(selection: Selection) -> None:
    a, b, c = selection.pruned
    free = min(set(range(N)) - set(selection.pruned))
    heads = prune_set(selection, ByHand(prune=frozenset({free}), keep=frozenset({b})))
    assert heads == PruneSet.of([divmod(h, 4) for h in (a, c, free)])


@given(told=instructions, method=st.sampled_from(METHODS), gamma=st.floats(0, 1), alpha=st.floats(0, 1))
def test_one_true_reason_a_head(
    table: ImpactTable, told: dict[int, bool], method: str, gamma: float, alpha: float
) -> None:
    chosen = select(table.head_scores("neutral"), method, gamma, alpha)
    by_hand = by_hand_of(told)
    off = by_hand.apply(chosen.pruned)
    changed = by_hand.effective(chosen.pruned)
    found = reasons(chosen, by_hand)
    assert len(found) == N
    for head, reason in enumerate(found):
        assert reason.startswith("pruned" if head in off else "kept")
        assert ("by hand" in reason) == (head in changed)
        assert ("critical" in reason and "not among" not in reason) == (
            head in chosen.critical and not (head in changed and head not in off)
        )
        if head not in changed and head in off:
            assert reason == f"pruned by {method}"
        if head in changed and head not in off:
            assert f"{method} would prune it" in reason


def test_reasons_in_words(selection: Selection) -> None:
    pruned, critical = selection.pruned, selection.critical
    free = sorted(set(range(N)) - {*pruned, *critical})
    by_hand = ByHand(prune=frozenset({critical[0], free[0], pruned[1]}), keep=frozenset({pruned[0], free[1]}))
    found = reasons(selection, by_hand)
    assert found[critical[0]] == "pruned by hand, although critical"
    assert found[free[0]] == "pruned by hand"
    assert found[pruned[1]] == "pruned by fasp"
    assert found[pruned[0]] == "kept by hand; fasp would prune it"
    assert found[free[1]] == "kept: not among the 3 that fasp prunes"
    assert found[critical[1]] == "kept: critical, among the 25% that matter most for perplexity"


@pytest.mark.parametrize("reading", ["neutral", "counted"])
def test_hover_gives_both_impacts_with_errors_and_units(table: ImpactTable, reading: str) -> None:
    se = table.bias.standard_errors(reading)
    texts = hover(table, reading, [f"reason {h}" for h in range(N)], se)
    assert len(texts) == N
    ppl, z_bias = table.ppl, table.bias.z_bias(reading)
    for head, text in enumerate(texts):
        name, reason, perplexity, gap, note = text.split("\n")
        assert name == f"L{head // 4}H{head % 4}"
        assert reason == f"reason {head}"
        match = re.fullmatch(
            r"perplexity: ([+-][\d.]+) ± ([\d.e-]+) without it \(([+-][\d.]+) nats a token\)", perplexity
        )
        assert match is not None
        assert float(match[1]) == pytest.approx(ppl.z_ppl[head], abs=5e-4)
        assert float(match[2]) == pytest.approx(ppl.se_ppl[head], rel=0.06)
        assert float(match[3]) == pytest.approx(ppl.z_nats[head], abs=5e-5)
        match = re.fullmatch(r"gap falls by ([+-][\d.]+) ± ([\d.e-]+) thousandths without it", gap)
        assert match is not None
        assert float(match[1]) == pytest.approx(1000 * z_bias[head], abs=5e-4)
        assert float(match[2]) == pytest.approx(1000 * se[head], rel=0.06)
        assert note == "± is one standard error"
    assert len(set(texts)) == N


def test_hover_of_a_head_without_which_the_model_is_wrecked(table: ImpactTable) -> None:
    sums = table.ppl.sums.copy()
    sums[5] += 15 * table.ppl.base.counts
    wrecked = replace(table, ppl=replace(table.ppl, sums=sums))
    text = hover(wrecked, "neutral", [""] * N, [0.0] * N)[5]
    match = re.search(r"perplexity: (\+\d\.\d\de\+\d\d) ", text)
    assert match is not None
    assert float(match[1]) == pytest.approx(wrecked.ppl.z_ppl[5], rel=0.01)


def test_every_head_needs_a_reason_and_an_error(table: ImpactTable) -> None:
    with pytest.raises(ValueError, match="zip"):
        hover(table, "neutral", [""] * N, [0.0] * (N - 1))


def test_a_two_phase_score_is_called_an_estimate() -> None:
    table = make_table()
    first = replace(table.bias, exact=np.array([True, False] * 6), first=table.bias.ablated, checked=np.arange(9))
    texts = hover(replace(table, bias=first), "neutral", [""] * 12, np.ones(12))
    assert "two-phase estimate: removed on 9 of 40" in texts[0]
    assert "first-order estimate" in texts[1]
    assert "two-phase" not in texts[1]
    assert "estimate" not in hover(table, "neutral", [""] * 12, np.ones(12))[0]
