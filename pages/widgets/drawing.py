"""Charts, files, tables and findings as all pages draw them."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import streamlit as st

from fasp_core.gap.estimates import Estimate
from fasp_core.lazy import pd


def chart(fig: go.Figure, key: str, alt: str | None = None, **more: Any) -> None:
    """A figure in its own colors; `alt` says what it shows to those who cannot see it."""
    st.plotly_chart(fig, key=key, alt=alt, theme=None, config={"displaylogo": False, "scrollZoom": False}, **more)


def csv_table(frame: pd.DataFrame, file: str, shown: pd.DataFrame | None = None, **more: Any) -> None:
    """A table and its download as `file`; `shown` is how it looks on screen, `more` as `st.dataframe` takes it."""
    st.dataframe(frame if shown is None else shown, hide_index=True, **more)
    download("Download as CSV", frame.to_csv(index=False), file, icon=None)


def columns(name: str, found: Estimate) -> dict[str, float]:
    """An estimate and its interval as columns of a table that begin with a name."""
    name = name.replace(" ", "_")
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def download(label: str, content: Any, file: str, mime: str | None = None, **more: Any) -> None:
    """A button that gives a file, or what a function makes of it, without running the page again."""
    how = {"key": f"download {file}", "icon": ":material/download:", "on_click": "ignore", **more}
    st.download_button(label, content, file, mime, **how)


def finding(good: bool, text: str) -> None:
    """A finding in a sentence, and whether it is what one hopes for."""
    (st.success if good else st.warning)(text, icon=":material/check_circle:" if good else ":material/error_outline:")
