"""Which open texts are finished by draws, and what the draws say of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def systematic(masses: Sequence[float], draws: int, offset: float) -> list[int]:
    """Which of some pieces each draw falls into: places at equal distances along their probabilities, from an offset in
    [0, 1) of that distance on. A piece is drawn in proportion to its mass."""
    ends = np.cumsum(masses)
    places = (np.arange(draws) + offset) / draws * ends[-1]
    return [min(int(i), len(masses) - 1) for i in np.searchsorted(ends, places, side="right")]


def spread(
    known: Sequence[tuple[str, float, float]], found: Sequence[float], begun: Sequence[float], count: int
) -> list[tuple[str, float, float]]:
    """Each text whose number is nearly known, with that number times what the draw for its part of the probability made
    of its own (a hot deck with ratios: Little and Rubin, Statistical analysis with missing data, 2002).

    Parameters
    ----------
    known : (text, number so far, probability), in the order in which draws were spread over them.
    found, begun : [count] number that each draw came to, and the one that its text had given so far.

    Returns
    -------
    (text, number, probability) of texts, those in the parts of several draws once for each.
    """
    out, at, cell = [], 0.0, sum(mass for _, _, mass in known) / count
    for text, value, mass in known:
        end = at + mass
        for d in range(min(int(at / cell), count - 1), min(int(end / cell), count - 1) + 1):
            upper = end if d == count - 1 else min(end, (d + 1) * cell)
            part = upper - max(at, d * cell)
            if part > 0:
                out.append((text, value * found[d] / begun[d] if begun[d] > 0 else found[d], part))
        at = end
    return out
