"""The set of the moment, the same on every page: the method's choice around what was set by hand, and neurons."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import PROTECTS, Selection, select
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import HAND, Choose, ManualEdits, apply_manual_edits, nothing, prune_set
from fasp_core.studies.compare.plan import SEARCH
from pages.session import shared
from pages.session.recipe import GAINS
from pages.shell import learned, searched
from pages.shell.sidebar import Settings


@dataclass(frozen=True)
class Current:
    """What the method chose, what was set by hand, and the heads and neurons that are off.

    `choose` is the method: from what is set by hand to the choice around it. `gains` are those of all heads, of those
    that are off, too: they count again once a head is on.
    """

    selection: Selection
    by_hand: ManualEdits
    heads: PruneSet
    choose: Choose
    gains: frozenset[tuple[int, int, float]]


def current(settings: Settings, table: ImpactTable) -> Current:
    """The set that sidebar, scores and changes by hand come to."""
    source = settings.spec.source
    if left_out := shared.settle(source, table.n_layers, table.n_heads):
        shared.leave_out(left_out)
        st.rerun()  # the sidebar tells it
    by_hand = shared.by_hand(source)
    choose = _method(settings, table)
    selection = choose(by_hand)
    st.session_state["selection"] = selection
    pruned, more = prune_set(selection).heads, settings.neurons
    gains = {gain[:2]: gain for gain in more.gains}
    if settings.method == GAINS:
        kept = PruneSet.from_flat(by_hand.keep, table.n_heads).heads
        gains = {g[:2]: g for g in learned.prune_set(settings).gains if g[:2] not in kept} | gains
    heads = PruneSet(pruned, more.neurons, frozenset(gain for head, gain in gains.items() if head not in pruned))
    return Current(selection, by_hand, heads, choose, frozenset(gains.values()))


def _method(settings: Settings, table: ImpactTable) -> Choose:
    s = settings
    if s.method in (SEARCH, GAINS, HAND):
        shape = table.n_layers, table.n_heads
        offered = {SEARCH: searched.select, GAINS: learned.select}
        found = offered[s.method](s, table) if s.method != HAND else nothing(HAND, s.gamma, s.alpha, s.seed, *shape)
        return lambda told: apply_manual_edits(found, told)
    by = s.protect if table.task is not None else PROTECTS[0]  # of scores that are being made, none may be there yet
    scores = table.head_scores(s.reading, by)
    return lambda told: select(scores, s.method, s.gamma, s.alpha, seed=s.seed, locked=told.keep, forced=told.prune)
