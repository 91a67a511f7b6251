"""Runs: what works on this server now, what has ended, and the results that are kept. One line until it is opened."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import streamlit as st

from fasp_core.compute.jobs import Job
from fasp_core.compute.lanes import Past
from fasp_core.errors import InputError
from pages.backend import demo
from pages.backend.engine import engine
from pages.backend.requests import Request
from pages.session import shared
from pages.shell import stored
from pages.widgets import background, clicks
from pages.widgets.markdown import escape_markdown

EVERY = 2.0  # seconds between two looks at work that goes on
SHORT = 1.0  # seconds: a measurement that took less was read from the results on disk
SHOWN = 12  # ended jobs that are listed
OPEN = "runs open"
STORED = "runs stored wanted"
STATES = {
    "done": (":material/check_circle:", "done"),
    "failed": (":material/error:", "failed"),
    "cancelled": (":material/pause_circle:", "cancelled"),
}


def draw() -> None:
    """The line; while something runs it is looked at again and again, and else only when it is opened."""
    busy = bool(engine().jobs())
    st.fragment(_panel, run_every=EVERY if busy else None)(busy)


def _panel(was_busy: bool) -> None:
    shared.keep()
    jobs = engine().jobs()
    if was_busy and not jobs:
        st.rerun()  # the whole page, whose looking again ends with it
    count = sum(job.state == "running" for job in jobs)
    waiting = len(jobs) - count
    label = "Runs" if not jobs else f"{count} running" + (f", {waiting} waiting" if waiting else "")
    opened = st.popover(
        label, icon=":material/sync:" if jobs else ":material/history:", type="tertiary", key=OPEN, on_change="rerun"
    )
    if st.session_state.pop(STORED, False):
        stored.show()
    if not opened.open:
        return
    with opened:
        for job in jobs:
            _going(job)
        if not jobs:
            st.caption("Nothing runs at the moment.")
        past = [one for one in engine().lanes.past() if one.state != "done" or one.seconds >= SHORT]
        if past:
            st.markdown("#### Ended since the server was started")
        for one in past[:SHOWN]:
            _ended(one)
        if len(past) > SHOWN:
            st.caption(f"And {len(past) - SHOWN} earlier ones.")
        st.button("Stored results", icon=":material/database:", key="runs stored", on_click=_store_wanted)


def _store_wanted() -> None:
    st.session_state[OPEN] = False  # it would lie above the dialog
    st.session_state[STORED] = True


def _going(job: Job[Any]) -> None:
    asked = job.key
    assert isinstance(asked, Request)
    with st.container(border=True):
        st.markdown(f"**{asked.title}**")
        st.text(asked.model)
        background.bar(job, "Progress")
        with st.expander("Settings and log"):
            _settings(asked.settings())
            _log(job.log)
        if demo.current() is None and clicks.button(
            "Cancel",
            key=f"runs cancel {hash(job.key)}",
            help="For everybody who waits for it. What is finished is kept.",
        ):
            job.cancel()
            st.rerun()


def _ended(one: Past) -> None:
    asked = one.key
    assert isinstance(asked, Request)
    icon, state = STATES[one.state]
    when = datetime.datetime.fromtimestamp(one.asked).strftime("%H:%M")
    with st.expander(f"{asked.title}, {state}, {when}", icon=icon, key=f"runs ended {one.number}"):
        st.text(f"{asked.model}, after {background.duration(one.seconds)}")
        if one.error:
            st.error("The work failed with the error below.")
            st.text(one.error)
        _settings(asked.settings())
        _log(one.log)
        if demo.current() is not None:
            return
        with st.container(horizontal=True):
            if one.work is not None and clicks.button(
                "Resume", key=f"runs resume {one.number}", help="What was finished is kept and is not computed again."
            ):
                try:
                    engine().resume(one)
                except InputError as error:
                    st.error(escape_markdown(error))
                else:
                    st.rerun()
            st.button(
                "Forget",
                key=f"runs forget {one.number}",
                help="Drop it from this list. No result is deleted.",
                on_click=engine().lanes.forget,
                args=(one.number,),
            )


def _settings(settings: Mapping[str, str]) -> None:
    if settings:
        st.text("\n".join(f"{name}: {value}" for name, value in settings.items()))


def _log(lines: Any) -> None:
    said = list(lines)
    if said:
        st.caption(f"The latest {len(said)} reports" if len(said) > 1 else "The only report")
        st.code("\n".join(said), language=None, height=140 if len(said) > 5 else "content")
