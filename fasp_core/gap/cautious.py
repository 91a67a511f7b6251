"""What a head is worth at least: effects on the gap where templates and descriptors are drawn again.

A mean over the prompts of a choice is a mean over the templates and descriptors that they happen to be made of. Other
sentences about other people are other draws of both, so they are resampled, not prompts: every prompt counts as often
as its template times as often as its descriptor (a bootstrap of crossed factors: Owen, The pigeonhole bootstrap, Annals
of Applied Statistics 1, 2007).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fasp_core.gap.gaps import gap, weighted_gaps
from fasp_core.gap.rows import PromptRows
from fasp_core.typing import Floats

RESAMPLES, QUANTILE = 400, 0.1


def at_least(
    rows: PromptRows,
    templates: Sequence[str],
    descriptors: Sequence[str],
    resamples: int = RESAMPLES,
    quantile: float = QUANTILE,
    seed: int = 0,
) -> Floats:
    """[N] what ablating each head takes from the gap in nine of ten draws of templates and descriptors.

    Parameters
    ----------
    rows : values [1 + N, n] of the unpruned model, then with each head ablated.
    templates, descriptors : [n] names; descriptors are drawn within groups.
    quantile : of the draws; .1 is nine of ten.

    Draws that leave a group out are made again, up to as many as were asked for.
    """
    rng = np.random.default_rng(seed)
    of_template = np.unique(templates, return_inverse=True)[1]
    kinds = [f"{code}|{name}" for code, name in zip(rows.codes, descriptors, strict=True)]
    of_kind = np.unique(kinds, return_inverse=True)[1]
    group = np.zeros(of_kind.max() + 1, dtype=np.int64)
    group[of_kind] = rows.codes
    counts: list[Floats] = []
    for _ in range(2 * resamples):
        often = np.bincount(rng.integers(of_template.max() + 1, size=of_template.max() + 1), minlength=len(of_template))
        drawn = np.zeros(len(group))
        for g in range(len(rows.groups)):
            own = np.flatnonzero(group == g)
            np.add.at(drawn, rng.choice(own, own.size), 1)
        weights = often[of_template] * drawn[of_kind]
        if all(weights[rows.codes == g].any() for g in range(len(rows.groups))):
            counts.append(weights)
        if len(counts) == resamples:
            break
    gaps = weighted_gaps(rows.values, np.stack(counts), rows.codes) if counts else gap(rows.values, rows.codes)[:, None]
    return np.asarray(np.quantile(gaps[0] - gaps[1:], quantile, axis=1))
