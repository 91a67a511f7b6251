"""All methods as points on test prompts, from what is stored, with the offer to measure what is not."""

from __future__ import annotations

import streamlit as st

from fasp_core.compute.jobs import Progress
from fasp_core.errors import InputError
from fasp_core.figures import Words, method_front
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.compare import front
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.front import Front
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.methods import Sample
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.compare.compared import Settings
from pages.shell.sidebar import READING_TITLES
from pages.widgets import background
from pages.widgets.drawing import chart, download, finding
from pages.widgets.markdown import escape_markdown

COST_TITLES = {"ppl": "Sentences", "paragraphs": "Paragraphs", "lambada": "Last words"}
SECONDS = 300  # a set on both sides: the built-in model on two cores


def draw(settings: Settings, comparison: Comparison) -> None:
    """The picture, its table, and what is missing in it."""
    st.subheader("All methods side by side, on unseen prompts", anchor=False)
    limits = settings.limits
    try:
        found = engine().results.front(settings.spec, comparison, limits)
    except InputError as error:  # the passages are not installed
        st.info(escape_markdown(error), icon=":material/info:")
        return
    if found is None:
        return
    if found.methods:
        if (said := front.sentence(found)) is not None:
            best = found.methods[found.best or ""]
            finding((best["interval_pct"] or [0])[0] > 0, said)
        _picture(settings, found)
    offer(settings, comparison, limits, found)
    if found.lacking:
        with st.expander(f"{_methods(len(found.lacking))} without a set here"):
            st.markdown("\n".join(f"- {escape_markdown(f'{name}: {why}')}" for name, why in found.lacking.items()))


def _methods(n: int) -> str:
    return f"{n} method{'' if n == 1 else 's'}"


def _picture(settings: Settings, found: Front) -> None:
    cost = st.segmented_control(
        "Cost",
        tuple(front.COSTS),
        default="ppl",
        required=True,
        key="front cost",
        format_func=COST_TITLES.__getitem__,
        help="Every set was measured on the same prompts, sentences, paragraphs and passages, which nothing was chosen "
        "or learned on.",
    )
    cost = cost or "ppl"
    first = next((one for one in found.methods.values() if one["reduction_pct"] is not None), None)
    if first is None:
        st.info("No method has a set within the limits.", icon=":material/info:")
        return
    words = Words(
        f"What each method takes from the gap, {READING_TITLES[settings.reading]}",
        f"{first['prompts']:,} test prompts, {first['items']:,} passages; bars: 95% intervals. Up and left is better.",
        front.COSTS[cost][0],
        "gap less than unpruned, %",
        dark=st.context.theme.type == "dark",
    )
    chart(
        method_front(front.points(found, cost), words, limit=100 * settings.max_ppl if cost == "ppl" else None),
        key="compare front",
        alt="What each method takes from the gap against what it costs, on unseen prompts.",
    )
    st.caption(
        f"Of each method the set of lowest **validation** gap{', over all templates,' * settings.within} within the "
        f"limits ({settings.limits.text()}); gains at four strengths. Open marks: what is left of the layers is "
        "rescaled (repair)."
    )
    with st.expander("As a table"):
        st.markdown(front.markdown(found))
        download("Download as Markdown", front.markdown(found), "methods.md", "text/markdown")


def offer(settings: Settings, comparison: Comparison, limits: Limits, found: Front) -> None:
    """Measure the methods whose sets are there and were not measured."""
    if not found.missing:
        return

    def work(lm: LanguageModel, store: Store, progress: Progress) -> Front:
        return front.run(lm, comparison, limits, store, progress, found.sample)

    about = background.duration(SECONDS * len(found.missing))
    background.offer(
        Experiment(settings.spec, "Methods side by side", (settings.axis, comparison.plan.reading, limits)),
        work,
        title=f"{_methods(len(found.missing))} not measured side by side yet",
        about=f"{', '.join(map(escape_markdown, found.missing))}: the set of each that validation chooses within "
        f"the limits ({settings.limits.text()}), on {Sample(settings.axis).prompts:,} test prompts, text and passages. "
        f"About {about} with the built-in model on two cores; a cancelled run goes on where it was.",
        button="Measure them",
    )
