"""Hand-made changes against a model that keeps one instruction a head, and the words about each head."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import METHODS, Selection, select
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import (
    HAND,
    ManualEdits,
    apply_manual_edits,
    block,
    heads_in,
    hover,
    nothing,
    prune_set,
    reasons,
)
from tests.support.fakes import make_table

N = 12  # heads
heads_of = st.frozensets(st.integers(0, N - 1))
instructions = st.dictionaries(st.integers(0, N - 1), st.booleans())  # head -> off


def by_hand_of(told: dict[int, bool]) -> ManualEdits:
    return ManualEdits(
        prune=frozenset(h for h, off in told.items() if off), keep=frozenset(h for h, off in told.items() if not off)
    )


def chooser(order: list[int], k: int) -> Callable[[ManualEdits], Selection]:
    """The method that prunes the first k of an order around what is told, as one would write it down."""

    def choose(told: ManualEdits) -> Selection:
        free = [h for h in order if h not in told.prune | told.keep]
        pruned = {*told.prune, *free[: max(k - len(told.prune), 0)]}
        return replace(nothing("made up", 0.0, 0.0, 0, 3, 4), pruned=tuple(sorted(pruned)))

    return choose


orders = st.permutations(range(N))


@given(instructions, heads_of, st.sampled_from([True, False, None]))
def test_telling(told: dict[int, bool], heads: frozenset[int], off: bool | None) -> None:
    after = by_hand_of(told).set(heads, off)
    wanted = {h: o for h, o in told.items() if h not in heads} | ({} if off is None else dict.fromkeys(heads, off))
    assert after == by_hand_of(wanted)
    assert len(after) == len(wanted)


@given(orders, st.integers(0, N), instructions, heads_of)
def test_turning_over(order: list[int], k: int, told: dict[int, bool], turned: frozenset[int]) -> None:
    choose, before = chooser(order, k), by_hand_of(told)
    after = before.toggle(turned, choose)
    off, now = set(choose(before).pruned), set(choose(after).pruned)
    assert now & turned == turned - off  # those named stand the other way round, all of them
    assert not after.prune & after.keep
    assert (after.prune - turned, after.keep - turned) == (before.prune - turned, before.keep - turned)
    for head in turned & (after.prune | after.keep):  # what is told of them is what they are
        assert (head in now) == (head in after.prune)


@given(orders, st.integers(0, N), instructions, st.integers(0, N - 1))
def test_a_head_turned_twice_is_where_it_was(order: list[int], k: int, told: dict[int, bool], head: int) -> None:
    choose, before = chooser(order, k), by_hand_of({h: o for h, o in told.items() if h != head})
    assert before.toggle([head], choose).toggle([head, head], choose) == before


@given(orders, st.integers(0, N), st.integers(0, N), instructions)
def test_what_is_told_holds_whatever_the_slider_says(
    order: list[int], k: int, other: int, told: dict[int, bool]
) -> None:
    by_hand = by_hand_of(told)
    for size in (k, other):
        pruned = set(chooser(order, size)(by_hand).pruned)
        assert by_hand.prune <= pruned
        assert not by_hand.keep & pruned
        assert len(pruned) == max(len(by_hand.prune), min(size, N - len(by_hand.keep)))


@given(heads_of, instructions)
def test_around_a_set_that_was_found(found: frozenset[int], told: dict[int, bool]) -> None:
    """The joint search: the same heads but those that are told, and a note where that differs."""
    set_of = replace(nothing("search", 0.0, 0.0, 0, 3, 4), pruned=tuple(sorted(found)))
    changed = apply_manual_edits(set_of, by_hand_of(told))
    assert set(changed.pruned) == {h for h in range(N) if told.get(h, h in found)}
    assert bool(changed.notes) == (set(changed.pruned) != found)
    assert apply_manual_edits(replace(set_of, method=HAND, pruned=()), by_hand_of(told)).notes == ()


@given(st.sets(st.integers(0, N - 1), min_size=1), st.sets(st.integers(0, 2)), st.sets(st.integers(0, 3)))
def test_heads_named_in_a_text(heads: set[int], layers: set[int], columns: set[int]) -> None:
    parts = [f"L{h // 4}H{h % 4}" for h in heads] + [f"L{i}" for i in layers] + [f"h{i}" for i in columns]
    wanted = heads | {h for h in range(N) if h // 4 in layers or h % 4 in columns}
    assert heads_in(", ".join(parts), 3, 4) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "No head is named"),
        ("nonsense", "'nonsense' is not a head"),
        ("L0H3,L9H0", "L9H0 does not exist"),
        ("L3", "There is no layer 'L3': this model has layers 0 to 2."),
        ("H2-9", "There is no head column"),
        ("L2-1", "There is no layer 'L2-1'"),
        ("L0N4", "is a neuron"),
        ("L0H3*0.4,L1H0", "'L0H3*0.4' has a gain"),
        ("L0H3*1,L1H0", "'L0H3*1' has a gain"),
        ("<b>L0H0</b>", "is not a head"),
    ],
)
def test_nonsense_for_heads_is_told_in_one_sentence(text: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        heads_in(text, 3, 4)


# what is measured, and why


@pytest.fixture(scope="module")
def table() -> ImpactTable:
    return make_table(3, 4)


@pytest.fixture(scope="module")
def selection(table: ImpactTable) -> Selection:
    return select(table.head_scores("neutral"), "fasp", 0.25, 0.25)


def told_to(table: ImpactTable, by_hand: ManualEdits, method: str = "fasp", gamma: float = 0.25) -> Selection:
    return select(table.head_scores("neutral"), method, gamma, 0.25, locked=by_hand.keep, forced=by_hand.prune)


def test_the_set_that_is_measured(table: ImpactTable, selection: Selection) -> None:
    assert prune_set(selection) == PruneSet.of(selection.heads)
    free = min(set(range(N)) - set(selection.pruned))
    heads = prune_set(told_to(table, ManualEdits(prune=frozenset({free}), keep=frozenset({selection.pruned[1]}))))
    assert divmod(free, 4) in heads.heads
    assert divmod(selection.pruned[1], 4) not in heads.heads
    assert len(heads) == 3


@given(told=instructions, method=st.sampled_from(METHODS), gamma=st.floats(0, 1))
def test_one_true_reason_a_head(table: ImpactTable, told: dict[int, bool], method: str, gamma: float) -> None:
    chosen = told_to(table, by_hand_of(told), method, gamma)
    found = reasons(chosen)
    assert len(found) == N
    for head, reason in enumerate(found):
        assert reason.startswith("pruned" if head in chosen.pruned else "kept")
        assert ("by hand" in reason) == (head in told)
        assert ("critical" in reason) == (head in chosen.critical)
        if head not in told and head in chosen.pruned:
            assert reason == f"pruned by {method}"


def test_reasons_in_words(table: ImpactTable, selection: Selection) -> None:
    pruned, critical = selection.pruned, selection.critical
    free = sorted(set(range(N)) - {*pruned, *critical})
    chosen = told_to(table, ManualEdits(frozenset({critical[0], free[0]}), frozenset({pruned[0], critical[1]})))
    found = reasons(chosen)
    assert found[critical[0]] == "pruned by hand, although critical"
    assert found[free[0]] == "pruned by hand"
    assert found[pruned[0]] == "kept by hand"
    assert found[critical[1]] == "kept by hand, and critical"
    assert found[critical[2]] == "kept: critical, among the 25% that matter most for perplexity"
    assert "kept: not among the 3 that fasp prunes" in found
    assert "kept: not named by hand" in reasons(apply_manual_edits(nothing(HAND, 0.3, 0.05, 0, 3, 4), ManualEdits()))


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


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_a_block_is_the_rectangle_of_brute_force(n_layers: int, n_heads: int, data: st.DataObject) -> None:
    n = n_layers * n_heads
    order = np.array(data.draw(st.permutations(range(n))))
    first, last = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    grid = order.reshape(n_layers, n_heads)
    ((r1, c1),), ((r2, c2),) = np.argwhere(grid == first), np.argwhere(grid == last)
    seen = grid[min(r1, r2) : max(r1, r2) + 1, min(c1, c2) : max(c1, c2) + 1]
    assert block(first, last, n_heads, order) == set(seen.ravel().tolist())
