"""What counts as the number of an answer."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.studies.answers.numbers import UNITS, Period, Unit, parse, period_of, periods_of
from fasp_core.studies.contexts import scenarios

DOLLARS: list[tuple[str, float | None]] = [
    ("$50", 50),
    ("$1,200", 1200),
    ("$1,234,567.89", 1234567.89),
    ("$ 75.50 would be fair", 75.5),
    ("I would offer $50 for the chair, or $60 at most.", 50),
    ("50", 50),
    ("50 dollars", 50),
    ("USD 80", 80),
    ("1.5k", 1500),
    ("$2K", 2000),
    ("2 thousand dollars", 2000),
    ("1.2 million", 1.2e6),
    ("5-10k", 7500),
    ("500-1k", 750),
    ("$5-10", 7.5),
    ("$5-$10", 7.5),
    ("$100 – $150", 125),
    ("between $100 and $200", 150),
    ("$50 to $70", 60),
    ("one hundred and fifty dollars", 150),
    ("Twenty-five", 25),
    ("a hundred dollars", 100),
    ("one thousand two hundred", 1200),
    ("a dollar", 1),
    ("1. $50", 50),  # the number of a list's item stands with no unit
    ("In 2 weeks, offer $300", 300),
    ("10% less than the price", None),
    ("10% less than $500", None),
    ("20% off $500", None),
    ("$500 (20% off)", 500),
    ("5 hours", None),
    ("$-5", None),
    ("-5", None),
    ("", None),
    ("I cannot answer that.", None),
    ("no one knows", None),
    ("$", None),
    ("model A4 has no price", None),
    ("at 10:30", None),
    (".50", 0.5),
    ("$20 and a smile for 3 people", 20),
]
HOURS: list[tuple[str, float | None]] = [
    ("5", 5),
    ("5 hours", 5),
    ("5-10 hours a week", 7.5),
    ("5 to 10 hours", 7.5),
    ("two or three hours", 2.5),
    ("2.5 hrs", 2.5),
    ("30 minutes", 0.5),
    ("half an hour", 0.5),
    ("an hour", 1),
    ("one hour a day, 3 days a week", 3),
    ("3 days a week, 2 hours each", 6),
    ("a 5-hour session", 5),
    ("two and a half hours", 2.5),
    ("3 times a week", None),
    ("between 4 and 6 hours", 5),
    ("50%", None),
]
PERCENT: list[tuple[str, float | None]] = [
    ("10%", 10),
    ("10 %", 10),
    ("12.5 percent", 12.5),
    ("ten percent", 10),
    ("10-15%", 12.5),
    ("10% to 20%", 15),
    ("20", 20),
    ("one percent", 1),
    ("$500, which is 15% of the income", 15),
    ("$500", None),
    ("0%", 0),
    ("3/4 of it", 75),
]
DOLLARS += [
    *(
        (f"{mark}200", None)
        for mark in ("€", "£", "₹", "¥", "A$", "C$", "CA$", "HK$", "R$", "S$", "Rs. ", "CAD ", "$€", "-$", "$-")
    ),
    *((f"200 {name}", None) for name in ("euros", "pounds", "CAD", "pesos", "yen", "Canadian dollars", "kr")),
    *(("$1" + space + "200", 1200) for space in (" ", "\u00a0", "\u202f", "\u2009", ",", ".", "'", "’")),
    *(
        (f"{given} dollars", 1200)
        for given in ("1.200", "1,200.00", "1.200,00", "1 200", "twelve hundred", "1.2k", "1.2 thousand")
    ),
    *(
        (f"{mark}40", 40)
        for mark in ("$", "$ ", "US$", "US$ ", "USD ", "USD$", "~$", "about $", "**$**", "$$", "＄", "A $")
    ),
    *(
        (f"40{mark}", 40)
        for mark in ("$", " $", " USD", " bucks", " US dollars", " U.S. dollars", "$/month", "$ per hour")
    ),
    *((f"$1.2{times}", 1.2e6) for times in ("M", " M", "MM", "mn", " million", "m")),
    *((f"$2{times}", 2e9) for times in ("bn", "B", " billion")),
    *(("$" + text, None) for text in ("1.234", "1,2345", "1e3", "3x", "10-20-30")),
    ("one third of the price", None),
    ("half a million dollars", 5e5),
    ("a quarter of a million dollars", 2.5e5),
    ("3 and a half million", 3.5e6),
    ("five to ten thousand dollars", 7500),
    ("ninety to two hundred dollars", 145),
    ("$5-8,000", 6500),
    ("$500-1,000", 750),
    ("a couple hundred dollars", 200),
    ("a few hundred dollars", None),
    ("several thousand dollars", None),
    ("hundreds of dollars", None),
    ("a grand", 1000),
    ("2 grand", 2000),
    ("two dozen", 24),
    ("50 cents", 0.5),
    ("75¢", 0.75),
    ("5 dollars and 50 cents", 5.5),
    ("€200 ($220)", 220),
    ("minus $20", None),
    ("- $50", 50),  # an item of a list
    ("$1,50,000", 150_000),
    ("2 chairs for 40", 40),
    ("a 2015 Honda for 8500", 8500),
    ("3 people", None),
    ("5 100-dollar bills", None),
    ("nineteen ninety", None),
    ("12/25/2024", None),
    ("the 2nd", None),
    ("zero dollars", 0),
]
HOURS += [
    *(
        (f"Number of hours: 3{behind}", 3)
        for behind in ("\nAll", " approximately", "\nJamal", "\n\n2. Other", "\n- 5 reasons", "\n5", "\n\nM", ".")
    ),
    *(
        (spelled, 2.25)
        for spelled in ("2h15", "2h 15m", "2 hours and 15 minutes", "2 hrs, 15 mins", "135 minutes", "2¼ hours")
    ),
    *(
        (spelled, 1.5)
        for spelled in ("1,5 hours", "1½ hours", "1 1/2 hours", "an hour and a half", "90 min", "1 hr 30")
    ),
    *((spelled, 0.5) for spelled in ("1/2 hour", "½ hour", "half an hour", "30m", "1800 seconds")),
    *((f"2 hours {each}", 14) for each in ("a day", "per day", "each day", "every day", "daily", "per night")),
    *((f"4 hours{each}", 4) for each in ("/week", " a week", " weekly", " per week", "", ".")),
    *((f"2 hours {each}", None) for each in ("per session", "every other day", "twice a week", "on weekends")),
    ("26 hours a month", 6),
    ("2 hours per day, 5 days a week", 10),
    ("3 hours each weekday", 15),
    ("3 times a week for 2 hours", None),
    ("2-3 hours a day", 17.5),
    ("30 minutes to an hour", 0.75),
    ("three quarters of an hour", 0.75),
    ("a few hours", None),
    ("1:30", None),
    ("24/7", None),
    ("$20", None),
]
PERCENT += [
    *((f"10{sign}", 10) for sign in ("%", " %", "％", " per cent", " pct", " percent", " percentage points")),
    *((spelled, 100 / 3) for spelled in ("one third", "a third of it", "1/3 of the income", "33⅓%")),
    *(
        (spelled, 25)
        for spelled in ("a quarter of the income", "one quarter", "1/4", "¼ of it", "one in four", "1 out of 4")
    ),
    *((spelled, 50) for spelled in ("half", "half of it", "one half", "fifty percent")),
    ("12,5%", 12.5),
    ("50/30/20 rule, so 20%", 20),
    ("0.15", None),  # of one, or of a hundred?
    ("0.15%", 0.15),
    ("a third option", None),
    ("5‰", None),
    ("5 basis points", None),
    ("-5%", None),
    ("10/12", None),
    ("2 children", None),
]
CASES = [(unit, *case) for unit, cases in zip(UNITS, (DOLLARS, HOURS, PERCENT), strict=True) for case in cases]


@pytest.mark.parametrize(("unit", "answer", "number"), CASES, ids=[f"{u}: {a}" for u, a, _ in CASES])
def test_the_number_of_an_answer(unit: Unit, answer: str, number: float | None) -> None:
    assert parse(answer, unit) == (None if number is None else pytest.approx(number, rel=1e-5))


PERIODS: list[tuple[Unit, str, Period, float | None]] = [
    ("hours", "2 hours a day", "day", 2),
    ("hours", "2 hours a day", "", None),  # such as "how long does a letter take?"
    ("hours", "14 hours a week", "day", 2),
    ("hours", "2 hours", "", 2),
    ("dollars", "$20/hour", "hour", 20),
    ("dollars", "$20", "hour", 20),
    ("dollars", "$800 a week", "hour", None),
    ("dollars", "$40 a month", "", None),
    ("percent", "10% a month", "", 10),
]


@pytest.mark.parametrize(("unit", "answer", "per", "number"), PERIODS)
def test_the_period_that_was_asked_about(unit: Unit, answer: str, per: Period, number: float | None) -> None:
    assert parse(answer, unit, per) == number


def test_the_period_of_a_question() -> None:
    known = scenarios.read()
    assert {s.per for s in known.of("activities")} == {"week"}
    assert {s.per for s in known.of("services")} == {"hour"}
    assert {s.per for s in known.of("purchases")} == {""}
    assert period_of("How many hours does a letter take?") == ""
    assert period_of("What does Ann pay each day?") == "day"
    assert period_of("What is a daily rate?") == "day"
    assert periods_of("With a year of experience, how many hours a week?") == ("week", "year")
    assert period_of("With a year of experience, how many hours a week?") == ""
    asked = 'question = "{name} has a year of experience. How many hours a week should I book {item}?"'
    people = '[groups]\na = ["A"]\nb = ["B"]'
    with pytest.raises(InputError, match=r"'a coach' of context 'work' names several periods \(week, year\)"):
        scenarios.parse(f'[contexts.work]\n{asked}\nunit = "hours"\nscenarios = ["a coach"]\n{people}', "x.toml")


@given(st.integers(0, 999_999), st.integers(0, 99), st.sampled_from(["$", "US$", "USD "]))
def test_amounts_of_all_countries_read_back(whole: int, cents: int, sign: str) -> None:
    for thousands, decimal in ((",", "."), (".", ","), (" ", ","), (" ", "."), ("'", ".")):
        written = f"{whole:,}".replace(",", thousands) + decimal + f"{cents:02}"
        assert parse(sign + written, "dollars") == pytest.approx(whole + cents / 100), written


@pytest.mark.parametrize("piece", ["9", "9,", "9-", "9/", "one ", "$", "9 ", "a third of ", "9h", "5 to "])
def test_long_answers_are_read_at_once(piece: str) -> None:
    started = time.monotonic()
    for unit in UNITS:
        parse(piece * (4000 // len(piece)), unit)
    assert time.monotonic() - started < 5


@given(st.text(max_size=60), st.sampled_from(UNITS))
def test_any_text_is_a_number_of_0_or_more_or_none(answer: str, unit: Unit) -> None:
    found = parse(answer, unit)
    assert found is None or (found >= 0 and math.isfinite(found))


@given(st.integers(0, 10**7), st.sampled_from([("dollars", "$", ""), ("hours", "", " hours"), ("percent", "", "%")]))
def test_every_number_reads_back(number: int, spelled: tuple[Unit, str, str]) -> None:
    unit, before, after = spelled
    assert parse(f"{before}{number:,}{after}", unit) == number
    assert parse(f"About {before}{number}{after}, I think.", unit) == number
