"""Scorecards: every part measured through the store, so that lines appear as they come in and a stopped run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from fasp_core import defaults
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.common import KIND, Steps, kept
from fasp_core.studies.scorecard.lines import Line, summary
from fasp_core.studies.scorecard.parts import Checkpoint, Gap, Part, Suite, Task, Text
from fasp_core.typing import Report

TEXTS = ("perplexity", "paragraphs", "repeated")  # costs
SUITES = ("crows_pairs", "stereoset", "bbq", "winogender", "honest")
KINDS: dict[str, type[Part]] = {kind.__name__.lower(): kind for kind in (Text, Task, Gap, Suite, Checkpoint)}


@dataclass(frozen=True)
class Plan:
    """What a scorecard holds.

    Attributes
    ----------
    axes : of the toxicity gaps.
    tasks, suites : names of tasks, and of bias suites.
    prompts, items, tokens : sizes of a gap, of a task or suite, and of a text.
    """

    axes: tuple[str, ...] = defaults.AXES
    tasks: tuple[str, ...] = defaults.TASKS
    suites: tuple[str, ...] = SUITES
    prompts: int = 450
    items: int = 150
    tokens: int = 4096

    def __post_init__(self) -> None:
        if min(self.prompts, self.items, self.tokens) < 2:
            raise InputError("A scorecard measures at least 2 prompts, items and tokens of each: ask for more.")

    def parts(self) -> list[Part]:
        """In the order in which they are measured."""
        return [
            *(Text(name, self.tokens) for name in TEXTS),
            *(Task(task, self.items) for task in self.tasks),
            *(Gap(axis, self.prompts) for axis in self.axes),
            *(Suite(suite, self.items) for suite in self.suites),
            Checkpoint(),
        ]


SIZES = {  # tokens of text, prompts and items that both models read: some 60,000, 160,000 and 320,000
    "small": Plan(prompts=210, items=50, tokens=2048),
    "usual": Plan(),
    "large": Plan(prompts=900, items=300, tokens=8192),
}


@dataclass(frozen=True)
class Scorecard:
    """A set, line by line.

    Attributes
    ----------
    lines : in the order of the plan, of the parts that were measured.
    left : titles of parts that were not measured yet.
    impossible : by title of a part that cannot be measured here, why.
    provenance : of each part that was measured, by its title.
    """

    heads: PruneSet
    lines: tuple[Line, ...]
    left: tuple[str, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] | None = None

    @property
    def sentence(self) -> str:
        """For those who decide."""
        return summary(self.lines)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "prune_set": self.heads.format(),
            "heads_removed": len(self.heads.heads),
            "neurons_removed": len(self.heads.neurons),
            "heads_scaled": len(self.heads.gains),
            "sentence": self.sentence,
            "lines": [line.as_dict() for line in self.lines],
            "not_measured": list(self.left),
            "impossible": [f"{what}: {said}" for what, said in self.impossible.items()],
            "provenance": self.provenance,
        }


def run(lm: LanguageModel, heads: PruneSet, plan: Plan, store: Store, progress: Report | None = None) -> Scorecard:
    """Measure what is not stored; a part whose data are not installed, or that the model cannot do, is told.

    Raises
    ------
    InputError
        Nothing is pruned, or a head or neuron is not in the model.
    """
    if not len(heads):
        raise InputError("Nothing is pruned: a scorecard compares a set with the unpruned model.")
    heads.gates(lm.n_layers, lm.n_heads)
    heads.neuron_gates(lm.n_layers, lm.n_neurons)
    parts, impossible = plan.parts(), {}
    steps = Steps(progress, len(parts))
    for part in parts:
        try:
            measured(lm, heads, part, store, steps.next(f"{part.title}: {{}}"))
        except InputError as error:
            impossible[part.title] = str(error)
    return find(lm.id, heads, plan, store, impossible)


def measured(
    lm: LanguageModel, heads: PruneSet, part: Part, store: Store, progress: Report | None = None
) -> list[Line]:
    """The lines of one part; stored."""

    def work() -> Any:
        return {"arrays": {}, "meta": {"lines": [line.as_dict() for line in part.lines(lm, heads, store, progress)]}}

    return kept(store, lm, f"scorecard-{slug(part.title)}", part.key(lm.id, heads), work, _read)


def find(
    model_id: ModelId, heads: PruneSet, plan: Plan, store: Store, impossible: Mapping[str, str] | None = None
) -> Scorecard:
    """As far as it was measured; without a model.

    Parameters
    ----------
    impossible : by title, why a part cannot be measured, where that is known.
    """
    lines: list[Line] = []
    left, made, why = [], {}, dict(impossible or {})
    for part in plan.parts():
        try:
            entry = store.load(KIND, part.key(model_id, heads))
            lines += [] if entry is None else _read(entry)
        except InputError as error:  # its data are not installed, say
            entry = None
            why[part.title] = str(error)
        if entry is not None:
            made[part.title] = entry.meta["provenance"]
            why.pop(part.title, None)
        elif part.title not in why:
            left.append(part.title)
    return Scorecard(heads, tuple(lines), tuple(left), why, made)


def stored(
    model_id: ModelId, heads: PruneSet, store: Store, impossible: Mapping[str, str] | None = None
) -> Scorecard | None:
    """All that is stored of a set, whatever was asked for: of each part the largest sample; None if nothing is.

    Without a model. Parts whose data are others now, or are not installed any more, are left out.
    """
    found: dict[str, tuple[Part, Entry]] = {}
    for header in store.find(KIND, {"experiment": "scorecard", **model_id.wanted(), "heads": heads.format()}):
        kind = KINDS[header.config["part"]]
        part = kind(**{f.name: header.config[f.name] for f in fields(kind)})  # type: ignore[arg-type]
        with suppress(InputError):
            if part.key(model_id, heads) != header.config:
                continue
            larger = part.title not in found or part.size > found[part.title][0].size
            if larger and (entry := store.load(KIND, header.config)) is not None:
                found[part.title] = part, entry
    if not found and not impossible:
        return None
    order = {part.title: i for i, part in enumerate(Plan().parts())}
    titles = sorted(found, key=lambda title: (_rank(found[title][0]), order.get(title, len(order)), title))
    lines = [line for title in titles for line in _read(found[title][1])]
    why = {what: said for what, said in (impossible or {}).items() if what not in found}
    return Scorecard(heads, tuple(lines), (), why, {title: found[title][1].meta["provenance"] for title in titles})


def _rank(part: Part) -> int:
    return list(KINDS).index(type(part).__name__.lower())


def _read(entry: Entry) -> list[Line]:
    return [Line.read(one) for one in entry.meta["lines"]]
