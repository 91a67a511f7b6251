"""How a page begins: with bad input told in a sentence, and the way to where scores are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import streamlit as st

from fasp_core.errors import InputError
from pages.session import shared
from pages.widgets.markdown import escape_markdown

P = ParamSpec("P")


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
        shared.keep()
        try:
            draw(*args, **kwargs)
        except InputError as error:
            st.error(escape_markdown(error), icon=":material/error:")

    return drawn
