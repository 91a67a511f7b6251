"""What a matrix of contexts is made of: sets, what each was chosen on, and what is answered without them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import Nll, PerplexityChange, perplexity_change
from fasp_core.studies.answers.distributions import Distributions, mixed
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.answers.measures import Answers
from fasp_core.studies.contexts.audit import AuditConfig
from fasp_core.studies.contexts.choosing import BESIDE, EFFECTS_KEPT, METHODS, USUAL, Method, Sizes, kind_of
from fasp_core.studies.contexts.scenarios import Scenario
from fasp_core.studies.contexts.settings import KINDS, Kind, Setting

WEIGHTS = 2  # version of how weights by effect are chosen, part of their keys


@dataclass(frozen=True)
class MatrixConfig:
    """What is run.

    Attributes
    ----------
    audit : samples; sets are chosen on answers drawn with its seed, and tested on answers drawn with the next one.
    names : first names of each group, at most; None: all.
    scenarios : of each context, at most; None: all.
    tokens : of the text for perplexity.
    seed : of random sets.
    exact : how far exact answers are followed (`halves.py`); None: answers are sampled.
    halvings : of the names, for exact answers of sets that are tested where they were chosen.
    by_removal : of each scenario how many heads and neurons, the best, are chosen by what their removal does.
    """

    methods: tuple[Method, ...] = USUAL
    audit: AuditConfig = field(default_factory=AuditConfig)
    sizes: Sizes = field(default_factory=Sizes)
    names: int | None = None
    scenarios: int | None = None
    tokens: int = 1024
    seed: int = 0
    exact: ExactConfig | None = None
    halvings: int = 1
    by_removal: int = 0

    def key(self) -> dict[str, Any]:
        """For the store; without what came later, where it is not used."""
        later = {"exact": None, "halvings": 1, "by_removal": 0}
        found = {name: value for name, value in asdict(self).items() if later.get(name, ...) != value}
        return found | ({"weights": WEIGHTS} if any("weights-effect" in m for m in self.methods) else {})

    def __post_init__(self) -> None:
        if not self.methods or any(m not in METHODS for m in self.methods):
            raise InputError(f"Choose one or more methods of {', '.join(METHODS)}.")
        if (self.names is not None and self.names < 2) or (self.scenarios is not None and self.scenarios < 1):
            raise InputError("A matrix needs at least 2 names of each group and 1 scenario of each context.")
        if self.halvings < 1 or (self.halvings > 1 and self.exact is None):
            raise InputError("Names are halved once or more, and more than once only for exact answers.")
        if self.by_removal < 0 or (self.by_removal and self.exact is None):
            raise InputError("Parts are chosen by their removal for exact answers alone, and 0 of them or more.")
        if self.by_removal and not {"heads-effect", "neurons-effect"} & set(self.methods):
            raise InputError("By removal are heads and neurons by effect: add such a method, or leave it out.")
        by_weights = any("weights-effect" in m for m in self.methods)
        if by_weights and self.sizes.weight_top > EFFECTS_KEPT:
            raise InputError(
                f"Weights by effect are kept up to {EFFECTS_KEPT:.1%} of all: choose a share of at most that."
            )
        if self.halvings > 1 and all(m in BESIDE for m in self.methods):
            raise InputError("Sets at random depend on no names: leave out halvings, or add a method that chooses.")


@dataclass(frozen=True, eq=False)
class Cell:
    """One set and one scenario; of exact answers tested where it was chosen, a set for each half of each halving.

    Attributes
    ----------
    parts : how many heads, neurons or weights the set holds, of several the most; the model is unchanged if there are
        none.
    prune_set : its heads and neurons, as text; several sets, of which some may be empty, parted by semicolons.
    halvings : answers without it, of exact answers tested where it was chosen in each halving of the names; else one.
    nll : of the text, without it.
    seconds : that asking took; nan if that was not kept.
    """

    method: Method
    setting: Setting
    parts: int
    parameters: int
    prune_set: str
    halvings: tuple[Answers | Distributions, ...]
    nll: Nll
    seconds: float = float("nan")

    @cached_property
    def sets(self) -> tuple[str, ...] | None:
        """Each set of heads and neurons, in order; None of single weights, and where an earlier version left out empty
        ones."""
        found = tuple(self.prune_set.split("; "))
        halved = isinstance(self.halvings[0], Distributions) and self.setting.kind == "same"
        wanted = 2 * len(self.halvings) if halved else 1
        return None if kind_of(self.method) == "weights" or len(found) != wanted else found

    @property
    def size(self) -> float:
        """How many parts its sets hold on average; of single weights the most."""
        return self.parts if self.sets is None else float(np.mean([len(PruneSet.parse(one)) for one in self.sets]))

    @cached_property
    def answers(self) -> Answers | Distributions:
        """Without it, all halvings together."""
        first, *others = self.halvings
        return mixed([a for a in self.halvings if isinstance(a, Distributions)]) if others else first


Cells = dict[tuple[Method, Setting], Cell]


@dataclass(frozen=True)
class RunTime:
    """Tests of one kind, how many of them were timed, and the mean seconds of those; nan: none was."""

    kind: Kind
    tests: int
    timed: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Matrix:
    """Everything that was measured; read from the store without a model.

    Attributes
    ----------
    contexts : {context: title}.
    base : the whole model's answers to each scenario, on the test samples.
    other : the same on the samples that sets were chosen on: how far answers differ when nothing is removed. Exact
        answers are the same as `base`.
    base_nll : of the text.
    """

    model: str
    config: MatrixConfig
    contexts: dict[str, str]
    scenarios: tuple[Scenario, ...]
    groups: tuple[str, str]
    people: tuple[tuple[str, str], ...]
    base: tuple[Answers | Distributions, ...]
    other: tuple[Answers | Distributions, ...]
    base_nll: Nll
    cells: tuple[Cell, ...]
    provenance: dict[str, Any]

    @cached_property
    def codes(self) -> np.ndarray:
        """[names] group of each, 0 or 1."""
        return np.array([self.groups.index(group) for _, group in self.people])

    def perplexity(self, cell: Cell) -> PerplexityChange:
        """With and without the cell's set."""
        return perplexity_change(self.base_nll, cell.nll)

    def times(self) -> list[RunTime]:
        """How long each kind of experiment takes, the least general first."""
        out = []
        for kind in KINDS:
            seconds = np.array([c.seconds for c in self.cells if c.setting.kind == kind])
            if len(seconds):
                timed = seconds[np.isfinite(seconds)]
                out.append(RunTime(kind, len(seconds), len(timed), float(timed.mean()) if len(timed) else float("nan")))
        return out

    def of(
        self, method: Method, kind: Kind | None = None, chosen_on: str | None = None, tested_on: str | None = None
    ) -> list[Cell]:
        """Cells of a method; `tested_on` names a context."""
        return [
            c
            for c in self.cells
            if c.method == method
            and kind in (None, c.setting.kind)
            and chosen_on in (None, c.setting.chosen_on)
            and tested_on in (None, self.scenarios[c.setting.tested].context)
        ]
