"""Selection by gamma and alpha against a brute-force FASP, and the reading of released score files."""

from __future__ import annotations

import csv
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fasp_core import released as published
from fasp_core.errors import InputError
from fasp_core.heads.selection import METHODS, HeadScores, Selection, select

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


# --- released files


def write_json(folder: Path, content: Any) -> Path:
    path = folder / "head_contributions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


HEADER = ("Group", "Bias", "Model", "Head id", "Seed", "Split", "PPL")


def write_csv(folder: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] = HEADER) -> Path:
    path = folder / "head_scores.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_json_becomes_scores_in_our_signs(tmp_path: Path) -> None:
    scores = {
        "cont_to_ppl": [9, 8, 7, 6],
        "cont_to_age_bias": [0.1, 0.2, 0.3, 0.4],
        "magnitude_l2_structured": [1, 2, 3, 4],
        "mask_gradient_l2_structured": [5, 6, 7, 8],
    }
    file = published.read(write_json(tmp_path, {"tiny": scores, "bare": {"cont_to_ppl": [1]}}))
    assert (file.models, file.axes("tiny"), file.axes("bare")) == (("tiny", "bare"), ("age",), ())
    read = file.head_scores("tiny", "age", n_heads=2)
    assert (read.n_layers, read.n_heads) == (2, 2)
    assert listed(read, "z_ppl") == [9, 8, 7, 6]
    assert listed(read, "z_bias") == [-0.1, -0.2, -0.3, -0.4]
    assert listed(read, "magnitude") == [1, 2, 3, 4]
    assert listed(read, "gradient") == [5, 6, 7, 8]
    assert select(read, "fasp", 0.25, 0.25).pruned == (1,)
    bare = file.head_scores("bare", n_heads=1)
    assert bare.z_bias is bare.magnitude is bare.gradient is None


def test_missing_numbers_are_kept_and_refused_by_name_on_selection(tmp_path: Path) -> None:
    path = write_json(tmp_path, '{"m": {"cont_to_ppl": [1, NaN, null, 4], "cont_to_age_bias": [1, 2, 3, 4]}}')
    path.write_text(path.read_text(), encoding="utf-8-sig")  # with a byte order mark
    scores = published.read(path).head_scores("m", "age", n_heads=2)
    assert listed(scores, "z_ppl") == pytest.approx([1, np.nan, np.nan, 4], nan_ok=True)
    with pytest.raises(InputError, match="z_ppl is not a finite number for L0H1, L1H0:"):
        select(scores)
    assert select(scores, "bias-only", alpha=0.25).pruned == (0,)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "the file"),
        ("{}", "the file"),
        ('{"m": []}', "'m'"),
        ('{"m": {}}', "'m'"),
        ('{"m": {"cont_to_ppl": 3}}', "'m', 'cont_to_ppl'"),
        ('{"m": {"cont_to_ppl": []}}', "'m', 'cont_to_ppl'"),
        ('{"m": {"cont_to_ppl": {"0": 1}}}', "'m', 'cont_to_ppl'"),
        ('{"m": {"cont_to_ppl": [1, "2"]}}', "'m', 'cont_to_ppl', item 1"),
        ('{"m": {"cont_to_ppl": [1, [2]]}}', "'m', 'cont_to_ppl', item 1"),
        ('{"m": {"cont_to_ppl": [true, 2]}}', "'m', 'cont_to_ppl', item 0"),
        ('{"m": {"cont_to_ppl": [1%s]}}' % ("0" * 400), "'m', 'cont_to_ppl', item 0"),
        (
            '{"m": {"cont_to_ppl": [1, 2], "cont_to_age_bias": [1]}}',
            "'cont_to_age_bias' has 1 .* 'cont_to_ppl' 2",
        ),
    ],
)
def test_bad_json_is_refused_with_file_and_place(tmp_path: Path, content: str, place: str) -> None:
    path = write_json(tmp_path, content)
    with pytest.raises(InputError, match=place) as caught:
        published.read(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_opened_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="no file"):
            published.read(path)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        published.read(binary)
    monkeypatch.setattr(published.files, "MAX_BYTES", 2)
    with pytest.raises(InputError, match="larger than"):
        published.read(binary)


