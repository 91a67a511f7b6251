"""Presentation: what a head is, which carry bias, what cutting them does, what it costs, and how sure that is."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from fasp_core.compute.jobs import Job
from fasp_core.evaluation import Evaluation
from fasp_core.figures.theme import theme_of
from fasp_core.scoring.impact_table import ImpactTable
from pages.backend.engine import engine
from pages.backend.requests import Gather
from pages.explore import looking, maps, measured
from pages.explore.attention import strongest
from pages.instrument import instrument
from pages.presentation import deck, markup, slides
from pages.presentation.facts import Stored, Talk, read
from pages.session import shared
from pages.session.recipe import OFFLINE
from pages.shell import sidebar, start
from pages.shell.current import current
from pages.widgets import scoring

STYLE = (Path(__file__).parent / "slides.css").read_text(encoding="utf-8")
WITH_INSTRUMENT = 3  # the step that is the instrument


def page() -> None:
    """Draw the page from the top; what takes longer than a moment is a job that is only looked at here."""
    st.html(f"<style>{STYLE}{instrument.UNFADED}</style>")
    st.set_page_config(initial_sidebar_state="collapsed")
    if left_out := deck.arrive():
        shared.leave_out(left_out)
    settings = sidebar.draw()
    if not (scoring.known(settings.spec) and scoring.load_scorer(settings.scoring)):
        return
    table = engine().results.scores(settings.spec, settings.scoring)
    if table is None:
        st.title("Nothing to present yet", anchor=False)
        scoring.offer(settings.spec, settings.scoring)
        return
    st.fragment(start.told(present))(settings, table)


def present(settings: sidebar.Settings, table: ImpactTable) -> None:
    """The step of the moment, and the hand-out, which is seen on paper alone."""
    if shared.behind():
        st.rerun()
    talk, jobs, names = _talk(settings, table)
    slide = slides.ALL[deck.step() - 1](talk)
    deck.draw(slide.notes)
    if deck.step() == WITH_INSTRUMENT:
        st.html(markup.opening(slide))
        maps.draw(settings, table, talk.now)
        st.html(f'<p class="fasp-source">{html.escape(f"{slides.HOW} {slide.source}")}</p>')
    else:
        st.html(markup.on_screen(slide, deck.step()))
    with st.container(key="waiting"):
        for name, (job, title) in jobs.items():
            if name in names:
                looking.ready(job, name, title)
    _quietly([job for name, (job, _) in jobs.items() if name not in names])
    st.html(markup.handout(talk, shared.link() or shared.TOO_LONG))


def _quietly(jobs: list[Job[Any]]) -> None:
    """Draw the page again, for the hand-out, when work has ended that this step does not wait for."""
    pending = [job for job in jobs if job.state in ("waiting", "running")]

    @st.fragment(run_every=2.0)
    def look() -> None:
        if any(job.state not in ("waiting", "running") for job in pending):
            st.rerun(scope="app")

    if pending:
        look()


def _talk(
    settings: sidebar.Settings, table: ImpactTable
) -> tuple[Talk, dict[str, tuple[Job[Any], str]], tuple[str, ...]]:
    """What can be told so far, the jobs that will add to it, and which of them this step waits for."""
    now, s = current(settings, table), settings
    head = strongest(table, now.heads, s.reading)
    request = looking.Look(s.spec, slides.PROMPT, head // table.n_heads)
    look = looking.latest("presented head", request, looking.look_job)
    chosen = measured.job_of(s, s.evaluation, now.heads, "main")
    jobs: dict[str, tuple[Job[Any], str]] = {
        "presented head": (look, "Looking at one sentence"),
        "main": (chosen, "Measuring this set"),
    }
    tested, test = chosen, "main"
    if s.split != "test":
        test = "presented test"
        tested = measured.job_of(s, replace(s, split="test").evaluation, now.heads, test)
        jobs[test] = tested, "Measuring this set on test prompts"
    stored: Stored | None = Stored(None, None, None)
    if s.scorer == OFFLINE:
        asked = Gather(s.spec, s.axis, s.reading)
        gathering: Job[Stored] = looking.latest("stored", asked, lambda one, _owner: engine().gather(one, read))
        jobs["stored"] = gathering, "Reading what was measured"
        stored = gathering.result if gathering.state == "done" else None
    talk = Talk(
        s, table, now, theme_of(st.context.theme.type == "dark"), _done(chosen), _done(tested),
        stored, engine().results.able(s.spec, now.heads), head,
        look.result if look.state == "done" else None,
    )  # fmt: skip
    wanted: dict[int, tuple[str, ...]] = {1: ("presented head",), WITH_INSTRUMENT: ("main",)}
    wanted |= dict.fromkeys((4, 5), (test, "stored"))
    return talk, jobs, wanted.get(deck.step(), ())


def _done(job: Job[Evaluation]) -> Evaluation | None:
    return job.result if job.state == "done" else None


start.told(page)()
