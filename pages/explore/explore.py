"""Explore heads: what each head does to perplexity and to bias, which to prune, and what that changes."""

from __future__ import annotations

import streamlit as st

from fasp_core.scoring.impact_table import ImpactTable
from pages.backend.engine import engine
from pages.explore import editing, grids, measured, named, tried
from pages.session import shared
from pages.shell import sidebar, start
from pages.shell.current import current
from pages.widgets import pointer, scoring

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
    if not (scoring.known(settings.spec) and scoring.load_scorer(settings.scoring)):
        return
    table = engine().results.scores(settings.spec, settings.scoring)
    if table is None:
        scoring.offer(settings.spec, settings.scoring)
        if engine().results.filling(settings.spec, settings.scoring) is not None:
            st.fragment(start.told(explore), run_every=5.0)(settings, None)
        return
    st.fragment(start.told(explore))(settings, table)


def explore(settings: sidebar.Settings, table: ImpactTable | None) -> None:
    """Grids and results; a click reruns only this part. Without a table: what of it is there already."""
    if table is None and (table := engine().results.filling(settings.spec, settings.scoring)) is None:
        return  # the last heads have just been finished, and the page is about to be drawn again
    if shared.behind():
        st.rerun()  # a step back, say, has changed the sidebar
    now = current(settings, table)
    with st.container(key="above"):  # whose height the pointer's script holds
        result = measured.cards(settings, table, now)
    tried.note(settings, table, now, result)
    editing.toolbar(settings, table, now)
    grids.draw(settings, table, now)
    grids.last_words(settings, table, now)
    back = tried.draw(settings)
    named.draw(settings, now)
    measured.details(settings, table, now)
    pointer.listen(grids.acts(settings, table, now) | back)


start.told(page)()
