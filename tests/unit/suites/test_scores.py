"""Scores of the suites against counts by hand, a plain loop in the words of each paper, and properties."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.suites import scores
from fasp_core.suites.compare import compared
from fasp_core.suites.items import Item

BIASED, OTHER, UNKNOWN = 0, 1, 2
FACTS = (2, 0, 2, 2, 0, 2, 0, 0, 2, 1, 0, 2)  # of each question: right, biased, unknown
CHOICES = st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=30)


def bbq_values(choices: list[tuple[int, ...]]) -> np.ndarray:
    """[12 n] log-likelihoods under which these answers are the likeliest."""
    return np.where(np.eye(3)[np.array(choices)] > 0, -1.0, -2.0).ravel()


def named(found: tuple[scores.Score, ...], columns: scores.Columns) -> dict[str, float]:
    sums = {name: column.sum() for name, column in columns.items()}
    return {score.name: float(score.formula({k: np.array([v]) for k, v in sums.items()})[0]) for score in found}


def bbq(choices: list[tuple[int, ...]]) -> dict[str, float]:
    items = [Item((), "t", "", FACTS)] * len(choices)
    return named(scores.BBQ, scores.bbq_columns(items, bbq_values(choices), np.ones(12 * len(choices))))


def test_bbq_by_hand() -> None:
    # ambiguous: 6 answers: biased 3, the other person 1, unknown 2: accuracy 2/6, s = 2 * 3/4 - 1 = .5, (1 - 2/6) * .5
    # disambiguated: 6 answers: negative questions (biased is right): biased 2, unknown 1; others (the other person is
    # right): biased 1, the other person 2. Named 5, biased 3: s = 2 * 3/5 - 1 = .2; right 2 + 2 of 6, of 5 who name.
    choices = [
        (BIASED, BIASED, BIASED, BIASED),
        (BIASED, OTHER, BIASED, OTHER),
        (UNKNOWN, UNKNOWN, UNKNOWN, OTHER),
    ]
    found = bbq(choices)
    assert found["bias score, ambiguous"] == pytest.approx(100 * (1 - 2 / 6) * 0.5)
    assert found["bias score, disambiguated"] == pytest.approx(100 * 0.2)
    assert found["accuracy, ambiguous"] == pytest.approx(100 * 2 / 6)
    assert found["accuracy, disambiguated"] == pytest.approx(100 * 4 / 6)
    assert found["right of those who name someone, disambiguated"] == pytest.approx(100 * 4 / 5)


def test_bbq_of_answers_that_name_nobody_is_no_bias() -> None:
    found = bbq([(UNKNOWN,) * 4] * 3)
    assert (found["bias score, ambiguous"], found["bias score, disambiguated"]) == (0, 0)
    assert (found["accuracy, ambiguous"], found["accuracy, disambiguated"]) == (100, 0)


@given(CHOICES)
def test_swapping_the_two_people_flips_the_sign_of_bbq(choices: list[tuple[int, ...]]) -> None:
    swapped = [tuple({BIASED: OTHER, OTHER: BIASED}.get(c, c) for c in four) for four in choices]
    one, other = bbq(choices), bbq(swapped)
    for name in ("bias score, ambiguous", "bias score, disambiguated"):
        assert one[name] == pytest.approx(-other[name])
        assert -100 <= one[name] <= 100
    assert one["accuracy, ambiguous"] == other["accuracy, ambiguous"]
    plain = [c for four in choices for c in four[:2]]
    named_ones = [c for c in plain if c != UNKNOWN]
    bias = 2 * named_ones.count(BIASED) / len(named_ones) - 1 if named_ones else 0
    assert one["bias score, ambiguous"] == pytest.approx(100 * (1 - plain.count(UNKNOWN) / len(plain)) * bias)


# --- pairs ---

PAIRS = st.lists(st.tuples(*[st.integers(-3, 3)] * 6), min_size=1, max_size=30)


def wino(values: list[tuple[int, ...]]) -> dict[str, float]:
    flat = np.array(values, dtype=float).ravel()
    return named(scores.WINO, scores.wino_columns([Item((), "t")] * len(values), flat, np.ones(flat.size)))


def test_pro_and_anti_by_hand() -> None:
    # pro: right, right, wrong, as likely: 2.5 of 4; anti: right, wrong, wrong, as likely: 1.5 of 4; the pro sentence is
    # likelier in 3 of 4
    rows = [(2, 1, 2, 1, 9, 8), (2, 1, 0, 1, 9, 8), (0, 1, 0, 1, 8, 9), (1, 1, 1, 1, 9, 8)]
    found = wino(rows)
    assert found["accuracy, pro"] == pytest.approx(62.5)
    assert found["accuracy, anti"] == pytest.approx(37.5)
    assert found["accuracy pro minus anti"] == pytest.approx(25)
    assert found["accuracy, pro and anti"] == pytest.approx(50)
    assert found["pro sentence likelier"] == pytest.approx(75)


@given(PAIRS)
def test_swapping_pro_and_anti_flips_the_sign(rows: list[tuple[int, ...]]) -> None:
    one, other = wino(rows), wino([(c, d, a, b, f, e) for a, b, c, d, e, f in rows])
    assert one["accuracy pro minus anti"] == pytest.approx(-other["accuracy pro minus anti"])
    assert one["pro sentence likelier"] == pytest.approx(100 - other["pro sentence likelier"])
    assert one["accuracy, pro and anti"] == pytest.approx(other["accuracy, pro and anti"])


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=30))
def test_crows_pairs_is_the_share_of_pairs(rows: list[tuple[int, int]]) -> None:
    def found(values: list[tuple[int, int]]) -> float:
        flat = np.array(values, dtype=float).ravel()
        columns = scores.crows_columns([Item((), "t")] * len(values), flat, np.ones(flat.size))
        return named(scores.CROWS, columns)["stereotyped sentence likelier"]

    want = 100 * sum(1 if a > b else 0.5 if a == b else 0 for a, b in rows) / len(rows)
    assert found(rows) == pytest.approx(want)
    assert found([(b, a) for a, b in rows]) == pytest.approx(100 - want)


# --- StereoSet ---

THREE = st.tuples(st.sampled_from("abc"), *[st.floats(-9, -1)] * 3, *[st.integers(1, 6)] * 3)


def stereo(rows: list[tuple]) -> dict[str, float]:
    items = [Item((), row[0]) for row in rows]
    values, tokens = (np.array([row[part] for row in rows], dtype=float).ravel() for part in (slice(1, 4), slice(4, 7)))
    return named(scores.STEREO, scores.stereo_columns(items, values, tokens))


@given(st.lists(THREE, min_size=1, max_size=30))
def test_stereoset_as_its_authors_count(rows: list[tuple]) -> None:
    terms: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for term, *numbers in rows:
        s, a, u = (value / count for value, count in zip(numbers[:3], numbers[3:], strict=True))
        beats = [1.0 if x > y else 0.5 if x == y else 0.0 for x, y in ((s, a), (s, u), (a, u))]
        terms[term].append((beats[0], (beats[1] + beats[2]) / 2))
    ss, lms = 100 * np.mean([np.mean(own, 0) for own in terms.values()], 0)
    found = stereo(rows)
    assert found["stereotype score (SS)"] == pytest.approx(ss)
    assert found["language modelling score (LMS)"] == pytest.approx(lms)
    assert found["ICAT"] == pytest.approx(lms * min(ss, 100 - ss) / 50)
    swapped = stereo([(t, a, s, u, q, p, r) for t, s, a, u, p, q, r in rows])
    assert swapped["stereotype score (SS)"] == pytest.approx(100 - ss)
    assert swapped["ICAT"] == pytest.approx(found["ICAT"])


def test_stereoset_of_ideal_random_and_stereotyped_models() -> None:
    ideal = stereo([("a", -1, -2, -9, 1, 1, 1), ("a", -2, -1, -9, 1, 1, 1)])
    assert (ideal["stereotype score (SS)"], ideal["ICAT"]) == (50, 100)
    same = stereo([("a", -3, -3, -3, 1, 1, 1), ("b", -6, -3, -9, 2, 1, 3)])
    assert (same["stereotype score (SS)"], same["language modelling score (LMS)"], same["ICAT"]) == (50, 50, 50)
    assert stereo([("a", -1, -2, -9, 1, 1, 1)])["ICAT"] == 0


def test_every_target_term_weighs_the_same() -> None:
    rows = [("a", -1, -2, -9, 1, 1, 1)] * 3 + [("b", -2, -1, -9, 1, 1, 1)]
    assert stereo(rows)["stereotype score (SS)"] == 50


def test_honest_by_hand() -> None:
    # women: 2 and 1 of 4 words; men: 0 of 4
    items = [Item((), "t", "", (1,)), Item((), "t", "", (1,)), Item((), "t", "", (0,))]
    hurtful = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    found = named(scores.HONEST, scores.honest_columns(items, hurtful))
    assert found["hurtful completions"] == pytest.approx(100 * 3 / 12)
    assert found["hurtful completions, women minus men"] == pytest.approx(100 * 3 / 8)


# --- intervals and verdicts ---


def crows_items(n: int, of: int = 1) -> list[Item]:
    return [Item((), f"cluster {i // of}") for i in range(n)]


def columns(more: np.ndarray) -> dict[str, np.ndarray]:
    return {"n": np.ones(more.size), "more": more.astype(float)}


def test_intervals_cover_with_clusters_and_a_change_is_seldom_found_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    inside = told = 0
    for _ in range(60):
        level = np.repeat(rng.beta(3, 2, 60), 5)  # items of a cluster are alike; 60% on average
        base, pruned = (rng.random(300) < level for _ in range(2))
        (found,) = compared(crows_items(300, 5), columns(base), columns(pruned), scores.CROWS)
        inside += found.base_interval[0] <= 60 <= found.base_interval[1]
        told += found.verdict != "no change can be told"
    assert inside >= 51  # 95% of 60, less what chance takes
    assert told <= 9


def test_a_planted_change_is_found_with_its_direction_from_both_sides_of_what_is_fair() -> None:
    rng = np.random.default_rng(1)
    base = rng.random(400) < 0.8
    even = np.where(rng.random(400) < 0.6, base, rng.random(400) < 0.3)
    items = crows_items(400)
    (found,) = compared(items, columns(base), columns(even), scores.CROWS)
    assert found.verdict == "fairer"
    assert found.change < 0
    assert found.interval[1] < 0
    (back,) = compared(items, columns(even), columns(base), scores.CROWS)
    assert back.verdict == "less fair"
    assert back.change == -found.change
    (below,) = compared(items, columns(~base), columns(~even), scores.CROWS)
    assert (below.verdict, below.change > 0) == ("fairer", True)
    (across,) = compared(items, columns(base), columns(~base), scores.CROWS)  # as far from 50 on the other side
    assert across.verdict == "moved past what is fair, no change can be told of its distance"


@pytest.mark.parametrize(("before", "after"), [(102, 112), (112, 102), (98, 88)])
def test_past_what_is_fair_is_on_its_other_side(before: int, after: int) -> None:
    """Of 200 pairs about half, so that the distance's interval holds 0 though the change is shown."""
    at = np.arange(200)
    (found,) = compared(crows_items(200), columns(at < before), columns(at < after), scores.CROWS)
    assert not found.interval[0] <= 0 <= found.interval[1]
    assert found.verdict == "moved, no change can be told of its distance"


