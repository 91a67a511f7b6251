"""This project's rule of selection beside that of the authors' code, and why the two part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fasp_core.errors import InputError
from fasp_core.heads.selection import HeadScores, Selection, select


@dataclass(frozen=True)
class RuleComparison:
    """Two choices from the same scores.

    Attributes
    ----------
    stable : exactly the number of heads asked for.
    released : by the authors' threshold rule; None where `refused` says why it gives no set.
    why : sentences on where and why the two differ, none if they do not.
    """

    stable: Selection
    released: Selection | None
    refused: str
    why: tuple[str, ...]

    @property
    def only_stable(self) -> tuple[int, ...]:
        """Flat ids that only the stable rule prunes."""
        return tuple(sorted(set(self.stable.pruned) - set(self.released.pruned if self.released else ())))

    @property
    def only_released(self) -> tuple[int, ...]:
        """Flat ids that only the released rule prunes."""
        return tuple(sorted(set(self.released.pruned if self.released else ()) - set(self.stable.pruned)))


def compare_rules(
    scores: HeadScores, method: str = "fasp", gamma: float = 0.3, alpha: float = 0.1, seed: int = 0
) -> RuleComparison:
    """Choose by both rules; arguments as for `select`.

    Raises
    ------
    InputError
        As `select` with the stable rule. What only the released rule cannot do is told in the result.
    """
    stable = select(scores, method, gamma, alpha, "stable", seed)
    try:
        released = select(scores, method, gamma, alpha, "released", seed)
    except InputError as error:
        return RuleComparison(stable, None, str(error), stable.notes)
    why = [*_critical(scores, stable, released), *_pruned(stable, released)]
    if why and stable.pruned == released.pruned:
        why.append("The pruned heads are the same nonetheless.")
    return RuleComparison(stable, released, "", tuple(why))


def _critical(scores: HeadScores, stable: Selection, released: Selection) -> list[str]:
    """Both rules protect a top of the perplexities, so they part by whole ties and by rounding only."""
    if stable.critical == released.critical or scores.z_ppl is None:
        return []
    why = _rounding(len(scores.z_ppl), stable.gamma, len(stable.critical), "γ")
    if lost := sorted(set(stable.critical) - set(released.critical)):
        values = scores.z_ppl[lost]
        cut = values.min()
        tied = np.flatnonzero(scores.z_ppl == cut)
        if tied.size > 1:
            left = len(released.critical)
            inside = np.isin(tied, stable.critical).sum()
            why.append(
                f"{tied.size} heads tie at the threshold of perplexity, {cut:g}: the stable rule protects {inside} of "
                f"them, the lower heads first; the authors' rule protects none, so that {left} "
                f"{'head is' if left == 1 else 'heads are'} critical and not {len(stable.critical)}."
            )
    return why


def _pruned(stable: Selection, released: Selection) -> list[str]:
    why = []
    n = stable.n_layers * stable.n_heads
    why += _rounding(n, stable.alpha, stable.requested_k, "α")
    if released.k > released.requested_k:
        why.append(
            f"Heads tie at the threshold of the score they are pruned by: the authors' rule prunes all of them, "
            f"{released.k} heads and not the {released.requested_k} asked for."
        )
    if stable.pruned != released.pruned and released.k <= stable.k and stable.critical != released.critical:
        freed = set(released.pruned) & set(stable.critical)
        if freed:
            why.append(
                f"{len(freed)} of the heads that only the authors' rule leaves unprotected "
                f"{'is' if len(freed) == 1 else 'are'} among those it prunes, in place of others."
            )
    return why


def _rounding(n: int, share: float, heads: int, name: str) -> list[str]:
    """The authors multiply in floating point and cut."""
    cut = int(n * share)
    if cut == heads:
        return []
    return [f"{name} = {share:g} of {n} heads is {heads}; in the authors' floating-point product it counts as {cut}."]
