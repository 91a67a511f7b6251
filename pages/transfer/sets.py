"""Experiment 3 on the page: does a set that is chosen on one axis lower the gaps of the others?"""

from __future__ import annotations

import streamlit as st

from fasp_core.figures import Cells, Words, cell_matrix
from fasp_core.studies.transfer import every_axis
from fasp_core.studies.transfer.every_axis import Cell, Transfer
from fasp_core.studies.verdict import p_value
from pages.backend.requests import Experiment
from pages.shell.axis import axis_title
from pages.shell.sidebar import READING_TITLES
from pages.transfer import axes
from pages.transfer.axes import Settings, ends, percent, table
from pages.widgets import background
from pages.widgets.drawing import chart

SECONDS = 15.0  # for 450 prompts, or 2,048 tokens, with the built-in model on two cores


def draw(settings: Settings) -> None:
    """Sets chosen on one axis, measured on all."""
    config = settings.config
    st.subheader("Does a set chosen on one axis help the others?", anchor=False)
    sets = every_axis.choose(dict(settings.tables), config)
    with st.spinner("Looking for measurements"):
        result = axes.transfer(settings.spec, sets, config)
    size = len(next(iter(sets.values())))
    st.caption(
        f"On each axis FASP (γ = {config.gamma:g}, α = {config.alpha:g}) chooses {size} heads by validation scores, "
        f"{READING_TITLES[config.reading]}. Each set is really removed, and the gap of every axis is measured on test "
        "prompts, which nothing was chosen on."
    )
    if result is None:
        n = len(sets)
        seconds = (n + 1) * SECONDS * (n * config.n_prompts / 450 + config.tokens / 2048)
        background.offer(
            Experiment(settings.spec, "Transfer between axes", (axes.name(settings.spec, sets, config),)),
            lambda lm, store, progress: every_axis.run(lm, sets, config, store, progress),
            title="Not measured yet with these settings",
            about=f"{n} sets and the whole model on {n} axes with {config.n_prompts} test prompts each, and the "
            f"perplexity of all: {(n + 1) * (n + 1)} measurements. With the built-in model on two cores that takes "
            f"about {background.duration(seconds)}. What is measured already is not measured again, and a cancelled "
            "run goes on where it was.",
            button="Measure",
        )
        return
    show(settings, result)


def show(settings: Settings, result: Transfer) -> None:
    """The outcome in a sentence, a matrix and a table."""
    reading = settings.config.reading
    st.markdown(f"**{every_axis.statement(result, reading)}** {every_axis.statement(result, reading, own=True)}")
    for other in (r for r in READING_TITLES if r != reading and r in next(iter(result.bases.values()))):
        st.caption(f"The same sets, {READING_TITLES[other]}: {every_axis.statement(result, other)}")
    cells = result.of(reading)
    costs = {s.axis: s.perplexity.relative for s in result.sets}
    bases = {axis: found[reading] for axis, found in result.bases.items()}
    chart(
        cell_matrix(
            Cells(
                [f"{axis_title(axis)}\nperplexity {costs[axis]:+.1%}" for axis in result.axes],
                [f"{axis_title(a).replace(' ', chr(10))}\n{1000 * bases[a].gap:.2f}" for a in result.axes],
                [100 * c.change.relative for c in cells],
                text=[f"{percent(c.change.relative)}\n{ends(c).replace('%', '')}" for c in cells],
                hover=[cell_hover(c, result) for c in cells],
                faint=[c.outcome in ("not shown", "no gap") for c in cells],
                hatched=[c.outcome == "no gap" for c in cells],
                outlined=[c.chosen_on == c.measured_on for c in cells],
                names=("no change shown", "no gap above noise to begin with", "its own axis"),
            ),
            Words(
                "Change of the gap on test prompts, with 95% interval",
                "Rows: chosen on, with the set's cost. Columns: measured on, with the gap before, ×10⁻³.",
                x="measured on",
                y="chosen on",
                dark=st.context.theme.type == "dark",
            ),
            limit=100.0,
            colorbar=False,
            cell_height=54,
        ),
        key=f"transfer {hash((settings.config, result.axes))}",
        alt="Relative change of every axis' gap under the set chosen on every axis; the table below has the numbers.",
    )
    st.caption(
        f"Blue: the gap falls. Intervals are over blocks of at least {settings.config.n_prompts} test prompts, each "
        f"cell by itself: of {len(cells)} cells some leave 0 out by chance. p is how often shuffled groups show as "
        "large a gap before anything is removed."
    )
    table(result.frame(), "transfer.csv")
    with st.expander("What made these numbers"):
        st.json(result.provenance, expanded=False)


def cell_hover(c: Cell, result: Transfer) -> str:
    base = result.bases[c.measured_on][c.reading]
    lines = [
        f"chosen on {axis_title(c.chosen_on)}, measured on {axis_title(c.measured_on)}",
        f"gap {1000 * c.change.base:.2f} → {1000 * c.change.pruned:.2f} ×10⁻³: {percent(c.change.relative)} {ends(c)}",
        f"noise alone would give {1000 * base.noise_gap:.2f} ({p_value(base.noise_p)}); {c.change.n} test prompts",
    ]
    if c.chosen_on != c.measured_on:
        size = next(s.size for s in result.sets if s.axis == c.chosen_on)
        lines.append(
            f"{result.in_common(c.chosen_on, c.measured_on)} of {size} heads are in the set of "
            f"{axis_title(c.measured_on)} as well"
        )
    said = {"fell": "the gap fell", "rose": "the gap rose", "not shown": "no change is shown"}
    return "\n".join([*lines, said.get(c.outcome, "no gap above noise: nothing to lower")])
