"""Sets that were tried since the page was opened: estimated, measured, and a way back to each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st

from fasp_core.compute.jobs import Job
from fasp_core.evaluation import EvalConfig, Evaluation
from fasp_core.figures import Words, tried_sets
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.looks import SoFar
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.taught import Change
from pages.session import shared
from pages.session.recipe import READING_TITLES, SPLIT_TITLES, Recipe
from pages.shell.current import Current
from pages.shell.sidebar import Settings
from pages.widgets import clicks

MOST = 200
UNKNOWN = (float("nan"),) * 2
_DRAWN = "tried drawn again"
_LOOKED_AT = "tried looked at"  # the measurements of this set and the one before
Ends = tuple[float, float]


@dataclass(frozen=True)
class Tried:
    """One set. Changes are relative to the unpruned model on the same prompts and text: 0.1 is 10% more.

    Attributes
    ----------
    recipe : how it came about.
    spec, config : the model, and what it is measured on; a file of one's own is named by its content there.
    estimated, measured : change of perplexity and of the gap; NaN where not known yet.
    ends : 95% intervals of both measured changes.
    said : sample sizes of the measurement.
    part : prompts and tokens that were done when it was overtaken; 0 where it was not, or nothing was measured.
    """

    recipe: Recipe
    spec: ModelSpec
    config: EvalConfig
    heads: PruneSet
    estimated: Ends
    measured: Ends = UNKNOWN
    ends: tuple[Ends, Ends] = (UNKNOWN, UNKNOWN)
    said: str = ""
    part: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """Two of the same are one row."""
        return self.heads, self.place

    @property
    def place(self) -> tuple[ModelSpec, EvalConfig, str]:
        """Sets that can stand in one chart share it: all but how they were chosen."""
        return self.spec, self.config, self.recipe.reading


def note(settings: Settings, table: ImpactTable, now: Current, job: Job[Evaluation]) -> None:
    """Remember the set of the moment, and what is known of it; and of the set before, what was known in the end."""
    kept: list[Tried] = st.session_state.get("tried", [])
    base = table.ppl.base.perplexity, table.bias.gap(settings.reading).gap
    guess = st.session_state["estimated"][0]
    estimated = guess.perplexity / base[0] - 1, guess.gap / base[1] - 1 if base[1] else float("nan")
    new = Tried(shared.now(), settings.spec, settings.evaluation, now.heads, estimated)
    if job.state == "done":
        new = measured(new, job.result, settings.reading)
    known = [t.key for t in kept]
    if new.key in known:
        old = kept[known.index(new.key)]
        kept[known.index(new.key)] = new if job.state == "done" else replace(old, recipe=new.recipe)
    else:
        kept = [*kept, new][-MOST:]
    before: list[tuple[Any, str, Job[Evaluation]]] = st.session_state.get(_LOOKED_AT, [])
    looked_at = {key: (reading, job) for key, reading, job in [*before[-1:], (new.key, settings.reading, job)]}
    st.session_state["tried"] = [partly(t, *looked_at[t.key]) if t.key in looked_at else t for t in kept]
    st.session_state[_LOOKED_AT] = [(key, *found) for key, found in looked_at.items()]


def partly(tried: Tried, reading: str, job: Job[Evaluation]) -> Tried:
    """With what a measurement shows that may not have ended, unless more is known."""
    if job.state == "done":
        return measured(tried, job.result, reading)
    so_far: SoFar | None = job.so_far
    if so_far is None or (tried.said and not tried.part):
        return tried
    found = so_far.perplexity, so_far.gaps.get(reading)
    done = [0 if part is None else part.done for part in found]
    if sum(done) <= tried.part:
        return tried
    ppl, gap = (UNKNOWN[0] if part is None else part.relative for part in found)
    ends = [UNKNOWN if part is None or part.interval is None else part.interval for part in found]
    said = [
        f"{part.done:,} of {part.total:,} {unit}"
        for part, unit in zip(found, ("tokens", "prompts"), strict=True)
        if part is not None
    ]
    return replace(
        tried,
        measured=(ppl, gap),
        ends=(ends[0], ends[1]),
        said=f"so far {', '.join(said)}",
        part=sum(done),
    )


def measured_changes(settings: Settings, n_heads: int) -> dict[tuple[int, ...], Change]:
    """Sets of heads (flat ids) that were measured in whole: what they did to the mean NLL, and to the gap.

    Only of the model, axis, scorer and reading of the moment.
    """
    kept: list[Tried] = st.session_state.get("tried", [])
    whole = [t for t in kept if t.said and not t.part and t.heads.heads and not t.heads.others]
    here = _measure(settings.spec, settings.evaluation, settings.reading)
    return {
        tuple(t.heads.flat(n_heads)): (math.log1p(t.measured[0]), t.measured[1])
        for t in whole
        if _measure(*t.place) == here
    }


def _measure(spec: ModelSpec, config: EvalConfig, reading: str) -> tuple[object, ...]:
    bias = config.bias
    return spec, bias.axis, bias.scorer, bias.scorer_stamp, bias.label, bias.scorer_reading, reading


def measured(tried: Tried, result: Evaluation, reading: str) -> Tried:
    """With what a measurement shows."""
    p, gap = result.perplexity, result.readings[reading].gap
    low, high = p.ppl_interval
    return replace(
        tried,
        measured=(p.relative, gap.relative),
        ends=((low / p.base - 1, high / p.base - 1), gap.relative_interval or UNKNOWN),
        said=f"{p.tokens:,} tokens, {gap.n} prompts",
        part=0,
    )


def draw(settings: Settings) -> None:
    """The chart and the table, folded away at first."""
    with st.expander("Sets tried so far", icon=":material/history:", key="tried open", on_change="rerun") as folded:
        if not folded.open:
            return
        here = shared.now()
        all_tried: list[Tried] = st.session_state.get("tried", [])
        place = settings.spec, settings.evaluation, settings.reading
        shown = [t for t in all_tried if t.place == place]
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
        rows = f"tried rows {drawn} {len(shown)} {at} {sum(bool(t.said) and not t.part for t in shown)}"
        st.dataframe(
            frame(shown, at),
            key=rows,
            hide_index=True,
            height=min(38 + 35 * max(len(shown), 1), 260),
            on_select=lambda: ticked(rows, shown),
            selection_mode="single-row",
        )
        st.caption(
            "Tick a row, or click a point, to return to its set. What was measured before is there at once; a set that "
            "was left before keeps what it had, with an interval that holds at every look. Sets of "
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
    if not tried.said:
        return "", ""
    (ppl, gap), (ppl_ends, gap_ends) = tried.measured, tried.ends
    shown = _with_ends(ppl, ppl_ends, 1), _with_ends(gap, gap_ends, 0)
    if not tried.part:
        return shown
    return "" if np.isnan(ppl) else shown[0], "" if np.isnan(gap) else shown[1]


def _with_ends(x: float, ends: Ends, digits: int) -> str:
    shown = "no gap to compare" if np.isnan(x) else f"{x:+.{digits}%}"
    return shown if np.isnan(ends[0]) else f"{shown} [{ends[0]:+.{digits}%}, {ends[1]:+.{digits}%}]"


def _hover(tried: Tried) -> str:
    ppl, gap = (found or "not yet" for found in _told(tried))
    lines = [tried.recipe.text(), f"{len(tried.heads)} heads and neurons"]
    lines.append(f"estimate: perplexity {tried.estimated[0]:+.1%}, gap {tried.estimated[1]:+.0%}")
    return "\n".join(
        [*lines, f"measured: perplexity {ppl}, gap {gap}; {tried.said}" if tried.said else "not measured yet"]
    )
