"""Take home: a report, the data and the figures of the set of the moment, as files."""

from __future__ import annotations

import streamlit as st

from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits
from pages.backend.engine import engine
from pages.session import shared
from pages.session.recipe import PROTECT_TITLES
from pages.shell import sidebar, start
from pages.shell.current import Current, current
from pages.take_home import checkpoint, data, figures, report
from pages.widgets import scoring
from pages.widgets.markdown import escape_markdown


def page() -> None:
    """Draw the page from the top; what takes longer than a moment is a job that is only looked at here."""
    st.title("Take the results home", anchor=False)
    st.caption(
        "The set of heads that is chosen at the moment, here and on “Explore heads”, as files that need neither this "
        "program nor a network: a **report** to print or send, the **data**, the **figures**, the **model** without "
        "these heads."
    )
    settings = sidebar.draw()
    if not (scoring.known(settings.spec) and scoring.load_scorer(settings.scoring)):
        return
    table = engine().results.scores(settings.spec, settings.scoring)
    if table is None:
        scoring.offer(settings.spec, settings.scoring)
        return
    now = current(settings, table)
    about(settings, table, now)
    st.subheader("Report", anchor=False)
    report.draw(settings, table, now)
    st.subheader("Data", anchor=False)
    data.draw(settings, table, now)
    st.subheader("Figures", anchor=False)
    st.fragment(start.told(figures.draw))(settings, table, now)
    st.subheader("Pruned checkpoint", anchor=False)
    checkpoint.draw(settings.spec, now.heads)


def about(settings: sidebar.Settings, table: ImpactTable, now: Current) -> None:
    """What is about to be taken."""
    size = table.n_layers * table.n_heads
    changed = len(now.by_hand)
    with st.container(border=True):
        columns = st.columns(2)
        columns[0].metric("Removed", f"{len(now.heads.heads)} of {size} heads", help="What the files are about.")
        columns[1].metric("Axis", settings.axis_title)
        neurons = f" **And {now.heads.others_told()}.**" * bool(now.heads.others)
        by_hand = f" **{changed} set by hand.**" if changed else " No hand-made changes."
        by = "" if settings.protect == "perplexity" else f" by {PROTECT_TITLES[settings.protect]}"
        shares = f"γ {settings.gamma:g}{by}, " if settings.method == "fasp" else ""
        reading = sidebar.READING_TITLES.get(settings.reading, settings.reading)
        how = f"{sidebar.METHOD_TITLES[settings.method]}, {shares}α {settings.alpha:g}, {reading}"
        st.caption(f"Chosen by {how}.{by_hand}{neurons}")
        if len(now.heads):
            st.code(now.heads.format(), language=None, wrap_lines=True)
        else:
            st.info("Nothing is removed: raise α, click heads on “Explore heads”, or bring a set, below.")
        for note in now.selection.notes:
            st.info(escape_markdown(note), icon=":material/info:")
        if changed:
            st.button(
                "Back to the method's choice",
                key="reset",
                icon=":material/undo:",
                on_click=shared.tell,
                args=(settings.spec.source, ManualEdits()),
            )


start.told(page)()
