"""The scatter of both impacts and what clicks on it do, the table of scores, and the scoring of last words."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from fasp_core.compute.jobs import Progress
from fasp_core.defaults import COST_ITEMS
from fasp_core.figures import scatter_impacts
from fasp_core.heads.selection import Selection
from fasp_core.model.language_model import LanguageModel
from fasp_core.report import charts
from fasp_core.scoring.impact_table import ImpactTable, TaskImpacts
from fasp_core.scoring.manual_edits import hover, reasons
from fasp_core.scoring.task import score_task
from fasp_core.storage.store import Store
from pages.backend.commands import command
from pages.backend.requests import Experiment
from pages.explore import editing, grid_options
from pages.session import shared
from pages.shell.current import Current
from pages.shell.sidebar import Settings
from pages.widgets import background, clicks
from pages.widgets.drawing import csv_table
from pages.widgets.markdown import code

TABLE, PICKED = "scores table", "scores picked"  # rows of the table, which are kept when it is not drawn


def last_words(settings: Settings, table: ImpactTable) -> None:
    """Where the third map is asked for and not known yet: what it takes to make it."""
    if not grid_options.third() or table.task is not None:
        return
    asked = Experiment(settings.spec, "Scoring heads for last words", ("z_task", COST_ITEMS))
    exact = command(settings.spec, "score", "--axis", settings.axis, "--task", "lambada", "--task-exact", 30)
    background.offer(
        asked,
        score_last_words,
        title="No scores for last words yet",
        about=f"One backward pass over {COST_ITEMS} of LAMBADA's passages says, to first order, what removing each "
        "head does to their last words: about six minutes with the built-in model on one core. FASP can then "
        f"protect heads by it. More exact scores: {code(exact)}.",
        button="Score last words",
    )


def score_last_words(lm: LanguageModel, store: Store, progress: Progress) -> TaskImpacts:
    """A job's work."""
    return score_task(lm, store, COST_ITEMS, progress=progress)


def scatter(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Both impacts of every head, and where the method draws its lines; clicks and boxes count as on the maps."""
    z_ppl, z_bias = table.ppl.z_ppl, 1000 * table.bias.z_bias(settings.reading)
    x_line, y_line = lines(now.selection, z_ppl, z_bias)
    fig = scatter_impacts(
        z_ppl,
        z_bias,
        charts.both_impacts(st.context.theme.type == "dark"),
        hover=_texts(settings, table, now.selection),
        marked=charts.marks(now.selection, picked(len(z_ppl))),
        x_line=x_line,
        y_line=y_line,
    )

    def act(found: frozenset[tuple[int, int]]) -> None:
        _tell(settings.spec.source, now, frozenset(layer * table.n_heads + head for layer, head in found))

    alt = "Impact on perplexity against impact on bias of every head."
    clicks.on_chart(fig, "scatter", alt, (table.n_layers, table.n_heads), act, ("points", "box", "lasso"))


def lines(
    selection: Selection, z_ppl: np.ndarray, z_bias: np.ndarray
) -> tuple[tuple[float, str] | None, tuple[float, str] | None]:
    """Where the choice parts heads: by z_ppl, and by z_bias; None where the method does not look.

    A line stands half way between the last head that is in and the first that is out, of those that are up for choice:
    critical heads lie to the right of the first line, chosen ones above the second.
    """
    n = len(z_ppl)
    critical, told = set(selection.critical), set(selection.locked) | set(selection.forced)
    chosen = set(selection.pruned) - told
    free = set(range(n)) - critical - told
    across = upwards = None
    if selection.method == "fasp" and selection.protect == "perplexity" and critical and len(critical) < n:
        others = sorted(set(range(n)) - critical)
        at = (z_ppl[sorted(critical)].min() + z_ppl[others].max()) / 2
        across = (float(at), f"γ {selection.gamma:g}: critical to the right")
    if selection.method in ("fasp", "bias-only") and chosen and free - chosen:
        at = (z_bias[sorted(chosen)].min() + z_bias[sorted(free - chosen)].max()) / 2
        upwards = (float(at), f"α {selection.alpha:g}: pruned above" + (", if not critical" if critical else ""))
    if selection.method == "ppl-only" and chosen and free - chosen:
        at = (z_ppl[sorted(chosen)].max() + z_ppl[sorted(free - chosen)].min()) / 2
        across = (float(at), f"α {selection.alpha:g}: pruned to the left")
    return across, upwards


def score_table(table: ImpactTable, file: str) -> None:
    """All scores, also as a file; heads that are picked in it are ringed in the maps and the scatter."""
    st.caption("Tick rows to find their heads in the maps and in “Perplexity against bias”.")
    rows = sorted(picked(table.n_layers * table.n_heads))
    how: dict[str, Any] = {
        "on_select": _pick,
        "selection_mode": "multi-row",
        "selection_default": {"selection": {"rows": rows}},
    }
    csv_table(table.frame(), file, height=380, key=TABLE, **how)


def _pick() -> None:
    """Keep which rows are ticked: the table's own state goes with it when another tab is opened."""
    event = st.session_state.get(TABLE)
    st.session_state[PICKED] = list(event["selection"]["rows"]) if event else []


def picked(n: int) -> set[int]:
    """Flat ids of the heads that are picked in the table."""
    rows: list[int] = st.session_state.get(PICKED, [])
    return {row for row in rows if 0 <= row < n}


def chosen_in(settings: Settings, table: ImpactTable, selection: Selection) -> np.ndarray | None:
    """[N] share of resamples of the prompts in which FASP chooses a head, NaN where it was told; None: not FASP."""
    told = [*selection.locked, *selection.forced]
    places = selection.k - len(selection.forced)
    if selection.method != "fasp" or places <= 0:
        return None
    sure = table.bias.choice_probability(settings.reading, places, [*selection.critical, *told]).astype(float)
    sure[told] = np.nan
    return sure


def _texts(settings: Settings, table: ImpactTable, selection: Selection) -> list[str]:
    """[N] what a head says when pointed at."""
    se = table.bias.standard_errors(settings.reading)
    return hover(table, settings.reading, reasons(selection), se, chosen_in(settings, table, selection))


def _tell(source: str, now: Current, heads: frozenset[int]) -> None:
    """Set by hand what an act on some heads means."""
    if heads:
        st.session_state[f"clicked head {source}"] = max(heads)  # taken away by the view of one head
        shared.tell(source, editing.changed(now, shared.by_hand(source), heads, editing.meaning()))
