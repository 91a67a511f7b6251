"""Scales for values of either sign: where colors end, and one that is linear near 0 and logarithmic beyond."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

import numpy as np
from numpy.typing import ArrayLike

from fasp_core.figures.theme import short
from fasp_core.typing import Floats


def center_of(x: Floats) -> float:
    """Where the scale turns from linear to logarithmic: the median magnitude, 1 if there is none."""
    sizes = np.abs(x[np.isfinite(x) & (x != 0)])
    return float(np.median(sizes)) if sizes.size else 1.0


def symlog(x: Floats, center: float) -> Floats:
    """sign(x) log10(1 + |x| / center)."""
    return np.asarray(np.sign(x) * (np.log10(np.abs(x) + center) - np.log10(center)))


def ticks(x: Floats, center: float) -> Floats:
    """0 and powers of ten on both sides, as far as there are values; four a side at most."""
    found = [0.0]
    for sign in (-1, 1):
        end = np.nanmax(sign * x, initial=0)
        if end <= 0:
            continue
        first, last = int(np.ceil(np.log10(center))), int(np.floor(np.log10(end)))
        found += [sign * 10.0**power for power in range(last, first - 1, -max(1, -(-(last - first + 1) // 4)))]
    return np.array(sorted(found))


def finite(values: Floats) -> Floats:
    """Infinite values at the largest finite magnitude; NaN stays."""
    ends = np.abs(values[np.isfinite(values)]).max(initial=0)
    return np.clip(values, -ends, ends)


def clip_limit(values: ArrayLike) -> float:
    """Where the colors of a diverging scale should end, in the unit of `values`.

    The largest magnitude, unless a few values dwarf the rest: then the 97th percentile of the magnitudes (at least
    the smallest that is not 0), so that one head worth 1e8 does not leave all others blank. Rounded up to two
    digits of which the second is even, so that half of it is short, too. NaN and infinities do not count; 1 if
    nothing is left or all is 0.
    """
    sizes = np.abs(np.asarray(values, dtype=np.float64))
    sizes = sizes[np.isfinite(sizes)]
    if not sizes.any():
        return 1.0
    limit = max(np.percentile(sizes, 97), sizes[sizes > 0].min())
    limit = sizes.max() if sizes.max() <= 1.5 * limit else limit
    # as written, for the float 0.02 is a little more; and twice the limit must still be a number
    exact = Decimal(str(float(np.clip(limit, 1e-300, 1e300))))
    unit = Decimal(2).scaleb(exact.adjusted() - 1)
    return float((exact / unit).to_integral_value(ROUND_CEILING) * unit)


def beyond_note(what: str, beyond: int, limit: float) -> str:
    """A line that owns up to clipping; blank if nothing is clipped."""
    heads_lie = "1 head lies" if beyond == 1 else f"{beyond} heads lie"
    return f"{what} at ±{short(limit, 3)}; {heads_lie} beyond." if beyond else ""
