"""Explore heads: what each head does to perplexity and to bias, which to prune, and what that changes."""

from __future__ import annotations

import streamlit as st

from fasp_core.experiments.compare import SEARCH
from fasp_core.impacts.table import ImpactTable
from fasp_core.masks import PruneSet
from fasp_core.selection import select
from pages.common import engine, grids, measured, scoring, searched, sidebar, start
from pages.common.choice import ByHand, prune_set

TITLE = "Explore heads"


def page() -> None:
    """Draw the page from the top; anything that takes longer than a moment is a job that is only looked at here."""
    st.title("Which heads carry bias?", anchor=False)
    st.caption(
        "Every cell is one attention head. The left grid shows what removing it does to **perplexity** (how well the "
        "model predicts text), the right one what it does to the **toxicity gap** between groups. A method prunes "
        "heads that add bias and spares those that matter; click a cell to overrule it."
    )
    settings = sidebar.draw()
    known = engine.facts(settings.spec)
    if known is None and not scoring.load(settings.spec):
        return
    table = engine.scores(settings.spec, settings.scoring)
    if table is None:
        scoring.offer(settings.spec, settings.scoring)
        if engine.filling(settings.spec, settings.scoring) is not None:
            st.fragment(start.told(explore), run_every=5.0)(settings, None)
        return
    st.fragment(start.told(explore))(settings, table)


def explore(settings: sidebar.Settings, table: ImpactTable | None) -> None:
    """Grids and results; a click reruns only this part. Without a table: what of it is there already."""
    if table is None and (table := engine.filling(settings.spec, settings.scoring)) is None:
        return  # the last heads have just been finished, and the page is about to be drawn anew
    by_hand: ByHand = st.session_state.setdefault(f"by_hand {settings.spec.source}", ByHand())
    if settings.method == SEARCH:
        selection = searched.select(settings, table)
    else:
        scores = table.head_scores(settings.reading)
        selection = select(scores, settings.method, settings.gamma, settings.alpha, seed=settings.seed)
    st.session_state["selection"] = selection
    heads = PruneSet(prune_set(selection, by_hand).heads, settings.neurons.neurons)
    measured.cards(settings, table, selection, by_hand, heads)
    grids.draw(settings, table, selection, by_hand)
    measured.details(settings, table, heads)


start.through_app()
start.told(page)()
