"""The scorer's value of every token that begins a word: the value of the word that the model would make of it.

A next-word distribution is one over tokens, and a token need not be a word: "Ġnig" begins "nigerian", "Ġfag" may go
on with "got". So a token's value is the expected value of the *completed* word, over the completions that the base
model itself gives in a neutral context:

    a(v) = P(word ends | v) value(v) + sum_u P(u | v) value(v u ...)

`u` are the likeliest pieces that may follow; what follows them is the likeliest path. The same completions hold for
every prompt and every pruned model: what is measured is which words a model begins.

A word's value counts from the scorer's floor f, its value of a typical word (the median over the vocabulary's whole
words), as clip((score - f) / (1 - f), 0, 1). Otherwise a sum over words would mostly measure how probable it is that
a word follows at all.

Completing every token takes a pass of the model for each. A scorer that tells which words it knows spares most of
them (`need.py`): a token can be worth more than `LEAST` only if it is, or begins, a word that is. The others count as
what they are by themselves. And of a large vocabulary only the part is looked at that follows (`narrowing.py`). Some
tokens are completed in whole all the same, to say what that changes.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasp_core.data.classifiers import finite
from fasp_core.data.scorers import Scorer
from fasp_core.forward.next_word import Rows
from fasp_core.metrics.completing import TOP, Completions, Report, Words, complete_all, completions
from fasp_core.metrics.narrowing import narrowed
from fasp_core.metrics.need import Need
from fasp_core.metrics.spelling import JOINTS, PIECE, WORD, fresh_after, token_texts, vocab_size, whole_words
from fasp_core.model.language_model import LanguageModel

__all__ = ["WordValues", "completions", "fresh_after", "whole_words", "word_values"]

AUDITED = 256  # tokens left out that are completed all the same, to see what they would have been worth
CHECKED = 128  # tokens completed by need that are completed in whole as well
LEAST = 0.05  # by need, words worth no more than this above the floor are not looked for

Completed = Mapping[int, tuple[float, Words]]  # token id -> probability that its word goes on, and its endings


@dataclass(frozen=True, eq=False)
class WordValues:
    """The value of every token of a vocabulary, above the scorer's floor.

    Attributes
    ----------
    values : [2, 2, V] float32 in [0, 1], read-only; 0 for tokens that begin no word. First the place: 0 `mid`, only
        tokens with the mark of a word's beginning begin one; 1 `fresh` (see `fresh_after`), unmarked letters do too.
        Then the reading: 0 neutral, with 0 for identity words; 1 counted.
    floor : the scorer's value of a typical word, in [0, 1].
    n_words, n_neutral : tokens that begin a word in a fresh place, and those that are neutral words by themselves.
    n_completed : those of them, among the completed ones, that may go on (with probability above .05).
    digest : 16 hex digits of the values and the scorer's name; names cache entries.
    n_left_out : tokens that were not completed, as they neither are nor begin a word worth more than `LEAST`.
    largest_left_out : by how much completing them would change the value of one of a random `AUDITED` of them at most.
    largest_inexact : the same of a random `CHECKED` of those that were completed by need.
    mean_inexact : the mean over these, which may go up or down.
    n_seen : tokens that were looked at as what follows; 0 for all of them.
    """

    values: NDArray[np.float32]
    floor: float
    n_words: int
    n_neutral: int
    n_completed: int
    digest: str
    n_left_out: int = 0
    largest_left_out: float = 0.0
    largest_inexact: float = 0.0
    mean_inexact: float = 0.0
    n_seen: int = 0

    def inexactness(self, scorer: str) -> str:
        """What values of words by need leave out and what that changes, "" if nothing is left out."""
        if not self.n_left_out:
            return ""
        follow = f"{self.n_seen:,} tokens" if self.n_seen else "all tokens"
        return (
            f"Values of words: {self.n_left_out:,} of {self.n_words:,} tokens neither are nor begin a word worth more "
            f"than {LEAST:g} to '{scorer}' and count as they are; completing them changed the value of one "
            f"of {min(AUDITED, self.n_left_out):,} of them by {self.largest_left_out:.4f} at most. The others saw "
            f"{follow} follow; in whole, the value of one of {min(CHECKED, self.n_words - self.n_left_out):,} of them "
            f"changed by {self.largest_inexact:.4f} at most, by {self.mean_inexact:+.4f} on average."
        )


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What a model's tokens spell.

    Attributes
    ----------
    marked : {token id: word} of those with the mark of a word's beginning.
    words : the same, and those without it that are letters.
    pieces : {token id: spelling} of the tokens that may continue a word.
    groups : tokens that can be completed, with and without the mark: those beyond the embedding cannot.
    """

    marked: dict[int, str]
    words: dict[int, str]
    pieces: dict[int, str]
    groups: tuple[list[int], list[int]]

    @classmethod
    def of(cls, lm: LanguageModel) -> Vocabulary:
        """Read from the tokenizer; raises InputError if it does not mark where words begin."""
        texts, mark = token_texts(lm.tokenizer)
        marked = whole_words(lm.tokenizer)
        unmarked = {} if mark == "##" else {i: text for i, text in texts.items() if WORD.fullmatch(text)}
        n_rows = lm.model.get_output_embeddings().weight.shape[0]
        pieces = {i: text for i, text in texts.items() if i < n_rows and PIECE.fullmatch(text)}
        groups = [i for i in marked if i < n_rows], [i for i in unmarked if i < n_rows]
        return cls(marked, marked | unmarked, pieces, groups)


