"""Which heads of a set do it: the measured change split among them, on request; what is stored at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.report import charts
from fasp_core.studies.explain.explain import Explained
from pages.backend import demo
from pages.backend.engine import engine
from pages.backend.requests import Explain
from pages.explore import looking
from pages.shell.sidebar import READING_TITLES, Settings
from pages.widgets import clicks
from pages.widgets.markdown import escape_markdown

if TYPE_CHECKING:
    from fasp_core.report.tables import Table

JOB = "explain"
PROMPTS, TOKENS = (90, 210, 450, 900), (1024, 2048, 4096, 8192)


def draw(settings: Settings, heads: PruneSet) -> None:
    """How much is measured, and the split as far as it is there."""
    st.markdown(
        "The measured change, split among the heads of the set so that their parts sum to it: all gates move together "
        "from 1 to where the set has them, and each head is given what its own gate moves on the way (Aumann and "
        "Shapley 1974). A part says what a head does *within this set*; alone it may do something else."
    )
    left, middle, right = st.columns((1, 1, 1), vertical_alignment="bottom")
    prompts = left.select_slider(
        "Prompts", demo.upto(PROMPTS, "prompts"), 210, key="explain prompts", persist_state="session"
    )
    sizes = demo.upto(TOKENS, "tokens")
    tokens = middle.select_slider(
        "Tokens of text",
        sizes,
        max(n for n in sizes if n <= defaults.EXPLAINED_TOKENS),
        key="explain tokens",
        persist_state="session",
    )
    bias = replace(settings.evaluation.bias, n_prompts=int(prompts))
    asked = Explain(settings.spec, heads, EvalConfig(bias, TextConfig(tokens=int(tokens))), settings.reading)
    pressed = right.button("Split the change", key="explain split", width="stretch", disabled=not len(heads))
    if not len(heads):
        st.caption("Nothing is removed, so there is nothing to split.")
        return
    try:
        assert asked.plan
    except InputError as error:
        st.info(escape_markdown(str(error)), icon=":material/info:")
        return
    if pressed:
        looking.begin(JOB, asked)
    if not looking.begun(JOB, asked):
        looking.stop(JOB)
        found = engine().results.explained(settings.spec, heads, bias, settings.reading)
        if found is None:
            st.caption(
                "Not split yet for this prune set and these prompts. What is set here at first takes about ten minutes "
                "with the built-in model on two cores; fewer prompts and tokens take less."
            )
            return
        st.caption("Stored:")
        show(found)
        return
    job = looking.latest(JOB, asked, engine().explain)
    if looking.ready(job, JOB, "Splitting the change"):
        show(job.result)
    elif job.state != "failed" and clicks.button("Cancel", key=f"cancel {JOB}"):
        del st.session_state[f"{JOB} for"]
        job.cancel()
        st.rerun()


def show(found: Explained) -> None:
    """The sentence, both staircases, what leaving heads out gains, and the same as a table."""
    from fasp_core.report import tables  # with half a second of imports: the first maps do without

    st.markdown(f"{escape_markdown(found.sentence())} ({READING_TITLES[found.plan.reading]})")
    for name, fig in zip(("gap", "cost"), charts.waterfalls(found, st.context.theme.type == "dark"), strict=True):
        alt = f"Staircase of the {name} by {len(found.names)} heads; the table below has its numbers."
        st.plotly_chart(fig, theme=None, key=f"explain {name}", alt=alt)
    if found.without:
        st.markdown("**★ These heads spoil the set.** What leaving them out changes, measured:")
        _table(tables.without_table(found))
    _table(tables.explained_table(found))
    st.caption(
        f"Intervals resample {found.blocks:,} blocks of prompts, and {found.windows} windows of text. A star means "
        "that the sign holds for all heads together. The quadrature error is what the sum misses of the measurement."
    )
    for note in found.notes:
        st.info(escape_markdown(note), icon=":material/info:")


def _table(made: Table) -> None:
    st.dataframe(pd.DataFrame(made.rows, columns=list(made.head)), hide_index=True, height="content")
