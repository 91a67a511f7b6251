"""What a matrix of contexts says of two findings of Ma et al. (2025), and whether what was chosen beats what was drawn,
with effect, interval and number of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from fasp_core.studies.answers.measures import interval
from fasp_core.studies.contexts.cells import Cell
from fasp_core.studies.contexts.choosing import BESIDE, kind_of
from fasp_core.studies.contexts.generalisation import NARROW, Carried, Compared, grown, told
from fasp_core.studies.contexts.settings import TITLES


@dataclass(frozen=True)
class Finding:
    """A claim and what this model's answers say of it.

    Attributes
    ----------
    holds : True, False, or None where they cannot tell.
    verdict : that, as the beginning of a sentence. details : effects, intervals and numbers of tests; "" of none.
    """

    holds: bool | None
    verdict: str
    details: str = ""

    @property
    def sentence(self) -> str:
        """Verdict and details."""
        return f"{self.verdict}: {self.details}." if self.details else f"{self.verdict}."


def findings(carried: Carried) -> tuple[Finding, Finding, Finding]:
    """Two findings of Ma et al. (2025), that neurons beat heads and that effects shrink as generality grows; and that
    chosen sets beat as many parts at random."""
    return _neurons_beat_heads(carried), _effects_shrink(carried), _chosen_beats_chance(carried)


def _neurons_beat_heads(carried: Carried) -> Finding:
    heads, neurons = chosen(carried, "heads"), chosen(carried, "neurons")
    pairs = [(n, h) for n in neurons for h in heads if n.setting == h.setting]
    if not pairs:
        return Finding(None, "Whether neurons beat heads is open", "the run holds no sets of both")
    found = carried.difference(pairs)
    said = (
        f"removing neurons changed mean |SMD|{_at_first(carried, pairs)} by {told(found.first)} and removing heads by "
        f"{told(found.second)}, a difference of {told(found.difference)} {found.said}"
    )
    if (equal := carried.at_equal_inliers(pairs)) is not None:
        kept = (carried.inliers(side) for side in zip(*pairs, strict=True))
        said += "; {:.0%} and {:.0%} of answers stayed in their usual range, ".format(*kept)
        said += f"and where as many do (a line over the pairs) the difference is {told(equal)}"
    if found.difference.high < 0:
        return Finding(True, "Neurons beat heads here, as in the paper", said)
    if found.difference.low > 0:
        raised = found.second.value > 0
        what = "Heads raise differences by less than neurons" if raised else "Heads beat neurons"
        return Finding(False, f"{what} here, other than in the paper", said)
    most = at_most(max(-found.difference.low, found.difference.high))
    if not most:
        return Finding(None, "Whether neurons beat heads, as in the paper, these answers cannot tell", said)
    return Finding(None, f"That neurons beat heads, as in the paper, is not shown: they differ by {most}", said)


def _effects_shrink(carried: Carried) -> Finding:
    cells = [cell for kind in ("heads", "neurons", "weights") for cell in chosen(carried, kind)]
    near = {(c.method, c.setting.tested): c for c in cells if c.setting.kind == "same"}
    pairs = [
        (c, near[c.method, c.setting.tested])
        for c in cells
        if c.setting.kind in ("other", "others") and (c.method, c.setting.tested) in near
    ]
    if not pairs:
        return Finding(None, "Whether effects shrink with generality is open", "the run holds no other context")
    found = carried.difference(pairs)
    own, lost = found.second, found.difference
    said = (
        f"mean |SMD|{_at_first(carried, pairs)} changed by {told(own)} on the scenarios that sets were chosen on, and "
        f"by {told(found.first)} in other contexts, a difference of {told(lost)} {found.said}{_sizes(pairs)}"
    )
    if carried.matrix.config.exact is not None:
        said += f"; {_carries(carried, found)}"
    if own.high < 0 and lost.low > 0:
        return Finding(True, "Effects shrink as generality grows, as in the paper", said)
    if own.low > 0:
        none = "Nothing can shrink with generality here, as sets raise differences even where they were chosen"
        return Finding(None, none, said)
    if own.high >= 0:
        most = at_most(-own.low)
        small = f": where sets were chosen, they lower differences by {most}" if most else ""
        return Finding(None, f"No effect is shown that could shrink with generality{small}", said)
    if lost.high < 0:
        return Finding(False, "Effects grow with generality here, other than in the paper", said)
    return Finding(None, "Whether effects shrink with generality, as in the paper, is not shown", said)


def at_most(limit: float) -> str:
    """`at most 0.013 (95%)`, rounded up; "" if there is no such limit."""
    if not np.isfinite(limit):
        return ""
    return f"at most {np.ceil(1000 * limit) / 1000 if limit < NARROW / 2 else np.ceil(100 * limit) / 100:g} (95%)"


def _chosen_beats_chance(carried: Carried) -> Finding:
    """By method and by what was chosen on, each test beside one of as many parts at random."""
    beside = {(BESIDE[c.method], c.setting): c for c in carried.matrix.cells if c.method in BESIDE}
    pairs: dict[tuple[str, str], list[tuple[Cell, Cell]]] = {}
    for cell in carried.matrix.cells:
        if (cell.method, cell.setting) in beside:
            title = cell.method.replace("-", " by ").replace("wanda", "Wanda"), TITLES[cell.setting.kind]
            pairs.setdefault(title, []).append((cell, beside[cell.method, cell.setting]))
    if not pairs:
        return Finding(None, "Whether chosen sets beat chance is open", "the run holds no sets at random beside them")
    told_of = zip(pairs, carried.simultaneous(list(pairs.values())), strict=True)
    found = {title: e for title, e in told_of if np.isfinite(e.low)}
    each: dict[str, list[str]] = {}
    for (method, chosen_on), e in found.items():
        each.setdefault(method, []).append(f"on {chosen_on} {told(e)} ({len(pairs[method, chosen_on])} tests)")
    said = "change of mean |SMD| less that by as many parts at random, by what was chosen on: "
    said += "; ".join(f"{method}, {', '.join(mine)}" for method, mine in each.items())
    mine, others = zip(*chain(*pairs.values()), strict=True)
    said += f"; intervals hold for all at once and for other sets at random; {carried.inliers(mine):.0%} of answers "
    said += "stayed in their usual range, "
    said += f"{carried.inliers(others):.0%} with parts at random; perplexity "
    said += " against ".join(
        grown(float(np.mean([carried.matrix.perplexity(c).relative for c in side]))) for side in (mine, others)
    )
    shown: dict[tuple[str, str], list[str]] = {}
    for (method, chosen_on), e in found.items():
        if e.high < 0 or e.low > 0:
            shown.setdefault((method, "lower" if e.high < 0 else "raise"), []).append(chosen_on)
    if not shown:
        return Finding(None, "Whether chosen sets beat as many parts at random these answers cannot tell", said)
    sides = [f"{method}, chosen on {' or on '.join(on)}, {what}" for (method, what), on in shown.items()]
    verdict = f"{'; '.join(sides)} differences by more than chance on these scenarios"
    ways = {what for _, what in shown}
    return Finding(None if len(ways) > 1 else "lower" in ways, verdict[0].upper() + verdict[1:], said)


def _carries(carried: Carried, found: Compared) -> str:
    """Which part of a fall carries over: a ratio, told only where its denominator is away from 0."""
    far, own = found.first, found.second
    if not own.high < 0:
        return "which part carries over cannot be told, as no fall is shown that could"
    part = interval(far.value / own.value, found.means[0, 1:] / found.means[1, 1:], carried.names)
    return f"{part.value:.0%} [{part.low:.0%}, {part.high:.0%}] of it carries over (ratio, resampled by name)"


def _at_first(carried: Carried, pairs: Sequence[tuple[Cell, Cell]]) -> str:
    """What the whole model's is over the scenarios that are tested on."""
    tested = sorted({cell.setting.tested for cell, _ in pairs})
    return f" ({carried.whole(tested):.2f} in the whole model)"


def chosen(carried: Carried, kind: str) -> list[Cell]:
    """Tests of sets of one kind of parts that were chosen, not drawn."""
    return [c for c in carried.matrix.cells if kind_of(c.method) == kind and not c.method.endswith("random")]


def _sizes(pairs: Sequence[tuple[Cell, Cell]]) -> str:
    """Where sets for other contexts hold other numbers of parts than those for the scenario itself: how many."""
    differ = []
    for kind in dict.fromkeys(kind_of(far.method) for far, _ in pairs):
        far, near = np.mean([(f.size, n.size) for f, n in pairs if kind_of(f.method) == kind], axis=0)
        if far != near:
            differ.append(f"{far:,.1f} {kind} instead of {near:,.1f}")
    if not differ:
        return ""
    held = " and ".join(differ)
    return f"; sets for other contexts held {held} on average, and size alone may be why the changes differ"
