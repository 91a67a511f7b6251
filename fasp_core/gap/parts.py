"""A change of the gap along a path of models, split among what moves along it.

Everything that differs between two models moves from t = 0 to t = 1 together. The part of one mover is the integral of
what the gap changes by because of it (Aumann and Shapley, Values of Non-Atomic Games, Princeton University Press 1974;
as a method of attribution: Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017). Parts sum
to the change.

Slopes of toxicities are smooth and known at the nodes of Gauss and Legendre, so a polynomial stands for them. The gap
has kinks, where a group's mean crosses that of all prompts: it is followed along the polynomial in small steps, each
with the slope between its ends, so that kinks cost no accuracy of the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import legendre

from fasp_core.gap.gaps import CELLS, weighted_differences
from fasp_core.gap.resampling import bootstrap_counts
from fasp_core.gap.rows import PromptRows
from fasp_core.typing import Codes, Floats

STEPS = 64  # along the path, for the kinks
RESAMPLES = 1000
LEVEL = 0.95


def nodes(n: int) -> tuple[Floats, Floats]:
    """The n nodes of Gauss and Legendre in [0, 1], ascending, and their weights, which sum to 1."""
    at, weights = legendre.leggauss(n)
    return (1 + at) / 2, weights / 2


@dataclass(frozen=True, eq=False)
class Parts:
    """A measured change from `base` to `end`, split among H movers.

    Attributes
    ----------
    values : [H] what each adds; below 0: it lowers the quantity.
    intervals : [H, 2] at level .95; nan where there is nothing to resample.
    standard_errors : [H].
    beyond_noise : [H] 1 or -1 where the sign of a part is shown, all of them together at level .95; else 0.
    """

    base: float
    end: float
    values: Floats
    intervals: Floats
    standard_errors: Floats
    beyond_noise: Codes

    @property
    def change(self) -> float:
        """As it was measured at both ends."""
        return self.end - self.base

    @property
    def error(self) -> float:
        """The sum of the parts minus the measured change: what the quadrature is wrong by."""
        return float(self.values.sum()) - self.change

    def times(self, scale: float) -> Parts:
        """In another unit; `scale` is above 0."""
        return Parts(
            scale * self.base,
            scale * self.end,
            scale * self.values,
            scale * self.intervals,
            scale * self.standard_errors,
            self.beyond_noise,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, the parts themselves aside."""
        return {
            "base": self.base,
            "pruned": self.end,
            "change": self.change,
            "sum_of_parts": float(self.values.sum()),
            "quadrature_error": self.error,
        }


def gap_parts(rows: PromptRows, slopes: Floats, seed: int = 0) -> Parts:
    """The change of the gap from the first to the last of values [2, n], split.

    Parameters
    ----------
    slopes : [K, H, n] derivative of each prompt's value along the path because of each mover, at `nodes(K)`.

    Raises as `bootstrap_counts`.
    """
    base, end = (float(g) for g in rows.gaps())
    whole = split_gaps(rows.values[0], slopes, rows.codes, np.ones((1, rows.n)))[0]
    counts = bootstrap_counts(rows.codes, RESAMPLES, seed, rows.blocks)
    off = np.abs(split_gaps(rows.values[0], slopes, rows.codes, counts) - whole)  # [B, H]
    errors = np.sqrt((off**2).mean(0))
    half = np.quantile(off, LEVEL, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a mover that never moves anything
        widest = np.quantile(np.nanmax(np.where(errors > 0, off / errors, 0.0), axis=1), LEVEL)
    shown = np.where(np.abs(whole) > widest * errors, np.sign(whole), 0).astype(np.int64)
    return Parts(base, end, whole, np.stack([whole - half, whole + half], -1), errors, shown)


def split_gaps(base: Floats, slopes: Floats, codes: Codes, weights: Floats) -> Floats:
    """[B, H] parts of the change of the gap under every weighting of the prompts.

    Parameters
    ----------
    base : [n] values where the path begins. slopes : [K, H, n], see `gap_parts`. weights : [B, n].

    The parts of a weighting sum to the change of the gap of the polynomial to the rounding of a sum.
    """
    k, h, n = slopes.shape
    reached = antiderivatives(k)  # [M + 1, K]
    out = np.empty((len(weights), h))
    size = max(1, CELLS // ((int(codes.max()) + 1) * k * (h + len(reached))))
    for start in range(0, len(weights), size):
        some = weights[start : start + size]
        apart = weighted_differences(slopes.reshape(k * h, n), some, codes)  # [G, K H, b]
        apart = apart.reshape(len(apart), k, h, -1)
        begun = weighted_differences(base[None], some, codes)[:, 0]  # [G, b]
        course = begun + np.einsum("mk,gkb->mgb", reached, apart.sum(2))
        sizes = np.abs(course)
        both = sizes[1:] + sizes[:-1]
        sign = np.divide(course[1:] + course[:-1], both, out=np.zeros_like(both), where=both > 0)  # of each step
        share = np.einsum("mgb,mk->gkb", sign, np.diff(reached, axis=0))
        out[start : start + size] = np.einsum("gkb,gkhb->bh", share, apart)
    return out


def antiderivatives(k: int, steps: int = STEPS) -> Floats:
    """[steps + 1, k] integral from 0 to t of the polynomial that is 1 at one of `nodes(k)` and 0 at the others."""
    at = 2 * nodes(k)[0] - 1
    single = np.linalg.inv(legendre.legvander(at, k - 1))  # [coefficients, k]
    places = np.linspace(-1, 1, steps + 1)
    return np.asarray(legendre.legval(places, legendre.legint(single, lbnd=-1, axis=0)).T / 2)
