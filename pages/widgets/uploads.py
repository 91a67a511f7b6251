"""A file of a person's own: it outlives the uploader, which goes with the page that draws it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.widgets.markdown import escape_markdown


def opened(label: str, key: str, **more: Any) -> tuple[str, bytes] | None:
    """Name and content of what is open, until another takes its place or it is closed; `more` as of Streamlit."""
    st.file_uploader(label, key=key, on_change=_take, args=(key,), **more)
    if _kept(key) not in st.session_state:
        return None
    name, content = st.session_state[_kept(key)]
    if st.session_state.get(key) is None:  # another page was shown meanwhile
        st.caption(f"Open: {escape_markdown(name)}")
        st.button("Close file", key=f"{key} close", on_click=lambda: st.session_state.pop(_kept(key)))
    return name, content


def name(key: str) -> str | None:
    """Of the file that is open."""
    return st.session_state[_kept(key)][0] if _kept(key) in st.session_state else None


def _take(key: str) -> None:
    upload: Any = st.session_state[key]
    if upload is None:
        st.session_state.pop(_kept(key), None)
    else:
        st.session_state[_kept(key)] = (upload.name, upload.getvalue())


def _kept(key: str) -> str:
    return f"file of {key}"
