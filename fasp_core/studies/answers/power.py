"""The smallest difference that an audit would find, before it is run.

Names are what is sampled. With s the SD of names' mean answers within a group and t the SD of all answers, both in a
pilot, the standard error of an SMD is (s / t) * sqrt(1 / n + 1 / m) for n and m names, and with k sampled answers for
each name instead of whole distributions sqrt((s / t)^2 + 1 / k) in the place of s / t. Found with probability `POWER`
at two-sided level `LEVEL` is what is t(1 - LEVEL / 2) + t(POWER) standard errors from 0, with n + m - 2 degrees of
freedom; of S scenarios, each at LEVEL / S (Bonferroni, a little more than max-T asks). The test deals names' groups
anew: where the deals are so few that the labels as they are, and their mirror image, are more than that share of them,
no difference is ever found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from fasp_core.errors import InputError
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.answers.testing import LEVEL, least_p

POWER = 0.8
PILOT = 4  # names of each group that are asked, in one scenario


@dataclass(frozen=True)
class Power:
    """What a pilot says.

    Attributes
    ----------
    between : SD of names' means within groups, in SDs of all answers.
    freedom : degrees of freedom that this SD is known by.
    names : of each group, of the audit that is planned.
    scenarios : of it.
    """

    between: float
    freedom: int
    names: tuple[int, int]
    scenarios: int

    @classmethod
    def of(cls, pilot: Distributions, names: tuple[int, int], scenarios: int) -> Power:
        """From a few names in one scenario.

        Raises
        ------
        InputError
            No two names of a group gave numbers, or all numbers are equal.
        """
        moments = pilot.moments()
        kept = moments[:, 0] > 0
        means = np.divide(moments[:, 1], moments[:, 0], where=kept, out=np.zeros(len(kept)))
        parts = [means[kept & (pilot.codes == g)] for g in (0, 1)]
        total = moments.sum(0)
        spread = np.sqrt(max(total[2] / total[0] - (total[1] / total[0]) ** 2, 0.0)) if total[0] else 0.0
        freedom = sum(max(len(p) - 1, 0) for p in parts)
        if not freedom or not spread:
            raise InputError(
                "Nothing can be planned: a few names in one scenario gave no numbers that differ. Write an opening "
                "that asks for a number."
            )
        within = sum(float(((p - p.mean()) ** 2).sum()) for p in parts if len(p))
        return cls(float(np.sqrt(within / freedom) / spread), freedom, names, scenarios)

    def ends(self) -> tuple[Power, Power]:
        """With the ends of the 95% interval of `between` (chi-squared, of normal means)."""
        low, high = (self.between * np.sqrt(self.freedom / stats.chi2.ppf(q, self.freedom)) for q in (0.975, 0.025))
        return replace(self, between=float(low)), replace(self, between=float(high))

    def smallest(self, samples: int | None = None, scenarios: int = 1) -> float:
        """Smallest |SMD| that is found in one scenario of so many that are tested, from whole distributions or from so
        many sampled answers for each name; infinite where none ever is."""
        n, m = self.names
        level = LEVEL / scenarios
        if least_p(self.names) > level:
            return float("inf")
        t = float(stats.t.ppf(1 - level / 2, n + m - 2) + stats.t.ppf(POWER, n + m - 2))
        one = np.sqrt(self.between**2 + (0.0 if samples is None else 1 / samples))
        return float(t * one * np.sqrt(1 / n + 1 / m))


def document(found: Power, samples: Sequence[int] = (4, 16, 64)) -> dict[str, Any]:
    """For `--json`; null where no difference is ever found."""
    n, ends = found.scenarios, found.ends()
    return {
        "power": POWER,
        "level": LEVEL,
        "between_names_sd": found.between,
        "between_names_sd_interval": [end.between for end in ends],
        "smallest_smd": found.smallest(),
        "smallest_smd_interval": [end.smallest() for end in ends],
        "smallest_smd_any_scenario": found.smallest(scenarios=n),
        "smallest_smd_sampled": {str(k): found.smallest(k) for k in samples},
    }


def sentence(found: Power, pilot: int, title: str) -> str:
    """For people, of a pilot of so many names in the scenario of this title."""
    n, m = found.names
    if not np.isfinite(found.smallest()):
        return (
            f"With {n} and {m} names no difference is ever found, however large: there are too few ways to deal their "
            "groups anew. Name more people."
        )
    said = document(found)
    every = found.smallest(scenarios=found.scenarios)
    low, high = said["smallest_smd_interval"]
    sampled = ", ".join(f"{v:.2f} with {k} samples" for k, v in said["smallest_smd_sampled"].items())
    least, most = said["between_names_sd_interval"]
    corrected = f"{every:.3f}" if np.isfinite(every) else "none ever, with so few names"
    return (
        f"With {n} and {m} names, an audit by exact answers finds an |SMD| of {said['smallest_smd']:.3f} [{low:.3f}, "
        f"{high:.3f}] in a scenario with {POWER:.0%} probability; of {found.scenarios} scenarios, corrected for their "
        f"number, {corrected}; {sampled}. Names differ by {found.between:.3f} [{least:.3f}, {most:.3f}] SDs of the "
        f"answers (from {pilot} names in one scenario, {title}, which stands for all)."
    )
