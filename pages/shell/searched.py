"""The joint search as a method of the page: the set that a stored search found, or the offer to search."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from fasp_core.compute.jobs import Progress
from fasp_core.console import share
from fasp_core.heads.selection import Selection
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import nothing
from fasp_core.scoring.search import Found, SearchConfig
from fasp_core.storage.store import Store
from fasp_core.studies.compare import searching
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.session.recipe import OFFLINE
from pages.shell.sidebar import Settings
from pages.widgets import background, tasks

MEASUREMENTS = 40
SECONDS = 28  # a set of the built-in model on two cores: 720 prompts and 2,048 tokens


def select(settings: Settings, table: ImpactTable) -> Selection:
    """What the best stored search within the limits found; where there is none it is offered, and nothing is pruned."""
    size = table.n_layers * table.n_heads
    k = int(settings.alpha * size + 1e-9)
    if settings.scorer != OFFLINE:
        st.info("Joint searches are of the offline scorer: choose it in the sidebar.", icon=":material/info:")
        return _selection(settings, table, k, (), ())
    if not k:
        return _selection(settings, table, k, (), ())
    finished = [
        f
        for f in engine().results.searches(settings.spec, settings.axis, settings.reading)
        if f.config.max_heads == k and searching.limits_of(f.config).within(settings.limits)
    ]
    if not finished:
        _offer(settings, table, k)
        return _selection(settings, table, k, (), ())
    best = min(finished, key=lambda f: f.gap)
    return _selection(settings, table, k, best.heads, (_said(best, finished),))


def _said(best: Found, finished: list[Found]) -> str:
    measured = sum(len(f.tried) for f in finished)
    searches = "one search" if len(finished) == 1 else f"the best of {len(finished)} searches"
    if not best.heads:
        return f"No set within the limits has a smaller validation gap ({measured} sets measured)."
    return (
        f"Joint search, {searches}: of {measured} measured sets the one of least validation gap, {1000 * best.gap:.2f} "
        f"after {1000 * best.base_gap:.2f} (×10⁻³), {searching.limits_of(best.config).text()}. It was chosen on "
        "validation prompts: look at test prompts for what it is worth."
    )


def _offer(settings: Settings, table: ImpactTable, k: int) -> None:
    limits = settings.limits
    plain = SearchConfig(settings.reading, k, limits.max_ppl, MEASUREMENTS, settings.seed)
    config = searching.limited(plain, limits)
    more = ""
    if limits.beyond_ppl:
        more = (
            f" It keeps to {limits.text()}: each set that would be the best is asked {limits.items} items of "
            f"{', '.join(map(tasks.title, limits.asked))} too, which takes minutes more a set."
        )

    def work(lm: LanguageModel, store: Store, progress: Progress) -> Found:
        return searching.run(lm, table, searching.measured_on(settings.axis, table), config, store, progress)

    background.offer(
        Experiment(settings.spec, "Joint search", (settings.axis, config)),
        work,
        title=f"No search yet for up to {k} heads at {share(limits.max_ppl)} more perplexity"
        + " and within the limits on tasks" * limits.beyond_ppl,
        about=f"A ranking takes heads for what each does alone. The search measures some {MEASUREMENTS} sets on the "
        f"{len(table.bias.codes)} validation prompts of the scores, learns from each how heads interact, and keeps the "
        f"one of least gap within both limits.{more} With the built-in model on two cores it takes about "
        f"{MEASUREMENTS * SECONDS / 60:.0f} minutes; on a GPU it takes a fraction of that.",
        button="Search",
    )


def _selection(
    settings: Settings, table: ImpactTable, k: int, heads: tuple[int, ...], notes: tuple[str, ...]
) -> Selection:
    none = nothing(
        settings.method, settings.gamma, settings.alpha, settings.seed, n_layers=table.n_layers, n_heads=table.n_heads
    )
    return replace(none, pruned=heads, k=len(heads), requested_k=k, notes=notes)
