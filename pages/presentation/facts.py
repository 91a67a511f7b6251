"""What the steps tell of: the set of the moment, what is measured of it now, and what was measured before."""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1

from fasp_core.errors import InputError
from fasp_core.evaluation import Evaluation
from fasp_core.figures.theme import Theme
from fasp_core.forward.attention import Pattern
from fasp_core.gap.measures import UNSEEN, Measure
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import PerplexityChange
from fasp_core.model.spec import BUILT_IN, BUILT_IN_TITLE
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.studies.compare import settled
from fasp_core.studies.compare.compare import Comparison, choose
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.outcome import Claim
from fasp_core.studies.compare.settled import SEEN, Settled
from fasp_core.tasks.utility import Utility
from pages.backend.engine import engine
from pages.backend.requests import Gather
from pages.presentation.pictures import Ends, Point, Row
from pages.session.recipe import OFFLINE
from pages.shell.current import Current
from pages.shell.sidebar import Settings

NAMES = {
    "next word": "Next word",
    "within templates": "Next word, within one kind of sentence",
    "written": "What the model goes on to write",
    "sampled": "Whole sampled texts, scored",
}


@dataclass(frozen=True, eq=False)
class Stored:
    """Results that were stored for a model on an axis, in one reading; None: not measured."""

    comparison: Comparison | None
    claim: Claim | None
    settled: Settled | None


@dataclass(frozen=True, eq=False)
class Talk:
    """All that is told.

    Attributes
    ----------
    chosen, tested : the set of the moment as measured on the prompts of the sidebar, and on test prompts.
    stored : None while it is being read; nothing where another scorer than the offline one is chosen.
    able : what the set takes from tasks, if that was asked.
    head, look : the head of the first step, and where it looks.
    """

    settings: Settings
    table: ImpactTable
    now: Current
    theme: Theme
    chosen: Evaluation | None
    tested: Evaluation | None
    stored: Stored | None
    able: Utility | None
    head: int
    look: Pattern | None

    @property
    def model(self) -> str:
        """The model's name for people."""
        source = self.settings.spec.source
        return BUILT_IN_TITLE if source == BUILT_IN else source

    @property
    def offline(self) -> bool:
        """Whether toxicity is what the offline scorer says: all that is stored is of it."""
        return self.settings.scorer == OFFLINE

    @property
    def size(self) -> int:
        return self.table.n_layers * self.table.n_heads


def read(asked: Gather) -> Stored:
    """What is stored; the intervals of it take seconds to resample, once."""
    results = engine().results
    claim = None
    if (comparison := results.comparison(asked.spec, asked.axis, asked.reading)) is not None:
        limits = Limits(settled.Plan(asked.axis).max_ppl)
        picked = choose(comparison, asked.reading, limits.max_ppl)
        claim = None if picked is None else results.claim(asked.spec, asked.axis, asked.reading, picked)
        claim = None if claim is None else claim.under(limits)
        comparison.changes("test", asked.reading)  # kept with it
    try:
        found = results.settled(asked.spec, settled.Plan(asked.axis))
    except InputError:  # groups of a single descriptor cannot be divided
        found = None
    for one in (claim, found):
        if one is not None:
            _ = one.measures  # likewise
    return Stored(comparison, claim, found)


def cost(change: PerplexityChange) -> tuple[float, Ends]:
    """Relative change of perplexity, and its interval."""
    low, high = change.interval
    return change.relative, (expm1(low), expm1(high))


def priced(stored: Stored | None, gamma: float) -> tuple[list[Point], float]:
    """FASP's sets of a comparison on test prompts, by number of heads, at its gamma that is nearest to one."""
    found = None if stored is None else stored.comparison
    if found is None:
        return [], gamma
    nearest = min(found.plan.gammas, key=lambda g: abs(g - gamma))
    reading, points = found.plan.reading, {}
    for candidate in found.candidates:
        if candidate.method == "fasp" and candidate.gamma == nearest and candidate.heads:
            change = found.change(candidate, "test", reading)
            points[len(candidate.heads)] = Point(
                *cost(found.perplexity(candidate, "test")), change.relative, change.relative_interval,
                len(candidate.heads),
            )  # fmt: skip
    return [points[n] for n in sorted(points)], nearest


def point(result: Evaluation | None, reading: str) -> Point | None:
    """A measured set among them."""
    if result is None or not len(result.prune_set):
        return None
    gap = result.readings[reading].gap
    return Point(*cost(result.perplexity), gap.relative, gap.relative_interval, len(result.prune_set.heads))


def another(talk: Talk) -> str:
    """What stored measurements begin with where they are not of the set of the moment."""
    stored = talk.stored
    if stored is None or (stored.settled is None and stored.claim is None):
        return ""
    heads = stored.claim.candidate.heads if stored.claim is not None else ()
    heads = stored.settled.heads if stored.settled is not None else heads
    if PruneSet.from_flat(heads, talk.table.n_heads) == talk.now.heads:
        return ""
    return f"Another set, of {len(heads)} {'head' if len(heads) == 1 else 'heads'}: "


def rows(talk: Talk) -> list[Row]:
    """What speaks for a fall and against it, from what a choice has seen to what it never saw."""
    reading, other, found = talk.settings.reading, another(talk), []
    if talk.tested is not None and len(talk.tested.prune_set):
        shown = talk.tested.readings[reading]
        mark = Measure("next word", reading, "", "test", shown.base.n, 0, 0, shown.base.noise_p, shown.gap)
        found.append(_row(mark, "This set: next word", False))
    if talk.stored is None:
        return found
    if talk.stored.settled is not None:
        mine = [m for m in talk.stored.settled.measures if m.reading in (reading, "sampled")]
        for cell in (SEEN, UNSEEN):
            found += [_row(m, NAMES[m.name], cell == UNSEEN, other) for m in mine if m.split.endswith(cell)]
    elif talk.stored.claim is not None:
        mine = [m for m in talk.stored.claim.measures if m.reading in (reading, "sampled")]
        found += [_row(m, NAMES[m.name], False, other) for m in mine]
    return found


def after(other: str, words: str) -> str:
    """Words behind what `another` says, if it says anything."""
    return other + words[:1].lower() + words[1:] if other else words


def _row(m: Measure, label: str, strong: bool, other: str = "") -> Row:
    where = "New sentences about new people" if strong else "Sentences and people that the choice has seen"
    if SEEN not in m.split and not strong:
        where = "Test prompts, like those of the choice"
    note = f"{m.prompts:,} prompts" + (f", {m.continuations:,} texts a side" if m.continuations else "")
    change = m.change
    return Row(
        after(other, where),
        label,
        note,
        change.relative,
        change.relative_interval,
        m.finding in ("fell", "rose"),
        strong,
    )
