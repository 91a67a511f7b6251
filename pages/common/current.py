"""The set of the moment, the same on every page: the method's choice, hand-made changes on top, and neurons."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from fasp_core.experiments.compare import SEARCH
from fasp_core.impacts.table import ImpactTable
from fasp_core.masks import PruneSet
from fasp_core.selection import Selection, select
from pages.common import searched
from pages.common.choice import ByHand, prune_set
from pages.common.sidebar import Settings


@dataclass(frozen=True)
class Current:
    """What the method chose, what was changed by hand, and the heads and neurons that are off."""

    selection: Selection
    by_hand: ByHand
    heads: PruneSet


def current(settings: Settings, table: ImpactTable) -> Current:
    """The set that sidebar, scores and hand-made changes come to."""
    by_hand: ByHand = st.session_state.setdefault(f"by_hand {settings.spec.source}", ByHand())
    if settings.method == SEARCH:
        selection = searched.select(settings, table)
    else:
        scores = table.head_scores(settings.reading)
        selection = select(scores, settings.method, settings.gamma, settings.alpha, seed=settings.seed)
    st.session_state["selection"] = selection
    heads = PruneSet(prune_set(selection, by_hand).heads, settings.neurons.neurons)
    return Current(selection, by_hand, heads)
