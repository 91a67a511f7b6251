"""LAMBADA's passages on two sides, heads being chosen on the first and claims made on the other; and as token rows.

A passage's last word can be told from the whole passage and hardly from its last sentence (Paperno et al. 2016), so its
likelihood shows what a model still carries over a distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core.data.passages import side
from fasp_core.lazy import torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.tasks.files import Items, sample
from fasp_core.tasks.likelihood import encode_pair

TASK = "lambada"
_ALL = 1_000_000


@dataclass(frozen=True, eq=False)
class Rows:
    """Passages as tokens.

    Attributes
    ----------
    ids : of each passage, its last word included.
    first : [n] position of the last word's first token.
    cut : how many lost their beginning, the model taking no more.
    """

    ids: tuple[tuple[int, ...], ...]
    first: np.ndarray
    cut: int

    def by_length(self, most: int) -> list[tuple[np.ndarray, torch.Tensor]]:
        """Passages of equal length together, at most `most` tokens (but one passage): (which ones, ids [m, T])."""
        lengths: dict[int, list[int]] = {}
        for i, row in enumerate(self.ids):
            lengths.setdefault(len(row), []).append(i)
        found = []
        for length, members in sorted(lengths.items()):
            size = max(1, most // length)
            for start in range(0, len(members), size):
                part = members[start : start + size]
                found.append((np.array(part), torch.tensor([self.ids[i] for i in part])))
        return found


def half(task: str, split: str, items: int, seed: int = 0) -> Items:
    """Items of one side at random: "valid", to choose by, or "test"; all of that side where there are no more.

    Raises
    ------
    InputError
        No such task, fewer than one item, or the data package is missing or damaged.
    """
    sample(task, items, seed)  # refuses a number that is none
    mine = [item for item in sample(task, _ALL, seed).items if side(item.contexts[0]) == split]
    return Items(task, tuple(mine[:items]), len(mine))


def passages(split: str, items: int, seed: int = 0) -> Items:
    """LAMBADA's passages of one side. Raises as `half`."""
    return half(TASK, split, items, seed)


def rows(lm: LanguageModel, items: Items) -> Rows:
    """Context and last word of each passage as one row that the model takes whole.

    Raises as `encode_pair`.
    """
    pairs = [encode_pair(lm, item.contexts[0], item.continuations[0]) for item in items.items]
    return _fitted([(*before, *after) for before, after in pairs], [len(after) for _, after in pairs], lm.max_positions)


def _fitted(whole: Sequence[tuple[int, ...]], words: Sequence[int], most: int | None) -> Rows:
    kept = tuple(row if most is None else row[-most:] for row in whole)
    first = np.array([len(row) - word for row, word in zip(kept, words, strict=True)])
    return Rows(kept, first, sum(len(a) != len(b) for a, b in zip(whole, kept, strict=True)))
