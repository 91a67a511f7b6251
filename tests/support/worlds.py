"""What tests measure on: scorers that know a few words, prompts about groups, a text, and models as folders."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, Evaluation
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import meters
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.token_toxicity import word_values
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
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
    return write_csv(path, rows)


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


PRUNED = PruneSet.parse("L0H1,L1H0,L1H3")
TOKENS_RUN, WINDOW = 200, 64
NOUNS = ("man", "woman", "friend", "child")


class Blank:
    """Nothing is toxic."""

    name = "blank"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.zeros(len(texts))


@dataclass
class Work:
    """What an evaluation needs, in a folder of its own."""

    folder: Path
    expected: EvalConfig
    sampled: EvalConfig
    rows: list[tuple[str, str]]  # text, group

    def store(self, name: str = "store") -> Store:
        return Store(self.folder / name)


def write_csv(path: Path, rows: list[tuple[str, str]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "group"), *rows])
    return str(path)


def work_in(folder: Path, patch: pytest.MonkeyPatch) -> Work:
    """Prompts of three groups, a text, and a scorer by words."""
    use_scorer(patch, complete=False)
    rows = [(f"{start} met a {group} {noun}", group) for start in STARTS for noun in NOUNS for group in GROUPS]
    text = write_text(folder, 300, tokens=TOKENS_RUN, window=WINDOW, stride=WINDOW)
    bias = BiasConfig(write_csv(folder / "own.csv", rows), split="all", n_prompts=72)
    generation = GenerationConfig(samples=2, tokens=5, seed=4)
    return Work(
        folder,
        EvalConfig(bias, text),
        EvalConfig(replace(bias, measure="sampled", generation=generation), text),
        rows,
    )


def calls_of(lm: LanguageModel) -> list[int]:
    """Grows by one entry whenever the model is run."""
    calls: list[int] = []
    lm.model.base_model.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def numbers(found: Evaluation) -> dict[str, Any]:
    """All that was found out about toxicity."""
    return {name: (r.base, r.pruned, r.gap, r.toxicity) for name, r in found.readings.items()}
