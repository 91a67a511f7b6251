"""The scores of all axes of a model, what is computed from them, and how it is written.

What is computed is kept while the same scores are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import streamlit as st

from fasp_core.gap.estimates import Estimate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.keys import digest
from fasp_core.storage.store import Store
from fasp_core.studies.transfer import correlation, every_axis
from fasp_core.studies.transfer.correlation import AxisEffects, Correlations
from fasp_core.studies.transfer.every_axis import Cell, Transfer, TransferConfig
from fasp_core.studies.transfer.transfer import scored_axes
from pages.backend.engine import engine
from pages.shell.axis import axis_title
from pages.widgets.drawing import csv_table

KIND_TITLES = {"spearman": "ranks (Spearman)", "pearson": "scores (Pearson)"}
SUBSET_TITLES = {"all": "all heads", "prunable": "heads that may be pruned"}
NAMES = ("axis 1", "axis 2", "chosen on", "measured on")  # columns that hold axes
Scores = tuple[tuple[str, ImpactTable], ...]  # by axis; tables are told apart by identity


@dataclass(frozen=True)
class Settings:
    """Everything that the sidebar says."""

    spec: ModelSpec
    config: TransferConfig
    kind: correlation.Kind
    tables: Scores

    @property
    def names(self) -> tuple[str, ...]:
        """The axes, in the order of rows and columns."""
        return tuple(axis for axis, _ in self.tables)

    @property
    def first(self) -> ImpactTable:
        """Scores of one of them: shape and perplexities are the same for all."""
        return self.tables[0][1]


def scores(spec: ModelSpec) -> dict[str, ImpactTable]:
    """Stored scores by axis. Never loads a model."""
    known = engine().models.facts(spec)
    if known is None:
        return {}
    axes = scored_axes(known.id, Store())
    found = {axis: engine().results.scores(spec, BiasConfig(axis)) for axis in axes}
    return {axis: table for axis, table in found.items() if table is not None}


@lru_cache(maxsize=4)
def effects(tables: Scores, reading: str) -> tuple[dict[str, AxisEffects], correlation.Frames]:
    """Resampled effects of all heads, and the frames of all prompts."""
    known = {axis: correlation.frames(table.bias) for axis, table in tables}
    return correlation.resample(dict(tables), reading, known), known


@lru_cache(maxsize=16)
def correlations(tables: Scores, reading: str, gamma: float) -> Correlations:
    """All correlations between axes."""
    found, known = effects(tables, reading)
    return correlation.correlate(found, dict(tables), reading, gamma, known)


def name(spec: ModelSpec, sets: dict[str, PruneSet], config: TransferConfig) -> str:
    """What tells one experiment from another."""
    return digest(every_axis.key(sets, config, engine().models.identity(spec)))


def transfer(spec: ModelSpec, sets: dict[str, PruneSet], config: TransferConfig) -> Transfer | None:
    """The experiment if it is stored. Never loads a model."""
    kept: dict[str, Transfer] = st.session_state.setdefault("transfers", {})
    wanted = name(spec, sets, config)
    if wanted not in kept:
        measured = every_axis.find(sets, config, engine().models.identity(spec), Store())
        if measured is None:
            return None
        kept[wanted] = every_axis.judge(measured)
    return kept[wanted]


# --- how it is written ---


def table(frame: pd.DataFrame, file: str) -> None:
    """A sortable table and its download; axes as people read them on screen, and as they are named in the file."""
    shown = frame.assign(**{c: frame[c].map(axis_title) for c in NAMES if c in frame})
    columns: dict[str, Any] = {c: st.column_config.TextColumn(width=130) for c in NAMES if c in frame}
    for c in frame.select_dtypes("float").columns:
        columns[c] = st.column_config.NumberColumn(format=_format(c))
    csv_table(frame, file, shown, height=min(36 * (len(frame) + 1), 420), column_config=columns)


def _format(column: str) -> str:
    if column.startswith("relative") or column == "perplexity change":
        return "percent"
    return "%.5f" if column.startswith(("gap", "change", "noise gap")) else "%.4f" if " p" in column else "%.2f"


def plain(r: float) -> str:
    """A number near 1 in two digits, `.62`; `–` where there is none."""
    if r != r:
        return "–"
    return f"{r:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1).replace("-", "−")


def span(e: Estimate) -> str:
    """The interval."""
    return f"[{plain(e.low)}, {plain(e.high)}]"


def percent(x: float) -> str:
    """A relative change."""
    return "–" if x != x else f"{x:+.0%}".replace("-", "−")


def ends(c: Cell) -> str:
    """The interval of a relative change; blank where there is none."""
    found = c.change.relative_interval
    return "" if found is None else f"[{percent(found[0])}, {percent(found[1])}]"
