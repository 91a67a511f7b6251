"""Does the choice of heads depend on the measure of bias? Agreement of several measures, and their effects.

All from rows alone: what every head does by each measure (to choose by), and what each chosen set does by each measure
on items that no choice was made on (other prompts, other sentences).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import expit

from fasp_core.gap import PromptRows
from fasp_core.gap.claims import SIGNIFICANCE
from fasp_core.gap.estimates import UNDEFINED, Estimate, correlation_interval, interval, pearson
from fasp_core.gap.further import corrected_gaps
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import Nll, PerplexityChange, perplexity_change
from fasp_core.studies.common import RESAMPLES
from fasp_core.studies.estimators.refined import chosen
from fasp_core.studies.robustness import statistics
from fasp_core.studies.robustness.stereotype_scores import Likelihoods, Stereotypes, stereotypes
from fasp_core.typing import Floats

GAP, SENTIMENT, CROWS_NAME, STEREO_NAME = "gap", "sentiment", "crows", "stereoset"
RIVALS = (SENTIMENT, CROWS_NAME, STEREO_NAME)


@dataclass(frozen=True)
class Measure:
    """One way to say how biased a model is.

    Attributes
    ----------
    source, reading : rows that it reads, see `Items`.
    kind : one of `fasp_core.studies.robustness.statistics.KINDS`, or "corrected".
    """

    name: str
    title: str
    source: str
    reading: int
    kind: str


MEASURES = (
    Measure(GAP, "toxicity gap", "toxicity", 0, "gap"),
    Measure("first-order", "toxicity gap, first-order", "first-order", 0, "gap"),
    Measure("counted", "gap, identity terms scored", "toxicity", 1, "gap"),
    Measure("corrected", "gap, corrected for noise", "toxicity", 0, "corrected"),
    Measure("max-min", "highest − lowest group", "toxicity", 0, "max-min"),
    Measure("ratio", "1 − lowest / highest group", "toxicity", 0, "ratio"),
    Measure("relative", "gap / mean toxicity", "toxicity", 0, "relative"),
    Measure("standardised", "gap / spread of prompts", "toxicity", 0, "standardised"),
    Measure(SENTIMENT, "sentiment gap (VADER)", "sentiment", 0, "gap"),
    Measure(CROWS_NAME, "CrowS-Pairs preference", "crows", 0, "preference"),
    Measure(STEREO_NAME, "StereoSet preference", "stereoset", 0, "preference"),
)


@dataclass(frozen=True, eq=False)
class Items:
    """Items of one source under the whole model, and under M others: heads pruned one by one, or sets.

    Attributes
    ----------
    rows : [1 + M, R, n] values of each item, all of one group for preferences.
    what : the items in words, such as "720 validation prompts".
    estimator : how the other models' values were found.
    """

    rows: PromptRows
    what: str
    estimator: str = "measured"

    @classmethod
    def of_pairs(cls, values: ArrayLike, what: str, estimator: str = "measured") -> Items:
        """Of sentence pairs, which are in no groups: preferences [1 + M, R, n]."""
        array = np.asarray(values, dtype=np.float64)
        return cls(PromptRows(array, np.zeros(array.shape[-1], dtype=np.int64), ("",)), what, estimator)

    def by(self, measure: Measure) -> PromptRows:
        """[1 + M, n] what a measure reads."""
        return self.rows[:, measure.reading]


@dataclass(frozen=True)
class Scored:
    """A measure and what it says of the whole model, on the items that heads are chosen by.

    Attributes
    ----------
    p : that there is no bias: shuffled groups for gaps (see `fasp_core.gap`), one-sample t for preferences.
    reliability : Spearman correlation of the prunable heads' z with those on as many other items, foreseen from halves.
    """

    measure: Measure
    estimator: str
    items: str
    bias: Estimate
    p: float
    reliability: float
    z: tuple[float, ...]
    heads: tuple[int, ...]

    @property
    def text(self) -> str:
        """The bias of the whole model in the unit of its measure."""
        e, kind = self.bias, self.measure.kind
        if np.isnan(e.low):
            return f"{1e3 * e.value:.2f} ×10⁻³"
        if kind == "preference":
            return f"{e.text(1, 100)} pp from 50%"
        return e.text(2) if kind in ("ratio", "relative", "standardised") else f"{e.text(2, 1e3)} ×10⁻³"


@dataclass(frozen=True)
class Agreement:
    """Two measures: do they rank and choose the same heads?

    Attributes
    ----------
    shared, chance : heads in both sets, and how many two random sets would share.
    p : that so many or more are shared by chance (hypergeometric).
    spearman : of the prunable heads' z, interval over heads.
    """

    one: str
    other: str
    k: int
    eligible: int
    shared: int
    chance: float
    p: float
    spearman: Estimate


@dataclass(frozen=True)
class Effect:
    """What a set chosen by one measure does by another one, on items that no choice was made on.

    `change` is after minus before; `relative` is that over the value before (nan where that may be 0).
    """

    chosen_by: str
    measured_by: str
    kind: str
    before: Estimate
    after: float
    change: Estimate
    relative: Estimate
    items: str

    @property
    def shown(self) -> tuple[Estimate, str]:
        """What is shown, and its unit: percent of what was there; of a preference, percentage points of its distance
        from 50%; the plain change, ×10⁻³, of what may be 0."""
        if self.kind == "preference":
            return self.change.times(100), " pp"
        if np.isnan(self.relative.value):
            return self.change.times(1e3), " ×10⁻³"
        return self.relative.times(100), "%"

    @property
    def text(self) -> str:
        """`−25% [−38, −12]`."""
        e, unit = self.shown
        digits = 0 if unit == "%" else 1
        value, low, high = (f"{x:+.{digits}f}".replace("-", "−") for x in (e.value, e.low, e.high))
        return f"{value}{unit} [{low}, {high}]"


@dataclass(frozen=True)
class SetOfHeads:
    """A set that was measured, and what it costs."""

    name: str
    heads: str
    size: int
    perplexity: PerplexityChange


@dataclass(frozen=True, kw_only=True)
class About:
    """What a study was made of; `bias_types` names what of each collection of sentence pairs was used."""

    axis: str
    model: str
    n_heads: int
    gamma: float
    alpha: float
    bias_types: dict[str, str]
    notes: Sequence[str]
    provenance: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Robustness(About):
    """All of it for one axis."""

    k: int
    eligible: int
    scored: dict[str, Scored]
    agreements: tuple[Agreement, ...]
    sets: tuple[SetOfHeads, ...]
    effects: tuple[Effect, ...]
    stereotypes: tuple[Stereotypes, ...]

    def agreement(self, one: str, other: str) -> Agreement:
        """Of two measures, in either order."""
        return next(a for a in self.agreements if {a.one, a.other} == {one, other})

    def effect(self, chosen_by: str, measured_by: str) -> Effect:
        return next(e for e in self.effects if (e.chosen_by, e.measured_by) == (chosen_by, measured_by))

    @property
    def outcome(self) -> str:
        """What was found, in a few sentences."""
        rivals = [name for name in RIVALS if name in self.scored]
        if not rivals:
            return "No other measure of bias was made for this axis."
        found = [self.agreement(GAP, name) for name in rivals]
        alike = [a for a in found if a.p <= SIGNIFICANCE]
        verdict = (
            "the choice depends on the measure"
            if not alike
            else "other measures choose the same heads in part"
            if len(alike) < len(found)
            else "other measures choose the same heads more often than chance"
        )
        parts = [
            f"{self.scored[name].measure.title} {a.shared} (rank correlation {a.spearman.text()})"
            for name, a in zip(rivals, found, strict=True)
        ]
        text = (
            f"**{verdict[0].upper()}{verdict[1:]}.** Of the {self.k} heads that FASP prunes by the toxicity gap, so "
            f"many are also pruned by: {'; '.join(parts)}. Chance alone: {found[0].chance:.1f} of {self.k}."
        )
        moved = [e for e in self.effects if e.chosen_by == GAP and e.measured_by in rivals]
        if moved:
            said = "; ".join(f"{self.scored[e.measured_by].measure.title} {e.text} ({e.items})" for e in moved)
            shown = sum(e.change.shown for e in moved)
            text += f" Removing them changes, on held-out items: {said} ({shown} of {len(moved)} clear of 0)."
        return text


def z_of(measure: Measure, items: Items) -> Floats:
    """[M] bias of the whole model minus that of each other one: positive where a removal lowers it."""
    rows = items.by(measure)
    if measure.kind == "corrected":
        found = corrected_gaps(rows.values, rows.codes, rows.blocks)
    else:
        found = statistics.observed(measure.kind, rows.values, rows.codes)
    return np.asarray(found[0] - found[1:])


def no_bias(measure: Measure, items: Items) -> float:
    """p that there is no bias; the same for all normalisations of a gap."""
    rows = items.by(measure)
    if measure.kind == "preference":
        return float(stats.ttest_1samp(expit(rows.values[0]), 0.5).pvalue)
    return rows.stats().noise_p


def score(measure: Measure, items: Items, free: Sequence[int], alpha: float, p: float) -> Scored:
    """The z of every head by one measure, and FASP's set by it."""
    rows, z = items.by(measure), z_of(measure, items)
    reliability = float("nan")
    if measure.kind == "corrected":
        seen = float(corrected_gaps(rows.values[:1], rows.codes, rows.blocks)[0])
        value = Estimate(seen, float("nan"), float("nan"))
    else:
        seen = float(statistics.observed(measure.kind, rows.values[:1], rows.codes)[0])
        value = interval(seen, statistics.resampled(measure.kind, rows[:1], RESAMPLES)[0], 0.0)
        reliability = statistics.split_half(measure.kind, rows[[0, *(1 + head for head in free)]])
    return Scored(
        measure,
        items.estimator,
        items.what,
        value,
        p,
        reliability,
        tuple(z.tolist()),
        tuple(chosen(z, free, alpha)),
    )


