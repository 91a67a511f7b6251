"""Further statistics of one model's gap: what is left without noise, and analysis of variance."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.gap.comparison import GapStats, gap_stats
from fasp_core.gap.gaps import checked, group_codes, weighted_differences
from fasp_core.gap.resampling import block_index, random_halves
from fasp_core.typing import Codes, Floats

SPLITS = 50  # into halves, for the corrected gap


@dataclass(frozen=True)
class FurtherStats(GapStats):
    """`GapStats`, and what takes longer and few ask for.

    Attributes
    ----------
    corrected : as `corrected_gaps`; nan if a group has fewer than two prompts (blocks).
    f_statistic, f_p : one-way analysis of variance, with blocks that of a randomised complete block design; nan if
        no value varies but by its group (and block), or if some block does not hold one prompt of every group.
    """

    corrected: float
    f_statistic: float
    f_p: float


def further_stats(
    values: ArrayLike, groups: Sequence[str], *, resamples: int = 2000, seed: int = 0, blocks: ArrayLike | None = None
) -> FurtherStats:
    """`gap_stats` with the further statistics; the same arguments and errors."""
    plain = gap_stats(values, groups, resamples=resamples, seed=seed, blocks=blocks)
    array, codes = checked(values, group_codes(groups)[0], ndim=1)
    corrected = float("nan")
    with suppress(InputError):  # too few prompts to be split
        corrected = float(corrected_gaps(array[None], codes, blocks, seed)[0])
    f, p = _anova(array, codes, block_index(blocks, codes.size))
    return FurtherStats(**vars(plain), corrected=corrected, f_statistic=f, f_p=p)


def corrected_gaps(values: Floats, codes: Codes, blocks: ArrayLike | None = None, seed: int = 0) -> Floats:
    """Gap of every row of `values` [M, n] without what noise adds, all on the same splits: [M].

    The differences in one half of the prompts, with the signs that they have in the other half, are summed over groups;
    the mean over both directions of 50 random splits. Its mean is 0 where there is no gap, and never above the true gap
    (signs that noise turns over count against it), so it may be negative. Prompts that share sentences need their
    blocks here: halves that are split without them mirror each other, which pushes it below 0.

    Raises
    ------
    InputError
        A group has fewer than two prompts (blocks).
    """
    first = random_halves(codes, SPLITS, np.random.default_rng([seed, 2]), block_index(blocks, codes.size))
    one, two = (weighted_differences(values, half, codes) for half in (first, 1 - first))
    return np.asarray((np.sign(one) * two + np.sign(two) * one).sum(0).mean(1) / 2)


def _anova(values: Floats, codes: Codes, index: Codes | None) -> tuple[float, float]:
    """F of the group means and its p; with blocks in a randomised complete block design, without interaction."""
    from scipy import stats  # a second to import: help and choices do without

    n_groups = int(codes.max()) + 1
    if index is None:
        parts = [values[codes == g] for g in range(n_groups)]
        f, p = stats.f_oneway(*parts) if any(np.ptp(part) > 0 for part in parts) else (np.nan, np.nan)
        return float(f), float(p)
    n_blocks = int(index.max()) + 1
    order = np.lexsort((codes, index))
    complete = codes.size == n_blocks * n_groups and (codes[order] == np.tile(np.arange(n_groups), n_blocks)).all()
    if not complete or n_blocks < 2:
        return float("nan"), float("nan")
    table = values[order].reshape(n_blocks, n_groups)
    table = table - table.mean(1, keepdims=True)  # without the blocks' effects
    means = table.mean(0)
    if np.ptp(table - means) <= 1e-12 * np.ptp(values):
        return float("nan"), float("nan")
    between, within = n_groups - 1, (n_groups - 1) * (n_blocks - 1)  # degrees of freedom
    f = n_blocks * (means**2).sum() / between / (((table - means) ** 2).sum() / within)
    return float(f), float(stats.f.sf(f, between, within))
