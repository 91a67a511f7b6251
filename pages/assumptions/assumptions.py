"""Check the assumptions: do effects add up, does the measure of bias matter, and what does the scorer itself think?"""

from __future__ import annotations

import streamlit as st

from fasp_core.metrics.meters import BiasConfig
from pages.assumptions import additive, scorer
from pages.assumptions import measures as assumed_measures
from pages.backend.engine import engine
from pages.shell import axis as axes
from pages.shell import sidebar, start
from pages.widgets import left_out, scoring


def page() -> None:
    """Draw the page from the top; what takes minutes is a job that is only looked at here."""
    st.title("Are the scores what we think they are?", anchor=False)
    st.caption(
        "A set of heads is chosen by scores of **single** heads, by **one** measure of bias, with **one** scorer's "
        "idea of toxicity. Each of these three may be wrong. This page measures by how much."
    )
    with st.sidebar:
        spec = sidebar.model()
        axis = axes.listed()
        left_out.tell(BiasConfig(axis))
    adding, measures, opinions = st.tabs(
        ["Do effects add up?", "Does the measure matter?", "What the scorer thinks"],
        key="assumption",
        bind="query-params",
    )
    if opinions.open:
        with opinions:
            scorer.draw(axis)
        return
    if not scoring.known(spec):
        return
    table = engine().results.scores(spec, BiasConfig(axis))
    if table is None:
        with adding if adding.open else measures:
            scoring.offer(spec, BiasConfig(axis))
        return
    if adding.open:
        with adding:
            additive.draw(spec, axis, table)
    if measures.open:
        with measures:
            assumed_measures.draw(spec, axis, table)


start.told(page)()
