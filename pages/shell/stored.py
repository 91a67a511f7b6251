"""Stored results and what made them, and the removal of those that were made here."""

from __future__ import annotations

import streamlit as st

from fasp_core.errors import InputError
from fasp_core.lazy import pd
from fasp_core.storage import catalog
from fasp_core.storage.catalog import Kept
from fasp_core.storage.store import Store
from pages.backend import demo
from pages.backend.engine import engine
from pages.widgets import background, clicks
from pages.widgets.markdown import escape_markdown


@st.dialog("Stored results", width="large")
def show() -> None:
    """All stored scores and experiments of one model; the chosen one with its settings and its command."""
    found = catalog.kept(Store())
    if not found:
        st.info("No scores and no experiments are stored yet.", icon=":material/info:")
        return
    models = list(dict.fromkeys(one.model for one in found))
    model = st.selectbox("Model", models, format_func=lambda name: name or "not recorded", key="stored model")
    mine = [one for one in found if one.model == model]
    st.caption(
        f"{len(mine)} results, {sum(one.size for one in mine) / 1e6:.1f} MB. Measurements of single sets are kept "
        "too and are not listed."
    )
    frame = pd.DataFrame([_row(one) for one in mine])
    st.dataframe(frame, hide_index=True, height=min(35 * len(mine) + 38, 260))
    chosen = st.selectbox(
        "Result",
        range(len(mine)),
        format_func=lambda i: f"{mine[i].what}, {mine[i].created[:16]}",
        key=f"stored {model}",
    )
    _one(mine[chosen])


def _row(one: Kept) -> dict[str, object]:
    return {
        "what": one.what,
        "axis": one.settings.get("axis", ""),
        "made": one.created[:16].replace("T", " "),
        "took": "" if one.seconds is None else background.duration(one.seconds),
        "device": one.device,
        "MB": round(one.size / 1e6, 1),
    }


def _one(one: Kept) -> None:
    st.text(one.name)
    st.text("\n".join(f"{name}: {value}" for name, value in one.settings.items()))
    if one.command:
        st.caption("Made by")
        st.code(one.command, language="sh", wrap_lines=True)
    if demo.current() is not None:
        return
    if not one.removable:
        st.caption("Results of the built-in model come with the program and stay.")
        return
    sure = st.checkbox("Delete this result: whoever needs it has to compute it again", key=f"stored sure {one.name}")
    if clicks.button("Delete", f"stored delete {one.name}", disabled=not sure, icon=":material/delete:"):
        try:
            engine().results.remove(one)
        except InputError as error:
            st.error(escape_markdown(error))
        else:
            st.rerun()
