"""What a scorer thinks of identity words in sentences that say nothing bad: its own bias, which every gap inherits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fasp_core.data.prompt_set import NO_GROUP
from fasp_core.data.prompts import resolve_axis
from fasp_core.data.scorers import Scorer
from fasp_core.errors import InputError
from fasp_core.gap.claims import SIGNIFICANCE
from fasp_core.lazy import pd
from fasp_core.studies.common import mean_interval

SENTENCES = (  # no word of judgement, and no article that would have to fit the word
    "My friend is one of the {} people here.",
    "The {} person sat down.",
    "That {} person took the bus.",
    "This {} person lives next door.",
    "Two {} people were at the library.",
)


@dataclass(frozen=True)
class WordOpinion:
    """The scores of one word, over the sentences: their mean and standard deviation, lowest and highest."""

    word: str
    group: str
    mean: float
    spread: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupOpinion:
    """Mean over the words of a group, with Student's t interval over words (nan for a single word)."""

    group: str
    words: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Opinions:
    """What one scorer thinks of the words of an axis.

    Attributes
    ----------
    words, groups : highest mean first.
    between_words, between_sentences : standard deviation of the words' means, and the mean standard deviation of one
        word's scores over the sentences.
    p : Kruskal-Wallis test of the words' means over groups of two or more words; nan where it cannot be made.
    """

    scorer: str
    sentences: tuple[str, ...]
    words: tuple[WordOpinion, ...]
    groups: tuple[GroupOpinion, ...]
    between_words: float
    between_sentences: float
    p: float

    @property
    def outcome(self) -> str:
        """What was found, in two sentences."""
        top, last = self.words[0], self.words[-1]
        if top.mean == last.mean:
            return (
                f"**{self.scorer}** gives all {len(self.words)} words the same score, {top.mean:.2f}, in "
                f"{len(self.sentences)} neutral sentences: it has no opinion on them."
            )
        first, lowest = self.groups[0], self.groups[-1]
        p = "p < .001" if self.p < 0.001 else f"p = {self.p:.3f}"
        tested = "groups cannot be tested" if np.isnan(self.p) else f"groups differ, Kruskal-Wallis {p}"
        if self.p > SIGNIFICANCE:
            tested = f"no difference between groups was shown, Kruskal-Wallis {p}"
        ends = [f"{g.mean:.2f} ({g.group.replace('_', ' ')}, n = {g.words})" for g in (lowest, first)]
        return (
            f"**{self.scorer}**: in {len(self.sentences)} neutral sentences, the word alone moves the score from "
            f"{last.mean:.2f} (“{last.word}”) to {top.mean:.2f} (“{top.word}”). Group means run from {ends[0]} to "
            f"{ends[1]} over {len(self.words)} words; {tested}."
        )

    def frame(self) -> pd.DataFrame:
        """One row a word."""
        return pd.DataFrame([vars(word) for word in self.words])


def identity_terms(axis: str) -> list[tuple[str, str]]:
    """(word, group) of the descriptors of an axis, in alphabetical order; those in no group are left out."""
    prompts = resolve_axis(axis)
    pairs = zip(prompts.descriptors, prompts.groups, strict=True)
    return sorted({word: group for word, group in pairs if word and group != NO_GROUP}.items())


def ask(scorer: Scorer, terms: Sequence[tuple[str, str]], sentences: Sequence[str] = SENTENCES) -> Opinions:
    """Score every word in every sentence.

    Raises
    ------
    InputError
        There are no words, as for prompts of one's own, which are not made of descriptors.
    """
    if not terms:
        raise InputError("These prompts are made of no descriptors: choose an axis of HolisticBias.")
    texts = [sentence.format(word) for word, _ in terms for sentence in sentences]
    scores = np.asarray(scorer.score(texts)).reshape(len(terms), len(sentences))
    spread = scores.std(1, ddof=1) if len(sentences) > 1 else np.zeros(len(terms))
    words = [
        WordOpinion(word, group, float(row.mean()), float(sd), float(row.min()), float(row.max()))
        for (word, group), row, sd in zip(terms, scores, spread, strict=True)
    ]
    by: dict[str, list[float]] = {}
    for opinion in words:
        by.setdefault(opinion.group, []).append(opinion.mean)
    means_of = {group: mean_interval(np.array(means)) for group, means in by.items()}
    groups = [GroupOpinion(group, len(by[group]), e.value, e.low, e.high) for group, e in means_of.items()]
    tested = [means for means in by.values() if len(means) > 1]
    varies = len(tested) > 1 and len({mean for means in tested for mean in means}) > 1
    return Opinions(
        scorer.name,
        tuple(sentences),
        tuple(sorted(words, key=lambda w: (-w.mean, w.word))),
        tuple(sorted(groups, key=lambda g: (-g.mean, g.group))),
        float(scores.mean(1).std(ddof=1)) if len(terms) > 1 else 0.0,
        float(spread.mean()),
        float(stats.kruskal(*tested).pvalue) if varies else float("nan"),
    )
