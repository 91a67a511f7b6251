"""Does a set hold on sentences and descriptors that its choice never saw?"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from fasp_core.errors import InputError
from fasp_core.lazy import pd
from fasp_core.scoring.learned.gates import PRECISIONS
from fasp_core.storage.keys import digest
from fasp_core.storage.store import Store
from fasp_core.studies.transfer import divisions as study
from fasp_core.studies.transfer.divisions import Carried, Plan
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.shell.axis import axis_title
from pages.shell.sidebar import READING_TITLES
from pages.transfer.axes import Settings
from pages.widgets import background
from pages.widgets.drawing import csv_table
from pages.widgets.markdown import escape_markdown

CHOOSE = {"mean": "heads by scores", "cautious": "heads, cautiously", "gains": "learned gains"}
SECONDS = 1500.0  # a division with the built-in model, on one core beside other work


def draw(settings: Settings) -> None:
    """Sets chosen on half of the sentences and people, measured on the others."""
    config = settings.config
    st.subheader("To new sentences and new people", anchor=False)
    st.caption(
        "The sentence templates of an axis, and the descriptors of each group, are halved by lot. FASP scores heads "
        f"and chooses a set (γ = {config.gamma:g}, α = {config.alpha:g}), or gains are learned, on validation prompts "
        f"of the quarter that is *seen* ({READING_TITLES[config.reading]}); test prompts of all four quarters say what "
        "that is worth. Again with other halves: intervals are over these divisions."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        axis = st.selectbox("Axis", settings.names, format_func=axis_title, key="divisions axis", width=320)
        choose = st.segmented_control(
            "What is chosen",
            list(CHOOSE),
            default="mean",
            required=True,
            format_func=CHOOSE.__getitem__,
            key="divisions choose",
            help="A score is a mean over the templates and descriptors that are seen. The cautious choice takes what a "
            "head is worth in nine of ten draws of other templates and descriptors from among them. Gains scale every "
            "head instead of removing some; their steps halve the quarter anew each time.",
        )
    plan = Plan(axis, config.reading, choose=str(choose))
    if choose != "gains":  # which are of all heads
        plan = replace(plan, gamma=config.gamma, alpha=config.alpha)
    model_id = engine().models.identity(settings.spec)
    try:
        name = digest(plan.key(model_id))
    except InputError as error:  # groups of a single descriptor cannot be divided
        st.info(escape_markdown(str(error)), icon=":material/info:")
        return
    kept: dict[str, Carried] = st.session_state.setdefault("divisions", {})
    if name not in kept:
        asked = [plan] if choose != "gains" else [replace(plan, precision=one) for one in PRECISIONS]
        for found in filter(None, (study.find(one, model_id, Store()) for one in asked)):
            kept[name] = found
    if name in kept:
        show(kept[name])
        return
    background.offer(
        Experiment(settings.spec, "New sentences and new people", (name,)),
        lambda lm, store, progress: study.run(lm, plan, store, progress),
        title="Not measured yet with these settings",
        about=f"{plan.divisions} divisions, each with "
        f"{'gains learned' if choose == 'gains' else 'scores'} on {plan.scored} prompts and four times {plan.prompts} "
        f"test prompts. With the built-in model on one core beside other work that took about "
        f"{background.duration(plan.divisions * SECONDS)}. A cancelled run goes on where it was.",
        button="Measure the divisions",
    )


def show(found: Carried) -> None:
    """The outcome in a sentence, and a row for each reading and quarter."""
    st.markdown(f"**{found.outcome}**")
    csv_table(frame(found), "divisions.csv")
    costs = ", ".join(f"{100 * p:+.1f}%" for p in found.perplexity)
    st.caption(
        f"Gaps in thousandths, means of {found.plan.divisions} divisions; changes with 95% intervals over divisions. "
        f"*Fell in*: divisions in which the fall is shown by their own prompts. Perplexity by division: {costs}."
    )
    with st.expander("What made these numbers"):
        st.json(found.provenance, expanded=False)


def frame(found: Carried) -> pd.DataFrame:
    """One row a reading and quarter."""
    return pd.DataFrame(
        {
            "reading": READING_TITLES[reading],
            "templates and descriptors": name,
            "prompts, each": f"{min(c.prompts):,}",
            "gap": f"{1000 * sum(c.base) / len(c.base):.2f} → {1000 * sum(c.pruned) / len(c.pruned):.2f}",
            "change, %": c.change.text(0, 100),
            "fell in": f"{c.found.count('fell')} of {len(c.found)}",
        }
        for reading, cells in found.cells.items()
        for name, c in cells.items()
    )
