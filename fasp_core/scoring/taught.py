"""What measured sets teach about the estimate of others: by how much it is too large, and how far it is usually off.

An estimate multiplies the effects of single heads (`ImpactTable.estimate`). Heads interact, so sets that were really
measured say what it is worth: their measured changes are a factor times the estimated ones, found by least squares
through 0 and drawn to 1 as if by one more set, of the usual size, that is as estimated. The usual error is the median
over those sets, each estimated with what the others teach.

A head that is scaled counts by how far it is closed, 1 minus its gate: to first order between the two gates, 1 and 0,
at which it was measured, and beyond 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fasp_core.typing import Floats

Change = tuple[float, float]  # of the mean NLL in nats a token, and of the gap relative to that of the unpruned model
Closed = Iterable[int] | Mapping[int, float]  # heads that are off, or how far heads are closed; by flat id


def closed(heads: Closed) -> dict[int, float]:
    """How far heads are closed, by flat id in ascending order: 1 minus the gate, so 1 if off; none of 0."""
    by = heads if isinstance(heads, Mapping) else dict.fromkeys(heads, 1.0)
    return {head: float(by[head]) for head in sorted(by) if by[head]}


@dataclass(frozen=True)
class Taught:
    """What estimates are corrected by.

    Attributes
    ----------
    factors : of the estimated changes of mean NLL and of the gap.
    off : the usual errors of perplexity and gap, both relative to the unpruned model's; nan below two sets.
    sets : how many sets taught both; some of them teach one.
    """

    factors: Change = (1.0, 1.0)
    off: Change = (float("nan"), float("nan"))
    sets: tuple[int, int] = (0, 0)


def learn(estimated: list[Change], measured: list[Change]) -> Taught:
    """From the changes of the same sets, as estimated without any correction and as measured; nan: not known."""
    pairs = np.array([estimated, measured], dtype=np.float64).reshape(2, -1, 2)
    found = []
    for column in (0, 1):
        x, y = pairs[:, np.isfinite(pairs[..., column]).all(0), column]
        n = len(x)
        factor = float(_factor(x @ y, x @ x, n))
        off = float("nan")
        if n > 1:
            others = _factor(x @ y - x * y, x @ x - x * x, n - 1)  # [n] without each
            both = np.stack([y, others * x])
            off = float(np.median(np.abs(np.diff(both if column else np.expm1(both.clip(max=700)), axis=0))))
        found.append((factor, off, n))
    (a, off_a, n_a), (b, off_b, n_b) = found
    return Taught((a, b), (off_a, off_b), (n_a, n_b))


def _factor(products: Floats | float, squares: Floats | float, n: int) -> Floats:
    """Slope through 0 with one more point, of the mean size, on the line of slope 1."""
    size = np.asarray(squares) / max(n, 1)
    return np.asarray(np.divide(products + size, squares + size, out=np.ones_like(size), where=size > 0))
