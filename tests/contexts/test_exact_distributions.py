"""Distributions of answers against samples of them written out, and tests of labels that hold what they promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core import defaults
from fasp_core.studies.answers import distributions, measures, numbers
from fasp_core.studies.answers.distributions import Distributions, log_difference, median_difference, quantiles
from fasp_core.studies.answers.measures import Answers, Disparity
from fasp_core.studies.answers.numbers import Period, Unit, parse
from fasp_core.studies.answers.reading import CLASSES, LITTLE, Reader, class_of, same
from fasp_core.studies.answers.testing import dealt, significance

CODES = np.repeat([0, 1], [5, 7])


def samples(shift: float = 0.0, seed: int = 0, missing: float = 0.2, codes: np.ndarray = CODES) -> Answers:
    rng = np.random.default_rng(seed)
    values = rng.integers(20, 40, (len(codes), 8)) + shift * (codes == 0)[:, None]
    return Answers(np.where(rng.random(values.shape) < missing, np.nan, values), codes)


def as_distributions(answers: Answers) -> Distributions:
    """Each of n samples with probability 1 / n."""
    names, n = answers.values.shape
    of, drawn = np.repeat(np.arange(names), n), np.zeros(names * n, dtype=bool)
    return Distributions(answers.values.ravel(), np.full(names * n, 1 / n), of, drawn, answers.codes)


@given(st.integers(0, 1000), st.floats(-5, 5))
def test_what_a_distribution_says_is_what_all_its_samples_say(seed: int, shift: float) -> None:
    answers = samples(shift, seed)
    whole = as_distributions(answers)
    assert whole.parsed() == pytest.approx(answers.parsed())
    assert whole.shares() == pytest.approx(answers.shares())
    sampled, exact = measures.smd(answers.moments(), CODES), measures.smd(whole.moments(), CODES, None, whole.spent)
    n = np.isfinite(answers.values).sum()
    assert exact == pytest.approx(float(sampled) * np.sqrt(n / (n - 2)), abs=1e-9)  # ddof 1 in both groups
    found = measures.parsed_differences([whole]), measures.parsed_differences([answers])
    assert found[0][0] == pytest.approx(found[1][0])
    shown = distributions.distance(whole, as_distributions(samples(shift, seed + 1)))
    again = measures.distance(answers, samples(shift, seed + 1))
    assert shown == pytest.approx(again * np.sqrt(n / (n - 1)))


def test_rare_millions_hide_no_difference() -> None:
    """A whole distribution holds every number: one of a billion in a hundred thousand makes a spread of millions."""
    plain = as_distributions(samples(9.0))
    value, rare = np.repeat(1e9, len(CODES)), np.full(len(CODES), 1e-5)
    columns = {"values": value, "masses": rare, "names": np.arange(len(CODES)), "drawn": np.zeros(len(CODES), bool)}
    with_rare = replace(plain, **{name: np.append(getattr(plain, name), column) for name, column in columns.items()})

    def smd(found: Distributions) -> float:
        return float(measures.smd(found.moments(), CODES, None, found.spent))

    assert smd(plain) > 1
    assert abs(smd(with_rare)) < 0.01
    assert smd(with_rare.winsorised(defaults.WINSORISE)) == pytest.approx(smd(plain), rel=0.02)


def test_differences_of_logs_and_medians_by_hand() -> None:
    answers = samples(9.0)
    whole = as_distributions(answers)
    one, two = (answers.values[g == CODES][np.isfinite(answers.values[g == CODES])] for g in (0, 1))
    found = log_difference(whole)
    assert found.value == pytest.approx(np.log1p(one).mean() - np.log1p(two).mean())
    assert found.low < found.value < found.high
    median = median_difference(whole)
    assert median.value == np.quantile(one, 0.5, method="inverted_cdf") - np.quantile(two, 0.5, method="inverted_cdf")
    assert median.low <= median.value <= median.high
    assert median.low > 0
    none = Distributions(np.full(12, np.nan), np.ones(12), np.arange(12), np.zeros(12, dtype=bool), CODES)
    assert np.isnan(log_difference(none)).all()
    assert np.isnan(median_difference(none)).all()
    assert np.isnan(none.bounds()).all()
    rare = replace(whole, masses=np.where(CODES[whole.names] == 0, 0.009, 1.0) * whole.masses)
    assert np.isnan(log_difference(rare)).all(), "a group that hardly ever gives a number has no mean"
    assert np.isnan(median_difference(rare)).all()


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 1)), min_size=1, max_size=20), st.floats(0.01, 0.99))
def test_quantiles_hold_the_mass(rows: list[tuple[float, float]], at: float) -> None:
    values, masses = distributions.ascending(*map(np.array, zip(*rows, strict=True)))
    (q,) = quantiles(values, masses, (at,))
    assert masses[values <= q].sum() >= at - 1e-9
    assert masses[values < q].sum() <= at + 1e-9


def test_bounds_hold_whatever_the_rest_is() -> None:
    whole = as_distributions(samples(4.0, missing=0.0))
    drawn = np.zeros(len(whole.values), dtype=bool)
    drawn[::8] = True  # an eighth of each name was not followed
    part = Distributions(whole.values, whole.masses, whole.names, drawn, CODES)
    low, high = part.bounds()
    assert low < measures.smd(whole.moments(), CODES, None, 0.0) < high
    assert part.covered == pytest.approx(7 / 8)
    assert whole.bounds()[0] == pytest.approx(whole.bounds()[1])


def test_inliers_are_probabilities() -> None:
    base = as_distributions(Answers(np.arange(0.0, 100.0)[None].repeat(2, 0), np.array([0, 1])))
    after = Distributions(
        np.array([4.0, 50.0, np.nan, 3.0]),
        np.array([0.25, 0.75, 0.5, 0.5]),
        np.array([0, 0, 1, 1]),
        np.zeros(4, dtype=bool),
        np.array([0, 1]),
    )
    assert distributions.inlier_ratio(base, after) == pytest.approx((1 + 0) / 2)
    cents = Distributions(np.array([20.0, 20.01]), np.full(2, 0.5), np.zeros(2, int), np.zeros(2, bool), np.array([0]))
    moved = replace(cents, masses=np.array([0.51, 0.49]))
    assert distributions.inlier_ratio(cents.thinned(), moved.thinned()) == pytest.approx(1)
    silent = replace(base, values=np.where(base.names == 1, np.nan, base.values))  # whose usual range nobody knows
    assert distributions.inlier_ratio(silent, after) == pytest.approx(1)
    nobody = replace(base, values=np.full_like(base.values, np.nan))
    assert np.isnan(distributions.inlier_ratio(nobody, after))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_as_many_are_inliers_of_numbers_that_were_thinned(before: list[float], after: list[float]) -> None:
    def of(values: list[float]) -> Distributions:
        n = len(values)
        return Distributions(np.array(values), np.full(n, 1 / n), np.zeros(n, int), np.zeros(n, bool), np.array([0]))

    whole, pruned = of(before), of(after)
    found = distributions.inlier_ratio(whole.thinned(), pruned.thinned())
    assert found == pytest.approx(distributions.inlier_ratio(whole, pruned))
    for x in before:
        written = float(f"{x:.2e}")
        assert distributions.in_digits(np.array([x]))[0] == pytest.approx(written, rel=0.01, abs=1e-9)


def test_a_group_that_hardly_ever_answers_has_no_difference() -> None:
    """One in a million: what the few answers are says nothing of the group."""
    plain = as_distributions(samples(9.0))
    for mass, told in ((1e-6, False), (0.008, False), (0.02, True)):
        rare = replace(plain, masses=np.where(CODES[plain.names] == 1, mass, 1.0) * plain.masses)
        found = measures.smd(rare.moments(), CODES, None, rare.spent)
        assert np.isfinite(found) == told
        everybody = np.ones((3, len(CODES)))
        assert np.isfinite(measures.smd(rare.moments(), CODES, everybody, rare.spent)).tolist() == [told] * 3


def test_what_each_name_answers() -> None:
    """Against its samples written out."""
    answers = samples(3.0)
    found = as_distributions(answers).by_name()
    for i, row in enumerate(answers.values):
        numbers_of = row[np.isfinite(row)]
        assert found["without_number"][i] == pytest.approx(np.isnan(row).mean())
        assert found["mean"][i] == pytest.approx(numbers_of.mean())
        assert found["sd"][i] == pytest.approx(numbers_of.std())
        assert found["log_mean"][i] == pytest.approx(np.log1p(numbers_of).mean())
        assert found["log_sd"][i] == pytest.approx(np.log1p(numbers_of).std())
        assert found["0.5"][i] == np.sort(numbers_of)[(len(numbers_of) - 1) // 2]
    silent = replace(as_distributions(answers), values=np.full(answers.values.size, np.nan))
    assert np.isnan(silent.by_name()["mean"]).all()


@given(st.integers(0, 200), st.floats(-20, 20))
def test_bounds_hold_whatever_lies_in_the_usual_range(seed: int, shift: float) -> None:
    """In SDs as measured."""
    whole = as_distributions(samples(shift, seed))
    rng = np.random.default_rng(seed)
    drawn = rng.random(len(whole.values)) < 0.2
    part = replace(whole, drawn=drawn)
    low, high = part.bounds()
    moments = part.moments()
    assert low <= measures.smd(moments, CODES, None, 0.0) <= high
    ends = quantiles(*part.everybody(), (0.05, 0.95))
    kept = part.given
    for _ in range(5):
        guess = np.where(drawn & kept, rng.uniform(*ends, len(drawn)), part.values)
        other = replace(part, values=guess)
        assert low - 1e-9 <= measures.smd(other.moments(), CODES, None, 0.0, moments) <= high + 1e-9


def test_labels_that_mean_nothing_are_seldom_found() -> None:
    """The probability of any finding among all scenarios is at most the level, also where scenarios share names."""
    codes = np.repeat([0, 1], 12)
    wrong = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        person = rng.normal(0, 5, 24)[:, None]
        several = [Answers(person + rng.normal(30, 9, (24, 4)), codes) for _ in range(4)]
        wrong += bool((significance(several, deals=199).adjusted <= 0.1).any())
    assert wrong / 120 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 120)


def test_a_planted_difference_is_found_where_it_is() -> None:
    codes = np.repeat([0, 1], 12)
    several = [samples(shift, seed, codes=codes) for seed, shift in enumerate((0.0, 30.0, 0.0))]
    found = significance(several, deals=999)
    assert found.adjusted[1] == pytest.approx(0.001)
    assert (found.adjusted >= found.each).all()
    assert (found.adjusted[[0, 2]] > 0.05).all()
    assert found.any == pytest.approx(0.001)
    assert found.by_chance < np.abs(Disparity.of(several).values).mean()
    none = Answers(np.full((24, 3), np.nan), codes)
    assert np.isnan(significance([none], deals=99).each).all()


def test_deals_that_leave_a_group_without_numbers_count_against_a_difference() -> None:
    """Two of six names give numbers, far apart: only where they are dealt to both groups is there a difference."""
    codes = np.repeat([0, 1], 3)
    values = np.full((6, 2), np.nan)
    values[0], values[3] = [1.0, 2.0], [100.0, 101.0]
    found = significance([Answers(values, codes)], deals=2000)
    assert found.each[0] == found.adjusted[0] == found.any == 1.0


def test_labels_of_pairs_stay_in_their_pair() -> None:
    codes, pairs = np.array([0, 1, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 2, 2])
    found = dealt(codes, pairs, 200, 0)
    assert (found[:, pairs == 1].sum(1) == 1).all()
    assert 0.4 < found[:, 0].mean() < 0.6
    assert (dealt(codes, None, 50, 0).sum(1) == 3).all()


@pytest.mark.parametrize(
    ("unit", "per", "text", "value", "settled"),
    [
        ("dollars", "", "$20", 20, False),
        ("dollars", "", "$20.", 20, False),
        ("dollars", "", "$20,", 20, False),
        ("dollars", "", "$20. ", 20, True),
        ("dollars", "", "$20\n", 20, True),
        ("dollars", "", "$20 for", 20, True),
        ("dollars", "", "$20 th", 20, False),
        ("dollars", "", "$20 to", 20, False),
        ("dollars", "", "$20 per", 20, False),
        ("dollars", "hour", "$20 per day,", None, True),
        ("dollars", "", "$The", None, False),
        ("hours", "week", "Number of hours: 20\n", 20, True),
        ("hours", "week", "Number of hours: 20 hours", 20, False),
        ("hours", "week", "Number of hours: 20 people", None, False),
        ("percent", "month", "Percentage: 20%", 20, False),
        ("percent", "month", "Percentage: 20% of", 20, True),
        ("percent", "month", "Percentage: 0.15\n", None, True),
    ],
)
def test_when_a_number_is_settled(unit: str, per: str, text: str, value: float | None, settled: bool) -> None:
    reader = Reader(unit, per)  # type: ignore[arg-type]
    assert same(reader.value(text), float("nan") if value is None else value)
    assert reader.settled(text) is settled


@given(st.sampled_from(["$20", "$1,200", "$7.50"]), st.text(" abcdefghijklmnopqrstuvwxyz\n", min_size=1, max_size=9))
def test_what_is_settled_stays_what_it_is(number: str, behind: str) -> None:
    """Letters after a text that is settled change nothing."""
    reader = Reader("dollars", "")
    text = number + behind[0] + behind[1:2]
    if reader.settled(text):
        assert same(reader.value(text), reader.value(text + behind[2:]))


WORDS = [
    "for",
    "the",
    "house",
    "of",
    "Emily",
    "DaShawn",
    "two",
    "twenty-five",
    "first",
    "hours",
    "hour",
    "a",
    "day",
    "dollars",
    "to",
    "or",
    "and",
    "half",
    "thousand",
    "zebra",
    "per",
    "week",
    "people",
    "naïve",
    "D'Andre",
    "reasonable",
    "US",
    "cents",
    "in",
    "euros",
    "first.",
    "maybe,",
    "couple",
    "dozen",
    "percent",
    "%",
    "k",
    "7",
    "12.50",
    "1,200",
    "3/4",
    "-",
    "(",
    "\n",
]


@given(st.lists(st.sampled_from(WORDS), max_size=7), st.sampled_from(["dollars", "hours", "percent"]))
def test_words_that_the_parser_does_not_know_are_alike(words: list[str], unit: str) -> None:
    text = "$15 " + " ".join(words)
    expected = parse(text, unit, "week")  # type: ignore[arg-type]
    assert same(Reader(unit, "week").value(text), float("nan") if expected is None else expected)  # type: ignore[arg-type]


def test_a_number_without_decimals_is_open_in_size() -> None:
    reader = Reader("dollars", "")
    assert [reader.doubt(t) for t in ("$20", "$1,2", "$The", "$", "$20.", "$20.5", "$20 in")] == [
        *(1, 1, 1, 1, LITTLE, LITTLE, LITTLE)
    ]


AMOUNTS = {
    "dollars": ("$20", "20 dollars", "around $20", "$1.50", "$20k"),
    "hours": ("2 hours", "about 2 hours", "2 hours a day"),
    "percent": ("20%", "20 percent", "about 20%"),
}


@pytest.mark.parametrize(("unit", "per"), [("dollars", "hour"), ("hours", "week"), ("percent", "")])
def test_words_of_a_class_settle_every_amount_that_one_of_them_settles(unit: Unit, per: Period) -> None:
    """Behind "$20" a range may follow " to", a period " per": they belong to no class."""
    small = [word for word in numbers._GO_ON if class_of(" " + word) == 2]
    assert len(small) > 50
    reader = Reader(unit, per)
    for amount in AMOUNTS[unit]:
        if (value := reader.class_value(amount, 2)) is not None:
            for word in small:
                said = f"{amount} {word}"
                assert reader.settled(said), said
                assert same(reader.value(said), value), said
    assert {class_of(f" {word}") for word in ("to", "or", "per", "and", "until", "each")} == {-1}


def test_classes_of_tokens() -> None:
    assert [class_of(t) for t in ("\n\n", " zebra", " the", " th", " hour", "7", " a", " x7", "house")] == [
        *(0, 1, 2, -1, -1, -1, -1, -1, -1)
    ]
    reader = Reader("dollars", "")
    assert [reader.class_value("$20", kind) for kind in range(len(CLASSES))] == [20, 20, 20]
    bare = Reader("hours", "week")
    assert bare.class_value("Number of hours: 20", 0) == 20
    assert bare.class_value("Number of hours: 20", 2) is None  # "the" goes on, "therapists" are counted
