"""Intervals of unfinished measurements, which hold at every look at once: one may look, and stop, whenever one likes.

A 95% interval that is drawn again after every few blocks misses the truth at some look far more often than in 5% of
measurements. A *confidence sequence* does so at any look in 5% at most. Here it is the one of the t statistic: under
the true mean, the marginal likelihood of the t of n values whose standardised mean is drawn from N(0, 1), over that of
a mean of 0, is a nonnegative martingale in n that begins at 1, so with probability .95 it never reaches 1 / .05
(Ville). Its assumptions are those of Student's t, independent blocks with a normal spread; it is exact then from two
blocks on, whatever their variance.

How many blocks the first look takes is known beforehand, so there Student's t itself will do, which says more of few
blocks. It may err in 2.5%, all later looks together in as many, so in 5% at most one of them does.

References
----------
Lai, On confidence sequences, Annals of Statistics 4, 1976. Royall, On finite population sampling theory under certain
linear regression models, Biometrika 57, 1970. Wang and Ramdas, Anytime-valid t-tests and confidence
sequences for Gaussian means with unknown variance, Sequential Analysis 44, 2025.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fasp_core.gap.estimates import LEVEL
from fasp_core.typing import Codes, Floats

EACH = (1 + LEVEL) / 2  # of the first look, and of all later ones
FIRST = 6  # blocks of the first look, where there are twice as many: with fewer the interval is wide


@dataclass(frozen=True)
class Partial:
    """A quantity of the unpruned model on its whole sample, and what the blocks that are done say of the pruned one.

    Attributes
    ----------
    relative : change of the pruned model, relative to `base`; interval: of that, valid at every look, None where
        the blocks are too few for one or there is nothing to compare with.
    done, total : how much of the sample: prompts, or tokens.
    """

    base: float
    pruned: float
    relative: float
    interval: tuple[float, float] | None
    done: int
    total: int


def reach(n: int, level: float = EACH) -> float:
    """Half of the interval around the mean of n values, in standard errors of that mean; infinite while n is small.

    From the Bayes factor of t with nu = n - 1 and r = n + 1, ((1 + t^2 / nu) / (1 + t^2 / (nu r)))^(n / 2) / sqrt(r):
    the largest |t| at which it stays below 1 / (1 - level).
    """
    if n < 2:
        return math.inf
    r = n + 1.0
    q = (r / (1 - level) ** 2) ** (1 / n)
    return math.sqrt((n - 1) * (q - 1) / (1 - q / r)) if q < r else math.inf


def planned(n: int, level: float = EACH) -> float:
    """As `reach`, at the first look; infinite below four values."""
    from scipy.special import stdtrit  # a quarter of a second to import: help and choices do without

    return float(stdtrit(n - 1, (1 + level) / 2)) if n > 3 else math.inf


def looks(blocks: int) -> list[int]:
    """After how many blocks one looks before all are done: twice as many each time, up to a third of them.

    The first look may take half of them. None where so few say nothing: below ten blocks.
    """
    found: list[int] = []
    size = min(FIRST, blocks // 2)
    while math.isfinite(planned(size - 1)) and (not found or 3 * size <= blocks):
        found.append(size)
        size *= 2
    return found


def partial_gap(base: Floats, codes: Codes, at: Codes, done: Floats, first: bool = False) -> Partial:
    """What the blocks that are done say of the gap of a pruned model.

    A group's difference from the mean of all is estimated by regression on the unpruned model's, which is known on the
    whole sample: the pruned model's differences are taken as `share` times those, and corrected by what is left over in
    the blocks that are done. The gap is then linear in blocks, with the signs of these differences; its error is that
    of the mean of what is left over, and of what the unpruned model's own error makes of the relative change. What is
    left over is taken to spread as much as a block's part of the unpruned gap is large (Royall 1970): that is known of
    all blocks, and where it is smaller in the few that are done, the error is larger by that. With all blocks done it
    is the gap of the sample.

    Parameters
    ----------
    base : [n] toxicity of each prompt under the unpruned model; codes : [n] its group.
    at : [B, G] which prompts the blocks hold, all groups each, in the order of their codes.
    done : [U, G] toxicity under the pruned model in the first U of the blocks.
    first : whether this is the first look.
    """
    sizes = np.bincount(codes)
    weights = sizes / sizes.sum()
    means = np.bincount(codes, base) / sizes
    whole = weights @ means - means  # [G] of the unpruned model
    known, after = (rows @ weights[:, None] - rows for rows in (base[at], done))  # [B, G], [U, G] of each block
    before, units = known[: len(after)], len(after)
    square = float((before**2).sum())
    share = float((before * after).sum()) / square if square else 1.0
    rest = after - share * before
    signs = np.sign(share * whole + rest.mean(0))
    left = rest @ signs  # [U]
    gap = float(np.abs(whole).sum())
    pruned = float(share * (signs @ whole) + left.mean())
    if gap <= 0:
        return Partial(gap, pruned, math.nan, None, done.size, codes.size)
    relative, interval = pruned / gap - 1, None
    own = known @ (share * signs - (1 + relative) * np.sign(whole))  # [B]
    if units > 2 and math.isfinite(times := planned(units - 1) if first else reach(units)):
        sizes = (known @ np.sign(whole)) ** 2
        larger = math.sqrt(max(1.0, sizes.mean() / seen)) if (seen := sizes[:units].mean()) > 0 else 1.0
        spread = larger * left.std(ddof=2) / math.sqrt(units)
        half = times * math.hypot(spread, own.std(ddof=1) / math.sqrt(len(own))) / gap
        interval = max(-1.0, relative - half), relative + half
    return Partial(gap, pruned, relative, interval, done.size, codes.size)
