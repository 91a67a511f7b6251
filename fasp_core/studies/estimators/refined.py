"""Sets that FASP would choose by other scores than exact ones, and the loop that makes refined scores.

The loop is replayed on stored rows: how many heads it would have removed, and whether its sets are those of exact
scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core.errors import InputError
from fasp_core.gap import PromptRows, z_bias
from fasp_core.gap.estimates import Estimate, interval
from fasp_core.heads.selection import HeadScores, select
from fasp_core.scoring import score
from fasp_core.scoring.estimate import GAMMA, refine
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable
from fasp_core.studies.common import effects
from fasp_core.typing import Floats

ALPHAS = (0.05, 0.1)
CURE_GAMMAS = (GAMMA, 0.3)
SAME = 1e-4  # the base rows of two estimators differ by rounding alone


@dataclass(frozen=True)
class SetCheck:
    """FASP's set by other scores against that by exact ones.

    Attributes
    ----------
    gamma : share of critical heads. k, eligible : heads that are pruned, of how many that may be.
    shared : heads in both sets. chance : k^2 / eligible, what two sets drawn at random would share.
    change_exact, change_other : change of the gap if the exact effects of each set's heads just added up.
    missed : change_other - change_exact.
    never_removed : heads of the other set whose scores are first-order.
    """

    gamma: float
    alpha: float
    k: int
    eligible: int
    shared: Estimate
    chance: float
    gap: float
    change_exact: Estimate
    change_other: Estimate
    missed: Estimate
    never_removed: int


@dataclass(frozen=True)
class Cure:
    """Refined scores against exact ones: what `scoring.estimate.refined_impacts` would have found and cost."""

    removed: int
    heads: int
    sets: dict[str, tuple[SetCheck, ...]]  # by reading


def chosen(z: Floats, prunable: Sequence[int], alpha: float) -> list[int]:
    """FASP's set by these z_bias where the heads that may be pruned are given."""
    critical = np.ones(len(z))
    critical[list(prunable)] = 0.0
    scores = HeadScores(1, len(z), z_ppl=critical, z_bias=z)
    return list(select(scores, "fasp", (len(z) - len(prunable)) / len(z), alpha).pruned)


def check_sets(
    exact: BiasImpacts,
    z_other: Floats,
    drawn_other: Floats,
    reading: str,
    prunable: Sequence[int],
    alpha: float,
    removed: np.ndarray,
) -> SetCheck:
    """FASP's set by `z_other` [N] against that by exact scores; both are judged by exact rows.

    Parameters
    ----------
    drawn_other : [N, B] the other z_bias in each resample of the prompts, for the interval of the overlap.
    removed : [N] bool, whether the other score comes from a head really removed.
    """
    r = exact.readings.index(reading)
    sets = [chosen(z, prunable, alpha) for z in (exact.z_bias(reading), z_other)]
    k = len(sets[0])
    at = np.asarray(prunable)
    top = [np.argsort(-drawn[at], axis=0, kind="stable")[:k] for drawn in (drawn_effects(exact, reading), drawn_other)]
    shared = np.array([np.intersect1d(a, b).size for a, b in zip(top[0].T, top[1].T, strict=True)], dtype=float)
    added = np.stack([exact.base[r] + (exact.ablated[s, r] - exact.base[r]).sum(0) for s in sets]).clip(0, 1)
    rows = PromptRows.paired(exact.base[r], added, exact.codes, exact.blocks)
    gaps, changes = rows.gaps(), -effects(rows)
    change = gaps[1:] - gaps[0]
    return SetCheck(
        gamma=(len(z_other) - len(prunable)) / len(z_other),
        alpha=alpha,
        k=k,
        eligible=len(prunable),
        shared=interval(float(len(set(sets[0]) & set(sets[1]))), shared, 0.0, float(k)),
        chance=k**2 / len(prunable),
        gap=float(gaps[0]),
        change_exact=interval(float(change[0]), changes[0]),
        change_other=interval(float(change[1]), changes[1]),
        missed=interval(float(change[1] - change[0]), changes[1] - changes[0]),
        never_removed=int((~removed[sets[1]]).sum()),
    )


def refine_on(exact: BiasImpacts, first: BiasImpacts, z_nats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Refined scores as they would have come out, with stored exact rows in place of removals.

    Returns
    -------
    removed : [N] bool, the heads that would have been removed.
    z : [R, N] z_bias, exact for those.
    """
    require_same(exact, first)
    removed, base, ablated = refine(first, z_nats, lambda heads: (exact.base, exact.ablated[heads]))
    return removed, np.stack([z_bias(base[r], ablated[:, r], exact.codes) for r in range(len(exact.readings))])


def cure(impacts: ImpactTable, first: BiasImpacts) -> Cure:
    """Whether refined scores choose what exact ones, `impacts`, would."""
    exact = impacts.bias
    removed, z = refine_on(exact, first, impacts.ppl.z_nats)
    sets = {}
    for r, reading in enumerate(exact.readings):
        drawn = np.where(removed[:, None], drawn_effects(exact, reading), drawn_effects(first, reading))
        sets[reading] = tuple(
            check_sets(exact, z[r], drawn, reading, score.prunable(impacts, gamma), alpha, removed)
            for gamma in CURE_GAMMAS
            for alpha in ALPHAS
        )
    return Cure(int(removed.sum()), len(removed), sets)


def drawn_effects(impacts: BiasImpacts, reading: str) -> Floats:
    r = impacts.readings.index(reading)
    return effects(PromptRows.paired(impacts.base[r], impacts.ablated[:, r], impacts.codes, impacts.blocks))


def require_same(exact: BiasImpacts, first: BiasImpacts) -> None:
    same = (
        exact.readings == first.readings
        and exact.ablated.shape == first.ablated.shape
        and np.array_equal(exact.codes, first.codes)
        and np.allclose(exact.base, first.base, rtol=0, atol=SAME)
    )
    if not same:
        raise InputError("These scores are of different prompts or models: score both with the same settings.")
    if exact.exact is not None and not exact.exact.all():
        raise InputError("Some heads were never removed: give scores by the exact estimator.")
