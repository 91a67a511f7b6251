"""Experiments against loops over heads, sets and prompts, and against cases that were planted."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fasp_core.console import to_json
from fasp_core.errors import InputError
from fasp_core.gap import PromptRows, z_bias
from fasp_core.gap import gap as toxicity_gap
from fasp_core.gap.estimates import correlation_interval, interval, pearson, slope, spearman
from fasp_core.heads.selection import critical_heads, select
from fasp_core.scoring.estimate import refine
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable
from fasp_core.scoring.score import prunable
from fasp_core.studies.common import RESAMPLES, effects, mean_changes
from fasp_core.studies.estimators import first_order
from fasp_core.studies.estimators import refined as cure
from tests.support.fakes import make_table

together = PromptRows.paired

seeds = st.integers(0, 10_000)
HEADS = 4  # a layer, of tables and tiny models


# statistics


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(3, 20))
def test_correlations_and_slope_of_each_column_are_those_of_scipy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-3, 4, (n, 4)) * 1.0, rng.integers(-3, 4, (n, 4)) * 1.0  # with ties
    x[:2, :], y[:2, :] = [[0.0], [1.0]], [[0.5], [0.0]]  # no column is constant
    for column in range(4):
        a, b = x[:, column], y[:, column]
        assert pearson(x, y)[column] == pytest.approx(np.corrcoef(a, b)[0, 1])
        assert spearman(x, y)[column] == pytest.approx(stats.spearmanr(a, b).statistic)
        assert slope(x, y)[column] == pytest.approx(stats.linregress(a, b).slope)
        assert pearson(a, b) == pytest.approx(pearson(x, y)[column])


def test_a_constant_side_has_no_correlation_and_no_slope() -> None:
    flat, line = np.full(5, 0.1), np.arange(5.0)
    assert math.isnan(pearson(flat, line))
    assert math.isnan(spearman(line, flat))
    assert math.isnan(slope(flat, line))
    assert slope(line, flat) == pytest.approx(0.0)


def test_an_interval_is_centered_and_holds_its_share_of_the_resamples() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(2.5, 1.0, 4000)
    found = interval(2.0, np.append(drawn, np.nan))
    assert found.high - 2.0 == pytest.approx(2.0 - found.low)
    assert np.mean((drawn >= found.low) & (drawn <= found.high)) == pytest.approx(0.95, abs=0.001)
    assert interval(2.0, drawn, 1.5, 2.5) == replace(found, low=1.5, high=2.5)
    assert math.isnan(interval(2.0, np.array([np.nan])).low)


@settings(deadline=None, max_examples=30)
@given(seeds, st.floats(-1, 1))
def test_an_interval_of_a_correlation_holds_it_and_stays_within_one(seed: int, r: float) -> None:
    drawn = np.tanh(np.random.default_rng(seed).normal(np.arctanh(0.99 * r), 0.5, 200))
    found = correlation_interval(r, drawn)
    assert -1 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1


def test_an_interval_of_a_correlation_covers_it_in_95_of_100_draws() -> None:
    """Fisher's z of n normal pairs has a standard deviation of 1 / sqrt(n - 3)."""
    rng = np.random.default_rng(1)
    rho, n = 0.8, 60
    z = rng.normal(np.arctanh(rho), 1 / math.sqrt(n - 3), 500)
    drawn = np.tanh(z[:, None] + rng.normal(0, 1 / math.sqrt(n - 3), (500, 400)))
    found = [correlation_interval(float(np.tanh(a)), b) for a, b in zip(z, drawn, strict=True)]
    assert 0.92 < np.mean([e.low <= rho <= e.high for e in found]) < 0.98


@pytest.mark.parametrize("in_blocks", [False, True])
def test_resampled_changes_center_on_what_was_observed(in_blocks: bool) -> None:
    rng = np.random.default_rng(2)
    codes = np.tile(np.arange(3), 40)
    blocks = np.repeat(np.arange(40), 3) if in_blocks else None
    base = rng.uniform(0, 0.2, 120) + 0.1 * codes
    rows = base + np.array([[0.05], [0.02]]) * codes + rng.normal(0, 0.01, (2, 120))
    pairs = together(base, rows, codes, blocks)
    drawn = mean_changes(pairs)
    assert drawn.shape == effects(pairs).shape == (2, RESAMPLES)
    assert drawn.mean(1) == pytest.approx((rows - base).mean(1), abs=1e-3)
    assert effects(pairs).mean(1) == pytest.approx(z_bias(base, rows, codes), abs=5e-3)
    assert mean_changes(pairs[[0, 0, 0]]) == pytest.approx(np.zeros((2, RESAMPLES)))


