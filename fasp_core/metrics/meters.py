"""How the toxicity of an axis is measured: one config, one prepared meter, used by scores and evaluations alike.

A meter turns a model (under whatever masks are on) into one toxicity a prompt and reading. The measures of the toxicity
gap are here, from narrow to wide: `expected` (next-word distribution, no sampling; with contexts that groups share also
of later words), `written` (the same at every step of what the model writes) and `sampled` (scored continuations).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from fasp_core.data import prompt_sampling
from fasp_core.data.classifiers import ClassifierScorer
from fasp_core.data.divisions import divide
from fasp_core.data.holistic_bias import axis_names, identity_words
from fasp_core.data.prompt_set import PromptSet
from fasp_core.data.prompts import fewest, is_file, resolve_axis
from fasp_core.data.scorers import CachedScorer, Scorer, WhatIsScored, join_for_scoring, make_scorer
from fasp_core.data.text import file_stamp
from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.forward.sampling import GenerationConfig, sample, sample_ids
from fasp_core.metrics.completing import Completions, complete_all
from fasp_core.metrics.expected import READINGS, Reader, TokenToxicity, measure_expected, read_expected
from fasp_core.metrics.shared_contexts import SharedContexts
from fasp_core.metrics.token_toxicity import Vocabulary, WordValues, word_values
from fasp_core.metrics.written import LONGEST, written
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, encode, pack
from fasp_core.model.spec import BUILT_IN_SHA256
from fasp_core.storage.keys import digest, slug
from fasp_core.storage.stamps import stamp
from fasp_core.storage.store import Entry, Store
from fasp_core.typing import Report

logger = logging.getLogger(__name__)
MEASURES = ("expected", "written", "sampled")
SPLITS = ("valid", "test", "all")
WORDS = "completed, above the floor"  # what a word is worth, see fasp_core.metrics.token_toxicity; part of every key
BY_NEED = "completed where the scorer knows a word worth more than .05, above the floor"


@dataclass(frozen=True)
class BiasConfig:
    """What the toxicity of an axis means.

    Attributes
    ----------
    axis : name of a HolisticBias axis, or the path of a CSV file with columns text, group.
    split : "valid" (choices are made on it), "test" (only measured) or "all".
    n_prompts : how many prompts at least; every group gets the same share, balanced over templates.
    seed : of the sample of prompts.
    measure : "expected", "written" or "sampled".
    scorer : "offline", or a sequence classifier of a hub or folder; `label` names the output that is read.
    scored : for `sampled`, "continuation" or "prompt+continuation".
    generation : for `sampled` and `written`, how continuations are drawn; the length of written ones is `steps`.
    steps : for `expected` and `written`, how many positions: 1 is the next word alone. For `expected` the contexts of
        the others are sampled from the unpruned model.
    scorer_reading : whether the labels of a classifier are independent ("sigmoid") or compete ("softmax"); None: as its
        config says, see `classifiers`.
    contexts : for `expected`, how many contexts all prompts of a block share, see `shared_contexts`; None: each prompt
        has one of its own, and the mean over steps is taken in place of the sum.
    cell, division : prompts of one cell of a division of templates and descriptors, see `divisions`; "": all of them.
    scorer_stamp : of a classifier's folder, the state of its files that is meant, so that what was asked of another one
        is another question; shapes nothing.
    """

    axis: str
    split: str = "valid"
    n_prompts: int = 720
    seed: int = 0
    measure: str = "expected"
    scorer: str = "offline"
    label: str | None = None
    scored: WhatIsScored = "continuation"
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    steps: int = 1
    scorer_reading: str | None = None
    contexts: int | None = None
    cell: str = ""
    division: int | None = None
    scorer_stamp: str = ""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise InputError(f"Unknown measure '{self.measure}': choose {', '.join(MEASURES[:-1])} or {MEASURES[-1]}.")
        if self.split not in SPLITS:
            raise InputError(f"Unknown split '{self.split}': choose valid, test or all.")
        if self.n_prompts < 1:
            raise InputError("At least 1 prompt is needed: raise the number of prompts.")
        if not 1 <= self.steps <= 64:
            raise InputError(f"Expected toxicity cannot look at {self.steps} steps: choose 1 to 64.")
        if self.measure == "written" and self.steps > LONGEST:
            raise InputError(f"Written toxicity cannot look at {self.steps} steps: choose 1 to {LONGEST}.")
        if self.division is not None and not self.cell:
            raise InputError("A division is of no use without a cell of it: name one, such as 'new both'.")
        if self.contexts is not None and (self.contexts < 1 or self.measure != "expected"):
            raise InputError("Shared contexts are of the measure expected, and no fewer than 1: choose that measure.")

    @property
    def readings(self) -> tuple[str, ...]:
        """Names of the rows that a measurement gives."""
        if self.measure == "sampled":
            return ("sampled",)
        return (*READINGS, *(f"{name} direct" for name in READINGS)) if self.contexts else READINGS

    @property
    def drawn(self) -> GenerationConfig:
        """How the continuations of the measure `written` are drawn."""
        return replace(self.generation, tokens=self.steps)

    def prompts(self) -> PromptSet:
        """The prompts that are measured; the sample for n holds the sample for fewer."""
        stamp = file_stamp(self.axis) if is_file(self.axis) else None
        return _prompts(self.axis, self.split, self.n_prompts, self.seed, stamp, self.cell, self.division or 0)

    def pool(self) -> PromptSet:
        """All prompts of its split and cell, that those which are measured are drawn from."""
        return _pool(self.axis, self.split, self.cell, self.division or 0)


def left_out(*configs: BiasConfig) -> list[str]:
    """What the samples of prompts leave out or repair, each sentence once. Every command and page tells it."""
    return list(dict.fromkeys(note for config in configs for note in config.prompts().notes))


def _pool(axis: str, split: str, cell: str, division: int) -> PromptSet:
    whole = resolve_axis(axis)
    return prompt_sampling.split(divide(whole, cell, division) if cell else whole, split)


@lru_cache(maxsize=16)
def _prompts(
    axis: str, split: str, n: int, seed: int, _stamp: tuple[int, int] | None, cell: str, division: int
) -> PromptSet:
    pool = _pool(axis, split, cell, division)
    minimum = fewest(axis)
    groups = len(prompt_sampling.sample(pool, 1, seed, minimum).counts())
    return prompt_sampling.sample(pool, max(2, math.ceil(n / groups)), seed, minimum)


_commits: dict[str, str] = {}  # of classifiers of a hub: a name means the same as long as the process lives


def scorer_for(source: str, label: str | None = None, reading: str | None = None) -> Scorer:
    """The scorer, loaded once a process, and anew where the files of a folder have changed."""
    return _scorer(source, label, reading, stamp(source))


@lru_cache(maxsize=4)
def _scorer(source: str, label: str | None, reading: str | None, _stamp: str) -> Scorer:
    scorer = make_scorer(source, label, reading=reading, commit=_commits.get(source, ""))
    if commit := getattr(scorer, "commit", ""):
        _commits.setdefault(source, commit)
    return scorer


def scorer_of(config: BiasConfig, lm: LanguageModel | None = None) -> Scorer:
    """The scorer of a measurement, on the device of the model that is measured."""
    more = (config.label, config.scorer_reading) if config.scorer_reading else (config.label,)
    return beside(scorer_for(config.scorer, *more), lm)


def beside(scorer: Scorer, lm: LanguageModel | None) -> Scorer:
    """The same scorer, where it is a model itself on the device of the one that is measured."""
    if lm is not None and isinstance(scorer, ClassifierScorer):
        scorer.move(str(lm.device))
    return scorer


def result_key(config: BiasConfig, model_id: ModelId) -> dict[str, Any]:
    """Everything that shapes a toxicity measurement, for the store. Known before a model is loaded."""
    key: dict[str, Any] = {
        **model_id.key(),
        "axis": config.axis if config.axis in axis_names() else "csv",
        "split": config.split,
        "seed": config.seed,
        "prompts": config.prompts().digest[:16],
        "measure": config.measure,
        "scorer": (scorer := scorer_of(config)).name,
    }
    if config.cell:  # its scores are none of the whole axis
        key["axis"] = f"{key['axis']}, {config.cell}, division {config.division or 0}"
    if key["axis"] == "csv":  # its rows may stand in any order, and results are kept row by row
        rows = json.dumps([config.prompts().texts, config.prompts().groups])
        key["rows"] = hashlib.sha256(rows.encode()).hexdigest()[:16]
    if config.measure != "sampled":
        drawn: dict[str, Any] = {"noise": noise.VERSION} if config.steps > 1 else {}
        if config.contexts:
            drawn["contexts"] = config.contexts
        if config.measure == "written":
            drawn["generation"] = config.drawn.key()
        words = words_worth(model_id, scorer)
        return key | {"steps": config.steps, "words": words, "identity_words": _identity_digest()} | drawn
    return key | {"scored": config.scored, "generation": config.generation.key(), "noise": noise.VERSION}


def _identity_digest() -> str:
    return hashlib.sha256("\n".join(sorted(identity_words())).encode()).hexdigest()[:16]


def words_worth(model_id: ModelId, scorer: Scorer) -> str:
    """How the worth of words is found, part of every key.

    Completing every token of a large vocabulary takes hours, so with a scorer that says which words it knows only the
    tokens are completed that may be worth something. The built-in model's completions come with the program.
    """
    come_along = model_id.whole.key() == ModelId(f"sha256:{BUILT_IN_SHA256}").key()
    whole = come_along or getattr(scorer, "knows", None) is None
    return WORDS if whole else BY_NEED


def stored_word_values(lm: LanguageModel, scorer: Scorer, store: Store, progress: Report | None = None) -> WordValues:
    """The worth of every token, computed once for a model and scorer.

    What it leaves out is said whenever it is used: as a warning, and in the model's notes, which go into provenance.
    """
    how = words_worth(lm.id, scorer)
    key = {**lm.id.whole.key(), "scorer": scorer.name, "identity_words": _identity_digest(), "words": how}
    said = [field.name for field in fields(WordValues) if field.name != "values"]

    def work() -> Any:
        known = partial(stored_completions, lm, store, progress) if how == WORDS else None
        by_need = how == BY_NEED
        v = word_values(lm, scorer, identity_words(), by_need=by_need, known=known, progress=progress)
        return {"arrays": {"values": v.values}, "meta": {name: getattr(v, name) for name in said}}

    def read(entry: Entry) -> WordValues:
        # older entries lack what is said of tokens that were left out
        return WordValues(entry.arrays["values"], **{name: entry.meta[name] for name in said if name in entry.meta})

    found: WordValues = store.made("words", key, work, read, label=slug(lm.name))
    note = found.inexactness(scorer.name)
    if note and note not in lm.notes:
        logger.warning("%s: %s", lm.name, note)
        lm.notes = (*lm.notes, note)
    return found


def stored_completions(lm: LanguageModel, store: Store, progress: Report | None = None) -> Completions:
    """What every token is completed to: a pass of the model for each, once for all scorers."""
    key = {**lm.id.whole.key(), "words": WORDS, "what": "completions"}

    def work() -> Any:
        spelled = Vocabulary.of(lm)
        found = Completions.of(complete_all(lm, spelled.groups, spelled.pieces, progress=progress))
        return {"arrays": found.arrays(), "meta": {"n_words": len(found.tokens)}}

    return store.made("words", key, work, lambda e: Completions.read(e.arrays), label=f"{slug(lm.name)}--completions")


@dataclass(eq=False)
class ExpectedMeter:
    """Expected toxicity of the prompts, in the readings of the config.

    Attributes
    ----------
    rows : [m] token ids of each prompt and of the context that follows it; m = n unless contexts are shared.
    worth : what is read of the rows, K columns each.
    shared : the contexts that prompts of a block share, if they do.
    """

    lm: LanguageModel
    config: BiasConfig
    store: Store
    progress: Report | None = None

    def __post_init__(self) -> None:
        self.prompts = self.config.prompts()
        self.rows = encode(self.lm, self.prompts.texts, self.config.steps - 1)
        scorer = scorer_of(self.config, self.lm)
        words = stored_word_values(self.lm, scorer, self.store, self.progress)
        self.worth: Reader = TokenToxicity.of(self.lm, words)
        self.shared: SharedContexts | None = None
        if self.config.contexts:
            self.shared = self._contexts(self.config.contexts)
            self.rows, self.worth = self.shared.rows, self.shared.reader(TokenToxicity.of(self.lm, words))
        elif self.config.steps > 1:
            drawn = GenerationConfig(tokens=self.config.steps - 1, seed=self.config.seed)
            contexts = sample_ids(self.lm, self.prompts.texts, drawn, ids=self.rows)  # made before any head is removed
            self.rows = [ids + context[0] for ids, context in zip(self.rows, contexts, strict=True)]
        self.packs = pack(self.lm, self.rows, self.config.steps)

    def _contexts(self, contexts: int) -> SharedContexts:
        """Those of the config; stored, as every measurement of a set needs the same."""
        steps, seed = self.config.steps, self.config.seed
        drawn = {"steps": steps, "contexts": contexts, "seed": seed, "noise": noise.VERSION}
        texts = digest([self.prompts.texts, self.prompts.blocks])

        def work() -> Any:
            found = SharedContexts.draw(self.lm, self.prompts, self.rows, steps, contexts, seed, self.progress)
            return {"arrays": found.arrays(), "meta": {}}

        key = {**self.lm.id.whole.key(), "prompts": texts} | drawn
        return self.store.made("contexts", key, work, lambda e: SharedContexts.read(e.arrays), label=slug(self.lm.name))

    def read(self, pack: Pack, hidden: Any) -> np.ndarray:
        """[m, K] from final hidden states of a pack."""
        return read_expected(self.lm, hidden, pack, self.worth)

    def fold(self, columns: np.ndarray) -> np.ndarray:
        """[..., R, n] of the columns [..., K, m] of all rows."""
        return columns if self.shared is None else self.shared.fold(columns)

    def more(self, columns: np.ndarray) -> dict[str, np.ndarray]:
        """What else the columns of a measurement say: `weights` [n, C] of shared contexts."""
        return {} if self.shared is None else {"weights": self.shared.weights(columns)}

    def measure(self, progress: Report | None = None) -> np.ndarray:
        """[K, m] under whatever masks are on."""
        return measure_expected(self.lm, self.packs, self.worth, progress)


@dataclass(eq=False)
class WrittenMeter:
    """Expected toxicity at every step of what the model writes, with common noise; see `written`."""

    lm: LanguageModel
    config: BiasConfig
    store: Store
    progress: Report | None = None

    def __post_init__(self) -> None:
        self.prompts = self.config.prompts()
        self.rows = encode(self.lm, self.prompts.texts, self.config.steps)
        scorer = scorer_of(self.config, self.lm)
        self.worth = TokenToxicity.of(self.lm, stored_word_values(self.lm, scorer, self.store, self.progress))

    def fold(self, columns: np.ndarray) -> np.ndarray:
        """[R, n] of [R, steps, n]: the sum over steps, how many toxic words are to be expected."""
        return np.asarray(columns.sum(-2))

    def more(self, columns: np.ndarray) -> dict[str, np.ndarray]:
        """The steps one by one: `steps` [R, steps, n]."""
        return {"steps": columns}

    def measure(self, progress: Report | None = None) -> np.ndarray:
        """[R, steps, n] under whatever masks are on."""
        return written(self.lm, self.prompts.texts, self.worth, self.config.drawn, progress, ids=self.rows)


@dataclass(eq=False)
class SampledMeter:
    """Mean toxicity of sampled continuations, with noise fixed for each (seed, prompt, sample, step)."""

    lm: LanguageModel
    config: BiasConfig
    store: Store

    def __post_init__(self) -> None:
        self.prompts = self.config.prompts()
        self.scorer = CachedScorer(scorer_of(self.config, self.lm), self.store.root / "toxicity")
        self.texts: list[list[str]] = []  # the continuations of the latest measurement

    def fold(self, columns: np.ndarray) -> np.ndarray:
        """[1, n], as it is measured."""
        return columns

    def more(self, _columns: np.ndarray) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def measure(self, progress: Report | None = None) -> np.ndarray:
        """[1, n] under whatever masks are on: the mean over a prompt's continuations."""
        self.texts = sample(self.lm, self.prompts.texts, self.config.generation, progress)
        return self.worth(self.texts)

    def worth(self, texts: list[list[str]]) -> np.ndarray:
        """[1, n] of continuations by prompt, wherever they were written."""
        flat = [c for row in texts for c in row]
        repeated = [p for p in self.prompts.texts for _ in range(self.config.generation.samples)]
        scores = self.scorer.score(join_for_scoring(repeated, flat, self.config.scored))
        means: np.ndarray = np.asarray(scores).reshape(len(self.prompts), -1).mean(1)
        return means[None]


Meter = ExpectedMeter | WrittenMeter | SampledMeter


def meter(lm: LanguageModel, config: BiasConfig, store: Store, progress: Report | None = None) -> Meter:
    """The prepared meter for a config. Make it with no head pruned: it may run the model."""
    if config.measure == "sampled":
        return SampledMeter(lm, config, store)
    return (WrittenMeter if config.measure == "written" else ExpectedMeter)(lm, config, store, progress)
