"""Effects by removal, for the parts that a choice depends on: those that are best to first order.

First-order effects rank all parts from one pass; what a removal really does may be less, nothing, or too much of it. So
of each scenario the first few are removed one by one, and take the effect that they have, until the first few are all
of them such.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fasp_core.heads.prune_set import PruneSet
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.contexts.localise import group_means
from fasp_core.typing import Floats


def refined(
    scores: Floats,
    kind: str,
    count: int,
    base: Distributions,
    without: Callable[[PruneSet], Distributions],
    members: NDArray[np.bool_],
) -> Floats:
    """Scores, the first `count` of which are by removal: by how much |difference of the groups' mean logs| falls.

    Parts whose removal does less than was thought make room for others, which are removed in their turn.

    Parameters
    ----------
    scores : [L, H] of `heads` or [L, F] of `neurons` (`kind`), to first order, in the same unit; larger is better.
        Parts that do not lower the difference are not removed.
    base, without : answers of the whole model, and without a part, of the same names.
    members : [names] whose difference it is.
    """
    out = scores.copy()
    before, done = abs(_gap(base, members)), set[int]()
    while True:
        first = np.argsort(-np.nan_to_num(out.ravel(), nan=-np.inf), kind="stable")[:count]
        left = [int(i) for i in first if int(i) not in done and out.ravel()[i] > 0]
        if not left:
            return out
        for i in left:
            layer, part = divmod(i, scores.shape[1])
            out[layer, part] = before - abs(_gap(without(PruneSet.of(**{kind: [(layer, part)]})), members))
        done |= set(left)


def _gap(found: Distributions, members: NDArray[np.bool_]) -> float:
    """Difference of the groups' mean log(1 + number); nan if a group gives none."""
    logs = np.where(found.given, np.log1p(np.where(found.given, found.values, 0.0)), 0.0)
    sums = np.bincount(found.names, found.masses * logs, len(found.codes)).astype(float)
    first, second = group_means(found.codes[members], found.shares()[members], sums[members])
    return float(first - second)
