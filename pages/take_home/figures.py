"""The figures of "Take home": each one interactive as an HTML file, and as SVG or PNG from its camera button."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import plotly.graph_objects as go
import streamlit as st

from fasp_core.evaluation import Evaluation
from fasp_core.figures import export
from fasp_core.report import charts
from fasp_core.scoring.impact_table import ImpactTable
from pages.session.recipe import OFFLINE
from pages.shell.current import Current
from pages.shell.sidebar import Settings
from pages.take_home import report
from pages.widgets.drawing import download


def draw(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Both grids, both impacts in one chart, and the groups where the set was measured."""
    left, right, _ = st.columns((1, 1, 1.5))
    kind = left.segmented_control(
        "The camera saves",
        export.FORMATS,
        default="svg",
        required=True,
        key="figure format",
        format_func=str.upper,
        help="Point at a figure: the camera at its upper right saves it. SVG keeps lines sharp at any size; PNG is "
        f"made of pixels, {export.SCALE} for each of the screen.",
    )
    dark = right.segmented_control("Colors", ("light", "dark"), default="light", required=True, key="figure colors")
    drawn = dark == "dark"
    st.caption(
        "Your browser makes SVG and PNG: point at a figure and press its camera. “Interactive” is an HTML file with "
        "everything in it, which shows values under the pointer and has buttons for SVG and PNG of its own."
    )
    how = (settings.reading, now.selection, drawn)
    grids = charts.grids(table, *how)
    name = partial(export.file_name, settings.axis_title)
    figures: list[tuple[str, str, go.Figure]] = [
        ("Impact on perplexity", name("impact-on-perplexity"), grids[0]),
        ("Impact on bias", name("impact-on-bias"), grids[1]),
        ("Both impacts of every head", name("both-impacts"), charts.scatter(table, *how)),
    ]
    measured = _measured(settings, now)
    if measured is not None:
        for i, fig in enumerate(charts.groups(measured, settings.reading, drawn), start=1):
            figures.append((f"Groups before and after{'' if i == 1 else f', {i}'}", name(f"groups-{i}"), fig))
    for start in range(0, len(figures), 2):
        for column, (title, file, fig) in zip(st.columns(2), figures[start : start + 2], strict=False):
            with column:
                _figure(title, file, fig, str(kind), drawn)
    if measured is None and settings.scorer == OFFLINE:  # whose reports measure it
        st.caption("The groups before and after are a figure as soon as the set was measured: write the report, above.")


def _figure(title: str, file: str, fig: go.Figure, kind: str, dark: bool) -> None:
    st.plotly_chart(
        export.opaque(fig, dark),
        theme=None,
        key=f"take {title} {kind} {dark}",
        config=export.camera(file, kind),
        alt=f"{title}.",
    )
    make: Callable[[], str] = partial(export.standalone, fig, title, file, dark)
    download("Interactive", make, f"{file}.html", "text/html", help=f"{title}, as an HTML file.")


def _measured(settings: Settings, now: Current) -> Evaluation | None:
    """The latest report's measurement, if it is one of this set."""
    found = st.session_state.get("report measured")
    if found is None or found[0] != report.measured_as(settings, now):
        return None
    evaluation: Evaluation = found[1]
    return evaluation
