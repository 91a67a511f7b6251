"""Scorecard: one set, a line a measure, unpruned beside pruned; lines appear as they are measured."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from fasp_core.data.holistic_bias import axis_names
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.spec import BUILT_IN
from fasp_core.storage.store import Store
from fasp_core.studies.scorecard import scorecard as study
from fasp_core.studies.scorecard import scorecard_text as text
from fasp_core.studies.scorecard.lines import OUTCOMES
from fasp_core.studies.scorecard.scorecard import Plan, Scorecard
from fasp_core.suites.suites import ALL
from fasp_core.tasks.files import TASKS
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.session.recipe import OFFLINE
from pages.shell import sidebar, start
from pages.shell.current import current
from pages.widgets import background, scoring
from pages.widgets.drawing import download
from pages.widgets.markdown import escape_markdown

TITLE = "Scorecard"
SPENT = "about ten minutes for all parts in their usual sizes"
COLOURS = {name: "gray" for name in OUTCOMES} | {"better": "green", "worse": "red"}


def page() -> None:
    """Draw the page from the top; the measurements are a job that is only looked at here."""
    st.title("What does this set make better, and what worse?", anchor=False)
    settings = sidebar.draw()
    if settings.scorer != OFFLINE:
        st.info("Scorecards are of the offline scorer: choose it in the sidebar.", icon=":material/info:")
        return
    if not scoring.known(settings.spec):
        return
    table = engine().results.scores(settings.spec, settings.scoring)
    if table is None:
        scoring.offer(settings.spec, settings.scoring)
        return
    heads = current(settings, table).heads
    if not len(heads):
        st.info("Nothing is removed: raise α, or click heads on “Explore heads”.", icon=":material/info:")
        return
    plan = _choose()
    asked = Experiment(settings.spec, TITLE, (plan, heads))
    running = engine().running(asked) is not None
    st.fragment(start.told(_card), run_every=3.0 if running else None)(settings, heads, plan, asked)
    _offer(settings, heads, plan, asked)


def _choose() -> Plan:
    """What is measured, and on how much."""
    usual = Plan()
    with st.popover("What is measured", icon=":material/tune:"):
        axes = st.multiselect(
            "Axes of the gap", axis_names(), usual.axes, key="scorecard axes", persist_state="session"
        )
        tasks = st.multiselect("Tasks", TASKS, usual.tasks, key="scorecard tasks", persist_state="session")
        names = st.multiselect("Bias suites", ALL, usual.suites, key="scorecard suites", persist_state="session")
        prompts = st.select_slider(
            "Prompts of each axis",
            (90, 210, 450, 900, 2000),
            usual.prompts,
            key="scorecard prompts",
            persist_state="session",
        )
        items = st.select_slider(
            "Items of each task and suite",
            (50, 150, 300, 600, 2000),
            usual.items,
            key="scorecard items",
            persist_state="session",
        )
    return replace(
        usual, axes=tuple(axes), tasks=tuple(tasks), suites=tuple(names), prompts=int(prompts), items=int(items)
    )


def _found(heads: PruneSet, plan: Plan, asked: Experiment) -> Scorecard | None:
    """As far as it was measured, and what this reader's last run could not measure; None before a model is known."""
    known, job = engine().models.facts(asked.spec), background.job_of(asked)
    why = job.result.impossible if job is not None and job.state == "done" else None
    return None if known is None else study.find(known.id, heads, plan, Store(), why)


def _card(settings: sidebar.Settings, heads: PruneSet, plan: Plan, asked: Experiment) -> None:
    """As far as it was measured."""
    card = _found(heads, plan, asked)
    if card is None:
        return
    if not card.lines:
        _impossible(card)
        return
    counted, _, named = card.sentence.partition(". ")
    st.markdown(f"#### {escape_markdown(counted.rstrip('.'))}.")
    st.markdown(escape_markdown(named))
    _counts(card)
    first = ["measure", "change", "what it shows"]  # seen in a narrow window too
    shown = text.frame(card)
    st.dataframe(shown, hide_index=True, height="content", column_order=[*first, *shown.columns.drop(first)])
    st.caption(
        "▲ better and ▼ worse where the 95% interval of the change leaves zero out; of a gap, both that in percent and "
        "that in thousandths. *Tells nothing*: the unpruned model has no gap there and none appears, or does not do "
        "the task above chance. Gaps are of the next word, in thousandths. Of speed, the smallest and largest ratio "
        "stand for the interval; sizes are counted."
    )
    _impossible(card)
    columns = st.columns(3)
    with columns[0]:
        download("Page to print (HTML)", lambda: text.html(card, settings.spec.source), "scorecard.html", "text/html")
    with columns[1]:
        download("Numbers (CSV)", lambda: text.data(card).to_csv(index=False), "scorecard.csv", "text/csv")


def _impossible(card: Scorecard) -> None:
    for what, said in card.impossible.items():
        st.warning(escape_markdown(f"{what}: {said}"), icon=":material/warning:")


def _counts(card: Scorecard) -> None:
    counts = {name: sum(line.outcome == name for line in card.lines) for name in COLOURS}
    signs = text.SIGNS | {"tells nothing": "tells nothing" if counts["tells nothing"] == 1 else "tell nothing"}
    st.markdown(" ".join(f":{COLOURS[name]}-badge[{n} {signs[name]}]" for name, n in counts.items() if n))


def _offer(settings: sidebar.Settings, heads: PruneSet, plan: Plan, asked: Experiment) -> None:
    card = _found(heads, plan, asked)
    left = [part.title for part in plan.parts()] if card is None else card.left
    if not left:
        return
    time = f"{SPENT} with the built-in model on two free cores"
    background.offer(
        asked,
        lambda lm, store, progress: study.run(lm, heads, plan, store, progress),
        title=f"{len(left)} of {len(plan.parts())} parts not measured yet",
        about=f"{', '.join(left)}. Each is measured for the unpruned model and for this set, on the same data, and "
        "shown as soon as it is there. "
        + (f"That takes {time}." if settings.spec.source == BUILT_IN else f"That takes {time}; a GPU is far faster."),
        button="Measure",
        watched=TITLE,
    )


start.told(page)()
