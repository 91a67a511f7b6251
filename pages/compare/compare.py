"""Compare methods: what FASP, the baselines and the search buy for what they cost, and what may be claimed of it."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from fasp_core.compute.jobs import Progress
from fasp_core.data.holistic_bias import axis_names
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import BUILT_IN
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare, searching
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.plan import SIDES, Candidate, Plan
from pages.backend.engine import engine, workers
from pages.backend.requests import Experiment
from pages.compare import chosen, compared, front
from pages.compare.compared import Settings
from pages.shell import axis as axes
from pages.shell import limits, sidebar, start
from pages.widgets import background, left_out, scoring
from pages.widgets.markdown import escape_markdown

TITLE = "Comparison of methods"
SECONDS = 15.0  # for one set on one side of the default plan: the built-in model on two cores


def page() -> None:
    """Draw the page from the top; everything that takes minutes is a job that is only looked at here."""
    st.title("Which method lowers the gap, and at what cost?", anchor=False)
    st.caption(
        "Every method removes growing sets of heads, and every set is really removed and measured. γ, α and method are "
        "**chosen on validation** prompts and text; **test** prompts only show what the choice is worth, and what is "
        "claimed of it is measured on them once."
    )
    settings = draw_settings()
    if not scoring.known(settings.spec):
        return
    comparison = engine().results.comparison(settings.spec, settings.axis, settings.reading)
    if comparison is None:
        empty(settings)
        return
    with st.spinner("Resampling the prompts"):
        picked = chosen.draw(settings, comparison)
    more(settings, comparison)
    st.divider()
    with st.spinner("Reading what is stored of all methods"):
        front.draw(settings, comparison)
    st.divider()
    st.fragment(start.told(compared.draw))(settings, comparison, picked)


def draw_settings() -> Settings:
    """Model, axis and reading in the sidebar; above the choice what it keeps to."""
    with st.sidebar:
        spec = sidebar.model()
        axis, title = axes.choose()
        left_out.tell(*map(Plan(axis, "neutral").bias, SIDES))
        reading = sidebar.reading()
    perplexity, lambada, panel, inside = st.columns((1.2, 1, 1, 1.2), vertical_alignment="bottom")
    up = perplexity.slider(
        "Perplexity at most x % up",
        1,
        30,
        10,
        key="max_ppl",
        bind="query-params",
        format="%d %%",
        help="The set of the lowest validation gap is chosen among those that raise the perplexity of the "
        "validation text by no more than this.",
    )
    more = limits.draw(up / 100, (lambada, panel))
    within = inside.toggle(
        "By the gap within templates",
        key="within",
        bind="query-params",
        disabled=axis not in axis_names(),
        help="Signs may cancel between sentence templates, so a gap over all of them can be small where none "
        "within is. With this the set of the lowest mean gap within templates is chosen.",
    )
    return Settings(spec, axis, title, reading, up / 100, within and axis in axis_names(), more)


def comparing(plan: Plan, candidates: list[Candidate]) -> Callable[[LanguageModel, Store, Progress], Comparison]:
    """What a job of this page does."""

    def work(lm: LanguageModel, store: Store, progress: Progress) -> Comparison:
        with workers(lm) as there:
            return compare.run(lm, plan, candidates, store, progress, there)

    return work


def searches(settings: Settings, size: int) -> list[Candidate]:
    """Sets that finished searches found."""
    found = engine().results.searches(settings.spec, settings.axis, settings.reading)
    return [searching.candidate(f, size) for f in found if f.heads]


def more(settings: Settings, comparison: Comparison) -> None:
    """Sets that were found since the comparison was made are offered to stand beside the others."""
    known, plan = comparison.candidates, comparison.plan
    new = [c for c in searches(settings, comparison.n_layers * comparison.n_heads) if c not in known]
    if not new:
        return
    seconds = SECONDS * 2 * len({c.heads for c in new} - set(comparison.sets))
    background.offer(
        Experiment(settings.spec, TITLE, (plan, *new)),
        comparing(plan, [*known, *new]),
        title=f"{len(new)} {'set' if len(new) == 1 else 'sets'} found by joint search not compared yet",
        about="What is measured stays; only these are removed and measured on both sides, about "
        f"{background.duration(seconds)} with the built-in model on two cores.",
        button="Compare them too",
    )


def empty(settings: Settings) -> None:
    """No comparison yet: what it would measure, or where scores are made first."""
    table = engine().results.scores(settings.spec, BiasConfig(settings.axis))
    if table is None:
        with st.container(border=True):
            st.subheader("No scores yet for this model and axis", anchor=False)
            st.markdown(
                "FASP and the baselines choose heads by their scores, and there are none for "
                f"**{escape_markdown(settings.axis_title)}**. Open “Explore heads”, choose this model and axis there, "
                "and press “Score all heads”. Then come back."
            )
            start.explore_button()
        return
    plan = Plan(settings.axis, settings.reading)
    searched = searches(settings, table.n_layers * table.n_heads)
    candidates = [*plan.candidates(table), *searched]
    sets = len({c.heads for c in candidates if c.heads})
    time = f"about {background.duration(SECONDS * 2 * (sets + 1))} with the built-in model on two cores"
    background.offer(
        Experiment(settings.spec, TITLE, (plan,)),
        comparing(plan, candidates),
        title=f"No comparison yet for {settings.axis_title}, {sidebar.READING_TITLES[settings.reading]}",
        about=(
            f"{len(candidates)} choices: FASP at {len(plan.gammas)} γ and {len(plan.alphas)} α (up to "
            f"{max(plan.alphas):.0%} of the heads), four baselines at the same α, random heads with {plan.seeds} seeds"
            + f", and {len(searched)} that a joint search found"
            * bool(searched)
            + f". They are **{sets} different sets** of heads. Each is removed, and measured on {plan.prompts} "
            f"validation prompts and {plan.prompts} test prompts (both readings), and on {plan.tokens:,} tokens of a "
            f"text for either side. That takes {time}"
            + ("." if settings.spec.source == BUILT_IN else "; a larger model takes longer, a GPU far less.")
            + " Every measurement is kept: a cancelled run goes on where it was."
        ),
        button="Compare the methods",
    )


start.told(page)()
