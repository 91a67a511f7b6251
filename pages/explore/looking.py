"""Requests to run one prompt: what a model writes after it, and where its heads look. Nothing of a prompt is stored.

They go to the model's measuring lane. The request is the job's key, so equal ones are one job, and a newer one of the
same place on the page overtakes an older.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.scriptrunner_utils.script_requests import ScriptRequestType

from fasp_core.compute.jobs import Job, Progress
from fasp_core.errors import InputError
from fasp_core.forward.attention import Pattern, pattern
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import continuations
from fasp_core.metrics.continuations import Pair
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from pages.backend import readers
from pages.backend.demo import Demo
from pages.backend.engine import engine
from pages.backend.requests import OnePrompt, Request
from pages.widgets import background, clicks

UNDER_WAY = ("waiting", "running")
TICK = 0.02  # seconds between two looks at a job
T = TypeVar("T")
K = TypeVar("K", bound=Request)


@dataclass(frozen=True)
class Write(OnePrompt):
    """Continuations of a prompt, with and without a set."""

    heads: PruneSet
    generation: GenerationConfig
    scorer: str
    label: str | None
    scorer_reading: str | None = None
    scorer_stamp: str = ""

    def allowed_in_demo(self, limits: Demo) -> None:
        super().allowed_in_demo(limits)
        if self.generation.samples > limits.continuations or self.generation.tokens > limits.sampled_tokens:
            raise InputError(
                f"A demo writes at most {limits.continuations} continuations of {limits.sampled_tokens} tokens: choose "
                "fewer."
            )


@dataclass(frozen=True)
class Look(OnePrompt):
    """Attention of a layer's heads on a prompt, in the unpruned model."""

    layer: int


def write_job(asked: Write, owner: Hashable) -> Job[Pair]:
    """Write in the background."""

    def work(lm: LanguageModel, store: Store, progress: Progress) -> Pair:
        judge = continuations.Judge(asked.scorer, asked.label, asked.scorer_reading)
        return continuations.write(lm, asked.prompt, asked.heads, asked.generation, store, judge, progress)

    return engine().one_prompt(asked, work, owner)


def look_job(asked: Look, owner: Hashable) -> Job[Pattern]:
    """Look in the background."""

    def work(lm: LanguageModel, _store: Store, _progress: Progress) -> Pattern:
        return pattern(lm, asked.prompt, asked.layer)

    # one short pass: it need not wait for measurements that have not begun
    return engine().one_prompt(asked, work, owner, priority=1)


def latest(name: str, asked: K, submit: Callable[[K, Hashable], Job[T]]) -> Job[T]:
    """The running or finished job of a place on the page; asked for again only if what is asked for has changed."""
    job: Job[T] | None = st.session_state.get(f"job {name}")
    if job is None or job.key != asked or job.state == "cancelled":
        job = submit(asked, readers.owner(name))
        st.session_state[f"job {name}"] = job
    return job


def wait_for_news(
    job: Job[Any], known: object, seconds: float, enough: Callable[[Any], bool] = lambda so_far: True
) -> None:
    """Wait, as a timer's run, until a job shows something other than `known` or ends, or somebody asks for another run.

    So news is drawn when it is there, and not when the next timer ends; a run costs a browser much, waiting nothing.

    Parameters
    ----------
    enough : whether what the job shows is worth a run; what is not is drawn at the end of `seconds`.
    """
    end = time.monotonic() + seconds
    while job.state in UNDER_WAY and time.monotonic() < end and not _asked():
        if job.so_far is not known and enough(job.so_far):
            return
        job.wait(TICK)


def _asked() -> bool:
    """Whether this run is to end or to be followed by another one; Streamlit's own way to ask takes the request."""
    context = get_script_run_ctx(suppress_warning=True)
    requests = None if context is None else context.script_requests
    return getattr(requests, "_state", ScriptRequestType.CONTINUE) is not ScriptRequestType.CONTINUE


def begin(name: str, asked: Hashable) -> None:
    """Ask for a measurement that grows: from its first stage, see `grow`."""
    state = st.session_state
    state[f"{name} for"], state[f"{name} stage"], state[f"{name} shown"] = asked, None, None


def begun(name: str, asked: Hashable) -> bool:
    """Whether exactly this was asked for last."""
    return bool(st.session_state.get(f"{name} for") == asked)


def stop(name: str) -> None:
    """End what still runs for a place on the page, which asks for something else by now; what is stored stays."""
    job: Job[Any] | None = st.session_state.get(f"job {name}")
    if job is not None and job.state in UNDER_WAY:
        job.cancel()


def grow(
    name: str,
    stages: Sequence[int],
    job_at: Callable[[int], Job[T]],
    show: Callable[[T], None],
    title: Callable[[int], str],
) -> None:
    """A measurement that was begun, stage by stage: the latest result is shown while the next one is made."""
    state = st.session_state
    stage = state[f"{name} stage"] or stages[0]
    job = job_at(stage)
    if job.state == "done":
        state[f"{name} shown"] = job.result
    if (result := state[f"{name} shown"]) is not None:
        show(result)
    if not ready(job, name, title(stage)):
        if job.state != "failed" and clicks.button("Cancel", key=f"cancel {name}"):
            del state[f"{name} for"]
            job.cancel()
            st.rerun()
    elif later := [size for size in stages if size > stage]:
        state[f"{name} stage"] = later[0]
        st.rerun()


def ready(job: Job[T], name: str, title: str) -> bool:
    """Whether the result is there; if not, how it goes, or what went wrong."""
    if job.state == "failed":
        background.show_error(job)
        if clicks.button("Try again", key=f"again {name}"):
            del st.session_state[f"job {name}"]
            st.rerun()
    elif job.state != "done":
        background.watch(job, title)
    return job.state == "done"
