"""Is there a difference between the groups at all, and in which scenarios?

Labels of names are dealt anew, the same deals for every scenario, so that what scenarios share through their names is
kept. A scenario's statistic is |SMD| over its spread among the deals; that of a scenario is compared with the largest
of all scenarios in each deal (single-step max-T: Westfall and Young, Resampling-based multiple testing, 1993), which
holds the probability of any false finding among all scenarios. Names that are matched exchange labels within their
pair alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from fasp_core.studies.answers.measures import Numbers, mean_known, smd_between
from fasp_core.typing import Floats

DEALS = 10_000
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Tested:
    """p values of S scenarios.

    Attributes
    ----------
    each, adjusted : [S] of each by itself, and corrected for their number and that of comparisons.
    any : of mean |SMD|, corrected for the number of comparisons: is there a difference in any of them?
    by_chance : mean |SMD| that dealt labels have on average; noise alone makes it more than 0.
    least : the smallest p that dealing so few names could give.
    """

    each: Floats
    adjusted: Floats
    any: float
    by_chance: float
    least: float


def significance(
    answers: Sequence[Numbers],
    pairs: NDArray[np.int64] | None = None,
    deals: int = DEALS,
    seed: int = 0,
    comparisons: int = 1,
) -> Tested:
    """Against the hypothesis that names' groups do not matter.

    Parameters
    ----------
    answers : of the same names in the same order.
    pairs : [names] number of the pair of each name, where names are matched one to one.
    comparisons : of groups, of which this is one; p values are corrected for them by their number (Bonferroni).
    """
    codes = answers[0].codes
    first = np.concatenate([(codes == 0)[None], dealt(codes, pairs, deals, seed)]).astype(float)  # [1 + B, names]
    found = np.abs(np.stack([smd_between(a.moments(), first, a.spent) for a in answers]))  # [S, 1 + B]
    found[np.isnan(found[:, 0])] = np.nan  # a scenario that has none is left out of every mean
    spread = np.nan_to_num(found).std(1, keepdims=True)
    scaled = np.where(np.isfinite(found), found / np.where(spread > 0, spread, 1.0), -np.inf)
    largest = scaled.max(0)
    every = mean_known(found)

    known = np.isfinite(found[:, 0])
    lacking = np.isnan(found[:, 1:])  # deals that leave a group without numbers count against a difference

    def p(null: Floats, value: Floats, against: NDArray[np.bool_]) -> Floats:
        return np.asarray((1 + ((null >= value[:, None] - 1e-12) | against).sum(1)) / (1 + deals))

    each = np.where(known, p(scaled[:, 1:], scaled[:, 0], lacking), np.nan)
    adjusted = np.where(known, p(np.broadcast_to(largest[1:], (len(found), deals)), scaled[:, 0], lacking), np.nan)
    some = np.asarray(lacking[known].any(0))[None]
    overall = float(p(every[None, 1:], every[:1], some)[0]) if np.isfinite(every[0]) else float("nan")
    sizes = [int((codes == g).sum()) for g in (0, 1)]
    least = least_p(sizes, pairs is not None, comparisons)
    adjusted, overall = np.minimum(adjusted * comparisons, 1.0), float(np.minimum(overall * comparisons, 1.0))
    return Tested(each, adjusted, overall, float(mean_known(every[1:, None])[0]), least)


def least_p(groups: Sequence[int], matched: bool = False, comparisons: int = 1) -> float:
    """The smallest p that deals of so many names could give, corrected for comparisons: the labels as they are, and
    their mirror image where groups are of one size, are deals as well."""
    first, second = groups
    deals = 2**first if matched else comb(first + second, first)
    return min(comparisons * (1 + (first == second)) / deals, 1.0)


def dealt(codes: NDArray[np.int64], pairs: NDArray[np.int64] | None, deals: int, seed: int) -> NDArray[np.bool_]:
    """[B, names] whether a name is dealt to group 0; groups keep their sizes."""
    rng = np.random.default_rng(seed)
    if pairs is None:
        return rng.permuted(np.broadcast_to(codes == 0, (deals, len(codes))), axis=1)
    turned = rng.random((deals, int(pairs.max()) + 1)) < 0.5
    return np.asarray((codes == 0) ^ turned[:, pairs])
