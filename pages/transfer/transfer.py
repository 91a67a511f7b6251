"""Transfer between biases: are the heads that carry bias the same on every axis, and does one axis' set help others?"""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.studies.transfer import correlation
from fasp_core.studies.transfer.every_axis import TransferConfig
from pages.shell import sidebar, start
from pages.shell.axis import axis_title
from pages.transfer import axes, divisions, scores, sets
from pages.transfer.axes import KIND_TITLES, Settings
from pages.widgets import left_out, scoring


def page() -> None:
    """Draw the page from the top; what takes minutes is a job that is only looked at here."""
    st.title("Is it the same heads on every axis?", anchor=False)
    st.caption(
        "A head that adds bias about one axis may be harmless, or useful, for another. First: do the **scores** of the "
        "heads agree between axes? Then: does a **set** that is chosen on one axis lower the gaps of the others?"
    )
    with st.sidebar:
        spec = sidebar.model()
    if not scoring.known(spec):
        return
    found = axes.scores(spec)
    if len(found) < 2:
        empty(found)
        return
    settings = draw_sidebar(spec, found)
    if settings is None:
        return
    st.fragment(start.told(scores.draw))(settings)
    st.divider()
    sets.draw(settings)
    st.divider()
    divisions.draw(settings)


def draw_sidebar(spec: ModelSpec, found: dict[str, ImpactTable]) -> Settings | None:
    """Everything below the model."""
    with st.sidebar:
        chosen = st.pills(  # a multiselect's tags cannot be read in the dark sidebar
            "Axes",
            list(found),
            selection_mode="multi",
            default=list(found),
            format_func=axis_title,
            key=f"transfer axes {spec.source}",
            help="Those that have scores. More are scored on the page “Explore heads”.",
        )
        reading = sidebar.reading()
        kind = st.radio(
            "Correlation of",
            correlation.KINDS,
            format_func=KIND_TITLES.__getitem__,
            key="transfer kind",
            help="Pearson compares the scores themselves, so that a few strong heads decide; Spearman their order, in "
            "which all heads count alike.",
        )
        st.divider()
        gamma, alpha = sidebar.gamma(), sidebar.alpha()
        with st.expander("Sample sizes"):
            prompts = st.select_slider(
                "Test prompts of each axis", (210, 450, 900, 1800), TransferConfig.n_prompts, key="transfer prompts"
            )
            tokens = st.select_slider(
                "Tokens for perplexity", (1024, 2048, 4096), TransferConfig.tokens, key="transfer tokens"
            )
        left_out.tell_of_all({axis_title(a): BiasConfig(a, split="test", n_prompts=int(prompts)) for a in chosen})
    if len(chosen) < 2:
        st.info("Choose at least two axes in the sidebar.", icon=":material/info:")
        return None
    tables = tuple((axis, table) for axis, table in found.items() if axis in chosen)
    config = TransferConfig(reading, float(gamma), float(alpha), int(prompts), int(tokens))
    return Settings(spec, config, kind, tables)


def empty(found: Iterable[str]) -> None:
    """Fewer than two axes have scores."""
    named = " and ".join(axis_title(axis) for axis in found)
    with st.container(border=True):
        st.subheader("Two axes are needed", anchor=False)
        st.markdown(
            (f"Of this model only **{named}** has scores" if named else "No axis of this model has scores yet")
            + ". Score another one: open “Explore heads”, choose an axis, and press “Score all heads”. With the "
            "built-in model on two cores an axis takes about six minutes once the perplexities are there."
        )
        start.explore_button()


start.told(page)()
