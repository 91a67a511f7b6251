"""Whether the effects of single heads add up: predicted against measured changes of whole sets, from rows alone.

The *interaction* of two heads is what removing both changes beyond the sum of what removing each alone changes. All
changes are after minus before: positive means that perplexity, or the gap, rises. Every interval is paired: unpruned
model, single heads and sets are compared on the same resamples of the same prompts or tokens, in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasp_core.gap import PromptRows
from fasp_core.gap.estimates import UNDEFINED, Estimate, correlation_interval, interval, pearson, slope
from fasp_core.heads.prune_set import PruneSet
from fasp_core.studies.common import RESAMPLES, effects
from fasp_core.typing import Floats

RATE = 0.05  # of false discoveries among the interactions that are called real
NATS = "perplexity"
SUMMED, PROMPTWISE, MULTIPLIED = "summed", "prompt by prompt", "multiplied"
PREDICTIONS = (SUMMED, PROMPTWISE, MULTIPLIED)
PAIR_KINDS = ("random pair", "strong pair")


@dataclass(frozen=True, eq=False)
class MeasuredSets:
    """Rows of one model on one axis: as it is, with single heads pruned, and with sets of them removed.

    Attributes
    ----------
    kinds, sets : [S] how each set was chosen ("FASP", "random 1", ..., or one of `PAIR_KINDS`), and its flat ids.
    base, single, toxicity : [R, n], [H, R, n], [S, R, n] toxicity of each prompt in each reading; groups and blocks
        stand with `base`.
    heads : [H] flat ids of the heads in `single`.
    counts : [T] targets in each block of text; base_nats, single_nats, nats : [T], [H, T], [S, T] their summed nats.
    """

    axis: str
    model: str
    n_heads: int
    readings: tuple[str, ...]
    kinds: tuple[str, ...]
    sets: tuple[tuple[int, ...], ...]
    heads: tuple[int, ...]
    base: PromptRows
    single: Floats
    toxicity: Floats
    counts: Floats
    base_nats: Floats
    single_nats: Floats
    nats: Floats
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetPoint:
    """A set's measured change and what single heads predict, by name of the prediction."""

    kind: str
    size: int
    heads: str
    measured: Estimate
    predicted: dict[str, Estimate]


@dataclass(frozen=True)
class Interaction:
    """Two heads: the change that each makes alone, both together, and what is left over.

    Attributes
    ----------
    p : of no interaction, two-sided, from Student's t of the interaction over its standard error.
    q : the same, corrected for the number of pairs: false discovery rate (Benjamini and Yekutieli, valid however the
        pairs hang together).
    """

    kind: str
    first: str
    second: str
    alone: tuple[float, float]
    predicted: Estimate
    measured: Estimate
    interaction: Estimate
    p: float
    q: float


@dataclass(frozen=True)
class HeadInteractions:
    """A head in all pairs that it was measured in."""

    head: str
    pairs: int
    beyond_noise: int
    mean_size: float
    largest: float
    partner: str


@dataclass(frozen=True)
class Fit:
    """Predicted against measured changes over some sets.

    Attributes
    ----------
    over : "sets" or "pairs". n : how many of them.
    slope : of measured on predicted; 1 where effects add up, below 1 where sets do less than predicted.
    error : mean of measured - predicted. size_of_error : mean of its absolute value.
    """

    over: str
    prediction: str
    n: int
    slope: Estimate
    pearson: Estimate
    error: Estimate
    size_of_error: Estimate


