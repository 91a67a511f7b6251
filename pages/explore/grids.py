"""The two head grids and the scatter of both impacts, and what clicks on them do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from fasp_core.compute.jobs import Progress
from fasp_core.defaults import COST_ITEMS
from fasp_core.figures import GridLook, Words, clicked_heads, clicked_lines, head_grid, scatter_impacts
from fasp_core.heads.selection import Selection
from fasp_core.model.language_model import LanguageModel
from fasp_core.report import charts
from fasp_core.scoring.impact_table import ImpactTable, TaskImpacts
from fasp_core.scoring.manual_edits import block, hover, how, how_bias, reasons
from fasp_core.scoring.task import score_task
from fasp_core.storage.store import Store
from pages.backend.requests import Experiment
from pages.explore import editing, grid_options
from pages.session import shared
from pages.shell.current import Current
from pages.shell.sidebar import READING_TITLES, Settings
from pages.widgets import background, clicks, glossary, pointer
from pages.widgets.drawing import chart, csv_table

PICKED = "scores table"
_DRAWN = "grids drawn again"


def draw(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Both grids side by side, with the same marks."""
    options = grid_options.read()
    se = table.bias.standard_errors(settings.reading)
    look = GridLook(grid_options.order(options, table, settings.reading), options.scale, options.doubt, handles=True)
    shape, texts = (table.n_layers, table.n_heads), _texts(settings, table, now.selection)
    marked = charts.marks(now.selection, picked(table.n_layers * table.n_heads))
    base = table.bias.gap(settings.reading)
    perplexity = table.ppl.base.perplexity
    grids = (
        ("Impact on perplexity", ("Δ perplexity", 1.0), table.ppl.z_ppl, table.ppl.se_ppl, perplexity),
        ("Impact on bias", ("Δ gap, ×10⁻³", 1000.0), table.bias.z_bias(settings.reading), se, base.gap),
    )
    captions = (
        f"Change of perplexity when the head is removed, {table.ppl.base.tokens:,} tokens, "
        f"{how(table.ppl.exact, 'preview from gradients')}. "
        "**Orange: the head helps language modelling.**",
        f"Fall of the toxicity gap when the head is removed, {len(table.bias.codes):,} validation prompts, "
        f"{how_bias(table.bias)}, "
        f"{READING_TITLES.get(settings.reading, settings.reading)}. **Orange: the head adds bias.**",
    )
    hints = (glossary.text("z_ppl"), glossary.text("z_bias"))
    row = st.columns(2)  # of their own: the grids stay level
    for column, caption, hint in zip(row, captions, hints, strict=True):
        column.caption(caption, help=hint)
    for column, (title, plain, values, errors, whole) in zip(st.columns(2), grids, strict=True):
        with column:
            shown, shown_errors, unit = grid_options.shown(options, values, errors, whole, plain)
            words = Words(title, unit=unit, dark=st.context.theme.type == "dark")
            fig = head_grid(shown, *shape, words, hover=texts, se=shown_errors, marked=marked, look=look)
            alt = f"{title} of every head, {table.n_layers} layers by {table.n_heads} heads."
            _clickable(fig, title, settings, table, now, alt, options)


def last_words(settings: Settings, table: ImpactTable, now: Current) -> None:
    """The third grid, where it is asked for; where it is not known yet, what it takes to make it."""
    if not st.toggle(
        "Show the impact on last words", key="grid last words", persist_state="session", help=glossary.text("z_task")
    ):
        return
    if table.task is None:
        asked = Experiment(settings.spec, "Scoring heads for last words", ("z_task", COST_ITEMS))
        background.offer(
            asked,
            score_last_words,
            title="No scores for last words yet",
            about=f"One backward pass over {COST_ITEMS} of LAMBADA's passages says, to first order, what removing each "
            "head does to their last words: about six minutes with the built-in model on one core. FASP can then "
            "protect heads by it. More exact scores: `python -m fasp_core score --task lambada --task-exact 30`.",
            button="Score last words",
        )
        return
    options = grid_options.read()
    look = GridLook(grid_options.order(options, table, settings.reading), options.scale, options.doubt, handles=True)
    task, title, plain = table.task, "Impact on last words", ("Δ nats a word", 1.0)
    st.caption(
        f"Rise of the last word's negative log-likelihood when the head is removed, in LAMBADA: {task.said}. "
        "**Orange: the head helps.**"
    )
    base = float(task.base.mean())
    shown, errors, unit = grid_options.shown(options, task.z_task, task.se_task, base, plain)
    marked = charts.marks(now.selection, picked(table.n_layers * table.n_heads))
    fig = head_grid(
        shown,
        table.n_layers,
        table.n_heads,
        Words(title, unit=unit, dark=st.context.theme.type == "dark"),
        hover=_texts(settings, table, now.selection),
        se=errors,
        marked=marked,
        look=look,
    )
    alt = f"{title} of every head, {table.n_layers} layers by {table.n_heads} heads."
    _clickable(fig, title, settings, table, now, alt, options)