def rank_correlations(z: Floats, resamples: int = RESAMPLES, seed: int = 0) -> dict[tuple[int, int], Estimate]:
    """Spearman correlations of all pairs of K scores of the same m heads, with intervals over heads: z [K, m]."""
    n_scores, m = z.shape
    again = np.random.default_rng(seed).integers(m, size=(resamples, m))
    ranks = [stats.rankdata(own[again], axis=1) for own in z]  # [B, m] each
    whole = stats.rankdata(z, axis=1)
    return {
        (a, b): correlation_interval(float(pearson(whole[a], whole[b])), pearson(ranks[a].T, ranks[b].T))
        for a, b in combinations(range(n_scores), 2)
    }


def agree(one: Scored, other: Scored, free: Sequence[int], spearman: Estimate) -> Agreement:
    """Shared heads against chance, beside the rank correlation over the heads that may be pruned."""
    k, eligible = len(one.heads), len(free)
    shared = len(set(one.heads) & set(other.heads))
    drawn = stats.hypergeom(eligible, k, len(other.heads))
    return Agreement(
        one.measure.name,
        other.measure.name,
        k,
        eligible,
        shared,
        float(drawn.mean()),
        float(drawn.sf(shared - 1)),
        spearman,
    )


def effects_of(measure: Measure, items: Items) -> list[Effect]:
    """What each set does by one measure, paired over the same resamples of the items."""
    rows = items.by(measure)
    seen = statistics.observed(measure.kind, rows.values, rows.codes)
    drawn = statistics.resampled(measure.kind, rows, RESAMPLES)
    before = interval(float(seen[0]), drawn[0], 0.0)
    found = []
    for after, again in zip(seen[1:], drawn[1:], strict=True):
        relative = UNDEFINED
        if before.low > 0 and drawn[0].min() > 0:
            relative = interval(float(after / seen[0] - 1), again / drawn[0] - 1, -1.0)
        change = interval(float(after - seen[0]), again - drawn[0])
        found.append(Effect("", measure.name, measure.kind, before, float(after), change, relative, items.what))
    return found


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredByAll(About):
    """What heads are chosen by, and the chosen sets by every measure: the rows of one model on one axis.

    Attributes
    ----------
    free : flat ids of the heads that may be pruned.
    choosing, measured : by source, rows of single heads and of the S sets.
    sets : name and flat ids of each measured set; several names, joined by " = ", may be one set.
    nll : of the whole model, then of each set.
    """

    free: Sequence[int]
    choosing: dict[str, Items]
    sets: Sequence[tuple[str, Sequence[int]]]
    measured: dict[str, Items]
    nll: Sequence[Nll]
    likelihoods: Likelihoods


