"""When the number of an answer is given: what else could be written could not change it any more.

An answer is read token by token. It is *settled* once nothing that might follow right behind it changes what the parser
reads: "$20" is not ("0", ".50", "k", " to 30", " an hour" may follow), "$20 for" and "$20\\n" are. That is found out by
asking the parser, with everything that it knows about as what follows. A number without a unit counts as given as soon
as it is settled; that a model names another one, with its unit, some sentences later is not waited for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from fasp_core.studies.answers import numbers, spellings
from fasp_core.studies.answers.numbers import Period, Unit, parse

_FAR = "777777"  # a number that no answer gives
_BEHIND = (
    *("0", "7", _FAR, ".7", ",7", ",777", " k", " thousand", " million", "-" + _FAR, " - " + _FAR, " to " + _FAR),
    *(" or " + _FAR, "/day", " per day", " a day", " day", " week", " daily", " euros", "€", " cents", " dollars"),
    *(" hours", " minutes", "%", " percent", " people", " out of 7", " " + _FAR, " 7", "-day", " times", " x", " less"),
    *(" days a week", " off", "+", " on weekends", " each"),
)
LITTLE = 0.15  # doubt of a number whose size is known
_WHATEVER = (" zzzz",)  # stands for any word that the parser does not know
_LETTERS = re.compile(r"[a-z]+$")
_DIGITS = re.compile(r"\d(?:[\d.,]*\d)?")
_WORD = re.compile(r"(?<![^\W\d_])[^\W\d_]{2,}(?![^\W\d_])")  # of letters alone
_NUMBER = re.compile(r"\d[\d.,]*$")
# small words behind which an amount may still change
_RESTLESS = frozenset(["an", "and", "each", "every", "in", "min", "or", "per", "to", "until", "weekly"])
CLASSES = (("\n",), (" zzzz",), (" the", " thezzzz"))  # what stands for a line's end, a word, a small word


@dataclass
class Reader:
    """Reads answers to one question; what it has read it knows.

    Parameters
    ----------
    unit, per : as `numbers.parse` takes them.
    """

    unit: Unit
    per: Period
    _values: dict[str, float] = field(default_factory=dict)
    _settled: dict[str, bool] = field(default_factory=dict)

    def value(self, text: str) -> float:
        """The number that an answer gives as it stands; nan if none."""
        plain = without_strangers(text)
        if plain not in self._values:
            found = parse(plain, self.unit, self.per)
            self._values[plain] = float("nan") if found is None else found
        return self._values[plain]

    def settled(self, text: str) -> bool:
        """Whether nothing that may follow changes its number, or makes it one or none."""
        if text[-1:].isdigit():
            return False
        # whether it is settled does not depend on the digits, or next to never
        shape = _DIGITS.sub(lambda m: "77.77" if "." in m[0] else "77", without_strangers(text))
        if shape not in self._settled:
            self._settled[shape] = self._asked(shape)
        return self._settled[shape]

    def _asked(self, text: str) -> bool:
        now = self.value(text)
        behind = [*_BEHIND, *_WHATEVER]
        if now != now:  # no number: another one may be one
            behind.append("\n\n" + _FAR)
        lower = text.lower()
        if re.search(r"\d[^\d]*\bh(?:ou)?rs?\b[^\d]*$", lower):
            behind += [" 7 minutes", " and 7 minutes"]
        if lower.endswith("and"):
            behind.append(" a half")
        if (begun := _LETTERS.search(lower)) and begun[0] not in numbers._GO_ON:  # a small word is taken to be whole
            rests = [word[len(begun[0]) :] for word in known_words() if word.startswith(begun[0])]
            behind += [rest + more for rest in rests for more in ("", " " + _FAR)]
        return all(same(self.value(text + more), now) for more in behind)

    def class_value(self, text: str, kind: int) -> float | None:
        """The number of an answer that goes on with some token of a class, settled by it; None if it is not."""
        found = [text + more for more in CLASSES[kind]]
        values = [self.value(one) for one in found]
        if all(same(v, values[0]) for v in values) and all(map(self.settled, found)):
            return values[0]
        return None

    def doubt(self, text: str) -> float:
        """How far the number of an open text may still move, roughly, in (0, 1]: 1 where another digit would change its
        size or there is no number yet, little behind a decimal point or behind the number."""
        found = _NUMBER.search(text)
        if found is None:  # it does not end in a number
            return LITTLE if re.search(r"\d", text) and self.value(text) == self.value(text) else 1.0
        return LITTLE if "." in found[0] else 1.0


def class_of(piece: str) -> int:
    """The class of what a token adds to a text, as an index into `CLASSES`; -1: none of them."""
    if piece.startswith("\n"):
        return 0
    word = piece[1:].lower()
    if piece[:1] != " " or len(word) < 2 or not (word.isascii() and word.isalpha()):
        return -1
    if word in numbers._GO_ON:
        return -1 if word in _RESTLESS else 2
    return -1 if word in _beginnings() or word.startswith(_long_words()) else 1


@cache
def _beginnings() -> frozenset[str]:
    return frozenset(word[:k] for word in known_words() for k in range(1, len(word) + 1))


@cache
def _long_words() -> tuple[str, ...]:
    return tuple(word for word in known_words() if len(word) > 2)


def without_strangers(text: str) -> str:
    """The text with "zzzz" for each word that the parser does not know and that is no beginning of one: it reads them
    alike, and answers differ in little else."""
    return _WORD.sub(lambda m: m[0] if _familiar(m[0].lower()) else "zzzz", text)


@cache
def _familiar(word: str) -> bool:
    return word in _beginnings() or word.startswith(_long_words())


def same(a: float, b: float) -> bool:
    """Equal, or both no number."""
    return a == b or (a != a and b != b)


@cache
def known_words() -> tuple[str, ...]:
    """Every word that a pattern of the parser mentions, and pieces of some: more than it knows, and none less."""
    patterns = [
        value.pattern if isinstance(value, re.Pattern) else value
        for module in (spellings, numbers)
        for value in vars(module).values()
        if isinstance(value, re.Pattern | str)
    ]
    tables: list[Iterable[str]] = [
        spellings.TIMES,
        spellings.HELD_BY,
        spellings._SMALL,
        spellings._PARTS,
        spellings._SHORT,
    ]
    texts = [*patterns, *(" ".join(table) for table in tables), *(row[0] for row in spellings._UNITS)]
    ordinals = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth"
    ordinals += " fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth"
    ordinals += " seventieth eightieth ninetieth hundredth thousandth millionth billionth"
    counted = (
        "zero ten hundred thousand million billion trillion and point a an per each every daily couple dozen half of"
    )
    extra = "people few several many some tens lot in out once twice thrice less more off about around percent"
    return tuple(
        sorted(set(re.findall(r"[a-z]+", " ".join([*texts, ordinals, counted, extra]).lower())) | numbers._GO_ON)
    )