def test_models_axes_and_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    table = {"cont_to_ppl": [0.0] * 72, "cont_to_age_bias": [0.0] * 72}
    file = published.read(write_json(tmp_path, {name: table for name in ("gpt2", "distilgpt2", "other")}))
    assert file.head_scores("distilgpt2", "age").n_layers == 6
    assert file.head_scores("other", "age", n_heads=8).n_layers == 9
    for model, axis, n_heads, message in [
        ("gpt3", "age", None, "no model 'gpt3': it has gpt2, distilgpt2, other"),
        ("other", "religion", 12, "no axis 'religion' for other: it has age"),
        ("other", "age", None, "shape of 'other' is not known: give"),
        ("gpt2", "age", None, "not 12 layers of 12"),
        ("other", "age", 7, "not 10 layers of 7"),
        ("other", "age", 0, "layers of 0"),
        ("other", "age", 73, "not 0 layers of 73"),
    ]:
        with pytest.raises(InputError, match=message):
            file.head_scores(model, axis, n_heads)


def test_csv_averages_seeds_of_the_validation_rows(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [
        ("age", 0.2, "tiny", 1, 1, "valid", 20),
        ("age", 0.4, "tiny", 1, 2, "valid", 20),
        ("age", 9.9, "tiny", 1, 3, "test", 99),
        ("age", 0.5, "tiny", "2.0", 1, "valid", 30),
        ("age", "", "tiny", 2, 2, "valid", 30),
        ("age", 0.7, "tiny", 4, 1, "valid", 50),
        ("age", 0.1, "tiny", "", 1, "valid", 10),  # no head was removed
        ("religion", 0.6, "tiny", 4, 1, "valid", 58),
        ("religion", 0.6, "tiny", 4, 2, "valid", 50),
    ]
    file = published.read(write_csv(tmp_path, rows))
    assert (file.models, file.axes("tiny")) == (("tiny",), ("age", "religion"))
    scores = file.head_scores("tiny", "age", n_heads=2)
    assert scores.z_bias == pytest.approx([-0.3, -0.5, np.nan, -0.7], nan_ok=True)
    assert scores.z_ppl == pytest.approx([20, 30, np.nan, 50], nan_ok=True)  # head 4: median over both axes
    with pytest.raises(InputError, match="for L1H0:"):
        select(scores)


def test_csv_of_a_known_model_has_its_size_and_its_name_on_the_hub(tmp_path: Path) -> None:
    row = ("age", 0.2, "meta-llama_Llama-2-7b-chat-hf", 1, 1, "valid", 20)
    scores = published.read(write_csv(tmp_path, [row])).head_scores("meta-llama/Llama-2-7b-chat-hf", "age")
    assert (scores.n_layers, scores.n_heads) == (32, 32)
    assert scores.z_bias == pytest.approx([-0.2] + [np.nan] * 1023, nan_ok=True)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (("age", "low", "gpt2", 1, 1, "valid", 20), "line 3: .* column 'Bias', not 'low'"),
        (("age", 0.2, "gpt2", 1, 1, "valid", "x"), "line 3: .* column 'PPL', not 'x'"),
        (("age", 0.2, "gpt2", 0, 1, "valid", 20), "line 3: .* from 1 to 144 in column 'Head id', not '0'"),
        (("age", 0.2, "gpt2", 145, 1, "valid", 20), "line 3: .* from 1 to 144"),
        (("age", 0.2, "gpt2", 1.5, 1, "valid", 20), "line 3: .* 'Head id', not '1.5'"),
        (("age", 0.2, "gpt2", "nan", 1, "valid", 20), "line 3: .* 'Head id', not 'nan'"),
        (("age", 0.2, "tiny", 1e15, 1, "valid", 20), "line 3: .* 'Head id'"),
        (("age", 0.2, "gpt2", 1, 1, "valid"), "Row 3 has 6 cells and the header 7"),
        (("age", 0.2, "gpt2", 1, 1, "valid", 20, 1), "Row 3 has more cells than columns"),
        (("age", 0.2, "gpt2", 1, 1, "valid", "9" * 200_000), "Row 3 is not valid CSV"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(tmp_path: Path, row: tuple[Any, ...], place: str) -> None:
    path = write_csv(tmp_path, [("age", 0.2, "gpt2", 1, 1, "valid", 20), row])
    with pytest.raises(InputError, match=place) as caught:
        published.read(path)
    assert str(path) in str(caught.value)


def test_csv_without_what_is_needed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'Bias'"):
        published.read(write_csv(tmp_path, [], tuple(name for name in HEADER if name != "Bias")))
    with pytest.raises(InputError, match="no row of a head with Split 'valid'"):
        published.read(write_csv(tmp_path, [("age", 0.2, "gpt2", 1, 1, "test", 20)]))


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