def analyse(found: MeasuredByAll) -> Robustness:
    """The result from rows."""
    free, choosing, measured = found.free, found.choosing, found.measured
    measures = [m for m in MEASURES if m.source in choosing]
    kinds = {(m.source, m.reading): m for m in measures}
    none = {key: no_bias(m, choosing[m.source]) for key, m in kinds.items()}
    scored = {m.name: score(m, choosing[m.source], free, found.alpha, none[m.source, m.reading]) for m in measures}
    ranks = rank_correlations(np.array([scored[m.name].z for m in measures])[:, list(free)])
    judged = [effects_of(m, measured[m.source]) for m in measures if m.source in measured and m.kind != "corrected"]
    effects, costs = [], []
    for at, (name, heads) in enumerate(found.sets):
        cost = perplexity_change(found.nll[0], found.nll[at + 1])
        costs.append(SetOfHeads(name, PruneSet.from_flat(heads, found.n_heads).format(), len(heads), cost))
        effects += [replace(by_set[at], chosen_by=by) for by in name.split(" = ") for by_set in judged]
    names = ["whole model", *(name for name, _ in found.sets)]
    return Robustness(
        **{field.name: getattr(found, field.name) for field in fields(About)},
        k=len(scored[GAP].heads),
        eligible=len(free),
        scored=scored,
        agreements=tuple(
            agree(scored[measures[a].name], scored[measures[b].name], free, r) for (a, b), r in ranks.items()
        ),
        sets=tuple(costs),
        effects=tuple(effects),
        stereotypes=tuple(stereotypes(name, at, found.likelihoods) for at, name in enumerate(names)),
    )
