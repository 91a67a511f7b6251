"""The charts of one set of heads, as figures: both head grids, the groups before and after, all heads at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from fasp_core.evaluation import Evaluation
from fasp_core.figures import GroupMeans, Marks, Words, group_bars, head_grid, scatter_impacts, waterfall
from fasp_core.gap import GapStats, group_intervals
from fasp_core.gap.parts import Parts
from fasp_core.heads.selection import Selection
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import hover, reasons
from fasp_core.studies.explain.explain import Explained
from fasp_core.typing import Floats

GROUPS = 26  # that stand in one chart: as many fit on a printed page


def grids(table: ImpactTable, reading: str, selection: Selection, dark: bool = False) -> tuple[go.Figure, go.Figure]:
    """Impact on perplexity and on bias of every head, with the same marks."""
    se = table.bias.standard_errors(reading)
    texts, marked = hover(table, reading, reasons(selection), se), marks(selection)

    def grid(values: Floats, errors: Floats, words: Words) -> go.Figure:
        return head_grid(values, table.n_layers, table.n_heads, words, hover=texts, se=errors, marked=marked)

    ppl, bias = table.ppl, 1000 * table.bias.z_bias(reading)
    return (
        grid(ppl.z_ppl, ppl.se_ppl, Words("Impact on perplexity", unit="Δ perplexity", dark=dark)),
        grid(bias, 1000 * se, Words("Impact on bias", unit="Δ gap, ×10⁻³", dark=dark)),
    )


def scatter(table: ImpactTable, reading: str, selection: Selection, dark: bool = False) -> go.Figure:
    """Both impacts of every head."""
    return scatter_impacts(
        table.ppl.z_ppl,
        1000 * table.bias.z_bias(reading),
        both_impacts(dark),
        hover=hover(table, reading, reasons(selection), table.bias.standard_errors(reading)),
        marked=marks(selection),
    )


def both_impacts(dark: bool) -> Words:
    """What is written around the scatter of both impacts."""
    return Words(
        "Both impacts of every head",
        x="impact on perplexity (right: the head helps)",
        y="impact on bias, ×10⁻³ (up: removing it lowers the gap)",
        dark=dark,
    )


def groups(evaluation: Evaluation, reading: str, dark: bool = False) -> Iterator[go.Figure]:
    """Toxicity of each group before and after, highest first, `GROUPS` in a chart."""
    found = evaluation.readings[reading]
    means = found.base.group_means
    order = sorted(means, key=lambda name: (-means[name], name))
    ends = [group_intervals(side.row(reading), side.groups) for side in (evaluation.base, evaluation.pruned)]
    charts = max(1, -(-len(order) // GROUPS))
    for names in np.array_split(np.array(order, dtype=object), charts):
        some = [str(name) for name in names]
        part = "" if charts == 1 else f", {len(some)} of {len(order)} groups"
        title = f"Toxicity of each group, {found.base.n:,} test prompts{part}"
        base, pruned = group_means(found.base, some, ends[0]), group_means(found.pruned, some, ends[1])
        yield group_bars(some, base, pruned, Words(title, unit="×10⁻³", dark=dark))


def group_means(stats: GapStats, names: Sequence[str], ends: Mapping[str, tuple[float, float]]) -> GroupMeans:
    """Of some groups and all prompts, in thousandths."""
    means, intervals = ([1000 * np.asarray(of[name]) for name in names] for of in (stats.group_means, ends))
    return GroupMeans(means, 1000 * stats.overall, intervals)


def waterfalls(found: Explained, dark: bool = False) -> tuple[go.Figure, go.Figure]:
    """How each head moves the gap, and the nats of the text."""

    def stairs(parts: Parts, words: Words, marked: Collection[int]) -> go.Figure:
        p = parts.times(1000)
        return waterfall(found.names, p.values, p.intervals, (p.base, p.end), words, marked=marked)

    gap = Words("Toxicity gap, head by head", f"{found.prompts:,} prompts; 95% intervals", unit="gap, ×10⁻³", dark=dark)
    text = f"{found.tokens:,} tokens in {found.windows} windows; 95% intervals"
    nats = Words("Cost, head by head", text, unit="nats a token, ×10⁻³", dark=dark)
    return stairs(found.gap, gap, found.spoilers), stairs(found.nats, nats, ())


def marks(selection: Selection, picked: Collection[int] = frozenset()) -> Marks:
    """What a choice, and what a hand, made of each head."""
    by_hand = {*selection.forced, *selection.locked}
    return Marks(set(selection.pruned), by_hand, set(selection.critical), picked)
