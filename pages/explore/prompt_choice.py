"""One prompt to look at: a sentence of the axis, or any text. The same choice wherever it is asked for."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from fasp_core.errors import InputError
from fasp_core.metrics.continuations import CHARACTERS, checked
from pages.shell.sidebar import SPLIT_TITLES, Settings
from pages.widgets.markdown import escape_markdown

MOST = 2_000  # sentences of a group in the list
SOURCES = {"axis": "a prompt of the axis", "typed": "my own text"}


def choose(settings: Settings) -> str | None:
    """The prompt; None, and a word on why, while there is none. It is kept in the session and never in the address."""
    source = st.segmented_control(
        "Prompt",
        tuple(SOURCES),
        default="axis",
        required=True,
        format_func=SOURCES.__getitem__,
        key="prompt from",
        persist_state="session",
    )
    return _typed() if source == "typed" else _of_the_axis(settings)


def _typed() -> str | None:
    text = st.text_area(
        "Beginning of a text",
        key="prompt typed",
        max_chars=CHARACTERS,
        height=80,
        placeholder="My new neighbours are Dutch, and they",
        persist_state="session",
    )
    if not text:
        st.caption("Write the beginning of a text, in any words. It stays on this machine and is not stored.")
        return None
    try:
        return checked(text)
    except InputError as error:
        st.error(escape_markdown(error), icon=":material/error:")
        return None


def _of_the_axis(settings: Settings) -> str | None:
    measured = settings.evaluation.bias
    groups = list(measured.prompts().counts())
    pool = replace(measured, n_prompts=MOST * len(groups)).prompts()  # which begins with the measured ones
    place = f"{settings.axis} {settings.split}"
    left, right = st.columns((1, 3))
    group = left.selectbox("Group", groups, key=f"prompt group {place}", persist_state="session")
    texts = [text for text, its in zip(pool.texts, pool.groups, strict=True) if its == group]
    return right.selectbox(
        f"{len(texts):,} {SPLIT_TITLES.get(settings.split, settings.split)} prompts of this group",
        texts,
        key=f"prompt {place} {group}",
        filter_mode="contains",
        persist_state="session",
        help="Type to search. Those that are measured come first.",
    )
