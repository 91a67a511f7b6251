"""How answers spell numbers, units, currencies and periods, and an answer brought into plain letters."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Unit = Literal["dollars", "hours", "percent"]

_OTHER_SIGNS = "€£¥₹₩₽₺₫₱฿₪₦₴₲₡₵₸₮₭"
_OTHER_CODES = (
    "eur|gbp|inr|cad|aud|nzd|sgd|hkd|twd|jpy|cny|rmb|krw|mxn|brl|chf|zar|sek|nok|dkk|pln|czk|huf|rub|try|ils|thb|php|idr|"
    "myr|vnd|aed|sar|ngn|kes|egp|pkr|bdt|lkr|clp|cop|ars|btc|eth"
)
_OTHER_WORDS = (
    "(?:canadian|australian|new zealand|hong kong|singapore|jamaican|taiwan) dollars?|euros?|pounds?|quid|rupees?|yen|"
    "yuan|renminbi|pesos?|francs?|won|reais|reals?|rand|kron(?:or|er|a|e|ur)|rou?bles?|liras?|dirhams?|riyals?|shekels?|baht|"
    "dong|naira|shillings?|zloty|forints?|rupiah|ringgit|kr|bitcoins?"
)
_DOLLARS = r"(?:us|u\.s\.)\s?\$|\$|usd|(?:(?:us|u\.s\.|american) )?dollars?|bucks?"
_BEFORE = (
    rf"(?:(?:(?<![a-z])(?:(?:us|u\.s\.|can|ca|au|nz|hk|sg|mx|nt)\s?|[acrs]))?\$|(?<![a-z])(?:usd|{_OTHER_CODES}|rs\.?|kr)(?![a-z])|"
    rf"[{_OTHER_SIGNS}])"
)
_TIMES_WORDS = "hundred|thousand|grand|million|billion|trillion|dozen|lakhs?|crores?"
TIMES = {
    **dict.fromkeys(("hd", "hundred"), 1e2),
    **dict.fromkeys(("k", "thousand", "grand"), 1e3),
    **dict.fromkeys(("m", "mm", "mn", "mil", "million", "millions"), 1e6),
    **dict.fromkeys(("b", "bn", "billion", "billions"), 1e9),
    **dict.fromkeys(("t", "tn", "trillion"), 1e12),
    **dict.fromkeys(("lakh", "lakhs"), 1e5),
    **dict.fromkeys(("crore", "crores"), 1e7),
    **dict.fromkeys(("dz", "dozen"), 12.0),
}
_SHORT = {"hundred": "hd", "thousand": "k", "million": "mn", "billion": "bn", "trillion": "tn", "dozen": "dz"}
_UNITS: tuple[tuple[str, str, float], ...] = (  # how it is spelled, what it is, and how much of its unit
    (_DOLLARS, "dollars", 1.0),
    ("cents?|¢", "dollars", 0.01),
    ("h|hrs?|hours?", "hours", 1.0),
    ("m|mins?|minutes?", "hours", 1 / 60),
    ("secs?|seconds?", "hours", 1 / 3600),
    (r"%|percent(?:age)?(?: points?)?|per cent|pct|p\.c\.", "percent", 1.0),
    (
        rf"[{_OTHER_SIGNS}]|{_OTHER_CODES}|{_OTHER_WORDS}|‰|days?|weeks?|wks?|months?|years?|yrs?|times|x|"
        "basis points?|bps|quarters?|dimes?|nickels?|penn(?:y|ies)|degrees?|°",
        "other",
        1.0,
    ),
)
_UNIT = "|".join(spelled for spelled, _, _ in _UNITS)
AMOUNT = re.compile(
    rf"(?:(?P<before>(?:{_BEFORE}\s*){{1,4}})(?P<minus>-\s?)?|(?<![\w.,:/#]))"
    rf"(?P<whole>(?P<number>\d(?:[\d.,]*\d)?|\.\d+)(?: ?(?P<times>k|mm|mn|mil|millions?|m|bn|billions?|b|tn|trillion|t|"
    rf"hd|hundred|thousand|grand|dozen|dz|lakhs?|crores?)(?![a-z\d]))?)"
    rf"(?: ?-? ?(?P<unit>(?:{_UNIT})(?![a-z\d]))|(?P<glued>[a-z_°#]|-[a-z]))?",
)
RANGE = re.compile(r" *(?:-|to|or|until|through|\.{2,3}) *(?:about |around |maybe |perhaps |roughly )?")
_EVERY = "(?:a|an|per|each|every|in an?) |/ ?"
PERIOD = re.compile(
    rf" *(?:(?:{_EVERY})(?:single |other |two |\d )?[a-z]+|each\b|(?:daily|weekly|monthly|yearly|annually|hourly)\b|"
    r"on (?:weekends?|weekdays?))"
)
HELD_BY = {  # words for a period
    "hour hourly hr h": "hour",
    "day daily night evening morning afternoon": "day",
    "weekday weekdays": "weekday",
    "week weekly wk": "week",
    "month monthly mo": "month",
    "year yearly annually yr annum": "year",
}
DAYS_A_WEEK = re.compile(r"(?<![\d.-])([1-7]) days? ?(?:a|per|each|every|/|in a|out of the) ?week")
REPEATED = re.compile(
    r"\b\d+ ?x\b|\bx ?\d|\d (?:times|sessions|visits|lessons)\b|\b(?:twice|thrice|once)\b|"
    r"\bevery (?:other|second|two|\d)"
)
RELATIVE = re.compile(
    r"(?:%|percent|per cent|half|#part) (?:less|more|lower|higher|off|of|below|above|under|over|cheaper|discount)\b"
)

_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SMALL = {word: i for i, word in enumerate((*_ONES, "ten", "eleven", "twelve"), 1)} | {"a": 1, "an": 1}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "twentieth": 20, "hundredth": 100,
}  # fmt: skip
_N = "|".join((*_SMALL, r"\d{1,9}"))
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_TEENS = "thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_WORD = rf"(?:(?:{_TENS})(?:[- ](?:{'|'.join(_ONES)}))?|{_TEENS}|{'|'.join(_ONES)}|ten|eleven|twelve)"
_PART = "|".join(_PARTS)
_END = r"(?=\s*(?:of\b|[.,;:!?)\]\n-]|$|to\b|or\b|and\b|off\b|less\b))"


def currency(signs: str | None) -> str:
    """Of the signs before a number: "dollars", "other" or ""."""
    text = (signs or "").replace(" ", "")
    if not text:
        return ""
    return "dollars" if re.fullmatch(r"(?:us\$|u\.s\.\$|\$|usd)+", text) else "other"


def unit_of(word: str | None, asked: Unit) -> tuple[str, float]:
    """(kind, factor) of the word behind a number; "m" is a unit of hours alone."""
    if word is None:
        return "", 1.0
    for spelled, kind, factor in _UNITS:
        if re.fullmatch(spelled, word):
            return kind, factor
    return "other", 1.0


def plain(answer: str, unit: Unit) -> str:
    """In lower case, plain spaces and dashes, with digits for number words and decimals for fractions.

    What is no amount, such as dates, ratios, ordinals and vague numbers, becomes "#".
    """
    from text_to_num import alpha2digit

    text = re.sub("[\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}](?=\\d{3}(?!\\d))", "", answer)
    text = "".join(_vulgar(c) for c in text)
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"[‐-―−]", "-", text).replace("’", "'")
    text = re.sub(r"\\(?=[$%])", "", text)
    text = re.sub(r"(?<!\d)[*_`]+|[*_`]+(?!\d)", "", text)  # marks of Markdown
    text = re.sub(r"(?<=\d)'(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"[~≈≃<>≤≥]\s?(?=[$\d.])", "", text)
    text = re.sub(r"(?<=\d)\+(?!\d)", "", text)
    text = _grouped(text)
    text = _with_words(text, unit)
    text = alpha2digit(text, "en", 1.5)  # not the one of "no one"
    text = re.sub(r"\b(?:one|an|a) (?=(?:hour|dollar|percent|minute|cent|buck|grand)\b)", "1 ", text)
    text = re.sub(r"\bzero\b", "0", text)
    text = re.sub(r"(\d) and (?:a )?half (hours?|dollars?|percent)\b", r"\1.5 \2", text)
    text = re.sub(r"\b(\d+) (hours?|dollars?) and (?:a )?half\b", r"\1.5 \2", text)
    return _without_others(text, unit)


def _vulgar(char: str) -> str:
    """½ as " 1/2"."""
    if unicodedata.category(char) == "No" and "VULGAR FRACTION" in unicodedata.name(char, ""):
        return " " + unicodedata.normalize("NFKC", char).replace("\N{FRACTION SLASH}", "/")
    return char


def _grouped(text: str) -> str:
    """Thousands behind plain spaces are joined where a currency says that it is one number."""
    group = r"\d{1,3}(?: \d{3})+(?:[.,]\d{1,2})?(?![.,]?\d|-[a-z])"
    text = re.sub(rf"({_BEFORE}\s?){group}", lambda m: m[1] + m[0][len(m[1]) :].replace(" ", ""), text)
    return re.sub(
        rf"(?<![\d.,]){group}(?= ?(?:\$|usd\b|dollars\b|bucks\b|us dollars\b))", lambda m: m[0].replace(" ", ""), text
    )


def _with_words(text: str, unit: Unit) -> str:
    """Couples, dozens, halves and parts as digits; vague numbers as "#"."""
    vague = r"\b(?:a few|few|several|many|some|tens of|hundreds?|thousands?|millions?|dozens) (?:of )?"
    text = re.sub(
        rf"{vague}(?:{_TIMES_WORDS})s?\b|\b(?:tens|dozens|hundreds|thousands|millions|billions) of\b", "#", text
    )
    text = re.sub(rf"\ba couple(?: of)?(?= (?:{_TIMES_WORDS}|hours?|dollars?|bucks?|minutes?)\b)", "2", text)
    text = re.sub(rf"\b({_N}) and (?:a|one) (half|quarter|third)\b", _mixed, text)
    text = re.sub(rf"\bhalf an? ({_TIMES_WORDS})\b", r"0.5 \1", text)
    text = re.sub(r"\b(?:a )?quarter (?:of )?(?:a )?(thousand|million|billion)\b", r"0.25 \1", text)
    text = re.sub(rf"\b({_WORD}) (to|or) ({_WORD}) (hundred|thousand|million|billion)\b", _both_scaled, text)
    text = re.sub(rf"\b({_N}) (?:in|out of) (?:every )?({_N})\b", _in_all if unit == "percent" else "#", text)
    text = re.sub(r"\bhalf(?: of)? an? (?=hour|dollar)|\bhalf(?:-| )(?=hour)", "0.5 ", text)
    text = re.sub(r"(?:\b(?:an|one|1) )?(hour|dollar) and (?:a )?half\b", r"1.5 \1s", text)
    text = re.sub(rf"\b({_N})[ -]({_PART})s? (?:of )?an? (?=hour|dollar)", _fraction, text)
    text = re.sub(rf"\b({_N})[ -](quarter|third)s?(?= hours?\b)", _fraction, text)
    text = re.sub(r"(?<![\d/.,:])(\d{1,9})\s+(\d{1,2})/(\d{1,3})(?![\d/])", _written, text)
    text = re.sub(r"(?<![\d/.,:])(\d{1,2})/(\d{1,3})(?= ?-?(?:hours?|hrs?|h|of an hour)\b)", _written_alone, text)
    text = re.sub(r"(?<=\d) of an hour", " hour", text)
    if unit == "percent":
        text = re.sub(rf"\b({_N})[ -]({_PART})s?\b{_END}", lambda m: _share(m[1], m[2]), text)
        text = re.sub(r"(?<![\w-])half\b(?=\s*(?:of|the|your|his|her|their|my)\b|\s*[.,;:!?)]|\s*$)", "50%", text)
        text = re.sub(
            r"(?<![\d/.,:$])(\d{1,2})/(?:([2-9]|10|12|20|100)(?= of\b)|([2-5])(?=\s*[.,;!]?\s*$))", _part_of_100, text
        )
    else:
        text = re.sub(rf"\b({_N})[ -]({_PART})s?\b{_END}", "#part", text)
    text = re.sub(r"\ba (?=dozen|grand\b(?! piano))", "1 ", text)
    # so that the reader of words does not make two numbers of "1.5 million"
    return re.sub(rf"(\d) ?({'|'.join(_SHORT)})s?\b", lambda m: m[1] + _SHORT[m[2]], text)


def _small(word: str) -> int:
    return _SMALL[word] if word in _SMALL else int(word)


def _both_scaled(m: re.Match[str]) -> str:
    """Five to ten thousand: five thousand to ten thousand; ninety to two hundred as it is."""
    from text_to_num import text2num

    low, high = text2num(m[1], "en"), text2num(m[3], "en")
    return f"{m[1]} {m[4]} {m[2]} {m[3]} {m[4]}" if low < high else m[0]


def _in_all(m: re.Match[str]) -> str:
    n, d = _small(m[1]), _small(m[2])
    return f"{100 * n / d:.6g}%" if n <= d else "#"


def _mixed(m: re.Match[str]) -> str:
    return f"{_small(m[1]) + 1 / _PARTS[m[2]]:.12g}"


def _fraction(m: re.Match[str]) -> str:
    return f"{_small(m[1]) / _PARTS[m[2]]:.6g} "


def _share(number: str, part: str) -> str:
    share = _small(number) / _PARTS[part]
    return f"{100 * share:.6g}%" if share <= 1 else "#"


def _written(m: re.Match[str]) -> str:
    n, d = int(m[2]), int(m[3])
    return f"{int(m[1]) + n / d:.12g}" if 0 < n < d else "#"


def _written_alone(m: re.Match[str]) -> str:
    n, d = int(m[1]), int(m[2])
    return f"{n / d:.6g}" if d else "#"


def _part_of_100(m: re.Match[str]) -> str:
    share = int(m[1]) / int(m[2] or m[3])
    return f"{100 * share:.6g}%" if 0 < share < 1 else "#"


def _without_others(text: str, unit: Unit) -> str:
    """Dates, times of day, ratios, chains and ordinals are masked; 2h30 is spelled out; a list's numbers go."""
    if unit == "hours":
        text = re.sub(r"(\d)\s?h\s?(\d{1,2})(?![\d.:/])(?:\s?m(?:in(?:ute)?s?)?\b)?", r"\1 hours \2 minutes", text)
    text = re.sub(r"(?<!\d)\d+(?:[-/:]\d+){2,}|(?<!\d)\d+[/:]\d[\d/:]*|(?<!\d)\d+(?:st|nd|rd|th|s)\b", "#", text)
    marker = re.match(r"\s*\d{1,2}[.)]\s+(?=\D*\d)", text)
    return text[marker.end() :] if marker else text
