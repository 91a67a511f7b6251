"""An experiment that takes minutes, as a reader meets it: what it would do, its progress, how it ended."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import streamlit as st

from fasp_core.compute.jobs import Job, Progress
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from pages.backend import demo, engine
from pages.widgets import clicks, scoring

KEPT = "What was measured is kept: a later run goes on from there."


def offer(
    spec: ModelSpec,
    key: Hashable,
    work: Callable[[LanguageModel, Store, Progress], Any],
    *,
    title: str,
    about: str,
    button: str = "Run",
    kept: str = KEPT,
) -> None:
    """Offer an experiment, or show how the one that was started goes. The page is drawn again once it has ended.

    The result is read from the store by the page, which comes here only while it is not there.

    Parameters
    ----------
    key, work : as in `engine.experiment_job`.
    title, about : what is missing, and what running it means: how much is measured, how long it takes.
    kept : what a cancelled run leaves.
    """
    started: dict[Hashable, Job[Any]] = st.session_state.setdefault("experiments", {})
    job = engine.running_experiment(spec, key) or started.get((spec, key))
    name = f"{title} {hash((spec, key))}"
    if job is not None and job.state in ("waiting", "running"):
        started[spec, key] = job
        scoring.watch(job, title)
        if clicks.button("Cancel", key=f"cancel {name}", help=kept):
            job.cancel()
            st.rerun()
        return
    scoring.look_again(job)
    if job is not None and job.state == "failed":
        scoring.show_error(job)
    if job is not None and job.state == "cancelled":
        st.info(f"Cancelled. {kept}", icon=":material/pause_circle:")
    if demo.current() is not None:
        st.info(f"{title}. {demo.READ_ONLY}", icon=":material/lock:")
        return
    with st.container(border=True):
        st.subheader(title, anchor=False)
        st.markdown(about)
        if clicks.button(button, key=f"run {name}", type="primary"):
            started[spec, key] = engine.experiment_job(spec, key, work)
            st.rerun()
