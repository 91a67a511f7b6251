"""What is shown while a model loads, and where scores have yet to be made."""

from __future__ import annotations

import logging
from typing import Any

import streamlit as st

from fasp_core.compute.jobs import Job
from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from pages.backend import demo, engine
from pages.widgets import clicks
from pages.widgets.markdown import escape_markdown

logger = logging.getLogger(__name__)


def load(spec: ModelSpec) -> bool:
    """Load a model in the background; True once it is there."""
    job = st.session_state.get("load job")
    if job is None or job.key != ("load", spec):
        job = st.session_state["load job"] = engine.load_job(spec)
    if job.state == "failed":
        show_error(job)
        if clicks.button("Try again", key="load again"):
            del st.session_state["load job"]
            st.rerun()
        return False
    if job.state == "done":
        if engine.pinned(spec) != spec:  # what a name of a hub means is known now
            st.rerun()
        return True
    watch(job, f"Loading {escape_markdown(spec.source)}")
    return False


def load_scorer(config: BiasConfig) -> bool:
    """Load a classifier in the background; True once it is there."""
    if config.scorer == BiasConfig.scorer:
        return True
    job = engine.scorer_job(config)
    if job.state == "failed":
        show_error(job)
    elif job.state != "done":
        watch(job, f"Loading {escape_markdown(config.scorer)}")
    return job.state == "done"


def offer(spec: ModelSpec, config: BiasConfig) -> None:
    """The empty state: no scores yet, and how to make them."""
    jobs: dict[object, Job[Any]] = st.session_state.setdefault("score jobs", {})
    job = engine.running((spec, config)) or jobs.get((spec, config))
    if job is not None and job.state in ("waiting", "running"):
        jobs[(spec, config)] = job  # another reader's, or one that was resumed
        watch(job, "Scoring every head")
        if clicks.button("Cancel", key="cancel scoring", help="Finished heads are kept; scoring goes on from there."):
            job.cancel()
            st.rerun()
        return
    look_again(job)
    if job is not None and job.state == "failed":
        show_error(job)
    if job is not None and job.state == "cancelled":
        st.info("Scoring was cancelled. The heads that were finished are kept.", icon=":material/pause_circle:")
    if demo.current() is not None:
        st.info(f"No scores yet for this model and axis. {demo.READ_ONLY}", icon=":material/lock:")
        return
    with st.container(border=True):
        st.subheader("No scores yet for this model and axis", anchor=False)
        st.markdown(
            "First comes a preview from gradients. Then every head is removed for its effect on the perplexity of "
            f"{engine.SCORE_TEXT.tokens:,} tokens, and every head that a choice may depend on for its effect on the "
            f"expected toxicity of {config.n_prompts} validation prompts; the grids fill in meanwhile. With "
            "the built-in model on two cores an axis takes about six minutes, and the perplexities, which all "
            "axes share, about forty; a GPU takes a fraction of that. A cancelled run goes on where it was."
        )
        if clicks.button("Score all heads", key=f"score {hash((spec, config))}", type="primary"):
            jobs[(spec, config)] = engine.score_job(spec, config)
            st.rerun()


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
