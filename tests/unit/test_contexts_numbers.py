"""What counts as the number of an answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.contexts.numbers import UNITS, Unit, parse

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
    ("10% less than $500", 500),
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
    ("one hour a day, 3 days a week", 1),
    ("3 days a week, 2 hours each", 2),
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
    ("3/4 of it", None),
]
CASES = [(unit, *case) for unit, cases in zip(UNITS, (DOLLARS, HOURS, PERCENT), strict=True) for case in cases]


@pytest.mark.parametrize(("unit", "answer", "number"), CASES, ids=[f"{u}: {a}" for u, a, _ in CASES])
def test_the_number_of_an_answer(unit: Unit, answer: str, number: float | None) -> None:
    assert parse(answer, unit) == (None if number is None else pytest.approx(number))


@given(st.text(max_size=60), st.sampled_from(UNITS))
def test_any_text_is_a_number_of_0_or_more_or_none(answer: str, unit: Unit) -> None:
    found = parse(answer, unit)
    assert found is None or (found >= 0 and math.isfinite(found))


@given(st.integers(0, 10**7), st.sampled_from([("dollars", "$", ""), ("hours", "", " hours"), ("percent", "", "%")]))
def test_every_number_reads_back(number: int, spelled: tuple[Unit, str, str]) -> None:
    unit, before, after = spelled
    assert parse(f"{before}{number:,}{after}", unit) == number
    assert parse(f"About {before}{number}{after}, I think.", unit) == number
