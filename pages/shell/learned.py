"""Learned gains as a method of the page: those that are stored, at a strength, or the offer to learn them."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from fasp_core import defaults
from fasp_core.compute.jobs import Progress
from fasp_core.data.text import TextConfig
from fasp_core.figures import Words, learning_curve
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import Selection
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gains import Gains
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.scoring.manual_edits import nothing
from fasp_core.storage.store import Store
from fasp_core.studies import strengths
from fasp_core.studies.strengths import Strengths
from fasp_core.typing import Floats
from pages.backend import demo
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.session.recipe import GAINS, OFFLINE
from pages.shell.sidebar import Settings
from pages.widgets import background
from pages.widgets.drawing import chart

SECONDS = 20  # a step of the built-in model on two cores


def learned(settings: Settings) -> Gains | None:
    """Of the stored gains of a model on an axis those of most steps, then of the lowest seed; None without any.

    Where there are none of the axis, those that were learned on all axes at once. All are of the offline scorer.
    """
    if settings.scorer != OFFLINE:
        return None
    return gains.furthest(_stored(settings, settings.axis) or _stored(settings, defaults.ALL_AXES))


def _stored(settings: Settings, axis: str) -> list[Gains]:
    return engine().results.gains(settings.spec, axis, settings.reading)


def prune_set(settings: Settings) -> PruneSet:
    """What they come to at the strength of the slider."""
    found = learned(settings)
    return PruneSet() if found is None else found.at(settings.strength)


def select(settings: Settings, table: ImpactTable) -> Selection:
    """The heads whose gates are 0, and what is said of the gains; where none are stored they are offered."""
    s, shape = settings, (table.n_layers, table.n_heads)
    none = nothing(GAINS, s.gamma, s.alpha, 0, *shape)
    if s.scorer != OFFLINE:
        st.info("Learned gains are of the offline scorer: choose it in the sidebar.", icon=":material/info:")
        return none
    if (found := learned(s)) is None:
        _offer(s)
        return none
    heads = tuple(found.at(s.strength).flat(table.n_heads))
    moved = found.as_dict()["moved_by_more_than_a_fifth"]
    where = "" if _stored(s, s.axis) else " on all axes at once"
    note = (
        f"Gains learned{where} in {found.at_step} steps (seed {found.config.seed}) on validation prompts and text, at "
        f"strength {s.strength:g}: at 1, {moved} of {found.gates.size} heads are moved by more than .2. Look at test "
        f"prompts for what they are worth. Steps saw the first {defaults.SCORE_TOKENS:,} tokens of the text that "
        'perplexity is measured on here; "Compare methods" measures text that they did not see.'
    )
    return replace(none, pruned=heads, k=len(heads), requested_k=len(heads), notes=(note,))


def measured(settings: Settings) -> Strengths | None:
    """What the gains do at some strengths, where gains are the method and that was measured."""
    if settings.method != GAINS or (found := learned(settings)) is None:
        return None
    return engine().results.strengths(settings.spec, found, settings.scoring)


def measure(settings: Settings) -> None:
    """Measure the gains at some strengths in the background, once, where that is not stored; how far it is."""
    if settings.method != GAINS or demo.current() is not None or (found := learned(settings)) is None:
        return
    if measured(settings) is not None:
        return
    bias = settings.scoring

    def work(lm: LanguageModel, store: Store, progress: Progress) -> Strengths:
        return strengths.run(lm, found, bias, store, progress)

    asked = Experiment(settings.spec, "Gains at four strengths", (bias, found.config, found.at(1.0)))
    job = background.job_of(asked)
    if job is None:
        job = st.session_state["jobs seen"][asked] = engine().experiment(asked, work)
    if job.state in ("waiting", "running"):
        background.watch(job, "Measuring the gains at four strengths, for estimates between them")
    background.look_again(job)
    if job.state == "failed":
        background.show_error(job)


def curve(settings: Settings) -> None:
    """How the gains that are shown were learned, below everything else; nothing for other methods."""
    if settings.method != GAINS or (found := learned(settings)) is None:
        return
    with st.expander(f"How these gains were learned: {len(found.losses)} steps"):
        _chart(found.losses, found.held, "learned gains")


def _offer(settings: Settings) -> None:
    config = GainsConfig(reading=settings.reading)
    bias, text = BiasConfig(settings.axis), TextConfig(tokens=defaults.SCORE_TOKENS)

    def work(lm: LanguageModel, store: Store, progress: Progress) -> Gains:
        return gains.learn(lm, bias, text, config, store, progress)

    known = engine().models.facts(settings.spec)
    asked = Experiment(settings.spec, "Learned gains", (settings.axis, config))

    def steps() -> None:
        """What was learned so far, of a run that goes on or was stopped."""
        made = None if known is None else gains.so_far(known.id, bias, text, config, Store())
        if made is not None:
            st.caption(f"{len(made[0])} of {config.steps} steps are made; what is learned so far is kept.")
            _chart(*made, "learning gains")

    background.offer(
        asked,
        work,
        title="No gains are learned yet for this model, axis and reading",
        about="Every head gets a gate from 0 to 1.5, learned together by gradients on validation prompts, text and "
        f"passages. With the built-in model on two cores {config.steps} steps take about "
        f"{config.steps * SECONDS / 60:.0f} minutes; a run that was stopped goes on.",
        button="Learn",
        watched="Learning gains",
    )
    job = background.job_of(asked)
    runs = job is not None and job.state in ("waiting", "running")
    st.fragment(steps, run_every=SECONDS / 4 if runs else None)()


def _chart(losses: Floats, held: Floats, key: str) -> None:
    words = Words(
        "What each step saw",
        "Other prompts, text and passages in every step, so single steps scatter. What gains are worth, test prompts "
        "say.",
        x="step",
        dark=st.context.theme.type == "dark",
    )
    chart(learning_curve(losses, held, words), key=key, alt="Relative gap and costs over the steps of learning.")
