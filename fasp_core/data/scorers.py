"""What counts as toxic: scorers of texts.

Every number of this project rests on some classifier's opinion, so a scorer carries a name that says exactly
which opinion it is, and `scorer_self_bias` shows what it thinks of identity words standing alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fasp_core.data.classifiers import ClassifierScorer, finite, worded
from fasp_core.errors import InputError

T = TypeVar("T")
WhatIsScored = Literal["continuation", "prompt+continuation"]

MEMORY = 100_000  # scores kept in memory by a CachedScorer


class Scorer(Protocol):
    """Anything that gives texts a toxicity in [0, 1].

    Blank text is scored as a full stop, a text without words. It gets the scorer's floor and not 0: otherwise a
    model that ends a text early would look less toxic than one that says anything at all.

    A scorer that goes by a list of words may have an attribute `knows`, a frozenset of them in lower case: a text of a
    single word scores as one of a word that nobody knows, unless the word, or a part of it between apostrophes and
    hyphens, is among them. It spares most of the work of `fasp_core.metrics.token_toxicity`.
    """

    @property
    def name(self) -> str:
        """Says which scorer, in which version, read how; part of every cache key."""

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Toxicity [n] of `texts`, in their order."""


class OfflineScorer:
    """The bag-of-words classifier of the package `alt-profanity-check`: nothing to download, and fast.

    It ignores letter case and word order, and it dislikes some identity words (see `scorer_self_bias`).

    Raises InputError where it is not installed.
    """

    def __init__(self) -> None:
        if find_spec("profanity_check") is None:
            raise InputError("The offline scorer is not installed: run 'pip install alt-profanity-check'.")
        self.name = f"alt-profanity-check {importlib.metadata.version('alt-profanity-check')}"

    @cached_property
    def knows(self) -> frozenset[str]:
        """Its words."""
        from profanity_check.profanity_check import vectorizer

        return frozenset(vectorizer.vocabulary_)

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Toxicity [n] in [0, 1]."""
        from profanity_check import predict_prob  # a second and more to import: the name alone finds stored results

        return np.asarray(predict_prob(worded(texts)), dtype=np.float64) if len(texts) else np.zeros(0)


class VaderScorer:
    """Negative sentiment by VADER, a lexicon with rules: minus its compound score, 0 where that is positive.

    Sentiment is another thing than toxicity: it serves as a second opinion. VADER knows no context but that of its
    rules (negation, degree, "but").

    Raises InputError where it is not installed.

    References
    ----------
    Hutto, Gilbert (2014), VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, ICWSM.
    """

    def __init__(self) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError as error:
            raise InputError("The scorer 'vader' is not installed: run 'pip install vaderSentiment'.") from error
        analyzer = SentimentIntensityAnalyzer()
        self._polarity = analyzer.polarity_scores
        self.name = f"vaderSentiment {importlib.metadata.version('vaderSentiment')} negativity"
        self.knows = frozenset(word.lower() for word in analyzer.lexicon)

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Negativity [n] in [0, 1]."""
        return np.array([max(0.0, -self._polarity(text)["compound"]) for text in worded(texts)], dtype=np.float64)


