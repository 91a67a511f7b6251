"""What a set takes from what a model is able to do, as pages show it."""

from __future__ import annotations

import streamlit as st

from fasp_core.lazy import pd
from fasp_core.tasks.files import TITLES
from fasp_core.tasks.utility import Utility
from pages.widgets.markdown import escape_markdown


def title(task: str) -> str:
    """As people write it."""
    return TITLES.get(task, task)


def table(found: Utility) -> None:
    """One row a task, and what has to be known of it."""
    from fasp_core.report.tables import task_table  # with half a second of imports: the first maps do without

    made = task_table(found)
    st.dataframe(pd.DataFrame(made.rows, columns=list(made.head)), hide_index=True, height="content")
    st.caption(
        "Both models on the same items, without examples before them; 95% intervals of paired answers. Nats: change "
        "of the mean log-likelihood of the right answer, which often shows a loss first. *Chance* is what is right "
        "without reading the question."
    )
    for note in found.notes:
        st.info(escape_markdown(note), icon=":material/info:")
