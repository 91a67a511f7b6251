"""What is shown while a model loads, and where scores have yet to be made."""

from __future__ import annotations

from functools import partial

import streamlit as st

from fasp_core.data.text import SCORE_TEXT
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from pages.backend.engine import engine, score_heads
from pages.backend.requests import Load, Score
from pages.widgets import background, clicks
from pages.widgets.markdown import escape_markdown


def known(spec: ModelSpec) -> bool:
    """Whether it is known which model this is; as long as it is not, the model is loaded in the background."""
    return engine().models.facts(spec) is not None or load(spec)


def load(spec: ModelSpec) -> bool:
    """Load a model in the background; True once it is there."""
    job = st.session_state.get("load job")
    if job is None or job.key != Load(spec):
        job = st.session_state["load job"] = engine().load(spec)
    if job.state == "failed":
        background.show_error(job)
        if clicks.button("Try again", key="load again"):
            del st.session_state["load job"]
            st.rerun()
        return False
    if job.state == "done":
        if engine().models.pinned(spec).commit != spec.commit:  # what a name of a hub means is known now
            st.rerun()
        return True
    background.watch(job, f"Loading {escape_markdown(spec.source)}")
    return False


def load_scorer(config: BiasConfig) -> bool:
    """Load a classifier in the background; True once it is there."""
    if config.scorer == BiasConfig.scorer:
        return True
    job = engine().load_scorer(config)
    if job.state == "failed":
        background.show_error(job)
    elif job.state != "done":
        background.watch(job, f"Loading {escape_markdown(config.scorer)}")
    return job.state == "done"


def offer(spec: ModelSpec, config: BiasConfig) -> None:
    """The empty state: no scores yet, and how to make them."""
    asked = Score(spec, config)
    background.offer(
        asked,
        partial(score_heads, config),
        title="No scores yet for this model and axis",
        about="First comes a preview from gradients. Then every head is removed for its effect on the perplexity of "
        f"{SCORE_TEXT.tokens:,} tokens, and every head that a choice may depend on for its effect on the "
        f"expected toxicity of {config.n_prompts} validation prompts; the grids fill in meanwhile. With "
        "the built-in model on two cores an axis takes about six minutes, and the perplexities, which all "
        "axes share, about forty; a GPU takes a fraction of that. A cancelled run goes on where it was.",
        button="Score all heads",
        kept="Finished heads are kept; scoring goes on from there.",
        cancelled="Scoring was cancelled. The heads that were finished are kept.",
        watched=asked.title,
    )