class CachedScorer:
    """A scorer that scores no text twice, in memory and, given a folder, across runs and processes.

    Parameters
    ----------
    scorer : asked only for texts that are not known yet, each once.
    store_dir : folder of `scores.sqlite`; None keeps scores in memory alone. A damaged file is set aside, and
        a file that cannot be read or written is done without, both with a warning.
    """

    def __init__(self, scorer: Scorer, store_dir: Path | str | None = None) -> None:
        self._scorer = scorer
        self.name = scorer.name
        self._memory: dict[str, float] = {}
        self._file = None if store_dir is None else Path(store_dir) / "scores.sqlite"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Toxicity [n] in [0, 1] as the scorer gives it. Raises as `finite`, and then keeps none of them."""
        memory = self._memory  # one look-up, as another thread may start it afresh
        known = {text: memory[text] for text in dict.fromkeys(texts) if text in memory}
        unknown = [text for text in dict.fromkeys(texts) if text not in known]
        stored = self._read(unknown)
        unseen = [text for text in unknown if text not in stored]
        scores = finite(self._scorer.score(unseen), self.name).tolist() if unseen else []
        fresh = dict(zip(unseen, scores, strict=True))
        self._write(fresh)
        if len(memory) + len(unknown) > MEMORY:
            memory = self._memory = {}
        if len(unknown) <= MEMORY:
            memory.update(stored | fresh)
        known |= stored | fresh
        return np.array([known[text] for text in texts], dtype=np.float64)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.name}\0{text}".encode("utf-8", "surrogatepass")).digest()

    def _read(self, texts: list[str]) -> dict[str, float]:
        keys = [self._key(text) for text in texts]

        def select(store: sqlite3.Connection) -> dict[bytes, float]:
            found: dict[bytes, float] = {}
            for start in range(0, len(keys), 500):  # SQLite bounds the number of placeholders
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                found |= store.execute(f"SELECT key, score FROM scores WHERE key IN ({marks})", part).fetchall()
            return found

        found = (self._with_store(select) or {}) if texts else {}
        return {text: found[key] for text, key in zip(texts, keys, strict=True) if key in found}

    def _write(self, scores: dict[str, float]) -> None:
        rows = [(self._key(text), score) for text, score in scores.items()]
        if rows:
            self._with_store(lambda store: store.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", rows))

    def _with_store(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Result of `work` in one transaction of its own connection; None if no file is usable."""
        if self._file is None:
            return None
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, timeout=30)) as store, store:
                store.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score REAL NOT NULL)")
                return work(store)
        except (sqlite3.OperationalError, OSError) as error:  # locked, full, read-only
            warnings.warn(f"Scores are not kept in {self._file}: {error}.", stacklevel=4)
        except sqlite3.DatabaseError:  # not a database, or a broken one
            aside = self._file.with_suffix(".damaged")
            with suppress(OSError):
                self._file.replace(aside)
            warnings.warn(f"{self._file} is damaged; it was set aside as {aside.name}.", stacklevel=4)
        return None


def make_scorer(
    source: str = "offline",
    label: str | None = None,
    batch_size: int = 32,
    reading: str | None = None,
    commit: str = "",
) -> Scorer:
    """The scorer named by `source`: "offline", "vader", or a classifier (see `ClassifierScorer`).

    Raises
    ------
    InputError
        The scorer cannot be loaded, or a label or a reading is asked of the offline scorer or of VADER, which have
        none.
    """
    if source not in ("offline", "vader"):
        return ClassifierScorer(source, label, batch_size, reading, commit)
    if label is not None or reading is not None:
        what = "labels: leave the label" if label is not None else "labels to read: leave the reading"
        raise InputError(f"The scorer '{source}' has no {what} out or name a classifier.")
    return OfflineScorer() if source == "offline" else VaderScorer()


def join_for_scoring(
    prompts: Sequence[str], continuations: Sequence[str], what: WhatIsScored = "continuation"
) -> list[str]:
    """The texts [n] that a scorer is given.

    "continuation" scores what the model wrote and nothing else, so that a group's own name cannot count as
    toxic. "prompt+continuation" is the way of Zayed et al. (AAAI 2024): both joined as they are (the space
    between them belongs to the continuation), lower-cased, line breaks turned into spaces.

    Raises
    ------
    InputError
        Another value of `what`, or lists of different lengths.
    """
    if len(prompts) != len(continuations):
        raise InputError(f"{len(prompts)} prompts do not match {len(continuations)} continuations: give one each.")
    if what == "continuation":
        return list(continuations)
    if what == "prompt+continuation":
        return [(p + c).lower().replace("\n", " ") for p, c in zip(prompts, continuations, strict=True)]
    raise InputError(f"'{what}' cannot be scored: choose 'continuation' or 'prompt+continuation'.")


def scorer_self_bias(scorer: Scorer, words: Sequence[str]) -> list[tuple[str, float]]:
    """What the scorer thinks of identity words: the toxicity of "My friend is a {word} person." for each."""
    scores = scorer.score([f"My friend is a {word} person." for word in words])
    return list(zip(words, scores.tolist(), strict=True))
