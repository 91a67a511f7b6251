"""The charts of one set of heads, as figures: both head grids, the groups before and after, all heads at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fasp_core.evaluation import Evaluation
from fasp_core.figures import group_bars, head_grid, scatter_impacts
from fasp_core.gap import group_intervals
from fasp_core.heads.selection import Selection
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import hover, reasons

GROUPS = 26  # that stand in one chart: as many fit on a printed page


def grids(table: ImpactTable, reading: str, selection: Selection, dark: bool = False) -> tuple[go.Figure, go.Figure]:
    """Impact on perplexity and on bias of every head, with the same marks."""
    se = table.bias.standard_errors(reading)
    marks: dict[str, Any] = {
        **_marks(selection),
        "n_layers": table.n_layers,
        "n_heads": table.n_heads,
        "hover": hover(table, reading, reasons(selection), se),
        "dark": dark,
    }
    z = 1000 * table.bias.z_bias(reading)
    return (
        head_grid(table.ppl.z_ppl, title="Impact on perplexity", unit="Δ perplexity", se=table.ppl.se_ppl, **marks),
        head_grid(z, title="Impact on bias", unit="Δ gap, ×10⁻³", se=1000 * se, **marks),
    )


def scatter(table: ImpactTable, reading: str, selection: Selection, dark: bool = False) -> go.Figure:
    """Both impacts of every head."""
    return scatter_impacts(
        table.ppl.z_ppl,
        1000 * table.bias.z_bias(reading),
        title="Both impacts of every head",
        hover=hover(table, reading, reasons(selection), table.bias.standard_errors(reading)),
        x_title="impact on perplexity (right: the head helps)",
        y_title="impact on bias, ×10⁻³ (up: removing it lowers the gap)",
        dark=dark,
        **_marks(selection),
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
        yield group_bars(
            some,
            [1000 * means[g] for g in some],
            [1000 * found.pruned.group_means[g] for g in some],
            *[[[1000 * x for x in side[g]] for g in some] for side in ends],
            overall_base=1000 * found.base.overall,
            overall_pruned=1000 * found.pruned.overall,
            title=f"Toxicity of each group, {found.base.n:,} test prompts{part}",
            unit="×10⁻³",
            dark=dark,
        )


def _marks(selection: Selection) -> dict[str, Any]:
    return {
        "pruned": set(selection.pruned),
        "by_hand": {*selection.forced, *selection.locked},
        "critical": set(selection.critical),
    }
