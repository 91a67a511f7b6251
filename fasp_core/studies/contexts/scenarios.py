"""What an audit asks: scenarios by context, and names by group, from a TOML file that users extend or replace."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.data.groups import clean
from fasp_core.errors import InputError
from fasp_core.storage import tabular
from fasp_core.studies.answers.numbers import UNITS, Period, Unit, period_of, periods_of

MAX_BYTES = 256 * 1024
MAX_PEOPLE = 10_000
ALL = "all"  # contexts
ALL_OTHERS = "all others"  # what stands for the groups that one is compared with together
KEYS = ("title", "unit", "opening", "question", "scenarios")  # of a context
EXAMPLE = "fasp_core/studies/contexts/scenarios.toml, which comes with the program"
_BLANK = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Scenario:
    """One thing that is asked about every person.

    Attributes
    ----------
    name : the item, such as `chair`; unique within its context.
    question : with `{name}` for the person; the item is filled in.
    opening : what the answer begins with, put into the model's mouth.
    """

    context: str
    name: str
    question: str
    opening: str
    unit: Unit

    @property
    def title(self) -> str:
        """Such as `purchases: chair`."""
        return f"{self.context}: {self.name}"

    @property
    def per(self) -> Period:
        """The period that the question names, such as week in "how many hours a week"; "" for none."""
        return period_of(self.question)

    def ask(self, person: str) -> str:
        """The question about a person."""
        return self.question.replace("{name}", person)


@dataclass(frozen=True)
class Scenarios:
    """What an audit asks and about whom.

    Attributes
    ----------
    contexts : {context: what people read of it}.
    groups : {group: first names}; two or more groups.
    """

    contexts: dict[str, str]
    scenarios: tuple[Scenario, ...]
    groups: dict[str, tuple[str, ...]]

    def of(self, context: str) -> tuple[Scenario, ...]:
        """The scenarios of a context; of all, by the name `ALL` where no context has it.

        Raises
        ------
        InputError
            There is no such context.
        """
        if context == ALL and ALL not in self.contexts:
            return self.scenarios
        if context not in self.contexts:
            raise InputError(f"There is no context '{context}': choose one of {', '.join(self.contexts)}, or {ALL}.")
        return tuple(s for s in self.scenarios if s.context == context)

    def title(self, context: str) -> str:
        """What people read of a context, or of all; of one that is not here its name."""
        return "All contexts" if context == ALL else self.contexts.get(context, context)

    def smaller(self, names: int | None = None, items: int | None = None) -> Scenarios:
        """Only the first names of each group, and the first scenarios of each context; None: all."""
        kept = [s for context in self.contexts for s in self.of(context)[:items]]
        return replace(self, scenarios=tuple(kept), groups={g: all_of[:names] for g, all_of in self.groups.items()})

    @cached_property
    def people(self) -> tuple[tuple[str, str], ...]:
        """(name, group) of everybody, group by group."""
        return tuple((name, group) for group, names in self.groups.items() for name in names)


def labels(scenarios: Sequence[Scenario]) -> list[str]:
    """What tells scenarios apart: their names, with those of their contexts where there are several."""
    several = len({s.context for s in scenarios}) > 1
    return [s.title if several else s.name for s in scenarios]


def read(path: str | Path | None = None) -> Scenarios:
    """The scenarios of a file; by default those that come with the program.

    Raises
    ------
    InputError
        The file cannot be read, or lacks something; the message names it.
    """
    if path is None:
        text = (resources.files("fasp_core.studies.contexts") / "scenarios.toml").read_text("utf-8")
        return parse(text, "scenarios.toml")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"The scenarios '{path}' cannot be read: give a TOML file in UTF-8.") from error
    return of_bytes(content, Path(path).name)


def of_bytes(content: bytes, source: str) -> Scenarios:
    """Scenarios from the bytes of a TOML file, whatever Unicode it is in; `source` names it in errors. Raises as
    `parse`."""
    if len(content) > MAX_BYTES:
        raise InputError(f"A file of scenarios has at most {MAX_BYTES // 1024} KB: shorten '{source}'.")
    return parse(tabular.lines_joined(tabular.decode(content, f"The file of scenarios '{source}'")), source)


def parse(text: str, source: str) -> Scenarios:
    """Scenarios from the text of a TOML file; `source` names it in errors.

    Raises
    ------
    InputError
        It is too long, no TOML, or lacks something; the message names it.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"A file of scenarios has at most {MAX_BYTES // 1024} KB: shorten '{source}'.")
    try:
        text.encode()  # half a character can be no part of a prompt
        content = tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: numbers of thousands of digits, too
        raise InputError(f"{source} is no valid TOML ({error}): mend that line.") from error
    if unknown := sorted(set(content) - {"contexts", "groups"}):
        raise InputError(f"{source} has '{unknown[0]}', which is read nowhere: it may have [contexts] and [groups].")
    contexts = _table(content, "contexts", source)
    scenarios: list[Scenario] = []
    for name, context in contexts.items():
        scenarios += _scenarios(name, context, source)
    groups = {
        clean(name): _texts(names, f"group '{name}'", source)
        for name, names in _table(content, "groups", source).items()
    }
    if len(groups) < max(2, len(content["groups"])):
        raise InputError(f"{source} names one group or one group twice: an audit compares two or more under [groups].")
    if no_name := [name for name in groups if name in ("", ALL_OTHERS)]:
        raise InputError(f"{source} has a group '{no_name[0]}', which is no name of a group: call it something else.")
    everybody = Counter(name for names in groups.values() for name in names)
    if twice := sorted(name for name, times in everybody.items() if times > 1):
        raise InputError(f"{source} has the name '{twice[0]}' more than once: a name stands for one group, once.")
    if len(everybody) > MAX_PEOPLE:
        raise InputError(f"{source} names {len(everybody):,} people: an audit takes at most {MAX_PEOPLE:,}.")
    titles = {
        name: context["title"] if isinstance(context.get("title"), str) else name for name, context in contexts.items()
    }
    return Scenarios(titles, tuple(scenarios), groups)


