"""What prompts are: sentences of one axis, each with its group and what it was made from."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

NO_GROUP = "none"
_ROWS = ("texts", "groups", "templates", "descriptors", "nouns")


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one axis: five tuples of equal length n, and where they come from.

    Attributes
    ----------
    axis : name of the axis.
    split : "valid", "test" or "all".
    texts : the sentences, as they are given to a model.
    groups : the group of each sentence; "none" for a sentence in no group.
    templates, descriptors, nouns : what each sentence was made from; "" where there is no such part.
    blocks : of a sample, the number of the block each sentence is in: one sentence of every group, with the same
        template and, as far as there are enough, the same noun. Empty where sentences have no templates.
    notes : what was left out or repaired, one sentence each.
    file : name of the file that the prompts come from, "" for those of HolisticBias.
    unsplit : of one side of a split, the sentences of each group before.
    """

    axis: str
    split: str
    texts: tuple[str, ...]
    groups: tuple[str, ...]
    templates: tuple[str, ...]
    descriptors: tuple[str, ...]
    nouns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()
    file: str = field(default="", compare=False, kw_only=True)
    unsplit: tuple[tuple[str, int], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if len({len(getattr(self, name)) for name in _ROWS}) > 1:
            raise ValueError(f"{', '.join(_ROWS)} must have the same length")

    def __len__(self) -> int:
        return len(self.texts)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the (text, group) pairs, whatever their order. Nothing else is in it."""
        pairs = sorted(zip(self.texts, self.groups, strict=True))
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """Sentences by group, groups in order of first appearance, "none" included."""
        return dict(Counter(self.groups))

    def subset(self, indices: Iterable[int]) -> PromptSet:
        """The prompts at these positions, in the order given."""
        chosen = list(indices)
        names = (*_ROWS, "blocks") if self.blocks else _ROWS
        rows: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in chosen) for name in names}
        return replace(self, **rows)
