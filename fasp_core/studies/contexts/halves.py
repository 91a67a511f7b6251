"""The cells of a matrix from exact answers: whole distributions have no second sample, so names are split instead.

A set that is tested on the scenario that it was chosen on is chosen on every second name and tested on the others, and
the other way round; both halves together are one cell. Sets for other scenarios are chosen on all names. What is kept
of a name's distribution are points of equal probability, each the mean of its part, so that its mean is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core.metrics.perplexity import Nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.answers.distributions import Distributions, ascending
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import choosing
from fasp_core.studies.contexts.audit import AuditConfig, Following, exactly
from fasp_core.studies.contexts.choosing import Clues, Method, Sizes
from fasp_core.studies.contexts.removal import Removal
from fasp_core.studies.contexts.scenarios import Scenario, Scenarios
from fasp_core.studies.contexts.settings import Setting
from fasp_core.typing import Floats, Report

POINTS = 32  # of a name's distribution


@dataclass(frozen=True)
class Said:
    """What a scenario says of each part: by all names, and by each half of them."""

    whole: Clues
    halves: tuple[Clues, Clues]


@dataclass(frozen=True, eq=False)
class Removed:
    """What a cell's sets took out, and what was answered without them: [names, POINTS]."""

    removals: tuple[Removal, ...]
    values: Floats
    seconds: float


@dataclass(frozen=True, eq=False)
class Whole:
    """Asks with exact answers.

    Attributes
    ----------
    world : scenarios and names; groups : the two that are compared.
    """

    lm: LanguageModel
    world: Scenarios
    audit: AuditConfig
    exact: ExactConfig
    store: Store
    groups: tuple[str, str]

    def base(self, scenario: Scenario, progress: Report | None) -> Floats:
        """[names, POINTS] of the whole model."""
        return self._ask(scenario, self.world, None, progress)[0]

    def clues(self, scenario: Scenario, methods: Sequence[Method], progress: Report | None) -> Said:
        """What a scenario says."""
        found = []
        for world in (self.world, *(half(self.world, h) for h in (0, 1))):
            asked = exactly(self.lm, scenario, self._following(world), self.store, None, progress)
            found.append(choosing.clues(self.lm, asked, self.audit, methods, self.store, progress))
        return Said(found[0], (found[1], found[2]))

    def cell(
        self,
        method: Method,
        setting: Setting,
        said: Sequence[Said],
        scenario: Scenario,
        sizes: Sizes,
        seed: int,
        progress: Report | None,
    ) -> Removed:
        """Choose, remove, ask."""
        if setting.kind != "same":
            removal = choosing.choose(self.lm, method, [said[j].whole for j in setting.sources], sizes, seed)
            values, seconds = self._ask(scenario, self.world, removal, progress)
            return Removed((removal,), values, seconds)
        (source,) = setting.sources
        removals, parts, total = [], [], 0.0
        for h in (0, 1):
            removal = choosing.choose(self.lm, method, [said[source].halves[h]], sizes, seed)
            found, seconds = self._ask(scenario, half(self.world, 1 - h), removal, progress)
            removals.append(removal)
            parts.append(found)
            total += seconds
        values = np.full((sum(map(len, parts)), POINTS), np.nan)
        for h in (0, 1):
            values[self._members(1 - h)] = parts[h]
        return Removed(tuple(removals), values, total)

    def _members(self, h: int) -> list[int]:
        """Places of a half's names among all."""
        names = {name for group in self.groups for name in half(self.world, h).groups[group]}
        everybody = [name for name, group in self.world.people if group in self.groups]
        return [i for i, name in enumerate(everybody) if name in names]

    def _ask(
        self, scenario: Scenario, world: Scenarios, removal: Removal | None, progress: Report | None
    ) -> tuple[Floats, float]:
        found = exactly(self.lm, scenario, self._following(world), self.store, removal, progress)
        return points(found.found), float(found.provenance["seconds"])

    def _following(self, world: Scenarios) -> Following:
        return Following(world, self.audit, self.exact, self.groups)


def half(world: Scenarios, h: int) -> Scenarios:
    """Every second name of each group, from the first or from the second on; pairs in the same order stay together."""
    return Scenarios(world.contexts, world.scenarios, {g: names[h::2] for g, names in world.groups.items()})


def mean_nll(found: Sequence[Nll]) -> Nll:
    """Of the sets of a cell, of one text."""
    return Nll(np.mean([n.sums for n in found], axis=0), found[0].counts)


def points(found: Distributions, count: int = POINTS) -> Floats:
    """[names, count] equally likely answers: the share without a number, rounded, is nan, and the others are means of
    equal parts of the distribution, ascending."""
    out = np.full((len(found.codes), count), np.nan)
    for i, row in enumerate(out):
        mine = found.given & (found.names == i)
        share = found.masses[mine].sum() / max(found.masses[found.names == i].sum(), 1e-300)
        kept = round(count * float(share))
        if mine.any() and kept:
            row[:kept] = _means(*ascending(found.values[mine], found.masses[mine]), kept)
    return out


def _means(values: Floats, masses: Floats, count: int) -> Floats:
    """[count] means of equal parts of a distribution of ascending values."""
    ends = np.concatenate([[0.0], np.cumsum(masses)])
    sums = np.concatenate([[0.0], np.cumsum(masses * values)])
    at = np.interp(np.linspace(0, ends[-1], count + 1), ends, sums)
    return np.asarray(np.diff(at) * count / ends[-1])