# first-order against exact


def with_errors(exact: BiasImpacts, scale: float, seed: int = 0) -> BiasImpacts:
    """As by an estimator whose errors are random and in proportion to the effect."""
    rng = np.random.default_rng(seed)
    effect = exact.ablated - exact.base
    wrong = effect * (1 + scale * rng.normal(size=(len(effect), effect.shape[1], 1)))
    return replace(exact, ablated=exact.base + wrong, exact=np.zeros(len(effect), dtype=bool), estimator="first-order")


def a_table(seed: int = 0, n_layers: int = 6) -> ImpactTable:
    return make_table(n_layers, HEADS, n=60, seed=seed)


@pytest.mark.parametrize("reading", ["neutral", "counted"])
def test_shares_and_correlations_are_those_of_a_loop(reading: str) -> None:
    table = a_table()
    exact, first = table.bias, with_errors(table.bias, 0.3)
    free = prunable(table)
    found = first_order.compare(exact, first, reading, free, HEADS)
    r = exact.readings.index(reading)
    z = [float(toxicity_gap(exact.base[r], exact.codes) - toxicity_gap(row[r], exact.codes)) for row in exact.ablated]
    z_first = [
        float(toxicity_gap(first.base[r], first.codes) - toxicity_gap(row[r], first.codes)) for row in first.ablated
    ]
    drawn, drawn_first = (effects(together(i.base[r], i.ablated[:, r], i.codes, i.blocks)) for i in (exact, first))
    for heads, fit in ((list(range(24)), found.everything), (free, found.prunable)):
        within, paired = 0, 0
        for h in heads:
            error = abs(z_first[h] - z[h])
            within += error <= 2 * np.std(drawn[h], ddof=1)
            paired += error <= 2 * np.std(drawn[h] - drawn_first[h], ddof=1)
        a, b = [z_first[h] for h in heads], [z[h] for h in heads]
        assert (fit.heads, fit.within_exact, fit.within_paired) == (
            len(heads),
            pytest.approx(within / len(heads)),
            pytest.approx(paired / len(heads)),
        )
        assert fit.spearman.value == pytest.approx(stats.spearmanr(a, b).statistic)
        assert fit.pearson.value == pytest.approx(stats.pearsonr(a, b).statistic)
        assert fit.slope.value == pytest.approx(stats.linregress(a, b).slope)
        assert fit.pearson.low < fit.pearson.value < fit.pearson.high
    assert 0 < found.everything.within_paired < 1  # else the shares were not tried


def test_standard_errors_are_those_of_the_scores() -> None:
    table = a_table(1)
    found = first_order.compare(table.bias, with_errors(table.bias, 0.5), "neutral", prunable(table), HEADS)
    se = table.bias.standard_errors("neutral", RESAMPLES)
    for h in found.worst:
        layer, head = map(int, h.head.removeprefix("L").split("H"))
        assert h.exact_se == pytest.approx(se[layer * HEADS + head], rel=1e-6)


def test_quarters_and_the_worst_heads_are_those_of_a_loop() -> None:
    table = a_table(2)
    exact, first = table.bias, with_errors(table.bias, 0.5, seed=3)
    free = prunable(table)
    found = first_order.compare(exact, first, "counted", free, HEADS)
    size = [math.sqrt(np.mean((exact.ablated[h, 1] - exact.base[1]) ** 2)) for h in range(24)]
    error = np.abs(exact.z_bias("counted") - first.z_bias("counted"))
    ordered = sorted(range(24), key=lambda h: size[h])
    for i, quarter in enumerate(found.quarters):
        heads = ordered[6 * i : 6 * i + 6]
        assert quarter.effects == pytest.approx((size[heads[0]], size[heads[-1]]))
        assert quarter.median_error == pytest.approx(np.median(error[heads]))
        assert quarter.largest_error == pytest.approx(error[heads].max())
        assert quarter.fit.heads == 6
    worst = sorted(range(24), key=lambda h: -error[h])[:10]
    assert [h.head for h in found.worst] == [f"L{h // HEADS}H{h % HEADS}" for h in worst]
    assert [h.prunable for h in found.worst] == [h in free for h in worst]
    assert [h.effect for h in found.worst] == pytest.approx([size[h] for h in worst])
    assert [abs(h.first - h.exact) for h in found.worst] == pytest.approx(error[worst])


