"""Numbers with their intervals, and correlations over heads or sets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from fasp_core.gap.claims import SIGNIFICANCE
from fasp_core.typing import Floats

LEVEL = 1 - SIGNIFICANCE
_NEAR_ONE = 1 - 1e-12  # Fisher's z of 1 is infinite


@dataclass(frozen=True)
class Estimate:
    """A number and its interval at level .95; nan where it is not defined."""

    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out; not where it is undefined."""
        return self.low > 0 or self.high < 0

    def times(self, scale: float) -> Estimate:
        """In another unit; `scale` is above 0."""
        return Estimate(scale * self.value, scale * self.low, scale * self.high)

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """`0.91 [0.88, 0.93]`, multiplied by `scale`."""
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


UNDEFINED = Estimate(float("nan"), float("nan"), float("nan"))


def interval(value: float, resampled: Floats, low: float = -np.inf, high: float = np.inf) -> Estimate:
    """Symmetric bootstrap interval, cut to [low, high]: noise that resampling adds a second time does not shift it."""
    kept = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not kept.size:
        return Estimate(float(value), float("nan"), float("nan"))
    half = float(np.quantile(np.abs(kept - value), LEVEL))
    return Estimate(float(value), max(low, value - half), min(high, value + half))


def correlation_interval(value: float, resampled: Floats) -> Estimate:
    """The same on Fisher's scale, where a correlation's spread does not depend on its size."""
    scaled = interval(float(fisher(value)), fisher(resampled))
    return Estimate(float(value), float(np.tanh(scaled.low)), float(np.tanh(scaled.high)))


def fisher(r: Floats | float) -> Floats:
    """Correlations on Fisher's scale; those of -1 and 1 stay finite."""
    return np.asarray(np.arctanh(np.clip(np.asarray(r, dtype=np.float64), -_NEAR_ONE, _NEAR_ONE)))


def pearson(x: Floats, y: Floats, axis: int = 0) -> Floats:
    """Correlation along an axis, by default the first one, [N, ...] -> [...]; nan where either side is constant."""
    from scipy import stats  # a second to import: help and choices do without

    if x.shape[axis] < 2:
        return np.full(np.delete(x.shape, axis).tolist(), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return np.asarray(stats.pearsonr(x, y, axis=axis).statistic)


def spearman(x: Floats, y: Floats, axis: int = 0) -> Floats:
    """Rank correlation along an axis, ties sharing their mean rank."""
    from scipy import stats  # a second to import: help and choices do without

    return pearson(stats.rankdata(x, axis=axis), stats.rankdata(y, axis=axis), axis)


def lengthened(r: float, times: float = 2) -> float:
    """Spearman-Brown: the reliability of a measurement `times` as long; one below 0 is passed on."""
    return times * r / (1 + (times - 1) * r) if r > 0 else r


def slope(x: Floats, y: Floats) -> Floats:
    """Slope of the least-squares line of y on x, along the first axis; nan where x is constant."""
    dx = x - x.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(np.ptp(x, axis=0) == 0, np.nan, (dx * (y - y.mean(0))).sum(0) / (dx**2).sum(0)))