def _scenarios(name: str, context: Any, source: str) -> list[Scenario]:
    where = f"context '{name}'"
    if not isinstance(context, dict):
        raise InputError(f"{source}: {where} is no table: write [contexts.{name}] and what belongs to it.")
    if unknown := sorted(set(context) - set(KEYS)):
        raise InputError(f"{source}: {where} has '{unknown[0]}', which is read nowhere: it may have {', '.join(KEYS)}.")
    if lacking := [key for key in ("question", "unit", "scenarios") if key not in context]:
        raise InputError(f"{source}: {where} has no {lacking[0]}: see {EXAMPLE}.")
    question, unit, opening = context["question"], context["unit"], context.get("opening", "")
    if not isinstance(question, str) or set(_BLANK.findall(question)) != {"name", "item"} or _braces(question):
        raise InputError(f"{source}: the question of {where} needs {{name}} and {{item}}, and no other braces.")
    if not isinstance(unit, str) or unit not in UNITS:
        given = f"'{unit}'" if isinstance(unit, str) else "no text"
        raise InputError(f"{source}: the unit of {where} is {given}: choose {', '.join(UNITS)}.")
    if not isinstance(opening, str):
        raise InputError(f'{source}: the opening of {where} is no text: write "" for none.')
    items = _texts(context.get("scenarios"), f"the scenarios of {where}", source)
    if len(set(items)) < len(items):
        raise InputError(f"{source}: {where} has the same scenario twice: keep one.")
    if braced := [item for item in items if "{" in item or "}" in item]:
        raise InputError(
            f"{source}: '{braced[0]}' of {where} has braces, which belong in the question alone: write a text."
        )
    found = [Scenario(name, item, question.replace("{item}", item), opening, unit) for item in items]
    for one in found:
        if len(periods := periods_of(one.question)) > 1:
            raise InputError(
                f"{source}: '{one.name}' of {where} names several periods ({', '.join(periods)}), and an answer may "
                "be of any: leave the one that is asked about."
            )
    return found


def _braces(question: str) -> bool:
    """Whether there are any but those of its two blanks."""
    left = _BLANK.sub("", question)
    return "{" in left or "}" in left


def _table(content: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    found = content.get(name)
    if not isinstance(found, dict) or not found:
        raise InputError(f"{source} has no [{name}]: see {EXAMPLE}.")
    return found


def _texts(values: Any, what: str, source: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and clean(v) for v in values):
        raise InputError(f'{source}: {what} must be a list of texts, such as ["one", "two"].')
    return tuple(map(clean, values))


def by_turns(codes: NDArray[np.int64], halving: int = 0) -> NDArray[np.int64]:
    """[names] 0 or 1: which half each name is in, from the group of each.

    Of the first halving (0) every second one of its group; of others as many at random, the same places in groups of
    the same size.
    """
    found = np.zeros_like(codes)
    for group in np.unique(codes):
        mine = np.flatnonzero(codes == group)
        turns = np.arange(len(mine)) % 2
        found[mine] = np.random.default_rng([halving, len(mine)]).permutation(turns) if halving else turns
    return found
