"""What a sample of prompts leaves out, where its axis is chosen."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig, left_out
from pages.widgets.markdown import escape_markdown


def tell(*configs: BiasConfig) -> None:
    """Each sentence of these samples once; nothing if they leave out nothing. Stops where one cannot be measured."""
    try:
        notes = left_out(*configs)
    except InputError as error:
        st.error(escape_markdown(error), icon=":material/error:")
        st.stop()
    if notes:
        st.caption("  \n".join(escape_markdown(note) for note in notes))


def tell_of_all(configs: Mapping[str, BiasConfig]) -> None:
    """The same for several axes by title, folded away."""
    told = {title: left_out(config) for title, config in configs.items()}
    with st.expander("What the prompts leave out"):
        for title, notes in told.items():
            st.caption(f"**{escape_markdown(title)}:** " + (" ".join(map(escape_markdown, notes)) or "nothing."))
