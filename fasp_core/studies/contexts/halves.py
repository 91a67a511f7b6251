"""The cells of a matrix from exact answers: whole distributions have no second sample, so names are split instead.

A set that is tested on the scenario that it was chosen on is chosen on every second name and tested on the others, and
the other way round; both halves together are one cell. Other halvings, at random, do the same again: what depends on
which names chose is a mean over them (repeated cross-fitting: Chernozhukov et al. 2018). Sets for other scenarios are
chosen on all names. Distributions are kept as numbers with probabilities (`Distributions.thinned`), so that a matrix
says what an audit says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import Nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.answers.measures import Answers
from fasp_core.studies.contexts import choosing
from fasp_core.studies.contexts.audit import AuditConfig, Following, exactly
from fasp_core.studies.contexts.choosing import BESIDE, Clues, Method, Sizes
from fasp_core.studies.contexts.refining import refined
from fasp_core.studies.contexts.removal import Removal
from fasp_core.studies.contexts.scenarios import Scenario, Scenarios, by_turns
from fasp_core.studies.contexts.settings import Setting
from fasp_core.typing import Floats, Report


@dataclass(frozen=True)
class Said:
    """What a scenario says of each part: by all names, and by both halves of them in each halving."""

    whole: Clues
    halves: tuple[tuple[Clues, Clues], ...]


@dataclass(frozen=True, eq=False)
class Removed:
    """What a cell's sets took out, and what was answered without them, in each halving of the names."""

    removals: tuple[Removal, ...]
    answers: tuple[Answers | Distributions, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Whole:
    """Asks with exact answers.

    Attributes
    ----------
    world : scenarios and names; groups : the two that are compared.
    halvings : of the names, for sets that are tested where they were chosen.
    by_removal : of each scenario how many heads and neurons take their effect by removal (`refining.py`).
    """

    lm: LanguageModel
    world: Scenarios
    audit: AuditConfig
    exact: ExactConfig
    store: Store
    groups: tuple[str, str]
    halvings: int = 1
    by_removal: int = 0

    def base(self, scenario: Scenario, progress: Report | None) -> Distributions:
        """Of the whole model."""
        return self._ask(scenario, self.world, None, progress)[0]

    def clues(self, scenario: Scenario, methods: Sequence[Method], progress: Report | None) -> Said:
        """What a scenario says."""
        asked = exactly(self.lm, scenario, self._following(self.world), self.store, None, progress)

        def without(part: PruneSet) -> Distributions:
            return exactly(self.lm, scenario, self._following(self.world), self.store, part, progress).found

        def said(which: tuple[int, int] | None) -> Clues:
            found = choosing.clues(
                self.lm, asked, self.audit, methods, self.store, progress, which, halvings=self.halvings
            )
            codes = asked.found.codes
            members = np.ones(len(codes), bool) if which is None else by_turns(codes, which[0]) == which[1]
            arrays = {
                f"{kind}-effect": refined(scores, kind, self.by_removal, asked.found, without, members)
                for kind in ("heads", "neurons")
                if (scores := found.arrays.get(f"{kind}-effect")) is not None
            }
            return replace(found, arrays=found.arrays | arrays) if self.by_removal else found

        return Said(said(None), tuple((said((i, 0)), said((i, 1))) for i in range(self.halvings)))

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
            return Removed((removal,), (answers,), seconds)
        (source,) = setting.sources
        removals, answered, total = [], [], 0.0
        for i in range(halvings_of(method, setting, self.halvings)):
            parts = []
            for h in (0, 1):
                removal = choosing.choose(self.lm, method, [said[source].halves[i][h]], sizes, seed, like[h])
                found, seconds = self._ask(scenario, half(self.world, 1 - h, i), removal, progress)
                removals.append(removal)
                parts.append(found)
                total += seconds
            answered.append(self._joined(parts, i))
        return Removed(tuple(removals), tuple(answered), total)

    def _joined(self, parts: Sequence[Distributions], halving: int) -> Distributions:
        """Of all names, from those that the first and the second half's sets were tested on."""
        people = [(name, group) for name, group in self.world.people if group in self.groups]
        place = {name: i for i, (name, _) in enumerate(people)}
        members = [[place[n] for n, g in half(self.world, h, halving).people if g in self.groups] for h in (1, 0)]
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


def half(world: Scenarios, h: int, halving: int = 0) -> Scenarios:
    """The first or the second half of each group's names; pairs in the same order stay together."""
    groups = {}
    for group, names in world.groups.items():
        turns = by_turns(np.zeros(len(names), dtype=np.int64), halving)
        groups[group] = tuple(name for name, turn in zip(names, turns, strict=True) if turn == h)
    return Scenarios(world.contexts, world.scenarios, groups)


def halvings_of(method: Method, setting: Setting, halvings: int) -> int:
    """How often names are halved for a cell: sets at random, and for other scenarios, do not depend on the halves."""
    return halvings if setting.kind == "same" and method not in BESIDE else 1


def levelled(answers: Distributions, halving: int) -> Distributions:
    """Numbers of each group's two halves moved to the group's mean, which stays as it is.

    Each half is under a set of its own, and what these two do otherwise is no difference between names.
    """
    of = 2 * answers.codes + by_turns(answers.codes, halving)
    moments = answers.moments()

    def means(parts: NDArray[np.int64]) -> Floats:
        mass, total = (np.bincount(parts, moments[:, k], 4) for k in (0, 1))
        return np.asarray(np.divide(total, mass, out=np.zeros(4), where=mass > 0)[parts])

    return replace(answers, values=answers.values + (means(answers.codes) - means(of))[answers.names])


def mean_nll(found: Sequence[Nll]) -> Nll:
    """Of the sets of a cell, of one text."""
    return Nll(np.mean([n.sums for n in found], axis=0), found[0].counts)
