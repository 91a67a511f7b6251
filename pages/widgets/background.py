"""Work in the background, as a reader meets it: what it would do, its progress, how it ended."""

from __future__ import annotations

import logging
from typing import Any

import streamlit as st

from fasp_core.compute.jobs import Job
from fasp_core.errors import InputError
from pages.backend import demo
from pages.backend.engine import Work, engine
from pages.backend.requests import Experiment, Request, Score
from pages.widgets import clicks
from pages.widgets.markdown import escape_markdown

KEPT = "What was measured is kept: a later run goes on from there."

logger = logging.getLogger(__name__)


def offer(
    asked: Experiment | Score,
    work: Work[Any],
    *,
    title: str,
    about: str,
    button: str = "Run",
    kept: str = KEPT,
    cancelled: str = "",
    watched: str = "",
) -> None:
    """Offer work that takes minutes, or show how it goes. The page is drawn again once it has ended.

    The result is read from the store by the page, which comes here only while it is not there.

    Parameters
    ----------
    work : as in `Engine.experiment`.
    title, about : what is missing, and what the work means: how much is measured, how long it takes.
    kept : what a cancelled run leaves.
    cancelled, watched : what is said of a cancelled run and beside progress, if not what was kept and the title.
    """
    job = job_of(asked)
    name = f"{title} {hash(asked)}"
    if job is not None and job.state in ("waiting", "running"):
        watch(job, watched or title)
        if clicks.button("Cancel", key=f"cancel {name}", help=kept):
            job.cancel()
            st.rerun()
        return
    look_again(job)
    if job is not None and job.state == "failed":
        show_error(job)
    if job is not None and job.state == "cancelled":
        st.info(cancelled or f"Cancelled. {kept}", icon=":material/pause_circle:")
    if demo.current() is not None:
        st.info(f"{title}. {demo.READ_ONLY}", icon=":material/lock:")
        return
    with st.container(border=True):
        st.subheader(title, anchor=False)
        st.markdown(about)
        if clicks.button(button, key=f"run {name}", type="primary"):
            st.session_state["jobs seen"][asked] = engine().experiment(asked, work)
            st.rerun()


def job_of(asked: Request) -> Job[Any] | None:
    """The job for a request: whoever's it is while it waits or runs, else the one that this reader has seen."""
    seen: dict[Request, Job[Any]] = st.session_state.setdefault("jobs seen", {})
    job = engine().running(asked) or seen.get(asked)
    if job is not None:
        seen[asked] = job  # another reader's, or one that was resumed
    return job


def look_again(job: Job[Any] | None) -> None:
    """Draw the page again, once, where a job has ended since the page looked for its result in vain."""
    if job is not None and job.state == "done" and st.session_state.get("looked again") is not job:
        st.session_state["looked again"] = job
        st.rerun()


def watch(job: Job[Any], title: str) -> None:
    """Progress of a job, refreshed until it ends; then the page is drawn again."""

    @st.fragment(run_every=0.7)
    def look() -> None:
        if job.state not in ("waiting", "running"):
            st.rerun(scope="app")
        bar(job, title)

    look()


def bar(job: Job[Any], title: str) -> None:
    """One line of progress: what is done, how far, how long still."""
    if job.state == "waiting" and job.place:
        st.progress(0.0, f"{title}: waiting, {job.place} before this one")
        return
    left = job.eta_seconds()
    tail = "" if left is None else f", about {duration(left)} left"
    st.progress(
        min(job.done / job.total, 1.0) if job.total else 0.0,
        f"{title}: {escape_markdown(job.text or 'starting')}{tail}",
    )


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_error(job: Job[Any]) -> None:
    """What went wrong, in one sentence where the input was at fault."""
    error = job.error
    if isinstance(error, InputError):
        st.error(escape_markdown(error), icon=":material/error:")
    else:
        if st.session_state.get("logged") is not job:  # once, not at every rerun
            logger.error("A job failed.", exc_info=error)
            st.session_state["logged"] = job
        st.error(
            f"The work stopped with an unexpected error ({type(error).__name__}); the terminal shows its details.",
            icon=":material/error:",
        )
