"""Where a set is chosen and where it is tested: on the same scenario, in its context, or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fasp_core.studies.contexts.scenarios import Scenario

Kind = Literal["same", "context", "other", "others"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # the more general, the later
TITLES: dict[Kind, str] = {
    "same": "the same scenario",
    "context": "the rest of its context",
    "other": "another context",
    "others": "all other contexts",
}


@dataclass(frozen=True)
class Setting:
    """Scenarios to choose on and one to test on, as indices; `chosen_on` is a context where there is one."""

    kind: Kind
    chosen_on: str
    sources: tuple[int, ...]
    tested: int


def settings(scenarios: Sequence[Scenario]) -> list[Setting]:
    """All that scenarios allow: `context` takes two of a context, `other` two contexts, `others` three."""
    contexts = list(dict.fromkeys(s.context for s in scenarios))
    of = {c: tuple(i for i, s in enumerate(scenarios) if s.context == c) for c in contexts}
    out = [Setting("same", "", (i,), i) for i in range(len(scenarios))]
    out += [
        Setting("context", s.context, rest, i)
        for i, s in enumerate(scenarios)
        if (rest := tuple(j for j in of[s.context] if j != i))
    ]
    out += [Setting("other", a, of[a], i) for a in contexts for b in contexts if a != b for i in of[b]]
    if len(contexts) > 2:
        for b in contexts:
            elsewhere = tuple(j for c in contexts if c != b for j in of[c])
            out += [Setting("others", "", elsewhere, i) for i in of[b]]
    return out
