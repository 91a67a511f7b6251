"""The number that an answer gives, however it is written: "$1,200", "1.5k", "2h30", "one third", "twelve hundred".

What can be read in two ways is no answer: another currency, a negative amount, a ratio, a number beside another one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from fasp_core.studies.answers.spellings import (
    AMOUNT,
    DAYS_A_WEEK,
    HELD_BY,
    PERIOD,
    RANGE,
    RELATIVE,
    REPEATED,
    TIMES,
    Unit,
    currency,
    plain,
    unit_of,
)

__all__ = ["UNITS", "Period", "Unit", "parse", "period_of", "periods_of"]

UNITS: tuple[Unit, ...] = get_args(Unit)
Period = Literal["", "hour", "day", "week", "month", "year"]
A_WEEK = {"day": 7.0, "weekday": 5.0, "week": 1.0, "month": 12 / 52, "year": 1 / 52}  # how often there is one


@dataclass(frozen=True)
class _Amount:
    """A number where it stands: `kind` is a unit, "other", or "" for none; `factor` brings it to that unit."""

    start: int
    end: int
    value: float
    kind: str
    factor: float = 1.0
    times: float = 1.0
    negative: bool = False
    round: bool = False  # written with ,000

    @property
    def worth(self) -> float:
        return self.value * self.times * self.factor


def parse(answer: str, unit: Unit, per: Period | None = None) -> float | None:
    """The first number that stands with its unit, else the first that stands with none; a range counts as its middle.

    Numbers of another unit or currency, negative ones, times of day and vague ones ("a few hundred") are no answers.

    Parameters
    ----------
    per : the period that was asked about, "" if there was none. Hours of another period are converted; dollars of
        another one are no answer. None: hours are hours a week, and dollars may be of any period.

    Returns
    -------
    A number of dollars, hours or percent, 0 or more; None if the answer gives none.
    """
    text = plain(answer, unit)
    found = list(_joined(text, list(_amounts(text, unit)), unit))
    for kind in (unit, ""):
        for amount in found:
            if amount.kind == kind and math.isfinite(amount.worth):
                return _checked(text, amount, unit, per)
            if amount.kind == kind:
                return None
    return None


def periods_of(question: str) -> tuple[Period, ...]:
    """The periods that a question names, such as "hour" in "which hourly rate", each once."""
    named = re.findall(
        r"\b(?:(hour|dai|week|month|year)ly|(?:a|an|per|each|every) (hour|day|week|month|year))\b", question.lower()
    )
    found = {(one or other).replace("dai", "day") for one, other in named}
    return tuple(name for name in get_args(Period) if name in found)


def period_of(question: str) -> Period:
    """The period that a question names; "" if it names none, or several."""
    found = periods_of(question)
    return found[0] if len(found) == 1 else ""


def _checked(text: str, amount: _Amount, unit: Unit, per: Period | None) -> float | None:
    """The amount in the unit and period that were asked for."""
    worth = amount.worth
    if amount.negative:
        return None
    if unit == "percent":
        return None if not amount.kind and 0 < worth < 1 else worth  # 0.15: of one, or of a hundred?
    period = PERIOD.match(text, amount.end)
    each = _period(period[0]) if period else ""
    if unit == "dollars":
        relative = RELATIVE.search(text, 0, amount.start)
        strange = per is not None and each not in ("", per)
        return None if relative or strange else worth
    asked = "week" if per is None else per
    days = DAYS_A_WEEK.search(text)
    if REPEATED.search(text) or (each == "other" and not (days and period and period[0].strip() == "each")):
        return None
    if days and each in ("", "day", "other"):
        each, worth = "week", worth * float(days[1])
    if each in ("", asked):
        return worth
    if each not in A_WEEK or asked not in A_WEEK:
        return None
    return worth * A_WEEK[each] / A_WEEK[asked]


def _period(words: str) -> str:
    last = re.split(r"[^a-z]+", words.strip())[-1]
    for names, period in HELD_BY.items():
        if last in names.split():
            return period
    return "other"


def _amounts(text: str, unit: Unit) -> Iterator[_Amount]:
    """Every number, with what stands before and behind it."""
    for match in AMOUNT.finditer(text):
        value = _value(match["number"], unit, decimals=match["times"] is not None)
        money = currency(match["before"])
        kind, factor = unit_of(match["unit"], unit)
        times = TIMES.get(match["times"] or "", 1.0)
        if match["times"] in ("m", "b", "t", "mm") and unit != "dollars":  # "2m" is two minutes
            kind, factor, times = ("hours", 1 / 60, 1.0) if match["times"] == "m" else ("other", 1.0, 1.0)
        if match["times"] == "grand" and not kind:
            kind = "dollars"
        if money and kind in ("", "dollars"):
            kind = money if money == "other" else "dollars"
        elif money and kind != money:
            kind, factor = ("dollars", 1.0) if money == "dollars" and kind != "other" else ("other", 1.0)
        if value is None or match["glued"]:
            value, kind = 0.0, "other"
        if kind == "" and _counts_things(text, match):
            kind = "other"
        before = text[max(0, match.start() - 12) : match.start()]
        negative = (
            bool(match["minus"])
            or (before.endswith("-") and not re.search(r"[\w%)]-$", before))
            or bool(re.search(r"\b(?:minus|negative) $", before))
        )
        whole = bool(re.search(r"[.,]000$", match["number"]))
        yield _Amount(
            match.start(), match.end("unit" if match["unit"] else "whole"), value, kind, factor, times, negative, whole
        )


def _counts_things(text: str, match: re.Match[str]) -> bool:
    """Whether a number without a unit seems to count something else, or to be a year."""
    behind = re.compile(r" +([a-z]+)").match(text, match.end("whole"))
    follows = behind is not None and behind[1] not in _GO_ON
    year = re.fullmatch(r"(?:19|20)\d\d", match["number"])
    return follows or bool(
        year
        and re.search(r"\b(?:in|since|of|year|a|an|by|until|from) $", text[max(0, match.start() - 7) : match.start()])
    )


# What may stand behind a number that is the answer; any other word is what the number counts, such as "3 people".
_GO_ON = frozenset(
    re.findall(
        r"\w+",
        """
        a about after all also an and approximately are as at be because before but by can could each every
        for from given good has have i if in is it just max maximum may maybe might min minimum my no not of
        on only or otherwise over per perhaps plus reasonable roughly should since so some sounds that the
        then there this to total until up was we weekly when which while will with would you your
        """,
    )
)


def _value(digits: str, unit: Unit, decimals: bool) -> float | None:
    """A number with points and commas; None where these do not tell what they are.

    Parameters
    ----------
    decimals : a multiplier follows, so that a point stands before decimals even in dollars.
    """
    if re.fullmatch(r"\d+", digits):
        return float(digits)
    if re.fullmatch(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?", digits) and not digits.startswith("0"):
        return float(digits.replace(",", ""))
    if re.fullmatch(r"[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?", digits):
        if digits.count(".") > 1 or "," in digits:
            return float(digits.replace(".", "").replace(",", "."))
        if unit == "dollars" and not decimals:  # cents have two digits: $1.200 are thousands, and $1.234 may be either
            return float(digits.replace(".", "")) if digits.endswith("0") else None
    if re.fullmatch(r"\d*\.\d+", digits):
        return float(digits)
    if re.fullmatch(r"\d+,\d{1,2}|0,\d+", digits):
        return float(digits.replace(",", "."))
    return None


def _joined(text: str, amounts: list[_Amount], unit: Unit) -> Iterator[_Amount]:
    """Ranges, and hours with their minutes or dollars with their cents, as one amount; numbers side by side as none."""
    i = 0
    while i < len(amounts):
        one = amounts[i]
        two = amounts[i + 1] if i + 1 < len(amounts) else None
        if two is None:
            yield one
            return
        gap = text[one.end : two.start]
        between = re.search(r"\bbetween\s*(?:about |around )?$", text[max(0, one.start - 20) : one.start])
        if (RANGE.fullmatch(gap) or (between and gap.strip() == "and")) and _same(one, two):
            yield _range(one, two)
            i += 2
        elif one.kind == two.kind == unit and two.factor < one.factor and re.fullmatch(r" *(?:,|and|&|, and)? *", gap):
            yield replace(one, value=one.worth + two.worth, factor=1.0, times=1.0, end=two.end)
            i += 2
        elif unit == one.kind == "hours" and not two.kind and one.factor == 1 and gap == " " and two.worth < 60:
            yield replace(one, value=one.worth + two.worth / 60, times=1.0, end=two.end)  # 1 hr 30
            i += 2
        elif not one.kind and two.kind in ("", unit) and not gap.strip(" "):  # 5 100-dollar bills
            yield replace(one, kind="other", end=two.end)
            i += 2
        else:
            yield one
            i += 1


def _same(one: _Amount, two: _Amount) -> bool:
    return one.kind == two.kind or (one.kind == "" and two.kind != "other") or two.kind == ""


def _range(low: _Amount, high: _Amount) -> _Amount:
    """The middle; what only the upper end says, such as "k", holds for both if the lower end stays below."""
    kind, factor = (high.kind, high.factor) if not low.kind else (low.kind, low.factor)
    upper = high.value * high.times * (high.factor if high.kind else factor)
    lower = low.value * low.times * factor
    times = high.times if low.times == 1 and high.times > 1 else 1000.0 if high.round and not low.round else 1.0
    if low.times == 1 and lower * times <= upper:
        lower *= times
    return _Amount(low.start, high.end, (lower + upper) / 2, kind, negative=low.negative or high.negative)