def score_last_words(lm: LanguageModel, store: Store, progress: Progress) -> TaskImpacts:
    """A job's work."""
    return score_task(lm, store, COST_ITEMS, progress=progress)


def scatter(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Both impacts of every head, and where the method draws its lines; clicks count as on the grids."""
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
    _clickable(fig, "Scatter", settings, table, now, "Impact on perplexity against impact on bias of every head.")


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
    """All scores, also as a file; heads that are picked in it are ringed in the grids and the scatter."""
    st.caption("Tick rows to find their heads in the grids and in “Perplexity against bias”.")
    csv_table(table.frame(), file, height=380, key=PICKED, on_select="rerun", selection_mode="multi-row")


def picked(n: int) -> set[int]:
    """Flat ids of the heads that are picked in the table."""
    event = st.session_state.get(PICKED)
    rows = event.get("selection", {}).get("rows", []) if event else []
    return {int(row) for row in rows if 0 <= int(row) < n}


def _texts(settings: Settings, table: ImpactTable, selection: Selection) -> list[str]:
    """[N] what a head says when pointed at."""
    sure = None
    told = [*selection.locked, *selection.forced]
    places = selection.k - len(selection.forced)
    if selection.method == "fasp" and places > 0:
        sure = table.bias.choice_probability(settings.reading, places, [*selection.critical, *told]).astype(float)
        sure[told] = np.nan
    se = table.bias.standard_errors(settings.reading)
    return hover(table, settings.reading, reasons(selection), se, sure)


def _clickable(
    fig: Any,
    title: str,
    settings: Settings,
    table: ImpactTable,
    now: Current,
    alt: str,
    *shaped_by: object,
) -> None:
    drawn: int = st.session_state.setdefault(_DRAWN, 0)
    what = (settings, now.heads.format(), now.selection.locked, now.selection.forced, table.n_layers, shaped_by)
    # a selection outlives the act that made it: a new key for every act and set drops it
    key = f"{title} {drawn} {hashlib.sha256(repr(what).encode()).hexdigest()[:12]}"

    def act() -> None:
        heads = clicks.new(key, acted_on(st.session_state.get(key), table.n_layers, table.n_heads))
        st.session_state[_DRAWN] += bool(heads)
        _tell(settings.spec.source, now, heads)

    ready = pointer.ready(fig, _heads_of(settings, table))
    chart(ready, key, alt, on_select=act, selection_mode=("box", "lasso"))  # clicks are the pointer's


def acts(settings: Settings, table: ImpactTable, now: Current) -> dict[str, pointer.Act]:
    """What single clicks on the grids and the scatter do. With Shift: to all heads since the last click."""
    source, n = settings.spec.source, table.n_layers * table.n_heads
    order = grid_options.order(grid_options.read(), table, settings.reading)

    def act(event: Mapping[str, Any], shift: bool) -> None:
        heads = acted_on(event, table.n_layers, table.n_heads)
        anchor = st.session_state.get(_anchor(source))
        if shift and len(heads) == 1 and anchor is not None and anchor < n:
            _tell(source, now, block(anchor, max(heads), table.n_heads, order), max(heads), anchor)
        else:
            _tell(source, now, heads)

    return {_heads_of(settings, table): act}


def _heads_of(settings: Settings, table: ImpactTable) -> str:
    return f"{table.n_layers} layers of {table.n_heads} heads of {settings.spec.source}"


def _tell(
    source: str, now: Current, heads: frozenset[int], clicked: int | None = None, anchor: int | None = None
) -> None:
    """Set by hand what an act on some heads means; `clicked` is the one to look at and to go on from with Shift."""
    if not heads:
        return
    last = max(heads) if clicked is None else clicked
    st.session_state[_anchor(source)] = last
    st.session_state[f"clicked head {source}"] = last  # taken away by the view of one head
    by_hand, means = shared.by_hand(source), editing.meaning()
    if anchor is None:
        shared.tell(source, editing.changed(now, by_hand, heads, means))
    else:
        shared.tell(source, editing.extended(now, by_hand, heads, anchor, means))


def _anchor(source: str) -> str:
    return f"anchor {source}"


def acted_on(event: Any, n_layers: int, n_heads: int) -> frozenset[int]:
    """Flat ids of the heads that a click, box or lasso means: themselves, or their layers and columns."""
    heads = {layer * n_heads + head for layer, head in clicked_heads(event, n_heads, n_layers)}
    layers, columns = clicked_lines(event, n_layers, n_heads)
    heads |= {layer * n_heads + head for layer in layers for head in range(n_heads)}
    heads |= {layer * n_heads + head for layer in range(n_layers) for head in columns}
    return frozenset(heads)
