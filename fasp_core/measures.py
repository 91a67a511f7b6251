"""How the toxicity of an axis is measured: one config, one prepared meter, used by scores and evaluations alike.

A meter turns a model (under whatever masks are on) into one toxicity a prompt and reading. Both measures of the
toxicity gap are here: `expected` (next-word distribution, no sampling) and `sampled` (scored continuations).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from fasp_core import prompts as prompt_sets
from fasp_core.errors import InputError
from fasp_core.expected import READINGS, batch_prompts, measure_expected, read_expected, value_matrix
from fasp_core.generation import GenerationConfig, sample
from fasp_core.models import LanguageModel
from fasp_core.prompts import PromptSet
from fasp_core.store import Store
from fasp_core.text import file_stamp
from fasp_core.toxicity import (
    CachedScorer,
    Scorer,
    WhatIsScored,
    WordValues,
    join_for_scoring,
    make_scorer,
    word_values,
)

Report = Callable[[float, float, str], None]  # (done, total, what is going on)
MEASURES = ("expected", "sampled")
SPLITS = ("valid", "test", "all")


@dataclass(frozen=True)
class BiasConfig:
    """What the toxicity of an axis means.

    Attributes
    ----------
    axis : name of a HolisticBias axis, or the path of a CSV file with columns text, group.
    split : "valid" (choices are made on it), "test" (only measured) or "all".
    n_prompts : how many prompts at least; every group gets the same share, balanced over templates.
    seed : of the sample of prompts.
    measure : "expected" or "sampled".
    scorer : "offline", or a hub id or folder of a sequence classifier; `label` names the output that is read.
    scored : for `sampled`, "continuation" or "prompt+continuation".
    generation : for `sampled`, how continuations are drawn.
    """

    axis: str
    split: str = "valid"
    n_prompts: int = 450
    seed: int = 0
    measure: str = "expected"
    scorer: str = "offline"
    label: str | None = None
    scored: WhatIsScored = "continuation"
    generation: GenerationConfig = field(default_factory=GenerationConfig)

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise InputError(f"Unknown measure '{self.measure}': choose expected or sampled.")
        if self.split not in SPLITS:
            raise InputError(f"Unknown split '{self.split}': choose valid, test or all.")
        if self.n_prompts < 1:
            raise InputError("At least 1 prompt is needed: raise the number of prompts.")

    @property
    def readings(self) -> tuple[str, ...]:
        """Names of the rows that a measurement gives."""
        return READINGS if self.measure == "expected" else ("sampled",)

    def prompts(self) -> PromptSet:
        """The prompts that are measured; the sample for n holds the sample for fewer."""
        stamp = file_stamp(self.axis) if self.axis.lower().endswith(".csv") else None
        return _prompts(self.axis, self.split, self.n_prompts, self.seed, stamp)


@lru_cache(maxsize=16)
def _prompts(axis: str, split: str, n: int, seed: int, _stamp: tuple[int, int] | None) -> PromptSet:
    pool = prompt_sets.split(prompt_sets.resolve_axis(axis), split)
    minimum = 20 if axis in prompt_sets.axis_names() else 2  # a person's own groups count, however small
    groups = len(prompt_sets.sample(pool, 1, seed, minimum).counts())
    return prompt_sets.sample(pool, max(2, math.ceil(n / groups)), seed, minimum)


@lru_cache(maxsize=4)
def scorer_for(source: str, label: str | None = None) -> Scorer:
    """The scorer, loaded once a process."""
    return make_scorer(source, label)


def result_key(config: BiasConfig, weights_id: str, dtype: str) -> dict[str, Any]:
    """Everything that shapes a toxicity measurement, for the store. Known before a model is loaded."""
    key: dict[str, Any] = {
        "weights": weights_id,
        "dtype": dtype,
        "axis": config.axis if config.axis in prompt_sets.axis_names() else "csv",
        "split": config.split,
        "seed": config.seed,
        "prompts": config.prompts().digest[:16],
        "measure": config.measure,
        "scorer": scorer_for(config.scorer, config.label).name,
    }
    if key["axis"] == "csv":  # its rows may stand in any order, and results are kept row by row
        rows = json.dumps([config.prompts().texts, config.prompts().groups])
        key["rows"] = hashlib.sha256(rows.encode()).hexdigest()[:16]
    if config.measure == "expected":
        return key | {"steps": 1, "word_values": "above the median", "identity_words": _identity_digest()}
    return key | {"scored": config.scored, "generation": asdict(config.generation)}


def _identity_digest() -> str:
    return hashlib.sha256("\n".join(sorted(prompt_sets.identity_words())).encode()).hexdigest()[:16]


def stored_word_values(lm: LanguageModel, scorer: Scorer, store: Store) -> WordValues:
    """The scorer's value of every vocabulary word, computed once for a tokenizer and scorer."""
    key = {"tokenizer": lm.weights_id, "scorer": scorer.name, "identity_words": _identity_digest()}

    def work() -> Any:
        size = lm.model.get_output_embeddings().weight.shape[0]
        v = word_values(lm.tokenizer, scorer, prompt_sets.identity_words(), size)
        return {
            "arrays": {"counted": v.counted, "neutral": v.neutral},
            "meta": {"n_words": v.n_words, "n_neutral": v.n_neutral, "digest": v.digest},
        }

    entry = store.compute("words", key, work)
    return WordValues(entry.arrays["counted"], entry.arrays["neutral"], **entry.meta)


@dataclass(eq=False)
class ExpectedMeter:
    """Expected toxicity of the prompts, in the readings of `fasp_core.expected.READINGS`."""

    lm: LanguageModel
    config: BiasConfig
    store: Store

    def __post_init__(self) -> None:
        self.prompts = self.config.prompts()
        scorer = scorer_for(self.config.scorer, self.config.label)
        self.matrix = value_matrix(self.lm, stored_word_values(self.lm, scorer, self.store))
        self.batches = batch_prompts(self.lm, self.prompts.texts)

    def read(self, _batch: int, hidden: Any) -> np.ndarray:
        """[rows, 2] from final hidden states: what `sweep_heads` calls."""
        return read_expected(self.lm, hidden, self.matrix)

    def measure(self, progress: Report | None = None) -> np.ndarray:
        """[2, n] under whatever masks are on."""
        return measure_expected(self.lm, self.batches, self.matrix, progress)


@dataclass(eq=False)
class SampledMeter:
    """Mean toxicity of sampled continuations, with noise fixed for each (seed, prompt, sample, step)."""

    lm: LanguageModel
    config: BiasConfig
    store: Store

    def __post_init__(self) -> None:
        self.prompts = self.config.prompts()
        self.scorer = CachedScorer(scorer_for(self.config.scorer, self.config.label), self.store.root / "toxicity")
        self.texts: list[list[str]] = []  # the continuations of the latest measurement

    def measure(self, progress: Report | None = None) -> np.ndarray:
        """[1, n] under whatever masks are on: the mean over a prompt's continuations."""
        self.texts = sample(self.lm, self.prompts.texts, self.config.generation, progress)
        flat = [c for row in self.texts for c in row]
        repeated = [p for p in self.prompts.texts for _ in range(self.config.generation.samples)]
        scores = self.scorer.score(join_for_scoring(repeated, flat, self.config.scored))
        means: np.ndarray = np.asarray(scores).reshape(len(self.prompts), -1).mean(1)
        return means[None]


def meter(lm: LanguageModel, config: BiasConfig, store: Store) -> ExpectedMeter | SampledMeter:
    """The prepared meter for a config."""
    return (ExpectedMeter if config.measure == "expected" else SampledMeter)(lm, config, store)
