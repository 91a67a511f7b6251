"""How a page begins: as a part of the app, whoever asks for it first, and with bad input told in a sentence.

Streamlit takes a folder named `pages/` for a simpler kind of app until `app.py` has been run once: the first link to a
page after the start of the server would show that file alone, without navigation and page settings.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from fasp_core.errors import InputError
from pages.widgets.markdown import escape_markdown

APP = Path(__file__).resolve().parents[2] / "app.py"

P = ParamSpec("P")


def through_app() -> None:
    """Run `app.py`, which comes back to the page that was asked for, if it has not been run yet."""
    if getattr(PagesManager, "uses_pages_directory", False):
        runpy.run_path(str(APP), run_name="__main__")
        st.stop()


def explore_button() -> None:
    """The way to where scores are made; what is in the address of either page goes along."""
    if st.button("Explore heads", icon=":material/grid_on:"):
        st.switch_page("pages/explore/explore.py", query_params={})


def told(draw: Callable[P, None]) -> Callable[P, None]:
    """The same page or fragment, which tells bad input in its place; what stands around it stays.

    A fragment needs its own: when it alone is rerun, nothing of the page around it is there to catch an error.
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except InputError as error:
            st.error(escape_markdown(error), icon=":material/error:")

    return drawn
