"""Released files from bytes, what they lack, the two rules side by side, and agreement between seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core import released
from fasp_core.errors import InputError
from fasp_core.figures import BASE, PRUNED, Words
from fasp_core.figures.ranking import ranked_heads
from fasp_core.heads.selection import HeadScores, select
from fasp_core.released import Published, SeedRows

HEADER = ("Group", "Bias", "Model", "Head id", "Seed", "Split", "PPL")


def of_rows(rows: Iterable[tuple[Any, ...]], header: tuple[str, ...] = HEADER) -> Published:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return released.read_bytes(out.getvalue().encode(), "head_scores_tiny.csv")


def of_tables(**models: dict[str, list[float]]) -> Published:
    return released.read_bytes(json.dumps(models).encode(), "head_contributions.json")


def rows(scores: Any) -> SeedRows:
    array = np.asarray(scores, dtype=float)
    return SeedRows(tuple(str(i) for i in range(len(array))), array, np.zeros_like(array))


def texts(file: Published, axis: str | None = "age", n_heads: int = 2, model: str = "tiny") -> list[str]:
    return [finding.text for finding in released.findings(file, model, axis, n_heads)]


# --- files


def test_bytes_are_read_as_the_file_is(tmp_path: Path) -> None:
    content = json.dumps({"tiny": {"cont_to_ppl": [3.0, 4.0]}})
    (path := tmp_path / "scores.json").write_text(content)
    assert released.read(path).tables["tiny"]["cont_to_ppl"].tolist() == [3, 4]
    read = released.read_bytes(content.encode(), "scores.json")
    assert read.tables["tiny"]["cont_to_ppl"].tolist() == [3, 4]
    assert read.size("tiny") == 2
    with pytest.raises(InputError, match=r"In 'scores\.csv': Row 1 has no column"):
        released.read_bytes(content.encode(), "scores.csv")
    with pytest.raises(InputError, match="UTF-8"):
        released.read_bytes(b"\xff", "scores.json")


def test_rows_are_kept_by_axis_split_and_seed() -> None:
    file = of_rows(
        [
            ("age", 0.2, "tiny", 1, 2, "valid", 20),
            ("age", 0.4, "tiny", 1, 10, "valid", 21),
            ("age", 0.6, "tiny", 2, "2.0", "valid", 30),
            ("age", 0.8, "tiny", 2, 2, "valid", 30),
            ("age", 0.9, "tiny", 4, 1, "test", 50),
        ]
    )
    found = file.seed_rows("tiny", "age")
    assert found is not None
    assert (found.seeds, found.doubled) == (("2", "10"), 1)
    np.testing.assert_allclose(found.bias, [[0.2, 0.7, np.nan, np.nan], [0.4, np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(found.ppl, [[20, 30, np.nan, np.nan], [21, np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(found.mean, [0.3, 0.7, np.nan, np.nan])
    assert file.seed_rows("tiny", "religion") is None
    assert file.size("tiny") == 4  # a head of the test rows counts
    assert of_tables(tiny={"cont_to_ppl": [1.0]}).seed_rows("tiny", "age") is None


def test_a_file_without_a_column_of_seeds_has_one_seed_without_a_name() -> None:
    header = tuple(name for name in HEADER if name != "Seed")
    file = of_rows([("age", 0.1 * head, "tiny", head, "valid", 20) for head in range(1, 7)], header)
    found = file.seed_rows("tiny", "age")
    assert found is not None
    assert found.seeds == ("",)
    with pytest.raises(InputError, match="at least two seeds"):
        released.agreement(found)


# --- findings


def test_what_is_missing_is_said_with_heads_and_numbers() -> None:
    file = of_tables(tiny={"cont_to_ppl": [1, 2, float("nan"), 4], "cont_to_age_bias": [1, 2, 3, float("inf")]})
    found = released.findings(file, "tiny", "age", 2)
    severe = [finding.text for finding in found if finding.severe]
    assert severe[0].startswith("1 of 4 heads has no number for perplexity after removal (L1H0)")
    assert severe[1].startswith("1 of 4 heads has no number for bias after removal (L1H1)")
    assert any("no magnitude and no gradient" in text for text in texts(file))
    assert not any("ties" in text.lower() for text in texts(file))


def test_many_missing_heads_are_counted_and_not_all_listed() -> None:
    file = of_tables(tiny={"cont_to_ppl": [1.0] + [float("nan")] * 9, "cont_to_age_bias": list(range(10))})
    (text,) = (text for text in texts(file) if "no number" in text)
    assert text.startswith("9 of 10 heads have no number")
    assert "and 3 more" in text


def test_ties_are_counted() -> None:
    file = of_tables(tiny={"cont_to_ppl": [1, 1, 1, 2, 3, 3], "cont_to_age_bias": [1, 2, 3, 4, 5, 6]})
    (text,) = (text for text in texts(file) if text.startswith("Ties"))
    assert "perplexity after removal takes 3 different values over 6 heads, and 5 heads share" in text


def test_baselines_alone_and_axes_that_mislead() -> None:
    bare = of_tables(tiny={"magnitude_l2_structured": [1, 2], "mask_gradient_l2_structured": [2, 1]})
    assert texts(bare, None) == [
        "For this model the file has no perplexity after removal and no bias after removal: methods that read them "
        "cannot run."
    ]
    file = of_tables(
        tiny={"cont_to_ppl": [1, 2], "cont_to_religion_bias": [2, 1], "cont_to_gender_and_sex_bias": [1, 2]}
    )
    assert released.findings(file, "tiny", "religion", 2)[0].severe
    assert any("scores of gender_and_sex on every axis" in text for text in texts(file, "religion"))
    assert len(texts(file, "gender_and_sex")) == 1


def test_missing_and_doubled_rows_and_other_runs_are_said() -> None:
    lines: list[tuple[Any, ...]] = [
        ("age", head + seed, "tiny", head, seed, "valid", 20 + head) for head in (1, 2, 3, 4) for seed in (1, 2)
    ]
    del lines[3]  # head 2, seed 2
    lines += [lines[0], ("race", 1, "tiny", 4, 1, "valid", 48), ("race", 1, "tiny", 4, 1, "test", 48)]
    found = texts(of_rows(lines))
    assert any("Validation rows: 1 of 8 (2 seeds) has no number for bias (L0H1 of seed 2)" in text for text in found)
    assert any("Validation rows: 1 is there twice" in text for text in found)
    assert "There are no test rows of this axis." in found
    assert any("Perplexities of 1 of 4 heads differ" in text and "L1H1: 24.0 to 48.0" in text for text in found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=12))
def test_half_of_the_heads_lie_on_either_side_of_the_middle(values: list[float]) -> None:
    apart, center = released.around_median(values)
    finite = apart[np.isfinite(apart)]
    assert len(apart) == len(values)
    assert (finite <= 0).sum() >= finite.size / 2 <= (finite >= 0).sum()
    assert np.isnan(center) == (finite.size == 0)


# --- rules


def scores(ppl: list[float], bias: list[float]) -> HeadScores:
    return HeadScores(1, len(ppl), np.array(ppl), -np.array(bias))


def test_a_tie_of_perplexity_is_told_with_its_numbers() -> None:
    """Ten heads, gamma .3: the top three perplexities are 9 and two of the three that tie at 8."""
    both = released.compare_rules(
        scores([9, 8, 8, 8, 1, 1, 1, 1, 1, 1], [5, 0, 1, 2, 6, 7, 8, 9, 9, 9]), "fasp", 0.3, 0.2
    )
    assert both.released is not None
    assert (both.stable.critical, both.released.critical) == ((0, 1, 2), (0,))
    assert (both.stable.pruned, both.released.pruned) == ((3, 4), (1, 2))
    assert (both.only_stable, both.only_released) == ((3, 4), (1, 2))
    assert "3 heads tie at the threshold of perplexity, 8: the stable rule protects 2" in both.why[0]
    assert "1 head is critical and not 3" in both.why[0]
    assert "2 of the heads" in both.why[1]


def test_a_tie_that_changes_no_pruned_head_is_told_as_such() -> None:
    both = released.compare_rules(scores([8, 8, 1, 1], [5, 5, 1, 9]), "fasp", 0.25, 0.25)
    assert both.only_stable == both.only_released == ()
    assert both.why[-1] == "The pruned heads are the same nonetheless."


def test_a_tie_of_bias_prunes_more() -> None:
    both = released.compare_rules(scores([4, 3, 2, 1], [1, 1, 1, 2]), "bias-only", alpha=0.25)
    assert both.released is not None
    assert (both.stable.k, both.released.k) == (1, 3)
    assert "prunes all of them, 3 heads and not the 1" in both.why[0]


def test_rounding_in_floating_point_is_told() -> None:
    both = released.compare_rules(scores(list(range(100)), list(range(100))), "fasp", 0.5, 0.29)
    assert both.released is not None
    assert (both.stable.k, both.released.k) == (29, 28)
    assert both.why == ("α = 0.29 of 100 heads is 29; in the authors' floating-point product it counts as 28.",)


@pytest.mark.parametrize(("gamma", "alpha", "reason"), [(1.0, 0.1, "protects nothing"), (0.8, 0.4, "cannot prune 4")])
def test_what_breaks_the_released_rule_is_told(gamma: float, alpha: float, reason: str) -> None:
    both = released.compare_rules(scores(list(range(10)), list(range(10))), "fasp", gamma, alpha)
    assert both.released is None
    assert reason in both.refused
    assert both.why == both.stable.notes != ()
    assert both.only_stable == both.stable.pruned


def test_what_neither_rule_can_do_is_refused() -> None:
    with pytest.raises(InputError, match="no gradient"):
        released.compare_rules(scores([1, 2], [1, 2]), "gradient")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=14),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_a_reason_is_given_wherever_the_sets_differ(pairs: list[tuple[int, int]], gamma: int, alpha: int) -> None:
    both = released.compare_rules(
        scores([float(p) for p, _ in pairs], [float(b) for _, b in pairs]), "fasp", gamma / 20, alpha / 20
    )
    if both.released is None:
        assert both.refused
    else:
        same = (both.stable.pruned, both.stable.critical) == (both.released.pruned, both.released.critical)
        assert bool(both.why) == (not same)


# --- seeds


def test_too_little_to_compare_is_refused() -> None:
    for few in ([[1, 2, 3, 4]], [[1, 2, 3], [3, 2, 1]], [[1, 2, 3, np.nan], [1, 2, 3, 4]]):
        with pytest.raises(InputError, match="needs at least"):
            released.agreement(rows(few))
    with pytest.raises(InputError, match="does not go by bias"):
        released.places(rows(np.eye(5)), select(HeadScores(1, 5, magnitude=np.arange(5.0)), "magnitude"))
    with pytest.raises(InputError, match="lower gamma"):
        released.trust(rows(np.eye(5)), select(scores([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]), "fasp", 1.0))


def test_seeds_that_agree_perfectly_and_seeds_that_are_constant() -> None:
    line = np.arange(12.0)
    found = released.agreement(rows([line, line + 3, line]), resamples=50)
    for name in ("pearson", "spearman", "icc", "mean_pearson", "mean_spearman", "mean_icc"):
        assert getattr(found, name).value == pytest.approx(1)
    assert not found.noise
    flat = released.agreement(rows(np.ones((2, 8))), resamples=20)
    assert np.isnan(flat.pearson.value)
    assert np.isnan(flat.icc.value)
    assert flat.noise
    assert not flat.spearman.shown


def test_places_of_two_clear_heads_and_missing_rows() -> None:
    bias = np.tile(np.linspace(1.0, 2.0, 12), (3, 1)) + np.random.default_rng(0).normal(0, 0.05, (3, 12))
    bias[:, 2], bias[:, 7] = [0.1, 0.12, 0.11], [0.2, 0.21, np.nan]
    bias[:, 5] = np.nan
    given = select(scores([9.0] + [1.0] * 11, [0] + [1] * 11), "fasp", 1 / 12, 2 / 12)
    found = released.places(rows(bias), given, resamples=300)
    assert found.chosen == found.sure == (2, 7)
    assert found.in_every_seed == (2,)  # the other one has no number in the last seed
    assert (found.in_seeds[7], found.of_seeds[7], found.of_seeds[5]) == (2, 2, 0)
    assert (found.free, found.k) == (10, 2)
    assert found.share[[0, 5]].tolist() == [0, 0]
    assert found.mean[7] == pytest.approx(0.205)
    assert found.pooled_se[7] == pytest.approx(found.noise / np.sqrt(2))
    assert 0.205 < found.cut < 1.1
    own = found.grid_se((0,))
    assert own[0] == found.se[0] != found.pooled_se[0]
    assert own[3] == found.pooled_se[3]


def test_trust_holds_both_kinds_of_heads_and_the_test_rows() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=30)
    valid, test = (rows(true + 0.1 * rng.normal(size=(3, 30))) for _ in range(2))
    selection = select(scores(list(range(30)), list(true)), "fasp", 0.5, 0.1)
    found = released.trust(valid, selection, test)
    assert (found.every.heads, found.free.heads) == (30, 15)
    assert found.tested is not None
    assert found.tested[0].value > 0.9
    lacking = rows(np.where(np.arange(30) < 2, test.bias, np.nan))
    assert released.trust(valid, selection, lacking).tested is None


# --- figure


def test_ranked_heads_are_in_order_with_their_bars() -> None:
    fig = ranked_heads(
        [3.0, 1.0, np.nan, 2.0, 9.0],
        [0.1, 0.2, 0.3, 0.4, 0.5],
        Words("t", "n", unit="u"),
        shown=(0, 1, 2, 3),
        chosen=(1,),
        hover=["a", "b", "c", "<b>", "e"],
        cut=1.5,
    )
    kept, chosen = fig.data
    assert (list(kept.x), list(kept.y), list(kept.error_y.array)) == ([2, 3], [2.0, 3.0], [0.4, 0.1])
    assert (list(chosen.x), list(chosen.y), list(chosen.error_y.array)) == ([1], [1.0], [0.2])
    assert (kept.marker.color, chosen.marker.color) == (BASE, PRUNED)
    assert "<b><b>" not in kept.text[0]
    assert fig.layout.shapes[0].y0 == 1.5
    json.loads(fig.to_json())


def test_a_negative_width_and_a_wrong_length_are_refused() -> None:
    options: dict[str, Any] = {"shown": (0,), "chosen": (), "words": Words("")}
    with pytest.raises(InputError, match="negative"):
        ranked_heads([1.0], [-1.0], hover=["a"], **options)
    with pytest.raises(InputError, match="scores has shape"):
        ranked_heads([1.0, 2.0], [1.0], hover=["a"], **options)
