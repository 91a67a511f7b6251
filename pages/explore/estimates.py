"""The estimate of a set, corrected by sets that were measured, and how far it is usually off."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.taught import Change, Taught, learn
from fasp_core.storage.store import Store
from fasp_core.studies.additivity import additivity
from pages.backend.engine import engine
from pages.explore import tried
from pages.shell.sidebar import Settings

_STORED = "sets that teach"  # in the session: the last ones that were read, and for what


def taught(settings: Settings, table: ImpactTable, heads: PruneSet) -> Taught:
    """By the growing sets of the study of additivity, where that is stored, and by sets measured on this page.

    What `heads` itself was measured at does not count: its estimate must not know that.
    """
    known = {**_stored(settings, table), **tried.measured_changes(settings, table.n_heads)}
    known.pop(tuple(sorted(heads.flat(table.n_heads))), None)
    return learn([table.estimated_changes(ids, settings.reading) for ids in known], list(known.values()))


def _stored(settings: Settings, table: ImpactTable) -> dict[tuple[int, ...], Change]:
    kept: Any = st.session_state.get(_STORED)
    if kept is None or kept[0] is not table or kept[1] != settings.reading:
        found: dict[tuple[int, ...], Change] = {}
        if settings.scoring == BiasConfig(settings.axis):  # the study's own scorer
            plan, identity = additivity.Plan(settings.axis), engine().models.identity(settings.spec)
            entry = additivity.find(plan, table, identity, Store())
            found = {} if entry is None else additivity.measured_changes(entry, settings.reading)
        kept = table, settings.reading, found
        st.session_state[_STORED] = kept
    return dict(kept[2])


def off(found: Taught, which: int, base: float = 1.0) -> str:
    """The usual error of perplexity (0) or gap (1) relative to the unpruned model's, or in the unit of `base`."""
    error = found.off[which]
    if math.isnan(error):
        return ""
    return f"±{error:.0%}" if base == 1 else f"±{error * base:.2f}"


def said(found: Taught, which: int, base: float = 1.0) -> str:
    """Behind an estimate: how far it is usually off, and by what one knows."""
    if not (error := off(found, which, base)):
        return "how far off is not known: no measured sets"
    return f"usually off by {error}, from {found.sets[which]} measured sets"
