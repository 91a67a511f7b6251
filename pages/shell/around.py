"""What stands around every page: runs and help above the sidebar, the banner of a demo, the tour of a first visit."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import Page

from fasp_core.storage.store import Store
from pages.backend import demo
from pages.shell import runs, tour
from pages.widgets import clicks, glossary

# The dark theme has one blue for the main column, and buttons with white labels take it: as text it is too dark there.
# In the sidebar, so is the label of a popover that is open.
LEGIBLE = """<style>
[data-testid="stMain"] :is([data-testid="stSliderThumbValue"], [data-selected="true"]) p,
[data-testid="stSidebar"] [data-testid="stPopover"] button p { color: #7CC4EE; }
</style>"""
REFUSED = "demo refused"  # in the session: a link asked for a model that the demo does not have


def draw(page: Page, first: bool) -> None:
    """Run a page with all that is around it; `first` is the page that the tour explains."""
    with st.sidebar:
        top = st.container(horizontal=True, gap="small")
        with top:
            place = st.container(width="content")  # filled last: by then the page has asked for its work
            _help(page, first)
    if st.context.theme.type == "dark":
        st.html(LEGIBLE)
    if demo.current() is not None:
        _demo()
    elif (trouble := Store().trouble) is not None:
        st.warning(
            f"Results are shown, but they are not kept when the server ends. {trouble} They are written with the next "
            "result that can be.",
            icon=":material/save:",
        )
    if first:
        tour.draw()
    try:
        page.run()
    finally:  # a page may stop early, as while it waits for a file
        with place:
            runs.draw()
    clicks.drop()


def _help(page: Page, first: bool) -> None:
    with st.popover("Help", icon=":material/help:", type="tertiary"):
        if first:
            st.button("Show the tour", icon=":material/tour:", on_click=tour.start)
        else:
            st.caption("The tour is on the page “Explore heads”.")
        st.markdown("#### Glossary")
        st.markdown(glossary.listed())


def _demo() -> None:
    st.set_option("client.showErrorDetails", "none")
    asked = st.query_params.get("model")
    if asked is not None and demo.allowed(asked) != asked:
        del st.query_params["model"]
        st.session_state[REFUSED] = True
    st.caption(":material/lock: **Demo: read-only.** Measurements are small, and nothing of yours is kept.")
    if st.session_state.get(REFUSED):
        st.info(
            "The link asks for a model that this demo does not have. You see one that it has.", icon=":material/info:"
        )
