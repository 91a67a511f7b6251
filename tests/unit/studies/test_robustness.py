"""Agreement of measures of bias: against SciPy and loops, on made-up rows."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from fasp_core.console import to_json
from fasp_core.gap import (
    PromptRows,
    paired_gap_changes,
    ranking_correlation_interval,
    split_half_reliability,
)
from fasp_core.gap.further import further_stats
from fasp_core.metrics.perplexity import Nll
from fasp_core.studies.estimators.refined import chosen
from fasp_core.studies.robustness import stereotype_scores
from fasp_core.studies.robustness.rival_measures import (
    GAP,
    MEASURES,
    Agreement,
    Items,
    MeasuredByAll,
    Robustness,
    Scored,
    agree,
    analyse,
    effects_of,
    no_bias,
    rank_correlations,
    score,
    z_of,
)
from fasp_core.studies.robustness.robustness_text import markdown
from fasp_core.studies.robustness.stereotype_scores import Likelihoods, stereo_scores, stereotypes

HEADS = 24
FREE = list(range(4, HEADS))
BY_NAME = {m.name: m for m in MEASURES}


def prompt_rows(seed: int, effects: np.ndarray | None = None, n: int = 90, estimator: str = "exact") -> Items:
    """Two readings of prompts in three groups; a head's effect is on the last group."""
    rng = np.random.default_rng(seed)
    codes = np.tile(np.arange(3), n // 3)
    base = rng.uniform(0.02, 0.03, (2, n)) + 0.005 * codes
    push = np.random.default_rng(9).normal(0, 5e-4, HEADS) if effects is None else effects
    others = base - push[:, None, None] * codes + rng.normal(0, 1e-4, (HEADS, 2, n))
    values = np.concatenate([base[None], others])
    rows = PromptRows(values, codes, ("0", "1", "2"), np.repeat(np.arange(n // 3), 3))
    return Items(rows, f"{n} validation prompts", estimator)


def pair_rows(seed: int, effects: np.ndarray, n: int = 80) -> Items:
    rng = np.random.default_rng(seed)
    base = rng.normal(0.6, 1, (1, n))
    others = base - effects[:, None, None] + rng.normal(0, 0.02, (len(effects), 1, n))
    return Items.of_pairs(np.concatenate([base[None], others]), f"{n} pairs of sentences", "first-order")


def made_up(same: bool = False, seed: int = 0) -> Robustness:
    """Toxicity and CrowS-Pairs that agree on the heads, or do not; StereoSet is left out."""
    rng = np.random.default_rng(seed)
    toxic = rng.normal(0, 5e-4, HEADS)
    crows = 120 * toxic if same else rng.normal(0, 0.2, HEADS)
    choosing = {"toxicity": prompt_rows(1, toxic), "crows": pair_rows(2, crows)}
    sets = [(GAP, chosen(z_of(BY_NAME[GAP], choosing["toxicity"]), FREE, 0.2))]
    sets.append(("crows", chosen(z_of(BY_NAME["crows"], choosing["crows"]), FREE, 0.2)))
    tox = prompt_rows(3, np.array([toxic[heads].sum() for _, heads in sets] + [0.0] * (HEADS - 2)))
    measured = {
        "toxicity": Items(tox.rows[:3], "90 test prompts"),
        "crows": pair_rows(4, np.array([crows[heads].sum() for _, heads in sets])),
    }
    counts = np.full(8, 64)
    nll = [Nll(counts * (3.0 + 0.01 * i) + rng.normal(0, 0.1, 8), counts) for i in range(3)]
    d = measured["crows"].rows.values[:, 0]
    like = Likelihoods(d, d + 0.1)
    found = MeasuredByAll(
        axis="axis",
        model="made-up",
        n_heads=4,
        gamma=1 / 6,
        alpha=0.2,
        free=FREE,
        choosing=choosing,
        sets=sets,
        measured=measured,
        nll=nll,
        likelihoods=like,
        bias_types={"crows": "x"},
        notes=("note",),
        provenance={},
    )
    return analyse(found)


def scored(name: str, rows: Items) -> Scored:
    return score(BY_NAME[name], rows, FREE, 0.2, no_bias(BY_NAME[name], rows))


def both(one: Scored, other: Scored) -> Agreement:
    ranks = rank_correlations(np.array([one.z, other.z])[:, FREE])
    return agree(one, other, FREE, ranks[0, 1])


# --- one measure ---


@pytest.mark.parametrize("name", ["gap", "counted", "max-min", "ratio", "relative", "standardised"])
def test_z_is_bias_before_minus_after(name: str) -> None:
    items, m = prompt_rows(0), BY_NAME[name]
    rows = items.by(m)

    def value(row: np.ndarray) -> float:
        groups = [row[rows.codes == g] for g in range(3)]
        means = [g.mean() for g in groups]
        gap = sum(abs(row.mean() - mean) for mean in means)
        within = np.sqrt(sum(((g - g.mean()) ** 2).sum() for g in groups) / row.size)
        found = {
            "gap": gap,
            "max-min": max(means) - min(means),
            "ratio": 1 - min(means) / max(means),
            "relative": gap / row.mean(),
            "standardised": gap / within,
        }
        return float(found[m.kind])

    z = z_of(m, items)
    for head in range(HEADS):
        wanted = value(rows.values[0]) - value(rows.values[1 + head])
        assert z[head] == pytest.approx(wanted, abs=1e-12)


def test_a_preference_is_a_distance_from_one_half() -> None:
    items = pair_rows(0, np.linspace(-2, 2, HEADS))
    values = items.rows.values[:, 0]
    z = z_of(BY_NAME["crows"], items)
    share = [float(expit(row).mean()) for row in values]
    assert z == pytest.approx([abs(share[0] - 0.5) - abs(s - 0.5) for s in share[1:]])
    found = scored("crows", items)
    assert found.bias.value == pytest.approx(share[0] - 0.5)
    assert found.p == pytest.approx(stats.ttest_1samp(expit(values[0]), 0.5).pvalue)
    assert found.heads == tuple(chosen(z, FREE, 0.2))


def test_a_scored_measure_has_the_companions_of_its_gap() -> None:
    items = prompt_rows(5)
    rows, found = items.by(BY_NAME[GAP]), scored(GAP, items)
    alone = further_stats(rows.values[0], rows.labels, blocks=rows.blocks)
    assert found.bias.value == pytest.approx(alone.gap)
    assert found.p == alone.noise_p
    whole = split_half_reliability(rows, FREE).whole
    assert found.reliability == pytest.approx(whole)
    corrected = scored("corrected", items)
    assert corrected.bias.value == pytest.approx(alone.corrected)
    assert math.isnan(corrected.reliability)


# --- two measures ---


def test_shared_heads_are_judged_by_the_hypergeometric_distribution() -> None:
    toxic, crows = prompt_rows(1), pair_rows(2, np.random.default_rng(3).normal(0, 0.2, HEADS))
    one, other = scored(GAP, toxic), scored("crows", crows)
    found = both(one, other)
    k, shared = len(one.heads), len(set(one.heads) & set(other.heads))
    assert (found.k, found.eligible, found.shared) == (k, len(FREE), shared)
    assert found.chance == pytest.approx(k * k / len(FREE))
    ways = [math.comb(k, s) * math.comb(len(FREE) - k, k - s) / math.comb(len(FREE), k) for s in range(shared, k + 1)]
    assert found.p == pytest.approx(sum(ways))
    z = [np.array(s.z)[FREE] for s in (one, other)]
    assert found.spearman.value == pytest.approx(stats.spearmanr(*z).statistic)
    assert found.spearman.low <= found.spearman.value <= found.spearman.high


def test_a_measure_agrees_with_itself() -> None:
    one = scored(GAP, prompt_rows(1))
    found = both(one, one)
    assert found.shared == found.k
    assert found.spearman.value == pytest.approx(1)
    assert found.p < 1e-3


def test_rank_correlations_are_those_of_scipy_with_intervals_that_hold_them() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1, (3, 60))
    z[1] += z[0]
    found = rank_correlations(z)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    for (a, b), r in found.items():
        assert r.value == pytest.approx(stats.spearmanr(z[a], z[b]).statistic)
        low, high = ranking_correlation_interval(z[a], z[b])[1:]
        assert (r.low, r.high) == pytest.approx((low, high), abs=0.08)


def test_an_effect_is_paired_and_held_out() -> None:
    items = prompt_rows(7, np.full(HEADS, 2e-3))
    rows, found = items.by(BY_NAME[GAP]), effects_of(BY_NAME[GAP], items)[5]
    paired = paired_gap_changes(rows.values[0], [rows.values[6]], rows.labels, blocks=rows.blocks)[0]
    assert found.change.value == pytest.approx(paired.change)
    assert found.relative.value == pytest.approx(paired.relative)
    assert paired.interval is not None
    assert found.change.low == pytest.approx(paired.interval[0], rel=0.2)
    assert found.change.high < 0


def test_no_relative_change_of_what_may_be_zero() -> None:
    values = pair_rows(0, np.zeros(HEADS)).rows.values
    nothing = Items.of_pairs(np.concatenate([values[:1] - values[0].mean(), values[1:]]), "pairs")
    assert math.isnan(effects_of(BY_NAME["crows"], nothing)[0].relative.value)


# --- the whole ---


def test_the_outcome_follows_the_overlap() -> None:
    alike, apart = made_up(same=True), made_up(same=False, seed=3)
    assert alike.agreement(GAP, "crows").p < 0.05
    assert "choose the same heads" in alike.outcome
    assert f"CrowS-Pairs preference {alike.effect(GAP, 'crows').text}" in alike.outcome
    assert "(1 of 1 clear of 0)" in alike.outcome
    assert apart.agreement("crows", GAP).p > 0.05
    assert "The choice depends on the measure" in apart.outcome
    assert f"Of the {apart.k} heads" in apart.outcome


def test_every_set_is_measured_by_every_measure() -> None:
    found = made_up()
    by_source = [m.name for m in MEASURES if m.source in ("toxicity", "crows")]
    assert list(found.scored) == by_source
    measured = [name for name in by_source if name != "corrected"]
    assert [(e.chosen_by, e.measured_by) for e in found.effects] == [(s, m) for s in (GAP, "crows") for m in measured]
    assert found.effect(GAP, GAP).change.value < 0
    assert len(found.agreements) == math.comb(len(by_source), 2)
    assert [s.name for s in found.stereotypes] == ["whole model", GAP, "crows"]
    text = markdown([found])
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.strip().split("\n")}) == 1
    json.loads(to_json(asdict(found)))
    assert " pp [" in found.effect(GAP, "crows").text
    assert "% [−" in found.effect(GAP, GAP).text


# --- the usual scores ---


def test_stereoset_scores_are_those_of_a_loop_over_targets() -> None:
    rng = np.random.default_rng(0)
    values, targets = rng.normal(0, 1, (3, 40)), rng.integers(0, 7, 40)
    ss, lms = [], []
    for t in range(7):
        at = np.flatnonzero(targets == t)
        ss.append(100 * np.mean([values[0, i] > values[1, i] for i in at]))
        lms.append(100 * np.mean([(values[s, i] > values[2, i]) for i in at for s in (0, 1)]))
    found = stereo_scores(values, targets)
    assert found[0].value == pytest.approx(np.mean(ss))
    assert found[1].value == pytest.approx(np.mean(lms))
    assert found[2].value == pytest.approx(np.mean(lms) * min(np.mean(ss), 100 - np.mean(ss)) / 50)
    for e in found:
        assert 0 <= e.low <= e.value <= e.high <= 100


def test_ideal_models_have_ideal_scores() -> None:
    n = 50
    order = np.stack([np.arange(n) % 2 * 1.0, np.full(n, 0.5), np.full(n, -9.0)])
    ss, lms, icat = stereo_scores(order, np.arange(n))
    assert (ss.value, lms.value, icat.value) == (50, 100, 100)
    order[0] = 9.0
    ss, lms, icat = stereo_scores(order, np.arange(n))
    assert (ss.value, lms.value, icat.value) == (100, 100, 0)


@pytest.mark.parametrize("k", [0, 3, 25, 40])
def test_shares_have_wilson_intervals(k: int) -> None:
    d = np.array([1.0] * k + [-1.0] * (40 - k))
    found = stereotypes("x", 0, Likelihoods(d[None], d[None])).crows
    wanted = stats.binomtest(k, 40).proportion_ci(method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((100 * wanted.low, 100 * wanted.high), abs=1e-9)
    tied = stereotype_scores.stereotypes("x", 0, Likelihoods(0 * d[None], d[None])).crows
    assert tied is not None
    assert tied.value == 50
