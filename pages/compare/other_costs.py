"""What the candidates of a comparison cost beside perplexity, as far as it was measured, for the chart to draw."""

from __future__ import annotations

import numpy as np
import streamlit as st

from fasp_core import defaults
from fasp_core.model.spec import ModelSpec
from fasp_core.studies.common import as_heads
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.limits import PANEL, Limits
from fasp_core.studies.compare.plan import Side
from fasp_core.tasks.costs import COSTS, TITLES
from fasp_core.typing import Floats
from pages.backend.commands import command
from pages.backend.engine import engine
from pages.shell.sidebar import SPLIT_TITLES
from pages.widgets import tasks
from pages.widgets.markdown import code

Known = dict[tuple[int, ...], float]  # heads -> what they cost


def choose(
    spec: ModelSpec, comparison: Comparison, side: Side, limits: Limits
) -> tuple[Floats, str, float | None] | None:
    """([candidates] cost, nan where it was not measured; its title; its limit) of the one that a reader chooses.

    None is perplexity, which is known of all. Costs are offered of which there is a value; of the others it is said
    how they are measured.
    """
    found = {**_asked(spec, comparison, side, limits), **_studied(spec, comparison)}
    options = ["", *(name for name, (known, _, _) in found.items() if known)]
    name = st.selectbox(
        "Cost to the right",
        options,
        format_func=lambda name: found[name][1] if name else "perplexity, % up",
        key="compare cost",
        help="Any cost that was measured of these sets.",
    )
    _missing(spec, comparison, found)
    if not name:
        return None
    known, title, limit = found[name]
    sets = {c.heads for c in comparison.candidates}
    where = f"{defaults.COST_ITEMS} {SPLIT_TITLES[side]} items of each task"
    if (study := engine().results.costs(spec, comparison.plan.axis, comparison.plan.reading)) and name in study.sets:
        where = (
            f"{study.plan.tokens:,} tokens, {study.plan.passages} passages and {study.plan.items} items of each task, "
            "the same for validation and test"
        )
    st.caption(f"{len(sets & known.keys())} of {len(sets - {()})} sets were measured so, on {where}.")
    values = np.array([known.get(c.heads, np.nan) if c.heads else 0.0 for c in comparison.candidates])
    return values, title, limit


def _asked(
    spec: ModelSpec, comparison: Comparison, side: Side, limits: Limits
) -> dict[str, tuple[Known, str, float | None]]:
    """Points that are limited: what a choice within limits has asked of the sets."""
    lambada, panel = engine().results.lost(spec, comparison, side)
    names = ", ".join(map(tasks.title, PANEL))
    return {
        "lambada points": (lambada, "right answers lost on LAMBADA, points", limits.lambada_points),
        "task points": (panel, f"right answers lost in the mean of {names}, points", limits.task_points),
    }


def _studied(spec: ModelSpec, comparison: Comparison) -> dict[str, tuple[Known, str, float | None]]:
    """What the study of costs has measured."""
    study = engine().results.costs(spec, comparison.plan.axis, comparison.plan.reading)
    named = {name: f"{TITLES[name]}, % up" for name in COSTS if name != "perplexity"}
    if study is None:
        return {name: ({}, title, None) for name, title in named.items()}
    heads = list(map(as_heads, study.sets["heads"]))
    found: dict[str, tuple[Known, str, float | None]] = {}
    for name in named:
        if name not in study.sets:  # a cost that came after the study
            found[name] = {}, named[name], None
            continue
        found[name] = (
            dict(zip(heads, 100 * np.expm1(study.sets[name].to_numpy(float)), strict=True)),
            named[name],
            None,
        )
    for task in study.plan.tasks:
        column = f"accuracy_{task}"
        worth = -100 * study.sets[column].to_numpy(float)
        title = f"right answers lost on {tasks.title(task)}, points (study)"
        found[column] = dict(zip(heads, worth, strict=True)), title, None
    return found


def _missing(spec: ModelSpec, comparison: Comparison, found: dict[str, tuple[Known, str, float | None]]) -> None:
    """How a cost is measured that cannot be drawn yet."""
    missing = [title.rsplit(",", 1)[0] for name, (known, title, _) in found.items() if not known and name in COSTS]
    said = []
    if any(not known for name, (known, _, _) in found.items() if name.endswith(" points")):
        said.append(
            "Points of tasks: set a limit on them above, and measure what keeps to it; then the sets that "
            "were asked can be drawn here."
        )
    if missing:
        plan = comparison.plan
        run = command(spec, "study", "costs", "--axis", plan.axis, "--reading", plan.reading)
        said.append(f"{', '.join(missing)}: run {code(run)}.")
    if said:
        st.caption("Not measured of these sets yet. " + " ".join(said))