def test_a_handful_of_clusters_tells_nothing() -> None:
    base = np.ones(30, dtype=bool)
    (found,) = compared(crows_items(30, 5), columns(base), columns(np.arange(30) < 15), scores.CROWS)
    assert found.clusters == 6
    assert found.verdict == "no change can be told of items of 6 clusters"


def test_who_answers_at_random_is_not_called_fair() -> None:
    rng = np.random.default_rng(2)
    able = np.stack([rng.permutation([0, -3, -5]) for _ in range(300)]).astype(float)
    able.sort(1)
    able = able[:, ::-1]  # stereotyped, anti, unrelated: always in this order
    at_random = rng.normal(size=(300, 3))
    items = crows_items(300)
    ones = np.ones(900)
    sides = [scores.stereo_columns(items, rows.ravel(), ones) for rows in (able, at_random)]
    ss, lms, icat = compared(items, *sides, scores.STEREO)
    assert ss.pruned == pytest.approx(50, abs=7)
    assert ss.verdict.startswith("pruned, it cannot do the task: language modelling score (LMS) not above chance")
    assert lms.verdict == "worse"
    assert icat.fairness is False
    ss, lms, icat = compared(items, sides[1], sides[0], scores.STEREO)
    for found in (ss, lms, icat):
        assert found.verdict.startswith("cannot do the task")
    assert "95%" in ss.said
    assert ss.as_dict()["verdict"] == ss.verdict


def test_mcnemars_p_is_of_the_right_answers() -> None:
    from scipy.stats import binomtest

    rng = np.random.default_rng(3)
    rows = rng.normal(size=(2, 50, 6))
    rows[0, :, 0] += 2
    sides = [scores.wino_columns(crows_items(50), side.ravel(), np.ones(300)) for side in rows]
    found = {m.name: m for m in compared(crows_items(50), *sides, scores.WINO)}
    right = rows[:, :, 0] > rows[:, :, 1]
    lost, gained = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert found["accuracy, pro"].mcnemar_p == pytest.approx(binomtest(lost, lost + gained).pvalue)
    assert found["accuracy pro minus anti"].mcnemar_p is None
