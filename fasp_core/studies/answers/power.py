"""The smallest difference that an audit would find, before it is run.

Names are what is sampled. With s the SD of names' mean answers within a group and t the SD of all answers, both in a
pilot, the standard error of an SMD is (s / t) * sqrt(1 / n + 1 / m) for n and m names, and with k sampled answers for
each name instead of whole distributions sqrt((s / t)^2 + 1 / k) in the place of s / t. Found with probability `POWER`
at two-sided level `LEVEL` is what is z(1 - LEVEL / 2) + z(POWER) standard errors from 0 (normal approximation); of S
scenarios, each at LEVEL / S (Bonferroni, a little more than max-T asks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from fasp_core.errors import InputError
from fasp_core.studies.answers.distributions import Distributions

POWER = 0.8
LEVEL = 0.05
PILOT = 4  # names of each group that are asked, in one scenario


@dataclass(frozen=True)
class Power:
    """What a pilot says.

    Attributes
    ----------
    between : SD of names' means within groups, in SDs of all answers.
    names : of each group, of the audit that is planned.
    scenarios : of it.
    """

    between: float
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
        return cls(float(np.sqrt(within / freedom) / spread), names, scenarios)

    def smallest(self, samples: int | None = None, scenarios: int = 1) -> float:
        """Smallest |SMD| that is found in one scenario of so many that are tested, from whole distributions or from so
        many sampled answers for each name."""
        z = stats.norm.ppf(1 - LEVEL / 2 / scenarios) + stats.norm.ppf(POWER)
        one = np.sqrt(self.between**2 + (0.0 if samples is None else 1 / samples))
        return float(z * one * np.sqrt(sum(1 / n for n in self.names)))


def document(found: Power, samples: Sequence[int] = (4, 16, 64)) -> dict[str, Any]:
    """For `--json`."""
    n = found.scenarios
    return {
        "power": POWER,
        "level": LEVEL,
        "between_names_sd": found.between,
        "smallest_smd": found.smallest(),
        "smallest_smd_any_scenario": found.smallest(scenarios=n),
        "smallest_smd_sampled": {str(k): found.smallest(k) for k in samples},
    }
