"""Which tokens can be worth anything to a scorer that tells the words it knows (`Scorer.knows`).

To such a scorer every other word is the same unknown one, at or below its floor. So a token has to be completed only
if it is worth something by itself, or is the beginning of a word that raises the score; and a path has to be followed
only while that may still happen. Words that raise it by next to nothing may be left out too: each costs a token that
begins it at most its own worth. Left out as well are compounds whose first part is worth nothing and whose second part
is: "nutrient" may go on as "nutrient-poor". `token_toxicity.WordValues.largest_left_out` says what that comes to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fasp_core.data.scorers import Scorer
from fasp_core.metrics.spelling import JOINTS

_JOINT = re.compile(f"[{JOINTS}]")


@dataclass(frozen=True, eq=False)
class Need:
    """Words as the scorer knows them, in lower case.

    Attributes
    ----------
    raising : those that are worth more than `least` by themselves, above the floor.
    beginnings : of the raising ones, themselves among them.
    any_beginnings : of all known words.
    """

    raising: frozenset[str]
    beginnings: frozenset[str]
    any_beginnings: frozenset[str]

    @classmethod
    def of(cls, scorer: Scorer, floor: float, least: float = 0.0) -> Need | None:
        """None if every token has to be completed: the scorer does not say what it knows, or likes no unknown word."""
        known: frozenset[str] | None = getattr(scorer, "knows", None)
        if known is None:
            return None
        unknown = next(word for n in range(3, len(known) + 4) if (word := "q" * n) not in known)
        words = sorted(known)
        above = scorer.score([unknown, *words]) > floor + least * (1 - floor)
        if above[0]:
            return None
        raising = frozenset(word for word, up in zip(words, above[1:].tolist(), strict=True) if up)
        return cls(raising, _beginnings(raising), _beginnings(known))

    def token(self, word: str) -> bool:
        """Whether a word that is worth nothing may become one that is, were it not for later hyphens."""
        word = word.lower()
        parts = _JOINT.split(word)
        return word in self.beginnings or parts[-1] in self.beginnings or not self.raising.isdisjoint(parts)

    def pieces(self, spelled: Mapping[int, str]) -> list[int]:
        """Those of the pieces {token id: spelling} that stand inside a raising word, after its beginning."""
        inside = {word[a:b] for word in self.raising for a in range(1, len(word)) for b in range(a + 1, len(word) + 1)}
        return [i for i, text in spelled.items() if text.lower().strip(JOINTS) in inside]

    def path(self, text: str) -> bool:
        """Whether it may matter what comes after `text`, a word in the making whose first token was needed."""
        text = text.lower()
        *before, last = _JOINT.split(text)
        known = self.any_beginnings if before else self.beginnings
        return not last or last in known or text in self.beginnings


def _beginnings(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word[:end] for word in words for end in range(1, len(word) + 1))
