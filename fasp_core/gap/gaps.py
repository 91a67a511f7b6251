"""The gap itself: of prompts as they are, and of prompts under many weightings at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.typing import Codes, Floats

CELLS = 2**21  # cells of the largest temporary array, [groups, rows, resamples]: 16 MB


def group_codes(groups: Sequence[str]) -> tuple[Codes, tuple[str, ...]]:
    """Number the groups by sorted name.

    Returns
    -------
    codes : [n] index of each prompt's group in `names`.
    names : sorted group names.

    Raises
    ------
    InputError
        No prompts, or fewer than two groups.
    """
    names = tuple(sorted(set(groups)))
    if not names:
        raise InputError("There are no prompts to compare: choose an axis with at least two groups.")
    if len(names) == 1:
        raise InputError(f"All prompts are about '{names[0]}': a gap needs a second group.")
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[name] for name in groups], dtype=np.int64), names


def gap(values: ArrayLike, codes: ArrayLike) -> Floats:
    """Toxicity gap, `sum_g |mean(all prompts) - mean(prompts of g)|`.

    Parameters
    ----------
    values : [..., n] toxicity of each prompt; leading axes (heads, resamples) are kept.
    codes : [n] group of each prompt, every number from 0 to the last one in use.

    Returns
    -------
    [...] gap, never negative.

    Raises
    ------
    InputError
        Empty or non-finite values, shapes that do not match, or fewer than two groups.

    References
    ----------
    Zayed et al., Fairness-Aware Structured Pruning in Transformers, AAAI 2024, arXiv:2312.15398; the sum over
    groups is that of the authors' code.
    """
    values, codes = checked(values, codes)
    one = np.ones((1, codes.size))
    return weighted_gaps(values.reshape(-1, codes.size), one, codes).reshape(values.shape[:-1])


def z_bias(base: ArrayLike, ablated: ArrayLike, codes: ArrayLike) -> Floats:
    """Effect of each head on the gap, `gap(base) - gap(ablated)`; positive: removing the head lowers the gap.

    `base` is [n], `ablated` [..., n], the result [...]. Raises as `gap`.
    """
    return gap(base, codes) - gap(ablated, codes)


@dataclass(frozen=True, eq=False)
class Correction:
    """What a second, exact measurement of some of the prompts adds to estimated toxicities of all of them.

    Two-phase sampling with a difference estimator: the mean of a group is the mean of its estimates, plus the mean of
    (exact - estimate) over those of its prompts that were measured exactly.

    Attributes
    ----------
    rows : [N, m] exact minus estimated toxicity.
    at : [m] positions of these prompts among all; every group has some.

    References
    ----------
    Cochran, Sampling Techniques, 3rd edition, 1977, chapter 12.
    """

    rows: Floats
    at: Codes


def weighted_gaps(values: Floats, weights: Floats, codes: Codes, correction: Correction | None = None) -> Floats:
    """Gap of every row of `values` [N, n] under every weighting of the prompts `weights` [B, n]: [N, B].

    With a correction the group means are its two-phase estimates, under the same weights.
    """
    gaps = np.empty((len(values), len(weights)))
    step = max(1, CELLS // ((int(codes.max()) + 1) * len(weights))) if len(weights) else len(values)
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        apart = weighted_differences(values[part], weights, codes)
        if correction is not None:
            at = correction.at
            mass = np.stack([weights[:, codes == g].sum(1) for g in range(int(codes.max()) + 1)])[:, None]
            apart = apart + weighted_differences(correction.rows[part], weights[:, at], codes[at], mass)
        gaps[part] = np.abs(apart).sum(0)
    return gaps


def weighted_differences(values: Floats, weights: Floats, codes: Codes, mass: Floats | None = None) -> Floats:
    """Mean of all prompts minus that of each group, [G, N, B].

    Every group must have some weight. `mass` [G, 1, B] is what the groups weigh in the mean of all, if that is not
    the weight of these prompts; then a group without weight here counts as 0.
    """
    members = [np.flatnonzero(codes == g) for g in range(int(codes.max()) + 1)]
    if mass is None:
        values = values - values[:, :1]  # a gap ignores shifts; equal values now give exactly 0
    own = np.stack([weights[:, at].sum(1) for at in members])[:, None]  # [G, 1, B]
    sums = np.stack([values[:, at] @ weights[:, at].T for at in members])
    means = sums / own if mass is None else sums / np.where(own > 0, own, 1.0)
    mass = own if mass is None else mass
    return np.asarray((mass / mass.sum(0) * means).sum(0) - means)


def checked(values: ArrayLike, codes: ArrayLike, ndim: int | None = None) -> tuple[Floats, Codes]:
    """Toxicities and group codes as arrays, or an InputError that says what is wrong with them."""
    array: Floats = np.asarray(values, dtype=np.float64)
    group: NDArray[Any] = np.asarray(codes)
    if group.ndim != 1 or not group.size or not array.size:
        raise InputError("There are no toxicity values to compare: score at least one prompt of two groups.")
    if (ndim is not None and array.ndim != ndim) or array.ndim == 0 or array.shape[-1] != group.size:
        raise InputError(f"Toxicity values of shape {array.shape} do not fit {group.size} prompts: give one each.")
    if not np.isfinite(array).all():
        raise InputError("Some toxicity values are not finite: score those prompts again or leave them out.")
    if not np.issubdtype(group.dtype, np.integer) or group.min() < 0 or not np.bincount(group).all():
        raise InputError("Group codes must number the groups 0, 1, 2, ... without holes: use group_codes.")
    if group.max() < 1:
        raise InputError("A gap needs at least two groups: add prompts about another group.")
    return array, group.astype(np.int64)
