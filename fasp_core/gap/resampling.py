"""Prompts drawn again, shuffled and split: in whole blocks, or one by one within their groups.

The same arguments always give the same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.typing import Codes, Floats

ROUNDS = 1000  # draws without some group are made again so many times


def block_index(blocks: ArrayLike | None, n: int) -> Codes | None:
    """[n] block of each prompt, numbered 0, 1, 2, ... in the order of the given numbers; None stays None.

    Raises
    ------
    InputError
        Not one whole number for each prompt.
    """
    if blocks is None:
        return None
    numbers: NDArray[Any] = np.asarray(blocks)
    if numbers.shape != (n,) or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"Blocks must be one whole number for each of the {n} prompts: give the blocks of the sample.")
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def bootstrap_counts(codes: ArrayLike, resamples: int, seed: int, blocks: ArrayLike | None = None) -> Floats:
    """How often each prompt is drawn when prompts are resampled with replacement.

    Parameters
    ----------
    codes : [n] group of each prompt.
    blocks : [n] block of each prompt: whole blocks are drawn, as many as there are. A resample without any prompt
        of some group has no gap and is drawn again. None: the prompts of every group are drawn by themselves, so
        that each group's counts sum to its size.

    Returns
    -------
    [resamples, n] counts as floats, ready for a matrix product. A group that is in one block only (or, without
    blocks, has one prompt) adds no spread.

    Raises
    ------
    InputError
        Unusable blocks, or groups that hardly ever meet in a resample.
    """
    codes = np.asarray(codes, dtype=np.int64)
    rng = np.random.default_rng(seed)
    index = block_index(blocks, codes.size)
    if index is None:
        counts = np.empty((resamples, codes.size))
        for g in range(codes.max() + 1):
            at = np.flatnonzero(codes == g)
            counts[:, at] = _drawn(at.size, resamples, rng)
        return counts
    holds = _holds(index, codes)
    drawn = _redrawn(
        lambda k: _drawn(len(holds), k, rng),
        lambda counts: (counts @ holds).min(1) > 0,
        resamples,
        "Too few blocks hold the same groups to be resampled: add prompts, or leave rare groups out.",
    )
    return drawn[:, index]


def random_halves(codes: Codes, splits: int, rng: np.random.Generator, index: Codes | None = None) -> Floats:
    """Random halves of the prompts, each with every group: [splits, n], 1 in the first half and 0 in the second.

    Blocks (or, without `index`, prompts) of the same groups go to the two halves by turns.

    Raises
    ------
    InputError
        A group in fewer than two blocks, or blocks that cannot be split so.
    """
    unit = "prompts" if index is None else "blocks"
    index = np.arange(codes.size) if index is None else index
    holds = _holds(index, codes)
    if holds.sum(0).min() < 2:
        raise InputError(f"Every group needs at least 2 {unit} to be split into halves: add prompts.")
    alike = np.unique(holds[:, ::-1], axis=0, return_inverse=True)[1].reshape(-1)

    def deal(k: int) -> Floats:
        halves = np.empty((k, len(holds)))
        order = _random_order(alike, k, rng)
        np.put_along_axis(halves, order, np.broadcast_to(np.arange(len(holds)) % 2.0, order.shape), axis=1)
        return halves

    halves = _redrawn(
        deal,
        lambda halves: np.minimum(halves @ holds, (1 - halves) @ holds).min(1) > 0,
        splits,
        "The blocks cannot be split into halves that both hold every group: add prompts, or leave rare groups out.",
    )
    return halves[:, index]


def shuffled(values: Floats, rng: np.random.Generator, shuffles: int, index: Codes | None = None) -> Floats:
    """[shuffles, n] `values` [n] dealt out at random: inside every block, or without `index` among all prompts."""
    if index is None:
        return rng.permuted(np.tile(values, (shuffles, 1)), axis=1)
    out = np.empty((shuffles, values.size))
    out[:, np.argsort(index, kind="stable")] = values[_random_order(index, shuffles, rng)]
    return out


def _random_order(strata: Codes, k: int, rng: np.random.Generator) -> Codes:
    """[k, n] orders that follow the numbers `strata` [n], and are random among equal ones."""
    return np.argsort(strata + rng.random((k, strata.size)) / 2, axis=1)


def _holds(index: Codes, codes: Codes) -> Floats:
    """[blocks, groups] 1 where the block has a prompt of the group, else 0."""
    holds = np.zeros((index.max() + 1, codes.max() + 1))
    holds[index, codes] = 1
    return holds


def _drawn(units: int, resamples: int, rng: np.random.Generator) -> Floats:
    """[resamples, units] how often each of the units is drawn when as many are drawn with replacement."""
    drawn = rng.integers(units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


def _redrawn(draw: Callable[[int], Floats], good: Callable[[Floats], Any], k: int, why: str) -> Floats:
    """`k` rows from `draw`, those that are not `good` drawn again until they are."""
    rows = draw(k)
    bad = np.flatnonzero(~good(rows))
    for _ in range(ROUNDS):
        if not bad.size:
            return rows
        rows[bad] = draw(bad.size)
        bad = bad[~good(rows[bad])]
    raise InputError(why)
