"""The estimate of a set, and how far it is usually off.

Effects of single heads are multiplied, and corrected by sets that were measured; a head that is scaled by hand counts
by how far it is closed. Of hundreds of gains that were learned together that is a first guess alone: what was measured
at some strengths takes its place, with straight lines between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import streamlit as st

from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.taught import Change, Taught, learn
from fasp_core.storage.store import Store
from fasp_core.studies.additivity import additivity
from fasp_core.studies.strengths import Strengths
from pages.backend.engine import engine
from pages.explore import tried
from pages.session.recipe import GAINS
from pages.shell import learned
from pages.shell.current import Current
from pages.shell.sidebar import Settings

_STORED = "sets that teach"  # in the session: the last ones that were read, and for what


@dataclass(frozen=True)
class Estimated:
    """Perplexity and gap of the set of the moment.

    `taught` is what single heads are corrected by; `strengths` what is known of learned gains, if they are the method;
    `alone` whether these stand as they were learned, with nothing set by hand.
    """

    perplexity: float
    gap: float
    taught: Taught
    strengths: Strengths | None = None
    alone: bool = False

    def off(self, reading: str) -> Change:
        """The usual errors of perplexity and gap, relative to the unpruned model's; NaN: not known."""
        return self.taught.off if self.strengths is None or not self.alone else self.strengths.off(reading)


def of(settings: Settings, table: ImpactTable, now: Current) -> Estimated:
    """The set that sidebar, scores and changes by hand come to; neurons are left out."""
    closed, known = now.heads.closed(table.n_heads), learned.measured(settings)
    if known is None:  # what sets of heads teach does not hold of hundreds of gates
        by = Taught() if settings.method == GAINS else taught(settings, table, now.heads)
        return Estimated(*table.estimate(closed, settings.reading, by), by)
    by, usual = taught(settings, table, now.heads), learned.prune_set(settings).closed(table.n_heads)
    beyond = {head: closed.get(head, 0.0) - usual.get(head, 0.0) for head in closed.keys() | usual.keys()}
    start = known.changes(settings.reading, settings.strength)
    found = table.estimate(beyond, settings.reading, by, start)
    return Estimated(*found, by, known, not any(beyond.values()))


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


def off(error: float, base: float = 1.0) -> str:
    """A usual error relative to the unpruned model's, or in the unit of `base`; empty where it is not known."""
    if math.isnan(error):
        return ""
    return f"±{error:.1%}" if base == 1 and error < 0.01 else f"±{error:.0%}" if base == 1 else f"±{error * base:.2f}"


def said(found: Estimated, reading: str, which: int, base: float = 1.0) -> str:
    """Behind an estimate of perplexity (0) or gap (1): how far it is usually off, and by what one knows."""
    error = off(found.off(reading)[which], base)
    if (known := found.strengths) is not None:
        size = f"{known.tokens:,} tokens" if which == 0 else f"{known.prompts:,} prompts"
        text = f"between strengths measured on {size}"
        return f"{text} ({error} if one is left out)" if found.alone else f"{text}, and single heads"
    if not error:
        return "how far off is not known: no measured sets"
    return f"usually off by {error}, from {found.taught.sets[which]} measured sets"
