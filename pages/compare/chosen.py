"""The choice that a comparison comes to on the validation side, and what is claimed of it on test prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from fasp_core.data.holistic_bias import axis_names
from fasp_core.errors import InputError
from fasp_core.gap.claims import cautions, finding
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import METHODS, select
from fasp_core.lazy import pd
from fasp_core.metrics.meters import BiasConfig
from fasp_core.studies.compare import against_fasp, outcome
from fasp_core.studies.compare.compare import Comparison, choose
from fasp_core.studies.compare.curves import best_of_each
from fasp_core.studies.compare.limits import Limits, Unmeasured
from fasp_core.studies.compare.outcome import ClaimConfig
from fasp_core.studies.compare.plan import SEARCH, Candidate
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.compare import claims, within_limits
from pages.compare.compared import Settings, method_title, milli, number, percent, span
from pages.session import shared
from pages.session.recipe import Recipe
from pages.shell.sidebar import METHOD_TITLES, READING_TITLES, SPLIT_TITLES
from pages.widgets import background
from pages.widgets.drawing import download
from pages.widgets.markdown import escape_markdown

SPENT = "about ten minutes with the built-in model on two cores"


def draw(settings: Settings, comparison: Comparison) -> Candidate | None:
    """What was chosen, the claim, and the best set of each method; returns the choice."""
    reading = comparison.plan.reading
    base = comparison.base_gap("valid", reading)
    try:
        keeps = within_limits.fits(settings, comparison)
    except InputError as error:  # the tasks are not installed
        st.error(escape_markdown(error), icon=":material/error:")
        return None
    unknown = False
    try:
        comparison.gaps("valid", reading, settings.within)
    except InputError as error:  # too few prompts of each template
        st.info(escape_markdown(str(error)), icon=":material/info:")
        settings = replace(settings, within=False)
    picked = None
    try:
        picked = choose(comparison, reading, settings.max_ppl, within=settings.within, fits=keeps)
    except Unmeasured:
        unknown = True
    st.subheader("The choice, on validation", anchor=False)
    if unknown:
        within_limits.offer_choice(settings, comparison)
    elif picked is None:
        within = "the limits" if keeps else "the limit"
        kept = (settings.limits if keeps else Limits(settings.max_ppl)).text()
        st.warning(
            f"No set within {within} ({kept}) has a smaller validation gap than the unpruned model "
            f"({milli(base.gap)}). Raise {within}, or keep all heads.",
            icon=":material/block:",
        )
    else:
        _choice(settings, comparison, picked)
        claim = engine().results.claim(settings.spec, settings.axis, reading, picked)
        if claim is not None:
            claim = within_limits.named(settings, claim, comparison)
            claims.draw(settings, claim)
            within_limits.offer_claim(settings, claim)
        else:
            _validation_cautions(comparison, picked)
            offer(settings, comparison, picked)
    claims.settled(settings)
    _best(settings, comparison)
    _search_against_fasp(settings, comparison)
    return picked


def _choice(settings: Settings, comparison: Comparison, picked: Candidate) -> None:
    reading = comparison.plan.reading
    change, ppl = comparison.change(picked, "valid", reading), comparison.perplexity(picked, "valid")
    size = comparison.n_layers * comparison.n_heads
    with st.container(border=True):
        columns = st.columns((1.4, 0.6, 0.6, 1, *[1] * (1 + len(comparison.readings))))
        columns[0].metric("Method", METHOD_TITLES.get(picked.method, "joint search"))
        columns[1].metric("γ", "none" if picked.gamma is None else f"{picked.gamma:g}")
        columns[2].metric("α", f"{picked.alpha:.3g}")
        columns[3].metric("Removed", f"{len(picked.heads)} heads")
        columns[4].metric("Perplexity", percent(ppl.relative, 1))
        for column, name in zip(columns[5:], comparison.readings, strict=True):
            column.metric(f"Gap, {name}", percent(comparison.change(picked, "valid", name).relative))
        text = PruneSet.from_flat(picked.heads, comparison.n_heads).format()
        st.markdown(
            f"The lowest validation gap{' within templates' * settings.within}, {READING_TITLES[reading]}, of "
            f"{len(comparison.candidates)} candidates within {settings.limits.text()}. The gap "
            f"over all templates: {milli(change.base)} → {milli(change.pruned)} on "
            f"{change.n} prompts, change 95% {span(change.relative_interval)}; perplexity {ppl.base:.2f} → "
            f"{ppl.pruned:.2f} on {ppl.tokens:,} tokens; {len(picked.heads)} of {size} heads. **The best of many looks "
            "better than it is**: these numbers chose it, so they are not what may be claimed."
        )
        st.code(text, language=None, wrap_lines=True)
        left, middle, right = st.columns(3, vertical_alignment="center")
        with left:
            download("Download this set", text + "\n", f"{settings.axis_title}-{picked.method}.txt", "text/plain")
        recipe = recipe_of(settings, picked)
        if recipe is None:
            return
        how: dict[str, Any] = {"on_click": shared.adopt, "args": (recipe,)}
        if middle.button("Open this set on Explore heads", icon=":material/grid_on:", **how):
            st.switch_page("pages/explore/explore.py", query_params={})  # those of the sidebar go along
        if right.button("Its scorecard, with bias suites", icon=":material/balance:", **how):
            st.switch_page("pages/scorecard/scorecard.py", query_params={})


def recipe_of(settings: Settings, picked: Candidate) -> dict[str, object] | None:
    """All fields that make the same set on other pages; None if they would choose another one.

    Model, axis and reading are those of this page, and go along.
    """
    if picked.method == SEARCH or settings.axis not in axis_names():
        return None
    table = engine().results.scores(settings.spec, BiasConfig(settings.axis))
    if table is None or picked.method not in METHODS:
        return None
    scores = table.head_scores(settings.reading)
    plain = Recipe()
    gamma, seed = plain.gamma if picked.gamma is None else picked.gamma, picked.seed or 0
    if select(scores, picked.method, gamma, picked.alpha, seed=seed).pruned != picked.heads:
        return None  # scored again since
    as_at_first = ("protect", "neurons", "prune", "keep", "scorer", "label", "scorer_reading")
    chosen = {"method": picked.method, "gamma": gamma, "alpha": picked.alpha, "seed": seed}
    return chosen | {name: getattr(plain, name) for name in as_at_first}


def _validation_cautions(comparison: Comparison, picked: Candidate) -> None:
    """What already the validation side has against the choice."""
    base = {name: comparison.base_gap("valid", name) for name in comparison.readings}
    change = {name: comparison.change(picked, "valid", name) for name in comparison.readings}
    reading = comparison.plan.reading
    if finding(base[reading], change[reading]) == "no gap":
        st.warning(
            f"No gap is shown to begin with on {base[reading].n} validation prompts: shuffled groups give one as large "
            f"in {base[reading].noise_p:.0%} of cases. There is nothing here that pruning could be shown to reduce.",
            icon=":material/error_outline:",
        )
    for caution in cautions(base, change, reading, f"{base[reading].n} validation prompts"):
        st.warning(caution, icon=":material/warning:")


def offer(settings: Settings, comparison: Comparison, picked: Candidate) -> None:
    """Measure what may be claimed of the choice."""
    config, reading = ClaimConfig(), comparison.plan.reading
    background.offer(
        Experiment(settings.spec, "Claim on test prompts", (settings.axis, picked, reading)),
        lambda lm, store, progress: outcome.measure_claim(
            lm, settings.axis, picked, reading, settings.max_ppl, store, progress
        ),
        title="What may be claimed of this set?",
        about=(
            f"Not measured yet. The set is removed once on **{config.prompts:,} test prompts** in both readings, on "
            f"{config.sampled_prompts * config.samples:,} sampled continuations a side, and on {config.tokens:,} "
            f"tokens of text that no score was made on: {SPENT}. It is kept, so that it is measured once. Choose first "
            "and measure then: whoever measures many sets on test and keeps the best has chosen on test."
        ),
        button="Measure it on test",
    )


def _best(settings: Settings, comparison: Comparison) -> None:
    reading = comparison.plan.reading
    limits, keeps, unknown = settings.limits, within_limits.fits(settings, comparison), False
    try:
        frame = best_of_each(comparison, limits.max_ppl, keeps)
    except Unmeasured:
        frame, unknown, limits = best_of_each(comparison, limits.max_ppl), True, Limits(limits.max_ppl)
    seeds = [None if np.isnan(seed) else int(seed) for seed in frame.seed]
    frame["method"] = [method_title(m, seed) for m, seed in zip(frame.method, seeds, strict=True)]
    st.markdown(
        f"**The best of each method** by the same rule: lowest validation gap ({READING_TITLES[reading]}), "
        f"{limits.text()}{', the other limits aside' * unknown}. Changes of perplexity (PPL) and of the gap in both "
        "readings, in %; the test columns are for looking."
    )
    columns = {
        "method": st.column_config.TextColumn("method"),
        "gamma": number("γ", "%.2g"),
        "alpha": number("α", "%.2g"),
        "heads": number("heads", "%d"),
    }
    for side in comparison.sides:
        for name, what in (("ppl", "PPL"), *((r, r) for r in comparison.readings)):
            frame[f"{name}_{side}"] *= 100
            columns[f"{name}_{side}"] = number(f"{what}, {side}", "%+.1f", SPLIT_TITLES[side])
    st.dataframe(frame[[*columns]], hide_index=True, column_config=columns, placeholder="–")
    none = frame[frame.heads.isna()].method
    if len(none):
        what = "limits" if limits.beyond_ppl else "limit"
        st.caption(f"Nothing by {', '.join(none)} keeps to the {what} with a smaller gap than the unpruned model's.")
    if unknown:
        within_limits.offer_best(settings, comparison)


def _search_against_fasp(settings: Settings, comparison: Comparison) -> None:
    """Whether the joint search finds better sets than FASP: every seed on test prompts, within the same limits."""
    reading = comparison.plan.reading
    searches = engine().results.searches(settings.spec, settings.axis, reading)
    found = against_fasp.versus(comparison, searches, reading, settings.max_ppl)
    if found is None:
        return
    st.markdown("**Joint search against FASP**")
    if found.mean.low <= 0 <= found.mean.high:
        icon = ":material/help:"
    else:
        icon = ":material/trending_down:" if found.better else ":material/trending_up:"
    st.info(found.sentence(), icon=icon)
    title = METHOD_TITLES["fasp"] + f", γ {found.fasp.gamma:g}, α {found.fasp.alpha:g}"
    sets = [(title, found.fasp, found.fasp_gap, "–", found.fasp_ppl)]
    for run in found.runs:
        less = f"{percent(run.less.value)} {span((run.less.low, run.less.high))}"
        sets.append((method_title(SEARCH, run.candidate.seed), run.candidate, run.gap, less, run.ppl_change))
    rows = (
        {
            "set": title,
            "heads": len(candidate.heads),
            "gap, test": milli(gap),
            "of the unpruned gap": f"{gap / found.base_gap:.0%}",
            "less than FASP": less,
            "perplexity, test": percent(ppl, 1),
        }
        for title, candidate, gap, less, ppl in sets
    )
    st.dataframe(pd.DataFrame(rows), hide_index=True)
    st.caption(
        f"Gaps in thousandths on {found.prompts:,} test prompts ({READING_TITLES[found.reading]}). Differences are in "
        "shares of the unpruned model's gap, on the same prompts, with 95% intervals; below zero the search is lower. "
        "The interval of the mean is over prompts and searches. Every search counts, also one that validation would "
        "not have chosen."
    )
