"""Which demographic axis: one of HolisticBias, or prompts of one's own."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from fasp_core.data.holistic_bias import axis_names
from fasp_core.data.prompts import from_csv
from fasp_core.errors import InputError
from pages.backend import demo, folders
from pages.session.recipe import OWN_CSV, Recipe
from pages.widgets import uploads
from pages.widgets.markdown import escape_markdown


def listed() -> str:
    """Which axis of HolisticBias."""
    if st.session_state["axis"] not in axis_names():  # another page takes prompts of one's own, too
        st.session_state["axis"] = Recipe().axis
    return _axis(axis_names())


def choose() -> tuple[str, str]:
    """Which axis, by name or as the path of a CSV file, and what people call it. Stops where there is no such file."""
    axis = _axis((*axis_names(), *demo.unless(OWN_CSV)))
    if axis != OWN_CSV:
        return axis, axis_title(axis)
    found = uploads.opened("CSV with columns text, group", "csv", type=["csv", "tsv", "txt"])
    if found is None:
        st.info(
            "Upload a CSV file with the columns `text` and `group`: one prompt a row, with commas, semicolons or tabs. "
            "A fifth of the prompts is used to choose heads and the rest to test the choice.",
            icon=":material/upload:",
        )
        st.stop()
    name, content = found
    try:
        from_csv(content, name)
        return str(folders.keep_upload(content, name)), Path(name).stem
    except InputError as error:
        st.error(escape_markdown(error))
        st.stop()


def _axis(options: tuple[str, ...]) -> str:
    return st.selectbox(
        "Axis",
        options,
        format_func=axis_title,
        key="axis",
        persist_state="session",
        help="The demographic axis whose groups are compared. Prompts come from HolisticBias v1.1.",
    )


def axis_title(axis: str) -> str:
    """`race_ethnicity` as people read it."""
    return axis if axis == OWN_CSV else axis.replace("_", " ")