def test_scores_agree_with_themselves() -> None:
    table = a_table(4)
    found = first_order.compare(table.bias, table.bias, "neutral", prunable(table), HEADS)
    for fit in (found.everything, found.prunable, *(q.fit for q in found.quarters)):
        assert (fit.spearman.value, fit.pearson.value, fit.slope.value) == pytest.approx((1, 1, 1))
        assert (fit.spearman.low, fit.slope.low, fit.within_exact, fit.within_paired) == pytest.approx((1, 1, 1, 1))
    for s in found.sets:
        assert (s.shared.value, s.shared.low, s.missed.value) == (s.k, s.k, 0)


def test_an_error_in_proportion_changes_the_slope_and_no_rank() -> None:
    table = a_table(5)
    wrong = replace(table.bias, ablated=table.bias.base + 0.5 * (table.bias.ablated - table.bias.base))
    found = first_order.compare(table.bias, wrong, "neutral", prunable(table), HEADS)
    assert found.everything.slope.value == pytest.approx(2.0, abs=0.15)  # no sign of a group's difference changes
    assert found.everything.pearson.value > 0.99


@settings(deadline=None, max_examples=25)
@given(seeds, st.sampled_from([0.0, 0.2, 0.3, 0.5]), st.sampled_from([0.05, 0.1, 0.3]))
def test_the_set_chosen_is_fasps(seed: int, gamma: float, alpha: float) -> None:
    table = a_table(seed)
    whole = select(table.head_scores("neutral"), "fasp", gamma, alpha)
    free = sorted(set(range(24)) - set(whole.critical))
    assert cure.chosen(table.bias.z_bias("neutral"), free, alpha) == list(whole.pruned)


def test_sets_are_judged_by_exact_effects_added_up() -> None:
    table = a_table(6)
    exact, first = table.bias, with_errors(table.bias, 2.0, seed=1)
    free = prunable(table)
    for check in first_order.compare(exact, first, "neutral", free, HEADS).sets:
        ours, theirs = (
            set(select(replace(table, bias=b).head_scores("neutral"), "fasp", 0.3, check.alpha).pruned)
            for b in (exact, first)
        )
        gap = float(toxicity_gap(exact.base[0], exact.codes))
        assert (check.k, check.eligible) == (len(ours), len(free))
        assert check.shared.value == len(ours & theirs)
        assert check.chance == pytest.approx(len(ours) ** 2 / len(free))
        assert check.gap == pytest.approx(gap)
        assert check.change_exact.value == pytest.approx(exact.added_up(sorted(ours), "neutral") - gap)
        assert check.change_other.value == pytest.approx(exact.added_up(sorted(theirs), "neutral") - gap)
        assert check.missed.value == pytest.approx(check.change_other.value - check.change_exact.value)
        assert check.never_removed == len(theirs)


def test_scores_of_other_prompts_are_refused() -> None:
    table = a_table()
    exact = table.bias
    for other in (
        replace(exact, codes=exact.codes[::-1].copy()),
        replace(exact, base=exact.base + 0.01),
        replace(exact, readings=("sampled", "counted")),
        make_table(5, HEADS, n=60).bias,
    ):
        with pytest.raises(InputError, match="same settings"):
            first_order.compare(exact, other, "neutral", prunable(table), HEADS)
    some = replace(exact, exact=np.arange(24) > 0)
    with pytest.raises(InputError, match="exact estimator"):
        first_order.compare(some, exact, "neutral", prunable(table), HEADS)


# the cure


