"""Selection by gamma and alpha against a brute-force FASP, and the reading of released score files."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.heads.selection import METHODS, PROTECTS, HeadScores, Selection, select

FIELDS = ("z_ppl", "z_bias", "magnitude", "gradient")
percents = st.integers(0, 100).map(lambda percent: percent / 100)


def exact_floor(share: float, n: int) -> int:
    """Of the decimal as it is written, without floats."""
    return math.floor(Fraction(str(share)) * n)


@st.composite
def head_scores(draw: st.DrawFn) -> HeadScores:
    """Small models; whole numbers from a narrow range, so that ties are common and shifts are exact."""
    n_layers, n_heads = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    values = st.lists(st.integers(-4, 4), min_size=n_layers * n_heads, max_size=n_layers * n_heads)
    return HeadScores(n_layers, n_heads, **{name: np.array(draw(values), float) for name in FIELDS})


def listed(scores: HeadScores, name: str) -> list[float]:
    return getattr(scores, name).tolist()


def brute_force(scores: HeadScores, method: str, gamma: float, alpha: float) -> tuple[set[int], set[int]]:
    """Pruned and critical heads, taken one at a time: the best score, and among equals the lowest flat id."""
    n = scores.n_layers * scores.n_heads

    def take(heads: set[int], count: int, worth: dict[int, float]) -> set[int]:
        taken: set[int] = set()
        while len(taken) < count and taken != heads:
            best = max(worth[head] for head in heads - taken)
            taken.add(min(head for head in heads - taken if worth[head] == best))
        return taken

    everything, k = set(range(n)), exact_floor(alpha, n)
    field, sign = {
        "fasp": ("z_bias", 1),
        "bias-only": ("z_bias", 1),
        "ppl-only": ("z_ppl", -1),
        "magnitude": ("magnitude", -1),
        "gradient": ("gradient", -1),
    }[method]
    critical = set()
    if method == "fasp":
        critical = take(everything, exact_floor(gamma, n), dict(enumerate(listed(scores, "z_ppl"))))
    worth = {head: sign * score for head, score in enumerate(listed(scores, field))}
    return take(everything - critical, k, worth), critical


# --- against the brute force


@given(head_scores(), st.sampled_from([m for m in METHODS if m != "random"]), percents, percents)
def test_selection_is_the_brute_force_one(scores: HeadScores, method: str, gamma: float, alpha: float) -> None:
    chosen = select(scores, method, gamma, alpha)
    pruned, critical = brute_force(scores, method, gamma, alpha)
    assert chosen.pruned == tuple(sorted(pruned))
    assert chosen.critical == tuple(sorted(critical))
    assert chosen.requested_k == exact_floor(alpha, scores.n_layers * scores.n_heads)
    assert chosen.k == len(pruned)
    assert bool(chosen.notes) == (chosen.k < chosen.requested_k)


@given(head_scores(), percents, percents)
def test_released_rule_equals_the_stable_one_where_nothing_is_tied(
    scores: HeadScores, gamma: float, alpha: float
) -> None:
    n = scores.n_layers * scores.n_heads
    assume(int(n * gamma) == exact_floor(gamma, n) and int(n * alpha) == exact_floor(alpha, n))
    assume(exact_floor(gamma, n) + exact_floor(alpha, n) <= n and gamma < 1)
    spread = np.arange(n) / n  # the lower id of a tie is critical, and is pruned first
    z_ppl, z_bias = (listed(scores, name) - spread for name in ("z_ppl", "z_bias"))
    untied = HeadScores(scores.n_layers, scores.n_heads, z_ppl, z_bias)
    stable = select(untied, "fasp", gamma, alpha)
    released = select(untied, "fasp", gamma, alpha, rule="released")
    assert (released.pruned, released.critical, released.notes) == (stable.pruned, stable.critical, ())


# --- properties


@given(head_scores(), st.sampled_from(METHODS), percents, percents, percents, st.integers(0, 9))
def test_nested_in_alpha(scores: HeadScores, method: str, gamma: float, one: float, other: float, seed: int) -> None:
    less, more = (set(select(scores, method, gamma, alpha, seed=seed).pruned) for alpha in sorted((one, other)))
    assert less <= more


@given(head_scores(), st.sampled_from(METHODS), percents, percents, st.integers(-1000, 1000))
def test_a_constant_added_to_the_scores_changes_nothing(
    scores: HeadScores, method: str, gamma: float, alpha: float, shift: int
) -> None:
    shifted = HeadScores(scores.n_layers, scores.n_heads, **{name: getattr(scores, name) + shift for name in FIELDS})
    assert select(shifted, method, gamma, alpha) == select(scores, method, gamma, alpha)


@given(st.integers(1, 3000), st.integers(0, 10_000), st.data())
def test_counts_survive_floating_point(n: int, per_ten_thousand: int, data: st.DataObject) -> None:
    """The count is that of the decimal as written, and a share that was made as k / n gives k back."""
    scores = HeadScores(1, n)
    share = per_ten_thousand / 10_000
    assert select(scores, "random", alpha=share).k == exact_floor(share, n)
    k = data.draw(st.integers(0, n))
    assert select(scores, "random", alpha=k / n).k == k


# --- examples


def ramp(n_layers: int = 2, n_heads: int = 5) -> HeadScores:
    """z_ppl falls with the id and z_bias rises, without ties."""
    n = n_layers * n_heads
    return HeadScores(n_layers, n_heads, -np.arange(n, dtype=float), np.arange(n, dtype=float))


def test_the_heads_pruned_are_the_non_critical_ones_of_highest_z_bias() -> None:
    chosen = select(ramp(), "fasp", 0.3, 0.2)
    assert chosen == Selection((8, 9), (0, 1, 2), 2, 2, (), "fasp", 0.3, 0.2, "stable", 0, n_layers=2, n_heads=5)
    assert chosen.heads == [(1, 3), (1, 4)]


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_ties_go_to_the_lower_flat_id_for_critical_and_pruned(zero: float) -> None:
    ids = np.arange(300)
    score = np.where(ids % 3 == 0, 1.0, np.where(ids % 2, zero, 0.0))  # 100 heads tie for the highest
    scores = HeadScores(30, 10, *([score] * 4))
    highest = [*range(0, 300, 3), *(head for head in range(300) if head % 3)]
    lowest = highest[100:] + highest[:100]
    for gamma, alpha in ((0.2, 0.1), (0.3, 0.2), (0.4, 0.2)):
        chosen = select(scores, "fasp", gamma, alpha)
        cut, end = round(300 * gamma), round(300 * (gamma + alpha))
        assert chosen.critical == tuple(sorted(highest[:cut]))
        assert chosen.pruned == tuple(sorted(highest[cut:end]))
    assert select(scores, "bias-only", alpha=0.2).pruned == tuple(highest[:60])
    for method in ("magnitude", "gradient", "ppl-only"):
        assert select(scores, method, alpha=0.2).pruned == tuple(lowest[:60])


def test_more_heads_than_are_not_critical_lowers_k_and_says_so() -> None:
    chosen = select(ramp(), "fasp", 0.8, 0.3)
    assert (chosen.pruned, chosen.k, chosen.requested_k) == ((8, 9), 2, 3)
    assert chosen.notes == (
        "Only 2 of 10 heads are not critical at gamma 0.8: k is 2, not the 3 that alpha 0.3 asks for.",
    )


def test_random_draws_over_all_heads_by_seed() -> None:
    scores = HeadScores(6, 12)
    first = select(scores, "random", 0.5, 0.1, seed=3)
    assert first == select(scores, "random", 0.5, 0.1, seed=3)
    assert first.critical == ()
    assert set(first.pruned) == set(np.random.Generator(np.random.PCG64(3)).permutation(72)[:7].tolist())
    assert len({select(scores, "random", alpha=0.1, seed=seed).pruned for seed in range(20)}) == 20
    # each head is drawn about as often as any other: 400 draws of 7 in 72, a standard deviation of 6
    drawn = np.bincount(
        [h for s in range(400) for h in select(scores, "random", alpha=0.1, seed=s).pruned], minlength=72
    )
    assert drawn.min() > 39 - 30
    assert drawn.max() < 39 + 30


def test_released_rule_prunes_and_frees_every_tied_head() -> None:
    z_ppl = np.array([9, 5, 5, 5, 1, 1, 1, 1, 1, 1])
    z_bias = np.array([0, 0, 0, 7, 7, 7, 0, 0, 0, 0])
    chosen = select(HeadScores(2, 5, z_ppl, z_bias), "fasp", 0.3, 0.2, rule="released")
    assert chosen.critical == (0,)
    assert chosen.pruned == (3, 4, 5)
    assert (chosen.k, chosen.requested_k) == (3, 2)
    assert chosen.notes == (
        "Ties in perplexity: critical heads are 1, not 3.",
        "Ties at the threshold: k is 3, not the 2 that alpha 0.2 asks for.",
    )
    baseline = select(HeadScores(2, 5, magnitude=-z_bias), "magnitude", alpha=0.1, rule="released")
    assert (baseline.pruned, baseline.critical) == ((3, 4, 5), ())


def test_released_rule_refuses_where_the_authors_code_breaks() -> None:
    with pytest.raises(InputError, match="lower gamma or use rule 'stable'"):
        select(ramp(), "fasp", 1.0, 0.1, rule="released")
    with pytest.raises(InputError, match=r"cannot prune 3 heads with only 2 .* lower alpha or gamma"):
        select(ramp(), "fasp", 0.8, 0.3, rule="released")
    assert select(ramp(), "bias-only", 1.0, 1.0, rule="released").k == 10  # gamma is not read here
    assert select(ramp(), "fasp", 0.8, 0.2, rule="released").pruned == (8, 9)
    tied = HeadScores(2, 5, np.zeros(10), np.arange(10.0))  # no head is critical, so theirs does not crash
    assert select(tied, "fasp", 0.8, 0.3, rule="released").pruned == (7, 8, 9)


def test_released_random_heads_say_that_they_are_not_the_authors() -> None:
    assert "cannot be repeated" in select(ramp(), "random", rule="released", seed=4).notes[0]


# --- refused input


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_name_where_they_are_read(bad: float) -> None:
    z_bias = np.zeros(12)
    z_bias[[1, 7]] = bad
    scores = HeadScores(3, 4, np.zeros(12), z_bias)
    for method in ("fasp", "bias-only"):
        with pytest.raises(InputError, match="z_bias is not a finite number for L0H1, L1H3: score these"):
            select(scores, method)
    assert select(scores, "ppl-only", alpha=0.25).k == 3
    z_bias[:6] = bad
    with pytest.raises(InputError, match="L0H0, L0H1, L0H2, L0H3, L1H0 and 2 more: "):
        select(HeadScores(3, 4, np.zeros(12), z_bias), "fasp")
    z_bias[7] = 0
    with pytest.raises(InputError, match="L0H0, L0H1, L0H2, L0H3, L1H0 and 1 more: "):
        select(HeadScores(3, 4, np.zeros(12), z_bias), "fasp")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "FASP"}, "no method 'FASP': choose one of fasp, magnitude"),
        ({"rule": "paper"}, "no rule 'paper': choose one of stable, released"),
        ({"gamma": 1.01}, "gamma is a share"),
        ({"alpha": -0.01}, "alpha is a share"),
        ({"alpha": float("nan")}, "alpha is a share"),
        ({"method": "magnitude"}, "hold no magnitude"),
        ({"method": "random", "seed": -1}, "seed"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select(ramp(), **options)


@pytest.mark.parametrize("bad", [np.zeros(9), np.zeros((2, 5)), 0.0, ["a"] * 10, [[1], [2, 3]]])
def test_arrays_of_another_shape_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="z_bias"):
        HeadScores(2, 5, z_bias=bad)
    with pytest.raises(InputError, match="at least 1 layer"):
        HeadScores(0, 5)


def test_scores_do_not_change_with_the_array_they_came_from() -> None:
    given_array = np.arange(10.0)
    scores = HeadScores(2, 5, z_bias=given_array)
    given_array[:] = np.nan
    assert select(scores, "bias-only", alpha=0.1).pruned == (9,)
    assert scores.z_bias is not None
    with pytest.raises(ValueError, match="read-only"):
        scores.z_bias[0] = 1


# --- heads that are set beforehand


@st.composite
def set_heads(draw: st.DrawFn) -> tuple[HeadScores, set[int], set[int]]:
    scores = draw(head_scores())
    told = draw(st.dictionaries(st.integers(0, scores.n_layers * scores.n_heads - 1), st.booleans()))
    return scores, {h for h, off in told.items() if not off}, {h for h, off in told.items() if off}


@given(set_heads(), st.sampled_from([m for m in METHODS if m != "random"]), percents, percents)
def test_around_set_heads_it_is_the_brute_force_one(
    given_heads: tuple[HeadScores, set[int], set[int]], method: str, gamma: float, alpha: float
) -> None:
    """Of what is neither critical nor set, the best one after the other, until the forced ones and they are k."""
    scores, locked, forced = given_heads
    n = scores.n_layers * scores.n_heads
    chosen = select(scores, method, gamma, alpha, locked=locked, forced=forced)
    k = exact_floor(alpha, n)
    _, critical = brute_force(scores, method, gamma, 0)
    order: list[int] = []
    for count in range(1, n + 1):  # the whole order of the method, from its own sets of growing size
        order += sorted(brute_force(scores, method, gamma, (count + 0.5) / n)[0] - set(order))
    best = [h for h in order if h not in locked | forced][: max(k - len(forced), 0)]
    assert set(chosen.pruned) == forced | set(best)
    assert set(chosen.critical) == critical
    assert (chosen.locked, chosen.forced) == (tuple(sorted(locked)), tuple(sorted(forced)))
    assert chosen.k == len(chosen.pruned)
    assert bool(chosen.notes) == (chosen.k != chosen.requested_k)


@given(set_heads(), st.sampled_from(METHODS), percents, percents, st.integers(0, 9))
def test_every_method_respects_set_heads(
    given_heads: tuple[HeadScores, set[int], set[int]], method: str, gamma: float, alpha: float, seed: int
) -> None:
    scores, locked, forced = given_heads
    chosen = select(scores, method, gamma, alpha, seed=seed, locked=locked, forced=forced)
    assert forced <= set(chosen.pruned)
    assert not locked & set(chosen.pruned)
    free = scores.n_layers * scores.n_heads - len(locked | forced | set(chosen.critical))
    assert chosen.k == len(forced) + min(max(chosen.requested_k - len(forced), 0), free)
    # a head that is told what the method does anyhow changes nothing
    same = select(scores, method, gamma, alpha, seed=seed, locked=locked, forced=chosen.pruned)
    assert same.pruned == chosen.pruned


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"locked": [4]}, "Head 4 cannot be locked: flat ids of this model run from 0 to 3"),
        ({"forced": [-1]}, "Head -1 cannot be forced"),
        ({"locked": [3], "forced": [0, 3]}, "L1H1 is both locked and forced"),
        ({"locked": [3], "rule": "released"}, "use rule 'stable'"),
    ],
)
def test_heads_that_cannot_be_set(told: dict[str, Any], message: str) -> None:
    scores = HeadScores(2, 2, np.arange(4.0), np.arange(4.0))
    with pytest.raises(InputError, match=message):
        select(scores, "fasp", 0.25, 0.5, **told)


# --- what is protected ---


def by_worse(z_ppl: np.ndarray, z_task: np.ndarray, k: int) -> set[int]:
    """Read off two lists: the first of either is protected, then the second of either, until there are k."""
    n = len(z_ppl)
    lists = [sorted(range(n), key=lambda i: (-z[i], i)) for z in (z_ppl, z_task)]
    found: list[int] = []
    for place in range(n):
        both = {one[place] for one in lists} - set(found)
        found += sorted(both, key=lambda i: (max(one.index(i) for one in lists), i))
    return set(found[:k])


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(-9, 9)), min_size=4, max_size=24))
def test_what_heads_are_critical_by(rows: list[tuple[int, int, int]]) -> None:
    z_ppl, z_task, z_bias = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    n = len(z_ppl)
    k = math.floor(0.4 * n + 1e-9)
    found = {
        protect: select(HeadScores(1, n, z_ppl, z_bias, z_task=z_task, protect=protect), "fasp", 0.4, 0.2)
        for protect in PROTECTS
    }
    plain = select(HeadScores(1, n, z_ppl, z_bias), "fasp", 0.4, 0.2)
    assert plain == found["perplexity"]
    swapped = select(HeadScores(1, n, z_task, z_bias), "fasp", 0.4, 0.2)
    assert (found["task"].pruned, found["task"].critical) == (swapped.pruned, swapped.critical)
    assert set(found["worse"].critical) == by_worse(z_ppl, z_task, k)
    assert [one.protect for one in found.values()] == list(PROTECTS)
    for one in found.values():
        assert len(one.critical) == k
        assert not set(one.pruned) & set(one.critical)
        assert len(one.pruned) == plain.k


def test_the_baselines_protect_nothing_and_what_is_missing_is_said() -> None:
    scores = HeadScores(1, 4, [1, 2, 3, 4], [1, 2, 3, 4], protect="task")
    assert select(scores, "bias-only", alpha=0.5).protect == "perplexity"
    with pytest.raises(InputError, match="score --task lambada"):
        select(scores, "fasp")
    with pytest.raises(InputError, match="choose one of perplexity, task, worse"):
        HeadScores(1, 4, protect="both")
    with pytest.raises(InputError, match="z_task is not a finite number for L0H1"):
        select(HeadScores(1, 2, [1, 2], [1, 2], z_task=[1, np.nan], protect="worse"), "fasp")
