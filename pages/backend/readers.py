"""Who asks: a reader is one browser tab, known by its session, and away once its connection has ended."""

from __future__ import annotations

import uuid
from collections.abc import Hashable

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx


def owner(name: str) -> tuple[str, str]:
    """This reader at one place of a page, as jobs know it; `name` is the place."""
    context = get_script_run_ctx()
    if context is None or not runtime.exists():  # a script without a server, as in tests
        return st.session_state.setdefault("reader", uuid.uuid4().hex), name
    return context.session_id, name


def here(asking: Hashable) -> bool:
    """Whether an owner's browser is connected. May be called from any thread."""
    if not runtime.exists() or not isinstance(asking, tuple):
        return True
    return runtime.get_instance().is_active_session(str(asking[0]))