@dataclass(frozen=True)
class Quantity:
    """Perplexity (in nats a token), or the gap in one reading.

    Attributes
    ----------
    base : of the unpruned model: mean NLL, or gap.
    scale, unit : by which values are multiplied to be shown, and what they are then.
    units : how many blocks were resampled.
    """

    name: str
    title: str
    base: float
    scale: float
    unit: str
    units: int
    sets: tuple[SetPoint, ...]
    pairs: tuple[Interaction, ...]
    heads: tuple[HeadInteractions, ...]
    fits: tuple[Fit, ...]

    @property
    def beyond_noise(self) -> int:
        """Pairs whose interaction is not noise at the false discovery rate `RATE`."""
        return sum(pair.q <= RATE for pair in self.pairs)

    def fit(self, over: str, prediction: str = SUMMED) -> Fit:
        return next(f for f in self.fits if (f.over, f.prediction) == (over, prediction))

    @property
    def outcome(self) -> str:
        """What was found, in one or two sentences."""
        sets, pairs = self.fit("sets"), self.fit("pairs")
        sizes = [point.size for point in self.sets]
        if sets.slope.low > 1:
            what = "whole sets do more than their heads predict"
        elif sets.slope.high < 1:
            what = "whole sets do less than their heads predict"
        elif np.isfinite(sets.slope.low):
            what = "no departure from adding up was shown for whole sets"
        else:
            what = "sets and predictions do not vary enough to tell"
        return (
            f"**{self.title}: {what}.** Over {sets.n} sets of {min(sizes)} to {max(sizes)} heads the measured change "
            f"is {sets.slope.text()} times the predicted one (slope, 95% interval over {self.units} blocks), "
            f"correlation {sets.pearson.text()}. Of {pairs.n} pairs {self.beyond_noise} interact beyond noise (false "
            f"discovery rate {RATE:.0%}); over the pairs the slope is {pairs.slope.text()}."
        )


@dataclass(frozen=True)
class Additivity:
    """All of it for one axis; `quantities` are perplexity and the gap in each reading."""

    axis: str
    model: str
    prompts: int
    groups: int
    tokens: int
    quantities: dict[str, Quantity]
    notes: tuple[str, ...]
    provenance: dict[str, Any]


def analyse(found: MeasuredSets) -> Additivity:
    """Predictions, interactions and how far they agree, from rows alone."""
    quantities = {NATS: _quantity(found, NATS, f"Perplexity, {_sum(found.counts):,} tokens", 1.0, "nats a token")}
    for reading in found.readings:
        title = f"Toxicity gap ({reading}), {found.base.n} prompts"
        quantities[reading] = _quantity(found, reading, title, 1e3, "×10⁻³")
    return Additivity(
        found.axis,
        found.model,
        found.base.n,
        len(found.base.groups),
        _sum(found.counts),
        quantities,
        found.notes,
        found.provenance,
    )


@dataclass(frozen=True, eq=False)
class _Changes:
    """Observed [K] and in each resample [K, B]."""

    seen: Floats
    drawn: Floats

    def __getitem__(self, at: Any) -> _Changes:
        return _Changes(self.seen[at], self.drawn[at])

    def estimates(self) -> list[Estimate]:
        return [interval(float(s), d) for s, d in zip(self.seen, self.drawn, strict=True)]


def _quantity(found: MeasuredSets, name: str, title: str, scale: float, unit: str) -> Quantity:
    place = {head: i for i, head in enumerate(found.heads)}
    members = np.zeros((len(found.sets), len(found.heads)))
    for row, heads in enumerate(found.sets):
        members[row, [place[h] for h in heads]] = 1.0
    if name == NATS:
        single, measured = (_nats(found, rows) for rows in (found.single_nats, found.nats))
        base, units = float(found.base_nats.sum() / found.counts.sum()), len(found.counts)
    else:
        r = found.readings.index(name)
        single, measured = (_gaps(found, r, rows[:, r]) for rows in (found.single, found.toxicity))
        base, units = float(found.base[r].gaps()), found.base.units
    predicted = {SUMMED: _Changes(members @ single.seen, members @ single.drawn)}
    if name != NATS:
        for prediction in (PROMPTWISE, MULTIPLIED):
            predicted[prediction] = _gaps(found, r, _rows(found, r, members, prediction))
    is_pair = np.array([kind in PAIR_KINDS for kind in found.kinds])
    names = [PruneSet.from_flat(heads, found.n_heads).format() for heads in found.sets]
    at_sets = np.flatnonzero(~is_pair)
    forecast = [p[at_sets].estimates() for p in predicted.values()]
    points = zip(at_sets, measured[at_sets].estimates(), *forecast, strict=True)
    pairs = _pairs(found, measured, single, place, np.flatnonzero(is_pair), units)
    return Quantity(
        name,
        title,
        base,
        scale,
        unit,
        units,
        tuple(
            SetPoint(found.kinds[i], len(found.sets[i]), names[i], m, dict(zip(predicted, ps, strict=True)))
            for i, m, *ps in points
        ),
        pairs,
        _heads(pairs),
        tuple(
            _fit(over, prediction, p[at], measured[at])
            for over, at in (("sets", ~is_pair), ("pairs", is_pair))
            for prediction, p in predicted.items()
        ),
    )


