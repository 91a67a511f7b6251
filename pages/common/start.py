"""The way into a page that a link leads to before anybody has opened the app.

Streamlit takes a folder named `pages/` for a simpler kind of app until `app.py` has been run once: the first link to a
page after the start of the server would show that file alone, without navigation and page settings.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

APP = Path(__file__).resolve().parents[2] / "app.py"


def through_app() -> None:
    """Run `app.py`, which comes back to the page that was asked for, if it has not been run yet."""
    if getattr(PagesManager, "uses_pages_directory", False):
        runpy.run_path(str(APP), run_name="__main__")
        st.stop()
