"""Explore heads: what each head does to perplexity and to bias, which to prune, and what that changes."""

from __future__ import annotations

import streamlit as st

from fasp_core.scoring.impact_table import ImpactTable
from pages.backend.engine import engine
from pages.explore import editing, grids, maps, measured, named, tried
from pages.instrument import instrument
from pages.session import shared
from pages.shell import learned, sidebar, start
from pages.shell.current import current
from pages.widgets import scoring

ABOUT = (
    "Every cell is one attention head. One map shows what removing it does to **perplexity** (how well the model "
    "predicts text), the other what it does to the **toxicity gap** between groups. A method prunes heads that add "
    "bias and spares those that matter; click a cell to overrule it."
)

# All that moves under the hand stands on one screen, from 1280 x 800 on.
COMPACT = """
[data-testid="stHeader"] { background: transparent; pointer-events: none; }
[data-testid="stHeader"] :is(button, a, [role="button"]) { pointer-events: auto; }
[data-testid="stMainBlockContainer"] { padding: 0.7rem 2.2rem 3rem; }
[data-testid="stMainBlockContainer"] > [data-testid="stVerticalBlock"] { gap: 0.5rem; }
.st-key-front { row-gap: 0; padding-right: 2rem; justify-content: space-between; }
.st-key-front h1 { padding: 0 0 0.5rem; }
.st-key-above { min-height: 118px; } /* as high with estimates as when measured: the maps stay under the hand */
.st-key-above, .st-key-above [data-testid="stVerticalBlock"] { gap: 0.1rem; }
.st-key-above [data-testid="stMetricLabel"] p { font-size: 0.85rem; }
.st-key-above [data-testid="stMetricValue"] { font-size: 1.4rem; }
.st-key-above [data-testid="stAlertContainer"] { padding: 0.5rem 0.7rem; }
.st-key-above [data-testid="stAlertContainer"] p { font-size: 0.9rem; line-height: 1.35; }
.st-key-above [data-testid="stCaptionContainer"] p { line-height: 1.3; }
.st-key-tools { gap: 0.4rem; }
.st-key-tools button { padding: 0 0.55rem; min-height: 2.1rem; }
@media (max-width: 1050px) {
  .st-key-above [data-testid="stHorizontalBlock"] { flex-wrap: wrap; }
  .st-key-above [data-testid="stColumn"] { min-width: calc(50% - 1rem); }
}
"""


def page() -> None:
    """Draw the page from the top; anything that takes longer than a moment is a job that is only looked at here."""
    st.html(f"<style>{COMPACT}{instrument.UNFADED}</style>")
    front = st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="front")
    front.title("Which heads carry bias?", anchor=False, help=ABOUT, width="content")
    settings = sidebar.draw(front)
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
    now, trail = current(settings, table), shared.step()  # before what a next choice may interrupt
    with st.container(key="above"):
        if first := not instrument.drawn():
            st.space()  # as high as the cards
        else:
            job = measured.cards(settings, table, now)
            tried.note(settings, table, now, job)
    maps.draw(settings, table, now)
    if first:  # a browser has enough to do with the maps, and a measurement would take its processors
        return
    learned.measure(settings)
    editing.toolbar(settings, table, now, trail)
    grids.last_words(settings, table)
    tried.draw(settings)
    named.draw(settings, now)
    measured.details(settings, table, now)
    learned.curve(settings)


start.told(page)()
