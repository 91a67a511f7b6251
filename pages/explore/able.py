"""What the pruned model is still able to do: on request, or after each gap; narrowing as items are added."""

from __future__ import annotations

import streamlit as st

from fasp_core import defaults
from fasp_core.compute.jobs import Job
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.spec import ModelSpec
from fasp_core.tasks import files
from fasp_core.tasks.utility import Utility
from pages.backend import demo
from pages.backend.engine import engine
from pages.backend.requests import Able
from pages.explore import looking
from pages.shell.sidebar import Settings
from pages.widgets import tasks as widget
from pages.widgets.markdown import escape_markdown

JOB, AUTO = "able", "able auto"
ITEMS = (25, 100, 300, 1000, 2000)  # of each task, one size after the other


def wanted() -> bool:
    """Whether tasks are asked without a click, and so without the tab being looked at."""
    return bool(st.session_state.get(AUTO))


def draw(settings: Settings, heads: PruneSet, gap_is_there: bool) -> None:
    """Which tasks and how many items, and the answers as far as they are there.

    Parameters
    ----------
    gap_is_there : whether the gap of this set was measured, after which tasks may be asked without a click.
    """
    st.markdown(
        "Mean perplexity hides what a head is for. Both models answer the same items of common tasks: the likeliest of "
        "several answers, or the last word of a passage (LAMBADA). First a few of each, then more."
    )
    st.page_link(
        "pages/scorecard/scorecard.py",
        label="Bias suites, texts, the gap of every axis and the checkpoint's size of this set, a line each: Scorecard",
        icon=":material/balance:",
    )
    try:
        files.folder()
    except InputError as error:
        st.info(escape_markdown(str(error)), icon=":material/info:")
        return
    left, middle, right = st.columns((2, 1, 1), vertical_alignment="bottom")
    chosen = left.multiselect(
        "Tasks", files.TASKS, defaults.TASKS, key="able tasks", persist_state="session", format_func=widget.title
    )
    sizes = demo.upto(ITEMS, "task_items")
    most = int(
        middle.select_slider(
            "Items of each, at most",
            sizes,
            max(n for n in sizes if n <= defaults.TASK_ITEMS),
            key="able most",
            persist_state="session",
        )
    )
    pressed = right.button("Ask both models", key="measure able", width="stretch", disabled=not chosen)
    auto = st.toggle(
        "Ask after every gap",
        key=AUTO,
        persist_state="session",
        help="Every set whose gap was measured is asked too, without a click.",
    )
    if not len(heads):
        st.caption("Nothing is removed, so both models are one.")
        return
    if not chosen:
        st.caption("Choose a task.")
        return
    asked = (settings.spec, heads, tuple(chosen))
    state = st.session_state
    if pressed or (auto and gap_is_there and state.get("able asked after") != asked):
        state["able asked after"] = asked  # once: a reader may cancel it
        looking.begin(JOB, asked)
    if not looking.begun(JOB, asked):
        looking.stop(JOB)  # the gap of another set waits behind it
        _stored(*asked)
        return

    def job_at(items: int) -> Job[Utility]:
        return looking.latest(JOB, Able(*asked, items), engine().able)

    looking.grow(
        JOB,
        [size for size in sizes if size <= most],
        job_at,
        widget.table,
        lambda items: f"Asking {items:,} of {most:,} items of each task",
    )


def _stored(spec: ModelSpec, heads: PruneSet, tasks: tuple[str, ...]) -> None:
    """What is stored of the same."""
    if (found := engine().results.able(spec, heads, tasks)) is None:
        st.caption("Not asked yet with this prune set.")
        return
    st.caption("Stored answers:")
    widget.table(found)
