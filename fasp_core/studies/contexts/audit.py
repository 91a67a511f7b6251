"""An audit: what an instruct model answers about people of each group, scenario by scenario.

Every scenario is asked about every name, in the model's own chat template. The distribution of the answers is computed
(`exactly`), or answers are sampled (`audit`), those of the unpruned and of a pruned model with the same noise. Texts
are stored, so that they can be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.forward.sampling import GenerationConfig, sample_ids
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.answers.distributions import Distributions, gathered
from fasp_core.studies.answers.exact import ExactConfig, Sampling, grow
from fasp_core.studies.answers.measures import Answers, Disparity
from fasp_core.studies.answers.numbers import parse
from fasp_core.studies.answers.reading import Reader
from fasp_core.studies.common import Steps, kept
from fasp_core.studies.contexts.chats import ask
from fasp_core.studies.contexts.removal import Removal
from fasp_core.studies.contexts.scenarios import ALL_OTHERS, Scenario, Scenarios
from fasp_core.typing import Report

if TYPE_CHECKING:
    from fasp_core.studies.answers.power import Power

KIND = "audits"
HOW = 2  # version of how exact answers are followed and read, part of their keys


@dataclass(frozen=True)
class AuditConfig:
    """How answers are drawn.

    Attributes
    ----------
    samples : answers for each name.
    tokens : longest answer.
    temperature : of the sampling.
    seed : of its noise.
    """

    samples: int = 16
    tokens: int = 8
    temperature: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        assert self.generation  # refuses what cannot be sampled

    @property
    def generation(self) -> GenerationConfig:
        return GenerationConfig(self.samples, self.tokens, self.temperature, self.seed)

    @property
    def sampling(self) -> Sampling:
        """What of it shapes exact answers."""
        return Sampling(self.tokens, self.temperature)


@dataclass(frozen=True, eq=False)
class Replies:
    """What a model answered in one scenario.

    Attributes
    ----------
    people : (name, group) by row.
    groups : two or more; the first is group 0, and it is compared with the second.
    texts : [names][samples] answers, the scenario's opening included.
    ids : [names][samples] token ids after the opening, the token that ends the answer included.
    """

    scenario: Scenario
    people: tuple[tuple[str, str], ...]
    groups: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    ids: tuple[tuple[tuple[int, ...], ...], ...]
    provenance: dict[str, Any]

    @cached_property
    def answers(self) -> Answers:
        """The numbers in them."""
        unit = self.scenario.unit
        per = self.scenario.per
        numbers = [[parse(text, unit, per) for text in row] for row in self.texts]
        values = np.array([[np.nan if x is None else x for x in row] for row in numbers], dtype=float)
        return Answers(values, np.array([self.groups.index(group) for _, group in self.people]))

    def numbers(self, winsorise: float = 0.0) -> Answers:
        """The numbers, the outermost shares moved inwards."""
        return self.answers.winsorised(winsorise)


@dataclass(frozen=True, eq=False)
class Exact:
    """What a model answers in one scenario, as distributions.

    Attributes
    ----------
    people, groups : as in `Replies`; two groups or more.
    found : numbers with their probabilities.
    texts : of each row of `found` the likeliest answer with that number, the scenario's opening included.
    limits : how far answers were followed.
    """

    scenario: Scenario
    people: tuple[tuple[str, str], ...]
    groups: tuple[str, ...]
    found: Distributions
    texts: tuple[str, ...]
    limits: ExactConfig
    provenance: dict[str, Any]

    @property
    def answers(self) -> Distributions:
        """As `Replies.answers`."""
        return self.found

    def numbers(self, winsorise: float = 0.0) -> Distributions:
        """The numbers, the outermost shares moved inwards."""
        return self.found.winsorised(winsorise)

    def between(self, first: str, second: str | None = None) -> Exact:
        """One group against another, or against all others together (None)."""
        a = self.groups.index(first)
        others = [i for i in range(len(self.groups)) if i != a] if second is None else [self.groups.index(second)]
        title = second or ALL_OTHERS
        people = tuple(
            (name, group if group == first else title)
            for name, group in self.people
            if self.groups.index(group) in (a, *others)
        )
        names = {name for name, _ in people}
        texts = tuple(t for t, n in zip(self.texts, self.found.names, strict=True) if self.people[n][0] in names)
        found = self.found.between([a], others)
        return replace(self, people=people, groups=(first, title), found=found, texts=texts)

    def likeliest(self, name: int, count: int) -> list[tuple[str, float]]:
        """The likeliest answers of a name with different numbers, and the probabilities of these."""
        rows = np.flatnonzero((self.found.names == name) & ~self.found.drawn)
        rows = rows[np.argsort(-self.found.masses[rows], kind="stable")][:count]
        return [(self.texts[i], float(self.found.masses[i])) for i in rows]


@dataclass(frozen=True, eq=False)
class _Asked:
    """Who is asked what, and what both kinds of answers are stored under."""

    compared: tuple[str, ...]
    people: tuple[tuple[str, str], ...]
    chats: list[tuple[str, list[int]]]
    removal: Removal
    key: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        lm: LanguageModel,
        scenario: Scenario,
        scenarios: Scenarios,
        removed: PruneSet | Removal | None,
        groups: tuple[str, ...] | None,
    ) -> _Asked:
        removal = removed if isinstance(removed, Removal) else Removal(removed or PruneSet())
        compared = several(scenarios, groups)
        people = tuple((name, group) for name, group in scenarios.people if group in compared)
        key = {
            **lm.id.key(),
            "scenario": asdict(scenario),
            "people": [list(p) for p in people],
            "template": lm.tokenizer.chat_template,
            "heads": removal.key(),
        }
        return cls(compared, people, [ask(lm, scenario, name) for name, _ in people], removal, key)


def audit(
    lm: LanguageModel,
    scenario: Scenario,
    scenarios: Scenarios,
    config: AuditConfig,
    store: Store,
    removed: PruneSet | Removal | None = None,
    groups: tuple[str, ...] | None = None,
    progress: Report | None = None,
) -> Replies:
    """Ask about everybody in one scenario; stored.

    Parameters
    ----------
    removed : from the model; None: nothing.
    groups : two or more; None: the first two.

    Raises
    ------
    InputError
        No chat template, a group that is not there, or a part of the set that is not in the model.
    """
    asked = _Asked.of(lm, scenario, scenarios, removed, groups)
    key = asked.key | {"sampling": asdict(config), "noise": noise.VERSION}

    def work() -> Any:
        with asked.removal.off(lm):
            drawn = sample(lm, asked.chats, config, Steps(progress, 1).next(f"asking about {scenario.title}"))
        return {
            "meta": {
                "ids": drawn,
                "texts": [[scenario.opening + text for text in decoded(lm, row)] for row in drawn],
            }
        }

    def read(entry: Entry) -> Replies:
        texts = tuple(map(tuple, entry.meta["texts"]))
        ids = tuple(tuple(map(tuple, row)) for row in entry.meta["ids"])
        return Replies(scenario, asked.people, asked.compared, texts, ids, entry.meta["provenance"])

    return kept(store, lm, f"{slug(scenario.context)}-{slug(scenario.name)}", key, work, read, KIND)


@dataclass(frozen=True)
class Following:
    """Of whose answers, and how far, distributions are followed.

    Attributes
    ----------
    config : the length and temperature of it count.
    groups : two or more; None: the first two.
    """

    scenarios: Scenarios
    config: AuditConfig = AuditConfig()
    exact: ExactConfig = field(default_factory=ExactConfig)
    groups: tuple[str, ...] | None = None

    @property
    def compared(self) -> tuple[str, ...]:
        """The groups by name."""
        return several(self.scenarios, self.groups)


def exactly(
    lm: LanguageModel,
    scenario: Scenario,
    following: Following,
    store: Store,
    removed: PruneSet | Removal | None = None,
    progress: Report | None = None,
) -> Exact:
    """As `audit`, with the distributions that it samples from; stored. Raises as `audit`."""
    asked = _Asked.of(lm, scenario, following.scenarios, removed, following.groups)
    exact, how = following.exact, following.config.sampling
    key = asked.key | {"sampling": asdict(how), "exact": asdict(exact), "how": HOW}
    codes = np.array([asked.compared.index(group) for _, group in asked.people])

    def work() -> Any:
        reader = Reader(scenario.unit, scenario.per)
        for i, (_, ids) in enumerate(asked.chats):
            lm.require(ids, f"The question {i + 1} of {len(asked.chats)}", how.tokens)
        with asked.removal.off(lm):
            step = Steps(progress, 1).next(f"asking about {scenario.title}")
            trees = grow(lm, asked.chats, reader, scenario.opening, how, exact, step)
        found, texts = gathered(trees, codes)
        return {"tables": {"answers": pd.DataFrame(found.columns() | {"text": texts})}, "meta": {}}

    def read(entry: Entry) -> Exact:
        table = entry.table("answers")
        found = Distributions.read(table, codes)
        texts = tuple(map(str, table["text"]))
        return Exact(scenario, asked.people, asked.compared, found, texts, exact, entry.meta["provenance"])

    label = f"{slug(scenario.context)}-{slug(scenario.name)}-exact"
    return kept(store, lm, label, key, work, read, KIND)


def planned(
    lm: LanguageModel,
    context: str,
    following: Following,
    winsorise: float,
    store: Store,
    progress: Report | None = None,
) -> tuple[Power, Exact]:
    """What an audit of two groups would find, and what a few names answer in the first scenario of a context, which
    says so.

    Raises
    ------
    InputError
        There are not two groups, or what `exactly` and `Power.of` raise.
    """
    from fasp_core.studies.answers.power import PILOT, Power  # scipy: a second to import

    world, groups = following.scenarios, following.compared
    if len(groups) != 2:
        raise InputError("What would be found is said of two groups, such as black and white: name two.")
    first, *_ = asked = world.of(context)
    pilot = exactly(lm, first, replace(following, scenarios=world.smaller(PILOT)), store, None, progress)
    names = (len(world.groups[groups[0]]), len(world.groups[groups[1]]))
    return Power.of(pilot.numbers(winsorise), names, len(asked)), pilot


def sample(
    lm: LanguageModel, chats: Sequence[tuple[str, list[int]]], config: AuditConfig, progress: Report | None = None
) -> list[list[list[int]]]:
    """[names][samples] token ids of answers, each up to the token that ends it."""
    stop = lm.stops
    texts, ids = [text for text, _ in chats], [ids for _, ids in chats]
    for i, row in enumerate(ids):
        lm.require(row, f"The question {i + 1} of {len(ids)}", config.generation.tokens)
    drawn = sample_ids(lm, texts, config.generation, stop, progress, ids=ids)
    return [[row[: next((t + 1 for t, x in enumerate(row) if x in stop), None)] for row in rows] for rows in drawn]


def decoded(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> list[str]:
    """Answers as text."""
    return [lm.tokenizer.decode(row, skip_special_tokens=True) for row in rows]


def pair(scenarios: Scenarios, groups: tuple[str, str] | None) -> tuple[str, str]:
    """The two groups that are compared.

    Raises
    ------
    InputError
        One of them is not there, or both are the same.
    """
    first, second = several(scenarios, groups or tuple(scenarios.groups)[:2])
    return first, second


def several(scenarios: Scenarios, groups: tuple[str, ...] | None) -> tuple[str, ...]:
    """The groups that are compared, two or more. Raises as `pair`."""
    found = groups or tuple(scenarios.groups)[:2]
    for i, group in enumerate(found):
        if group not in scenarios.groups:
            raise InputError(f"There is no group '{group}': choose two of {', '.join(scenarios.groups)}.")
        if group in found[:i]:
            raise InputError(f"The group '{group}' cannot be compared with itself: choose two.")
    return found


def matched(scenarios: Scenarios, groups: tuple[str, ...]) -> NDArray[np.int64]:
    """[names] number of each name's pair, where the i-th name of one group belongs to the i-th of the other.

    Raises
    ------
    InputError
        There are not two groups of one size.
    """
    sizes = [len(scenarios.groups[group]) for group in groups]
    if len(sizes) != 2 or sizes[0] != sizes[1]:
        told = " and ".join(f"{n} of {group}" for n, group in zip(sizes, groups, strict=True))
        raise InputError(f"Matched names come in pairs of two groups, here {told}: give both the same number.")
    order = dict.fromkeys(groups, 0)
    pairs = []
    for _, group in scenarios.people:
        if group in order:
            pairs.append(order[group])
            order[group] += 1
    return np.array(pairs, dtype=np.int64)


def disparity(
    replies: Sequence[Replies | Exact], winsorise: float = 0.0, pairs: NDArray[np.int64] | None = None
) -> Disparity:
    """Differences between the groups, of scenarios that were asked about the same people; `pairs` as in `matched`."""
    return Disparity.of([r.numbers(winsorise) for r in replies], pairs=pairs)
