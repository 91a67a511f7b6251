"""Are the heads that carry bias on one axis those that carry it on another? Correlations of z_bias over heads.

A correlation of two noisy scores is held down by their noise: it cannot be expected to exceed the root of the product
of their reliabilities. So each comes with that ceiling, and with what would be left without noise, r / ceiling.

Axes are measured in the same frames (a template with a noun), so their noise need not be independent. Prompts are
resampled frame by frame, a frame with the same weight on every axis, and `Pair.shared` is the part of r that noise in
common adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import stats

from fasp_core.data.holistic_bias import axis_names
from fasp_core.errors import InputError
from fasp_core.gap import GapStats
from fasp_core.gap.estimates import UNDEFINED, Estimate, correlation_interval, fisher, pearson, spearman
from fasp_core.gap.gaps import weighted_gaps
from fasp_core.lazy import pd
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable
from fasp_core.scoring.score import prunable
from fasp_core.studies.common import RESAMPLES
from fasp_core.typing import Floats

Kind = Literal["spearman", "pearson"]
KINDS: tuple[Kind, ...] = ("spearman", "pearson")
STATISTICS = {"spearman": spearman, "pearson": pearson}
FEWEST = 4  # heads; with fewer a correlation has no interval
LEAST_CEILING = 0.5  # below it, r / ceiling says more of the ceiling than of r

Frames = Mapping[str, Sequence[str] | None]


@dataclass(frozen=True, eq=False)
class AxisEffects:
    """What the heads do to the gap of one axis, as scored and in resamples of the prompts.

    Attributes
    ----------
    z : [N] z_bias.
    drawn : [N, B] z_bias in resample b, which weights the same frames alike on every axis.
    exact : [N] bool, whether the head was really removed; the others are first-order estimates.
    """

    axis: str
    impacts: BiasImpacts
    z: Floats
    drawn: Floats
    exact: np.ndarray


@dataclass(frozen=True)
class AxisScore:
    """How far the scores of one axis can be trusted.

    Attributes
    ----------
    exact, heads : number of heads really removed, of how many, by subset of heads.
    checked : prompts on which they were: all of them, or some of two-phase scores.
    gap, noise_p : of the whole model on the prompts of the scores.
    reliability : by subset of heads, then kind of correlation; split halves of the prompts, corrected to all of them.
    in_frames : whether its frames are known, and resampled together with those of other axes.
    """

    axis: str
    prompts: int
    groups: int
    exact: dict[str, int]
    heads: dict[str, int]
    checked: int
    gap: float
    noise_p: float
    reliability: dict[str, dict[str, float]]
    in_frames: bool


@dataclass(frozen=True)
class Pair:
    """Correlation of z_bias on two axes.

    Attributes
    ----------
    heads, n : "all" or "prunable", and how many they are.
    r : with its interval over heads and prompts: in every resample heads are drawn again, and so are the prompts.
    ceiling : root of the product of both reliabilities of the same kind over the same heads; 0 if one is negative.
    corrected : r / ceiling, the ceiling taken as known; it may exceed 1 by chance. nan below `LEAST_CEILING`.
    shared : what noise that both axes share adds to Pearson's r.
    """

    one: str
    other: str
    heads: str
    n: int
    kind: str
    r: Estimate
    ceiling: float
    corrected: Estimate
    shared: float


@dataclass(frozen=True)
class Correlations:
    """Experiment 2: all pairs of axes of one model, in one reading."""

    model: str
    reading: str
    gamma: float
    resamples: int
    axes: tuple[AxisScore, ...]
    pairs: tuple[Pair, ...]

    def pair(self, one: str, other: str, heads: str, kind: str) -> Pair:
        """One correlation; the order of the axes makes no difference."""
        wanted = {one, other}
        return next(p for p in self.pairs if {p.one, p.other} == wanted and (p.heads, p.kind) == (heads, kind))

    def frame(self) -> pd.DataFrame:
        """One row a pair, subset of heads and kind."""
        trusted = {a.axis: a for a in self.axes}
        return pd.DataFrame(
            {
                "axis 1": p.one,
                "axis 2": p.other,
                "heads": p.heads,
                "n": p.n,
                "correlation": p.kind,
                "r": p.r.value,
                "low": p.r.low,
                "high": p.r.high,
                "ceiling": p.ceiling,
                "r / ceiling": p.corrected.value,
                "r / ceiling, low": p.corrected.low,
                "r / ceiling, high": p.corrected.high,
                "from shared noise": p.shared,
                **{
                    f"{what} {i}": value
                    for i, axis in enumerate((p.one, p.other), start=1)
                    for what, value in (
                        ("reliability", trusted[axis].reliability[p.heads][p.kind]),
                        ("exact heads", trusted[axis].exact[p.heads]),
                    )
                },
                "reading": self.reading,
                "gamma": self.gamma,
            }
            for p in self.pairs
        )


def frames(impacts: BiasImpacts) -> tuple[str, ...] | None:
    """[n] template and noun of each prompt, to be known again on another axis; None where they cannot be told.

    Prompts are drawn in a fixed order, so those of the scores are the first ones of any larger sample.
    """
    if impacts.axis not in axis_names() or impacts.split not in ("valid", "test"):
        return None
    largest = int(np.bincount(impacts.codes).max())
    drawn = BiasConfig(impacts.axis, impacts.split, largest * len(impacts.groups)).prompts()
    if list(drawn.groups) != impacts.labels:  # another seed, or other data
        return None
    return tuple(f"{t}\n{noun}" for t, noun in zip(drawn.templates, drawn.nouns, strict=True))


def resample(
    tables: Mapping[str, ImpactTable],
    reading: str,
    known: Frames | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, AxisEffects]:
    """z_bias of every axis in the same resamples of the frames (Bayesian bootstrap).

    Parameters
    ----------
    tables : scores by axis, all of one model.
    known : frame of each prompt by axis, as from `frames`; an axis that is missing, or None, is resampled by itself.

    Raises
    ------
    InputError
        Fewer than two axes, scores of different models or no such reading.

    References
    ----------
    Rubin, The Bayesian bootstrap, Annals of Statistics 9, 1981.
    """
    if len(tables) < 2:
        raise InputError("A correlation between axes needs scores of two axes: score another axis.")
    if len({t.bias.ablated.shape[0] for t in tables.values()}) > 1:
        raise InputError("These scores are of models of different size: compare axes of one model.")
    units = {axis: _units(axis, t.bias, (known or {}).get(axis)) for axis, t in tables.items()}
    names, index = np.unique(np.concatenate(list(units.values())), return_inverse=True)
    weights = np.random.default_rng(seed).exponential(size=(resamples, len(names)))
    cuts = np.cumsum([len(u) for u in units.values()])[:-1]
    return {
        axis: _effects(axis, table.bias, reading, weights[:, at])
        for (axis, table), at in zip(tables.items(), np.split(index, cuts), strict=True)
    }


def _effects(axis: str, b: BiasImpacts, reading: str, weights: Floats) -> AxisEffects:
    z, r = b.z_bias(reading), b.readings.index(reading)
    rows, correction = b.resampled_from(reading)
    base = weighted_gaps(b.base[[r]], weights, b.codes)
    ablated = weighted_gaps(rows.values[1:], weights, b.codes, correction)
    return AxisEffects(axis, b, z, base - ablated, np.ones(len(z), dtype=bool) if b.exact is None else b.exact)


def _units(axis: str, impacts: BiasImpacts, known: Sequence[str] | None) -> np.ndarray:
    """[n] name of what each prompt is resampled with: whole blocks, by the frame of their first prompt."""
    n = impacts.codes.size
    blocks = np.arange(n) if impacts.blocks is None else impacts.blocks
    if known is None:
        return np.array([f"{axis}\n{block}" for block in blocks])
    _, first, place = np.unique(blocks, return_index=True, return_inverse=True)
    return np.array(known)[first][place.reshape(-1)]


def correlate(
    effects: Mapping[str, AxisEffects],
    tables: Mapping[str, ImpactTable],
    reading: str,
    gamma: float = 0.3,
    known: Frames | None = None,
    seed: int = 0,
) -> Correlations:
    """All correlations, from `resample`d effects.

    Raises
    ------
    InputError
        Fewer than four heads may be pruned.
    """
    first = next(iter(tables.values()))
    everything = np.arange(first.n_layers * first.n_heads)
    subsets = {"all": everything, "prunable": np.array(prunable(first, gamma), dtype=int)}
    if (free := len(subsets["prunable"])) < FEWEST:
        raise InputError(f"Only {free} heads may be pruned at gamma {gamma:g}, too few for a correlation: lower gamma.")
    trusted = {
        axis: _axis_score(e, reading, subsets, (known or {}).get(axis) is not None) for axis, e in effects.items()
    }
    z, drawn = ({axis: getattr(e, name) for axis, e in effects.items()} for name in ("z", "drawn"))
    pairs = []
    for name, ids in subsets.items():
        shared = {(a, b): shared_noise(effects[a], effects[b], ids) for a, b in combinations(effects, 2)}
        for kind in KINDS:
            for (one, other), r in over_heads(z, drawn, ids, kind, seed).items():
                whole = [max(trusted[axis].reliability[name][kind], 0.0) for axis in (one, other)]
                ceiling = float(np.sqrt(np.prod(whole)))
                corrected = UNDEFINED if ceiling < LEAST_CEILING else r.times(1 / ceiling)
                pairs.append(Pair(one, other, name, len(ids), kind, r, ceiling, corrected, shared[one, other]))
    resamples = next(iter(drawn.values())).shape[1]
    return Correlations(first.model, reading, gamma, resamples, tuple(trusted.values()), tuple(pairs))


def over_heads(
    z: Mapping[str, Floats], drawn: Mapping[str, Floats], ids: np.ndarray, kind: Kind, seed: int = 0
) -> dict[tuple[str, str], Estimate]:
    """Correlations of all pairs of scores over some heads, with intervals over heads and over what `drawn` resamples.

    Parameters
    ----------
    z : scores [N] by name.
    drawn : the same in B resamples, [N, B], the same resamples for all.
    ids : flat ids of the heads.
    """
    resamples = next(iter(drawn.values())).shape[1]
    again = np.random.default_rng(seed).integers(len(ids), size=(len(ids), resamples))
    ready = {name: standardized(np.take_along_axis(x[ids], again, 0), kind) for name, x in drawn.items()}
    return {
        (one, other): around(float(STATISTICS[kind](z[one][ids], z[other][ids])), (ready[one] * ready[other]).sum(0))
        for one, other in combinations(z, 2)
    }


def standardized(x: Floats, kind: str) -> Floats:
    """Columns of x [n, B], or of their ranks, so that the sum of products of two is their correlation."""
    values = stats.rankdata(x, axis=0) if kind == "spearman" else x
    centered = values - values.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = centered / np.sqrt((centered**2).sum(0))
    return np.asarray(np.where(np.ptp(x, axis=0) == 0, np.nan, unit))


def around(value: float, drawn: Floats) -> Estimate:
    """A correlation with its interval: the spread of the resamples about their own center.

    Resampling prompts adds their noise a second time, which moves the resamples towards 0; their spread stays. In
    simulations (100 and 189 heads, r 0 to .8, reliability .5 to .9) intervals covered 96 to 99%.
    """
    kept = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not kept.size:
        return Estimate(value, float("nan"), float("nan"))
    scaled = fisher(kept)
    moved = scaled - scaled.mean() + fisher(value)
    return correlation_interval(value, np.tanh(moved))


def shared_noise(a: AxisEffects, b: AxisEffects, ids: np.ndarray) -> float:
    """What noise in common adds to Pearson's r over some heads: the covariance over heads of both axes' errors."""
    errors = [e.drawn[ids] - e.drawn[ids].mean(1, keepdims=True) for e in (a, b)]
    errors = [x - x.mean(0) for x in errors]
    spread = float(a.z[ids].std() * b.z[ids].std())
    return float((errors[0] * errors[1]).mean() / spread) if spread else float("nan")


def strongest(a: AxisEffects, b: AxisEffects, ids: Iterable[int], count: int = 8) -> list[int]:
    """Flat ids of the heads furthest out on both axes together, each in standard deviations over these heads."""
    at = np.array(sorted(ids), dtype=int)
    far = sum((e.z[at] / (e.z[at].std() or 1.0)) ** 2 for e in (a, b))
    return [int(i) for i in at[np.argsort(-np.asarray(far), kind="stable")[:count]]]


def _axis_score(e: AxisEffects, reading: str, subsets: Mapping[str, np.ndarray], in_frames: bool) -> AxisScore:
    gap: GapStats = e.impacts.gap(reading)
    reliability: dict[str, dict[str, float]] = {
        name: {
            kind: e.impacts.reliability(reading, None if name == "all" else ids.tolist(), kind).whole for kind in KINDS
        }
        for name, ids in subsets.items()
    }
    return AxisScore(
        e.axis,
        gap.n,
        len(e.impacts.groups),
        {name: int(e.exact[ids].sum()) for name, ids in subsets.items()},
        {name: len(ids) for name, ids in subsets.items()},
        gap.n if e.impacts.checked is None else len(e.impacts.checked),
        gap.gap,
        gap.noise_p,
        reliability,
        in_frames,
    )
