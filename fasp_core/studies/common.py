"""What the experiments share: estimates with intervals, correlations over heads or sets, and Markdown.

Intervals come from resampling prompts in whole blocks, the same resamples for everything that is compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fasp_core import gap
from fasp_core.console import log
from fasp_core.errors import InputError
from fasp_core.typing import Floats

LEVEL = 0.95
RESAMPLES = 1000
_NEAR_ONE = 1 - 1e-12  # Fisher's z of 1 is infinite


@dataclass(frozen=True)
class Estimate:
    """A number and its interval at level .95; nan where it is not defined."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """`0.91 [0.88, 0.93]`, multiplied by `scale`."""
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def effects(base: Floats, rows: Floats, codes: np.ndarray, blocks: np.ndarray | None) -> Floats:
    """[N, B]: gap(base [n]) - gap(rows [N, n]) in each resample; the same prompts always give the same resamples."""
    return np.asarray(gap.resampled_effects(base, rows, codes, RESAMPLES, blocks=blocks))


def mean_changes(base: Floats, rows: Floats, codes: np.ndarray, blocks: np.ndarray | None) -> Floats:
    """[N, B]: mean(rows [N, n]) - mean(base [n]) in each resample."""
    counts = gap.bootstrap_counts(codes, RESAMPLES, 0, blocks)
    return np.asarray((rows - base) @ counts.T / counts.sum(1))


def pearson(x: Floats, y: Floats) -> Floats:
    """Correlation along the first axis, [N, ...] -> [...]; nan where either side is constant."""
    dx, dy = x - x.mean(0), y - y.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (dx * dy).sum(0) / np.sqrt((dx**2).sum(0) * (dy**2).sum(0))
    constant = (np.ptp(x, axis=0) == 0) | (np.ptp(y, axis=0) == 0)  # rounding may leave a spread of its own
    return np.asarray(np.where(constant, np.nan, np.clip(r, -1.0, 1.0)))


def spearman(x: Floats, y: Floats) -> Floats:
    """Rank correlation along the first axis, ties sharing their mean rank."""
    return pearson(stats.rankdata(x, axis=0), stats.rankdata(y, axis=0))


def slope(x: Floats, y: Floats) -> Floats:
    """Slope of the least-squares line of y on x, along the first axis; nan where x is constant."""
    dx = x - x.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(np.ptp(x, axis=0) == 0, np.nan, (dx * (y - y.mean(0))).sum(0) / (dx**2).sum(0)))


def interval(value: float, resampled: Floats, low: float = -np.inf, high: float = np.inf) -> Estimate:
    """Symmetric bootstrap interval, cut to [low, high]: noise that resampling adds a second time does not shift it."""
    kept = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not kept.size:
        return Estimate(float(value), float("nan"), float("nan"))
    half = float(np.quantile(np.abs(kept - value), LEVEL))
    return Estimate(float(value), max(low, value - half), min(high, value + half))


def correlation_interval(value: float, resampled: Floats) -> Estimate:
    """The same on Fisher's scale, where a correlation's spread does not hang on its size."""
    scaled = interval(float(np.arctanh(_clipped(value))), np.arctanh(_clipped(resampled)))
    return Estimate(float(value), float(np.tanh(scaled.low)), float(np.tanh(scaled.high)))


def _clipped(r: Floats | float) -> Floats:
    return np.clip(np.asarray(r, dtype=np.float64), -_NEAR_ONE, _NEAR_ONE)


def rows_as_markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is left-aligned, numbers are right-aligned."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def exit_status(command: Callable[[], None]) -> int:
    """0, or 2 with one line on stderr for what the reader can mend."""
    try:
        command()
        sys.stdout.flush()
    except InputError as error:
        log(f"Error: {error}")
        return 2
    except KeyboardInterrupt:
        log("Stopped. What is finished is kept: the same command goes on from there.")
        return 130
    return 0
