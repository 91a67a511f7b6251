"""The cells of a matrix from exact answers: whole distributions have no second sample, so names are split instead.

A set that is tested on the scenario that it was chosen on is chosen on every second name and tested on the others, and
the other way round; both halves together are one cell. Sets for other scenarios are chosen on all names. Distributions
are kept as numbers with probabilities (`Distributions.thinned`), so that a matrix says what an audit says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core.metrics.perplexity import Nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.answers.measures import Answers
from fasp_core.studies.contexts import choosing
from fasp_core.studies.contexts.audit import AuditConfig, Following, exactly
from fasp_core.studies.contexts.choosing import Clues, Method, Sizes
from fasp_core.studies.contexts.removal import Removal
from fasp_core.studies.contexts.scenarios import Scenario, Scenarios
from fasp_core.studies.contexts.settings import Setting
from fasp_core.typing import Report


@dataclass(frozen=True)
class Said:
    """What a scenario says of each part: by all names, and by each half of them."""

    whole: Clues
    halves: tuple[Clues, Clues]


@dataclass(frozen=True, eq=False)
class Removed:
    """What a cell's sets took out, and what was answered without them."""

    removals: tuple[Removal, ...]
    answers: Answers | Distributions
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

    def base(self, scenario: Scenario, progress: Report | None) -> Distributions:
        """Of the whole model."""
        return self._ask(scenario, self.world, None, progress)[0]

    def clues(self, scenario: Scenario, methods: Sequence[Method], progress: Report | None) -> Said:
        """What a scenario says."""
        asked = exactly(self.lm, scenario, self._following(self.world), self.store, None, progress)
        whole, first, second = (
            choosing.clues(self.lm, asked, self.audit, methods, self.store, progress, h) for h in (None, 0, 1)
        )
        return Said(whole, (first, second))

    def cell(
        self,
        method: Method,
        setting: Setting,
        said: Sequence[Said],
        scenario: Scenario,
        sizes: Sizes,
        seed: int,
        like: Sequence[int | None],
        progress: Report | None,
    ) -> Removed:
        """Choose, remove, ask. `like`: of random sets, how many parts each is to hold; None: not known."""
        if setting.kind != "same":
            sources = [said[j].whole for j in setting.sources]
            removal = choosing.choose(self.lm, method, sources, sizes, seed, like[0])
            answers, seconds = self._ask(scenario, self.world, removal, progress)
            return Removed((removal,), answers, seconds)
        (source,) = setting.sources
        removals, parts, total = [], [], 0.0
        for h in (0, 1):
            mine = said[source].halves[h]
            removal = choosing.choose(self.lm, method, [mine], sizes, seed, like[h])
            found, seconds = self._ask(scenario, half(self.world, 1 - h), removal, progress)
            removals.append(removal)
            parts.append(found)
            total += seconds
        return Removed(tuple(removals), self._joined(parts), total)

    def _joined(self, parts: Sequence[Distributions]) -> Distributions:
        """Of all names, from those that the first and the second half's sets were tested on."""
        people = [(name, group) for name, group in self.world.people if group in self.groups]
        place = {name: i for i, (name, _) in enumerate(people)}
        members = [[place[n] for n, g in half(self.world, h).people if g in self.groups] for h in (1, 0)]
        return Distributions(
            np.concatenate([p.values for p in parts]),
            np.concatenate([p.masses for p in parts]),
            np.concatenate([np.array(mine)[p.names] for mine, p in zip(members, parts, strict=True)]),
            np.concatenate([p.drawn for p in parts]),
            np.array([self.groups.index(group) for _, group in people]),
        )

    def _ask(
        self, scenario: Scenario, world: Scenarios, removal: Removal | None, progress: Report | None
    ) -> tuple[Distributions, float]:
        found = exactly(self.lm, scenario, self._following(world), self.store, removal, progress)
        return found.found.thinned(), float(found.provenance["seconds"])

    def _following(self, world: Scenarios) -> Following:
        return Following(world, self.audit, self.exact, self.groups)


def half(world: Scenarios, h: int) -> Scenarios:
    """Every second name of each group, from the first or from the second on; pairs in the same order stay together."""
    return Scenarios(world.contexts, world.scenarios, {g: names[h::2] for g, names in world.groups.items()})


def mean_nll(found: Sequence[Nll]) -> Nll:
    """Of the sets of a cell, of one text."""
    return Nll(np.mean([n.sums for n in found], axis=0), found[0].counts)