def _nats(found: MeasuredSets, rows: Floats) -> _Changes:
    """Change of the mean NLL, in nats a token; blocks of text are resampled."""
    n = len(found.counts)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # [B, T]
    change = rows - found.base_nats
    return _Changes(change.sum(1) / found.counts.sum(), change @ weights.T / (weights @ found.counts))


def _gaps(found: MeasuredSets, r: int, rows: Floats) -> _Changes:
    """Change of the gap of `rows` [K, n]."""
    pairs = found.base[r].beside(rows)
    seen = pairs.gaps()
    return _Changes(seen[1:] - seen[0], -effects(pairs))


def _rows(found: MeasuredSets, r: int, members: Floats, prediction: str) -> Floats:
    """[S, n] toxicity of each prompt if its changes by single heads add up, or multiply."""
    base, single = found.base.values[r], found.single[:, r]
    if prediction == PROMPTWISE:
        rows = base + members @ (single - base)
    else:
        factors = np.maximum(single, 1e-12) / np.maximum(base, 1e-12)
        rows = base * np.exp(members @ np.log(factors))
    return np.asarray(rows.clip(0.0, 1.0))


def _pairs(
    found: MeasuredSets, measured: _Changes, single: _Changes, place: dict[int, int], at: np.ndarray, units: int
) -> tuple[Interaction, ...]:
    from scipy import stats  # a second to import: help and choices do without

    if not at.size:
        return ()
    a, b = (np.array([place[found.sets[i][side]] for i in at]) for side in (0, 1))
    forecast = _Changes(single.seen[a] + single.seen[b], single.drawn[a] + single.drawn[b])
    left = _Changes(measured.seen[at] - forecast.seen, measured.drawn[at] - forecast.drawn)
    se = left.drawn.std(1, ddof=1)
    t = np.divide(left.seen, se, out=np.zeros_like(se), where=se > 0)
    p = np.asarray(2 * stats.t.sf(np.abs(t), max(units - 1, 1)))
    q = stats.false_discovery_control(p, method="by")

    def name(head: int) -> str:
        return PruneSet.from_flat([found.heads[head]], found.n_heads).format()

    rows = zip(at, a, b, forecast.estimates(), measured[at].estimates(), left.estimates(), p, q, strict=True)
    pairs = [
        Interaction(
            found.kinds[i],
            name(x),
            name(y),
            (float(single.seen[x]), float(single.seen[y])),
            sum_,
            both,
            rest,
            float(p_value),
            float(q_value),
        )
        for i, x, y, sum_, both, rest, p_value, q_value in rows
    ]
    return tuple(sorted(pairs, key=lambda pair: -abs(pair.interaction.value)))


def _heads(pairs: Sequence[Interaction]) -> tuple[HeadInteractions, ...]:
    """Strongest first: by pairs beyond noise, then by the mean size of the interaction."""
    by: dict[str, list[Interaction]] = {}
    for pair in pairs:
        for head in (pair.first, pair.second):
            by.setdefault(head, []).append(pair)
    rows = []
    for head, own in by.items():
        top = own[0]  # pairs come strongest first
        rows.append(
            HeadInteractions(
                head,
                len(own),
                sum(pair.q <= RATE for pair in own),
                float(np.mean([abs(pair.interaction.value) for pair in own])),
                top.interaction.value,
                top.second if top.first == head else top.first,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.beyond_noise, -row.mean_size)))


def _fit(over: str, prediction: str, predicted: _Changes, measured: _Changes) -> Fit:
    n = len(predicted.seen)
    if n < 3:
        return Fit(over, prediction, n, *(UNDEFINED,) * 4)
    error, errors = measured.seen - predicted.seen, measured.drawn - predicted.drawn
    return Fit(
        over,
        prediction,
        n,
        interval(float(slope(predicted.seen, measured.seen)), slope(predicted.drawn, measured.drawn)),
        correlation_interval(float(pearson(predicted.seen, measured.seen)), pearson(predicted.drawn, measured.drawn)),
        interval(float(error.mean()), errors.mean(0)),
        interval(float(np.abs(error).mean()), np.abs(errors).mean(0), 0.0),
    )


def _sum(counts: Floats) -> int:
    return int(counts.sum())