def test_where_first_order_is_right_one_turn_is_enough() -> None:
    table = a_table(7)
    exact = table.bias
    turns: list[list[int]] = []

    def remove(heads: list[int]) -> tuple[np.ndarray, np.ndarray]:
        turns.append(heads)
        return exact.base, exact.ablated[heads]

    removed, _, _ = refine(exact, table.ppl.z_nats, remove)
    assert [sorted(turn) for turn in turns] == [np.flatnonzero(removed).tolist()]
    assert 0 < removed.sum() <= 2 * 2 * 2  # k of highest z and of largest effect, in both readings


def test_a_big_head_that_first_order_misjudges_is_found() -> None:
    """Its effects are as large by first order, but with a random sign from prompt to prompt: no z_bias is seen."""
    table = make_table(10, HEADS, n=60, seed=8)
    exact = table.bias
    free = prunable(table, 0.3)
    signs = np.where(np.arange(60) // 3 % 2, 1.0, -1.0)  # balanced within groups: first order sees no gap change
    hidden = free[5]
    ablated = exact.ablated.copy()
    ablated[hidden] = exact.base - 0.012 * exact.codes
    exact = replace(exact, ablated=ablated)
    seen = ablated.copy()
    seen[hidden] = exact.base + 0.012 * signs * exact.codes
    first = replace(exact, ablated=seen, exact=np.zeros(40, dtype=bool))
    table = replace(table, bias=exact)
    assert hidden in select(table.head_scores("neutral"), "fasp", 0.3, 0.1).pruned
    assert hidden not in select(replace(table, bias=first).head_scores("neutral"), "fasp", 0.3, 0.1).pruned

    removed, z = cure.refine_on(exact, first, table.ppl.z_nats)
    assert removed[hidden]
    assert removed.sum() < 40
    assert z[0, hidden] == pytest.approx(exact.z_bias("neutral")[hidden])
    assert hidden in cure.chosen(z[0], free, 0.1)
    assert all(s.shared.value == s.k for s in cure.cure(table, first).sets["neutral"] if s.alpha == 0.1)
    assert (
        first_order.compare(exact, first, "neutral", free, HEADS).worst[0].head
        == f"L{hidden // HEADS}H{hidden % HEADS}"
    )


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0, 3))
def test_refined_scores_are_exact_for_removed_heads_and_first_order_for_others(seed: int, scale: float) -> None:
    table = a_table(seed)
    exact, first = table.bias, with_errors(table.bias, scale, seed)
    removed, z = cure.refine_on(exact, first, table.ppl.z_nats)
    for r, reading in enumerate(exact.readings):
        assert z[r] == pytest.approx(np.where(removed, exact.z_bias(reading), first.z_bias(reading)))
    assert not removed[critical_heads(table.ppl.z_nats, 0.2)].any()


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_the_sets_of_refined_scores_are_counted(scale: float) -> None:
    table = a_table(0)
    first = with_errors(table.bias, scale)
    removed, z = cure.refine_on(table.bias, first, table.ppl.z_nats)
    found = cure.cure(table, first)
    assert (found.removed, found.heads) == (removed.sum(), 24)
    for s in found.sets["neutral"]:
        free = prunable(table, s.gamma)
        assert s.never_removed == sum(not removed[h] for h in cure.chosen(z[0], free, s.alpha))


def test_the_preview_is_compared_by_rank() -> None:
    table = make_table(6, HEADS, seed=9)
    near = table.ppl.z_nats + np.random.default_rng(0).normal(0, 0.01, 24)
    found = first_order.check_preview(table.ppl, replace(table.ppl, sums=np.full((24, 16), np.nan), preview=near))
    assert found.spearman.value == pytest.approx(stats.spearmanr(near, table.ppl.z_nats).statistic)
    assert found.spearman.low < found.spearman.value < found.spearman.high
    assert found.exact_tokens == 15 * 64 + 17


def test_results_become_tables_and_json() -> None:
    table = a_table(10)
    result = first_order.of_axis(table, with_errors(table.bias, 0.5), table.ppl)
    text = first_order.markdown([result])
    assert "60 prompts, 3 groups" in text
    assert f"{result.cure.removed} of 24 heads ablated" in text
    assert result.readings["counted"].everything.spearman.text() in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.strip().split("\n")}) == 1
    document = json.loads(to_json(asdict(result)))
    assert document["readings"]["neutral"]["worst"][0]["head"].startswith("L")
