"""Shapley values of a set function: by all its subsets, or by random orders. What the parts of a path are checked with.

A player's value is the mean, over all orders in which the players may join, of what it adds when it comes (Shapley, A
Value for n-Person Games, 1953). Random orders estimate it without bias (Castro, Gomez and Tejada, Polynomial
calculation of the Shapley value based on sampling, Computers and Operations Research 36, 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

from fasp_core.errors import InputError
from fasp_core.typing import Floats

MOST = 8  # players whose subsets are all measured: 256
Worth = Callable[[frozenset[int]], float]  # of the players 0, 1, ... that have joined


def exact(worth: Worth, n: int) -> Floats:
    """[n] values of all players; every subset is asked for once.

    Raises
    ------
    InputError
        More than `MOST` players, or none.
    """
    if not 1 <= n <= MOST:
        raise InputError(f"All subsets of {n} heads are too many or none: take 1 to {MOST}, or sample orders.")
    known = [worth(frozenset(i for i in range(n) if code >> i & 1)) for code in range(2**n)]
    values = np.zeros(n)
    for code, before in enumerate(known):
        share = 1 / (n * comb(n - 1, code.bit_count())) if code.bit_count() < n else 0.0
        for i in range(n):
            if not code >> i & 1:
                values[i] += share * (known[code | 1 << i] - before)
    return values


def sampled(worth: Worth, n: int, orders: int, seed: int = 0) -> tuple[Floats, Floats]:
    """[n] estimates by random orders, which sum to the whole change, and their standard errors (nan for one order).

    A subset that several orders pass is asked for once. InputError for no player or no order.
    """
    if n < 1 or orders < 1:
        raise InputError(f"{orders} orders of {n} heads tell nothing: take 1 or more of both.")
    nobody: frozenset[int] = frozenset()
    rng, known = np.random.default_rng(seed), {nobody: worth(nobody)}
    added = np.empty((orders, n))
    for row in added:
        joined, last = nobody, known[nobody]
        for i in rng.permutation(n).tolist():
            joined |= {i}
            if joined not in known:
                known[joined] = worth(joined)
            row[i] = known[joined] - last
            last = known[joined]
    errors = added.std(0, ddof=1) / np.sqrt(orders) if orders > 1 else np.full(n, np.nan)
    return added.mean(0), errors
