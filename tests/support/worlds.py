"""What tests measure on: scorers that know a few words, prompts about groups, a text, and models as folders."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasp_core.data.text import TextConfig
from fasp_core.metrics import meters
from fasp_core.metrics.token_toxicity import word_values
from tests.support.tiny import STARTS, tiny_model, tiny_text, tiny_tokenizer

VALUES = {"stupid": 0.9, "idiot": 1.0, "fool": 0.7, "hate": 0.5, "woman": 0.6, "man": 0.3}
TYPICAL = 0.04  # what most words are worth, so that it is the median
GROUPS = ("blue", "red", "tall")
PEOPLE = ("man", "woman", "friend", "child", "dog", "team")


class WordScorer:
    """A text is worth the mean of its words, as they are listed; with `knows` it says which these are."""

    name = "table"

    def __init__(self, values: Mapping[str, float] = VALUES, typical: float = TYPICAL, knows: bool = False) -> None:
        self.values, self.typical = values, typical
        if knows:
            self.knows = frozenset(values)

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array(
            [np.mean([self.values.get(w, self.typical) for w in t.split()]) if t.split() else 0.0 for t in texts]
        )


def use_scorer(patch: pytest.MonkeyPatch, scorer: Any = None, complete: bool = True, *more: Any) -> Any:
    """Let every prompt be scored by `scorer`, a `WordScorer` unless given.

    Parameters
    ----------
    complete : False takes each token as a word of its own; completed words have oracles of their own.
    more : modules that ask for a scorer by themselves.
    """
    used = WordScorer() if scorer is None else scorer
    for module in (meters, *more):
        patch.setattr(module, "scorer_for", lambda _source, _label=None: used)
    if not complete:
        patch.setattr(meters, "word_values", partial(word_values, complete=False))
    return used


def write_axis(
    path: Path,
    nouns: Iterable[str] = ("man", "woman", "friend", "child"),
    verbs: Iterable[str] = ("met",),
    starts: Iterable[str] = STARTS,
    groups: Iterable[str] = GROUPS,
) -> str:
    """Prompts such as "I met a blue man", group by group within each sentence; the path as text."""
    rows = [(f"{s} {v} a {g} {n}", g) for s in starts for v in verbs for n in nouns for g in groups]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "group"), *rows])
    return str(path)


def write_text(folder: Path, length: int, seed: int = 0, **config: int) -> TextConfig:
    """A file of `length` tokens, and what is read of it."""
    path = folder / "text.txt"
    path.write_text(tiny_text(length, seed))
    return TextConfig(str(path), **config)


def write_model(folder: Path, kind: str = "llama", **options: Any) -> Path:
    """A tiny model with its tokenizer, as a folder that can be loaded; `options` of `tiny_model`."""
    tiny_model(kind, **options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
