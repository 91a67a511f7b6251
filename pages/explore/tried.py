"""Sets that were tried since the page was opened: estimated, measured, and a way back to each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import streamlit as st

from fasp_core.evaluation import Evaluation
from fasp_core.figures import Words, tried_sets
from fasp_core.heads.prune_set import PruneSet
from fasp_core.scoring.impact_table import ImpactTable
from pages.session import shared
from pages.session.recipe import READING_TITLES, SPLIT_TITLES, Recipe
from pages.shell.current import Current
from pages.shell.sidebar import Settings
from pages.widgets import clicks

MOST = 200
UNKNOWN = (float("nan"),) * 2
_DRAWN = "tried drawn again"
Ends = tuple[float, float]


@dataclass(frozen=True)
class Tried:
    """One set. Changes are relative to the unpruned model on the same prompts and text: 0.1 is 10% more.

    Attributes
    ----------
    recipe : how it came about and how it is measured.
    estimated, measured : change of perplexity and of the gap; NaN where not known yet.
    ends : 95% intervals of both measured changes.
    said : sample sizes of the measurement.
    """

    recipe: Recipe
    heads: PruneSet
    estimated: Ends
    measured: Ends = UNKNOWN
    ends: tuple[Ends, Ends] = (UNKNOWN, UNKNOWN)
    said: str = ""

    @property
    def place(self) -> tuple[object, ...]:
        """Sets that can stand in one chart share it: all but how they were chosen."""
        r = self.recipe
        return r.model, r.dtype, r.bos, r.ablation, r.axis, r.reading, r.split, r.prompts, r.tokens


def note(settings: Settings, table: ImpactTable, now: Current, result: Evaluation | None) -> None:
    """Remember the set of the moment, and what is known of it."""
    kept: list[Tried] = st.session_state.get("tried", [])
    base = table.ppl.base.perplexity, table.bias.gap(settings.reading).gap
    ppl, gap = table.added_up(now.heads.flat(table.n_heads), settings.reading)
    new = Tried(shared.now(), now.heads, (ppl / base[0] - 1, gap / base[1] - 1 if base[1] else float("nan")))
    if result is not None:
        new = measured(new, result, settings.reading)
    key = (new.heads, new.place)
    known = [(t.heads, t.place) for t in kept]
    if key in known:
        old = kept[known.index(key)]
        kept[known.index(key)] = new if result is not None else replace(old, recipe=new.recipe)
    else:
        kept = [*kept, new][-MOST:]
    st.session_state["tried"] = kept


def measured(tried: Tried, result: Evaluation, reading: str) -> Tried:
    """With what a measurement shows."""
    p, gap = result.perplexity, result.readings[reading].gap
    low, high = p.ppl_interval
    return replace(
        tried,
        measured=(p.relative, gap.relative),
        ends=((low / p.base - 1, high / p.base - 1), gap.relative_interval or UNKNOWN),
        said=f"{p.tokens:,} tokens, {gap.n} prompts",
    )


def draw(settings: Settings) -> None:
    """The chart and the table, folded away at first."""
    with st.expander("Sets tried so far", icon=":material/history:", key="tried open", on_change="rerun") as folded:
        if not folded.open:
            return
        here = shared.now()
        all_tried: list[Tried] = st.session_state.get("tried", [])
        shown = [t for t in all_tried if t.place == Tried(here, PruneSet(), UNKNOWN).place]
        at = next((i for i, t in enumerate(shown) if t.recipe.of_set() == here.of_set()), None)
        where = f"{SPLIT_TITLES[settings.split]} prompts, {READING_TITLES[settings.reading]}"
        fig = tried_sets(
            100 * np.array([t.estimated for t in shown]),
            100 * np.array([t.measured for t in shown]),
            100 * np.array([t.ends for t in shown]),
            Words(
                "Perplexity against the gap",
                f"Changes against the unpruned model; measured on {where}. Click a set to return to it.",
                x="change of perplexity",
                y="change of the toxicity gap",
                dark=st.context.theme.type == "dark",
            ),
            hover=[_hover(t) for t in shown],
            current=at,
        )
        alt = "Change of perplexity against change of the toxicity gap of every set that was tried."
        clicks.on_chart(
            fig, "tried chart", alt, (len(shown), 1), lambda found: _return_to(shown, (i for i, _ in found))
        )
        drawn: int = st.session_state.setdefault(_DRAWN, 0)
        rows = f"tried rows {drawn} {len(shown)} {at} {sum(not np.isnan(t.measured[0]) for t in shown)}"
        st.dataframe(
            frame(shown, at),
            key=rows,
            hide_index=True,
            height=min(38 + 35 * max(len(shown), 1), 260),
            on_select=lambda: ticked(rows, shown),
            selection_mode="single-row",
        )
        st.caption(
            "Tick a row, or click a point, to return to its set. What was measured before is there at once. Sets of "
            "other axes, readings, splits and sample sizes stand here when you go back to those."
        )


def ticked(key: str, shown: list[Tried]) -> None:
    """Return to the set of the row that was ticked."""
    event = st.session_state.get(key)
    _return_to(shown, clicks.new(key, event["selection"]["rows"] if event else ()))


def _return_to(shown: list[Tried], told: Iterable[int]) -> None:
    for i in told:  # one at most
        if 0 <= i < len(shown):
            st.session_state[_DRAWN] += 1  # a selection outlives its click
            shared.put(shown[i].recipe)


def frame(shown: list[Tried], at: int | None) -> pd.DataFrame:
    """One row a set."""
    rows = [
        (
            ("▸ " if i == at else "") + t.recipe.text(),
            len(t.heads),
            *(f"{x:+.1%}" for x in t.estimated),
            *_told(t),
            t.said or "not measured yet",
            t.heads.format(),
        )
        for i, t in enumerate(shown)
    ]
    columns = ["set", "parts", "perplexity ≈", "gap ≈", "perplexity, 95%", "gap, 95%", "measured on", "heads"]
    return pd.DataFrame(rows, columns=columns)


def _told(tried: Tried) -> tuple[str, str]:
    if np.isnan(tried.measured[0]):
        return "", ""
    (ppl, gap), (ppl_ends, gap_ends) = tried.measured, tried.ends
    return _with_ends(ppl, ppl_ends, 1), _with_ends(gap, gap_ends, 0)


def _with_ends(x: float, ends: Ends, digits: int) -> str:
    shown = "no gap to compare" if np.isnan(x) else f"{x:+.{digits}%}"
    return shown if np.isnan(ends[0]) else f"{shown} [{ends[0]:+.{digits}%}, {ends[1]:+.{digits}%}]"


def _hover(tried: Tried) -> str:
    ppl, gap = _told(tried)
    lines = [tried.recipe.text(), f"{len(tried.heads)} heads and neurons"]
    lines.append(f"estimate: perplexity {tried.estimated[0]:+.1%}, gap {tried.estimated[1]:+.0%}")
    return "\n".join([*lines, f"measured: perplexity {ppl}, gap {gap}; {tried.said}" if ppl else "not measured yet"])
