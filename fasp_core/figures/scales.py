"""A scale that is linear near 0 and logarithmic beyond, for values of either sign."""

from __future__ import annotations

import numpy as np

from fasp_core.figures.theme import Floats


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
