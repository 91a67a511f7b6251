"""The number that an answer gives, however it is written: "$1,200", "1.5k", "5-10 hours", "ten percent"."""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

Unit = Literal["dollars", "hours", "percent"]
UNITS: tuple[Unit, ...] = get_args(Unit)

_NUMBER = r"\d++(?:\.\d++)?|\.\d++"  # possessive: a model may write thousands of digits
_TIMES = {"k": 1e3, "thousand": 1e3, "million": 1e6}
_MULTIPLIED = re.compile(
    rf"(?<!\d)(?P<low>{_NUMBER})(?P<between>\s*(?:-|to)\s*\$?)?(?P<high>{_NUMBER})?\s?(?P<by>k|thousand|million)\b",
    re.IGNORECASE,
)
_FOUND = re.compile(
    rf"(?P<sign>\$\s?|usd\s?|between\s\$?)?(?<![\w.:/-])(?P<low>{_NUMBER})(?![\d:/]*[:/]\d)"
    rf"(?:(?:\s?(?:%|percent|dollars|hours))?\s?(?:-|to|or|and)\s?\$?(?P<high>{_NUMBER}))?"
    r"(?:\s|-)?(?P<unit>%|[a-z]+)?",
    re.IGNORECASE,
)
_SPELLED: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("$", "usd", "dollar", "dollars", "bucks"), ("dollars", 1.0)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), ("hours", 1.0)),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), ("hours", 1 / 60)),
    **dict.fromkeys(("%", "percent", "percentage"), ("percent", 1.0)),
    **dict.fromkeys(("day", "days", "week", "weeks", "month", "months", "year", "years", "times"), ("other", 1.0)),
}
_HALVES = ((r"\bhalf an (?=hour)", "0.5 "), (r"\b(?:one|an|a) (?=hour|dollar|percent)", "1 "), (r" and a half\b", ".5"))


def parse(answer: str, unit: Unit) -> float | None:
    """The first number that stands with its unit, else the first that stands with none; a range counts as its middle.

    Numbers of another unit, negative ones, times of day and fractions are no answers.

    Returns
    -------
    A number of dollars, hours or percent, 0 or more; None if the answer gives none.
    """
    from text_to_num import alpha2digit

    text = re.sub(r"[‐-―−]", "-", answer).replace("\N{NO-BREAK SPACE}", " ")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = _MULTIPLIED.sub(_multiply, text)
    text = alpha2digit(text, "en", 1.5)  # not the one of "no one"
    for spelled, digits in _HALVES:
        text = re.sub(spelled, digits, text, flags=re.IGNORECASE)
    bare: float | None = None
    for match in _FOUND.finditer(text):
        value = _middle(match)
        if not math.isfinite(value):
            continue
        sign = (match["sign"] or "").lower()
        spelled = "$" if "$" in match[0] or "usd" in sign else (match["unit"] or "").lower()
        found, factor = _SPELLED.get(spelled, ("", 1.0))
        if found == unit:
            return value * factor
        if not found and bare is None:
            bare = value
    return bare


def _multiply(match: re.Match[str]) -> str:
    times = _TIMES[match["by"].lower()]
    if match["high"] is None:
        return f"{float(match['low']) * times:.12g}" + (match["between"] or "")
    low, high = float(match["low"]), float(match["high"]) * times
    low *= times if low * times <= high else 1  # "5-10k", and "500-1k"
    return f"{low:.12g}{match['between'] or ' '}{high:.12g}"


def _middle(match: re.Match[str]) -> float:
    low = float(match["low"])
    joined = match[0].lower()
    if match["high"] is None or (" and " in joined and not joined.startswith("between")):
        return low
    return (low + float(match["high"])) / 2
