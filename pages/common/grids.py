"""The two head grids, and what a click on them does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import streamlit as st

from fasp_core.figures import clicked_heads, head_grid
from fasp_core.impacts.table import ImpactTable
from fasp_core.selection import Selection
from pages.common import glossary
from pages.common.choice import ByHand, hover, how, how_bias, reasons
from pages.common.sidebar import READING_TITLES, Settings


def draw(settings: Settings, table: ImpactTable, selection: Selection, by_hand: ByHand) -> None:
    """Both grids side by side, with the same marks."""
    se = table.bias.standard_errors(settings.reading)
    sure = None
    if selection.method == "fasp" and selection.k:
        sure = table.bias.choice_probability(settings.reading, selection.k, selection.critical)
    texts = hover(table, settings.reading, reasons(selection, by_hand), se, sure)
    off = by_hand.apply(selection.pruned)
    dark = st.context.theme.type == "dark"
    clicks: int = st.session_state.setdefault("clicks", 0)
    marks: dict[str, Any] = {
        "n_layers": table.n_layers,
        "n_heads": table.n_heads,
        "pruned": set(off),
        "by_hand": set(by_hand.effective(selection.pruned)),
        "critical": set(selection.critical),
        "hover": texts,
        "dark": dark,
    }
    grids = (
        ("Impact on perplexity", "Δ perplexity", table.ppl.z_ppl, table.ppl.se_ppl),
        ("Impact on bias", "Δ gap, ×10⁻³", 1000 * table.bias.z_bias(settings.reading), 1000 * se),
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
    for column, (title, unit, values, errors) in zip(st.columns(2), grids, strict=True):
        with column:
            fig = head_grid(values, title=title, unit=unit, se=errors, **marks)
            # a selection outlives the click that made it: a new key for every click and set drops it
            key = f"{title} {clicks} {_state(settings, off, by_hand, table)}"
            st.plotly_chart(
                fig,
                key=key,
                theme=None,
                on_select=lambda key=key: _toggle(key, clicks, settings, table, selection),
                selection_mode=("points", "box", "lasso"),
                config={"displaylogo": False, "scrollZoom": False},
                alt=f"{title} of every head, {table.n_layers} layers by {table.n_heads} heads.",
            )


def _toggle(key: str, click: int, settings: Settings, table: ImpactTable, selection: Selection) -> None:
    heads = clicked_heads(st.session_state.get(key), table.n_heads, table.n_layers)
    if not heads or click != st.session_state["clicks"]:
        return  # a deselection, or an event of a chart that is gone: the browser sends those again at a rerun
    st.session_state["clicks"] = click + 1
    name = f"by_hand {settings.spec.source}"
    by_hand: ByHand = st.session_state.get(name, ByHand())
    flat = [layer * table.n_heads + head for layer, head in heads]
    st.session_state[name] = by_hand.toggled(flat, selection.pruned)


def _state(settings: Settings, off: Iterable[int], by_hand: ByHand, table: ImpactTable) -> str:
    what = (settings, sorted(off), sorted(by_hand.prune), sorted(by_hand.keep), table.n_layers)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:12]