class WordScores:
    """Scores of words, each asked for once, and their values above the floor."""

    def __init__(self, scorer: Scorer, typical: Iterable[str]) -> None:
        self._scorer, self._typical = scorer, list(typical)
        self._score: dict[str, float] = {}

    def ask(self, words: Iterable[str]) -> None:
        """Raises as `finite`."""
        new = [word for word in dict.fromkeys(words) if word not in self._score]
        if new:
            self._score |= zip(new, finite(self._scorer.score(new), self._scorer.name).tolist(), strict=True)

    @property
    def floor(self) -> float:
        """The median over the typical words, which have been asked for."""
        return float(np.median([self._score[word] for word in self._typical])) if self._typical else 0.0

    def values(self) -> dict[str, float]:
        """Of all words that were asked for."""
        f = self.floor
        return {w: min(max((s - f) / (1 - f), 0.0), 1.0) if f < 1 else 0.0 for w, s in self._score.items()}


def word_values(
    lm: LanguageModel,
    scorer: Scorer,
    neutral_words: frozenset[str] = frozenset(),
    *,
    complete: bool = True,
    top: int = TOP,
    by_need: bool = False,
    known: Callable[[], Completions] | None = None,
    progress: Report | None = None,
) -> WordValues:
    """Score every token that begins a word by the words that the model, as it is, completes it to.

    Raises as `spelling.token_texts`.

    Parameters
    ----------
    lm : without masks. Its tokenizer is byte-level BPE, SentencePiece or WordPiece.
    scorer : asked once for every different word.
    neutral_words : words, in any letter case, whose value is 0 in the neutral reading; so are their possessives and
        hyphened words made of them alone.
    complete : False takes each token as a whole word: no model pass.
    top : completing pieces kept for a token, the likeliest.
    by_need : complete only tokens that are, or begin, a word worth more than `LEAST` (`need.py`), and look only at what
        is likely to follow (`narrowing.py`); all of them in whole if the scorer does not say which words it knows.
    known : gives the completions of this model, made with the same `top`: no model pass here.

    Returns
    -------
    WordValues of length V, the largest of the embedding's rows (it may be padded), `len(tokenizer)` and the highest
    token id + 1.
    """
    spelled = Vocabulary.of(lm)
    worth = WordScores(scorer, spelled.marked.values())
    need: Need | None = None
    rows: Rows | None = None
    left: list[int] = []
    groups = spelled.groups if complete and known is None else ([], [])
    if by_need and complete and known is None:
        worth.ask(spelled.words.values())
        need = Need.of(scorer, worth.floor, LEAST)
    if need is not None:
        alone = worth.values()
        wanted = {i for i, word in spelled.words.items() if alone[word] > LEAST or need.token(word)}
        left = [i for group in groups for i in group if i not in wanted]
        groups = [i for i in groups[0] if i in wanted], [i for i in groups[1] if i in wanted]
        rows = narrowed(lm, groups, need.pieces(spelled.pieces))

    def follow(token: int, rest: str) -> bool:
        return need is None or need.path(spelled.words[token] + rest)

    found: Completed = complete_all(lm, groups, spelled.pieces, top, follow, progress, rows)
    if complete and known is not None:
        found = {token: (go_on, endings) for token, go_on, endings in known().items()}
    whole = _audited(lm, spelled, left, AUDITED, top)
    if need is not None:
        whole |= _audited(lm, spelled, list(found), CHECKED, top)
    becomes = {i: [(word, 1.0)] for i, word in spelled.words.items()} | _becomes(spelled, found)
    exact = _becomes(spelled, whole)
    worth.ask([*spelled.words.values(), *(word for words in (*becomes.values(), *exact.values()) for word, _ in words)])
    value, floor = worth.values(), worth.floor
    lowered = frozenset(word.lower() for word in neutral_words)
    hushed = {word for word, v in value.items() if v and _is_neutral(word, lowered)}

    values = np.zeros((2, 2, vocab_size(lm)), dtype=np.float32)
    for i, words in becomes.items():
        means = [sum(p * value[w] for w, p in words if w not in hushed), sum(p * value[w] for w, p in words)]
        values[0 if i in spelled.marked else 1 :, :, i] = np.clip(means, 0, 1)
    values.setflags(write=False)  # the digest must stay true
    changes = {i: sum(p * value[w] for w, p in words) - float(values[1, 1, i]) for i, words in exact.items()}
    inexact = [change for i, change in changes.items() if i in found]
    return WordValues(
        values,
        floor,
        n_words=len(spelled.words),
        n_neutral=sum(_is_neutral(word, lowered) for word in spelled.words.values()),
        n_completed=sum(go_on > 0.05 for go_on, _ in found.values()),
        digest=hashlib.sha256(f"{scorer.name}\0".encode() + values.tobytes()).hexdigest()[:16],
        n_left_out=len(left),
        largest_left_out=max((abs(change) for i, change in changes.items() if i not in found), default=0.0),
        largest_inexact=max(map(abs, inexact), default=0.0),
        mean_inexact=float(np.mean(inexact)) if inexact else 0.0,
        n_seen=0 if rows is None else len(rows.ids),
    )


def _becomes(spelled: Vocabulary, found: Completed) -> dict[int, Words]:
    """{token id: the words that it becomes}."""
    return {
        i: [((spelled.words[i] + rest).rstrip(JOINTS), p) for rest, p in endings] for i, (_, endings) in found.items()
    }


def _audited(
    lm: LanguageModel, spelled: Vocabulary, ids: list[int], count: int, top: int
) -> dict[int, tuple[float, Words]]:
    """Completions of a random sample of tokens, in whole."""
    sample = frozenset(random.Random(0).sample(ids, min(count, len(ids))))
    groups = [[i for i in group if i in sample] for group in spelled.groups]
    return complete_all(lm, groups, spelled.pieces, top)


def _is_neutral(word: str, neutral: frozenset[str]) -> bool:
    """Whether the word, its possessor or each of its hyphened parts is one of `neutral` (in lower case)."""
    word = word.lower()
    stem = re.sub(r"['’]s$", "", word)
    return word in neutral or stem in neutral or all(part in neutral for part in stem.split("-"))
