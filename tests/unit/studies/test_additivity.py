"""Predicted against measured changes of sets: plans, rows, statistics, storage and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fasp_core.console import to_json
from fasp_core.data.text import TextConfig, token_windows
from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.gap import PromptRows, group_codes
from fasp_core.gap import gap as toxicity_gap
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import measurements
from fasp_core.metrics.meters import BiasConfig, meter
from fasp_core.metrics.perplexity import measure_nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.exact import bias_impacts, ppl_impacts
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.score import prunable
from fasp_core.storage.store import Store
from fasp_core.studies.additivity import additivity, interactions
from fasp_core.studies.additivity.additivity import Plan, choose
from fasp_core.studies.additivity.interactions import (
    MULTIPLIED,
    NATS,
    PROMPTWISE,
    SUMMED,
    Additivity,
    MeasuredSets,
    analyse,
)
from tests.support.fakes import make_table
from tests.support.tiny import tiny_lm, tiny_text
from tests.support.worlds import PEOPLE, use_scorer, write_axis

HEADS = 4
SIZES = (1, 2, 4)
Tiny = tuple[LanguageModel, Plan, Store, Additivity]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Generator[Tiny]:
    """A model whose every head was removed on some prompts and 320 tokens, a plan on a part of them, and its result."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        use_scorer(patch)
        (folder / "text.txt").write_text(tiny_text(400))
        text = TextConfig(str(folder / "text.txt"), tokens=320, window=64, stride=64)
        plan = Plan(
            write_axis(folder / "own.csv", PEOPLE, ("met", "saw")), 24, 192, text, SIZES, nested=2, pairs=5, strong=3
        )
        lm, store = tiny_lm("llama"), Store(folder / "store")
        ppl_impacts(lm, text, store)
        bias_impacts(lm, BiasConfig(plan.axis), store)
        yield lm, plan, store, additivity.run(lm, plan, store)


def made_up(seed: int = 0, n: int = 60, blocks: bool = True, additive: bool = False) -> MeasuredSets:
    """Rows of six heads: all pairs and some sets, with effects that add up prompt by prompt or not."""
    rng = np.random.default_rng(seed)
    codes = np.tile(np.arange(3), n // 3)
    base = rng.uniform(0.1, 0.2, (2, n)) + 0.02 * codes
    single = base + rng.normal(0, 0.005, (6, 2, 1)) * codes + rng.normal(0, 0.002, (6, 2, n))
    sets = [*combinations(range(6), 2), (0,), (0, 1, 2), (1, 2, 3, 4), (0, 1, 2, 3, 4, 5), (2, 4, 5)]
    kinds = ["random pair" if len(s) == 2 else "FASP" for s in sets]
    counts = np.append(np.full(9, 64.0), 40.0)
    base_nats = counts * 3 + rng.normal(0, 4, 10)
    single_nats = base_nats + counts * rng.normal(0.02, 0.02, (6, 1)) + rng.normal(0, 0.3, (6, 10))
    odd = 0.0 if additive else 1.0
    rows = [base + (single[list(s)] - base).sum(0) + odd * rng.normal(0, 0.004, (2, 1)) * codes for s in sets]
    nats = [base_nats + (single_nats[list(s)] - base_nats).sum(0) + odd * rng.normal(0, 1, 10) for s in sets]
    return MeasuredSets(
        "axis",
        "made-up",
        3,
        ("neutral", "counted"),
        tuple(kinds),
        tuple(sets),
        tuple(range(6)),
        PromptRows(base, codes, ("a", "b", "c"), np.repeat(np.arange(n // 3), 3) if blocks else None),
        single,
        np.stack(rows),
        counts,
        base_nats,
        single_nats,
        np.stack(nats),
        {},
    )


# --- statistics ---


@pytest.mark.parametrize("reading", ["neutral", "counted"])
def test_changes_and_interactions_are_those_of_a_loop(reading: str) -> None:
    found = made_up(1)
    r = found.readings.index(reading)
    result = analyse(found).quantities[reading]

    def gap(rows: np.ndarray) -> float:
        means = [rows[found.base.codes == g].mean() for g in range(3)]
        return sum(abs(rows.mean() - m) for m in means)

    base, alone = gap(found.base.values[r]), [gap(row[r]) for row in found.single]
    assert result.base == pytest.approx(base)
    for heads, row in zip(found.sets, found.toxicity, strict=True):
        name = PruneSet.from_flat(heads, 3).format()
        change, forecast = gap(row[r]) - base, sum(alone[h] - base for h in heads)
        if len(heads) == 2:
            (pair,) = [p for p in result.pairs if f"{p.first},{p.second}" == name]
            assert pair.measured.value == pytest.approx(change)
            assert pair.interaction.value == pytest.approx(change - forecast)
            assert sum(pair.alone) == pytest.approx(forecast)
            continue
        (point,) = [p for p in result.sets if p.heads == name]
        assert point.measured.value == pytest.approx(change)
        assert point.predicted[SUMMED].value == pytest.approx(forecast)
        added, multiplied = found.base.values[r].copy(), found.base.values[r].copy()
        for h in heads:
            added += found.single[h, r] - found.base.values[r]
            multiplied *= found.single[h, r] / found.base.values[r]
        assert point.predicted[PROMPTWISE].value == pytest.approx(gap(added.clip(0, 1)) - base)
        assert point.predicted[MULTIPLIED].value == pytest.approx(gap(multiplied.clip(0, 1)) - base)


def test_nats_are_means_over_targets() -> None:
    found = made_up(2)
    result = analyse(found).quantities[NATS]
    point = next(p for p in result.sets if p.size == 6)
    at = found.sets.index((0, 1, 2, 3, 4, 5))
    assert point.measured.value == pytest.approx((found.nats[at] - found.base_nats).sum() / found.counts.sum())
    assert list(point.predicted) == [SUMMED]
    assert result.base == pytest.approx(found.base_nats.sum() / found.counts.sum())


def test_fits_are_those_of_scipy() -> None:
    result = analyse(made_up(3)).quantities["neutral"]
    x = np.array([p.predicted[SUMMED].value for p in result.sets])
    y = np.array([p.measured.value for p in result.sets])
    fit = result.fit("sets")
    line = stats.linregress(x, y)
    assert fit.slope.value == pytest.approx(line.slope)
    assert fit.pearson.value == pytest.approx(line.rvalue)
    assert fit.error.value == pytest.approx((y - x).mean())
    assert fit.size_of_error.value == pytest.approx(np.abs(y - x).mean())
    assert fit.n == len(x) == 5
    pairs = result.fit("pairs")
    both = [(sum(p.alone), p.measured.value) for p in result.pairs]
    assert pairs.slope.value == pytest.approx(stats.linregress(*zip(*both, strict=True)).slope)
    for f in result.fits:
        assert f.slope.low <= f.slope.value <= f.slope.high


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.booleans())
def test_effects_that_add_up_have_no_interaction(seed: int, blocks: bool) -> None:
    result = analyse(made_up(seed, blocks=blocks, additive=True))
    nats = result.quantities[NATS]
    assert all(abs(pair.interaction.value) < 1e-12 for pair in nats.pairs)
    assert nats.fit("sets").slope.value == pytest.approx(1)
    assert nats.fit("sets").slope.low == pytest.approx(1)
    for reading in ("neutral", "counted"):
        fit = result.quantities[reading].fit("sets", PROMPTWISE)
        assert fit.slope.value == pytest.approx(1)
        assert fit.size_of_error.high == pytest.approx(0, abs=1e-12)


def test_corrected_p_is_never_below_p_and_is_that_of_benjamini_and_yekutieli() -> None:
    pairs = analyse(made_up(4)).quantities["neutral"].pairs
    p = np.array([pair.p for pair in pairs])
    m = len(p)
    order = np.argsort(p)
    harmonic = sum(1 / i for i in range(1, m + 1))
    q = np.empty(m)
    lowest = 1.0
    for rank in range(m, 0, -1):
        lowest = min(lowest, p[order[rank - 1]] * m * harmonic / rank)
        q[order[rank - 1]] = lowest
    assert [pair.q for pair in pairs] == pytest.approx(q)
    assert (q >= p).all()
    sizes = [abs(pair.interaction.value) for pair in pairs]
    assert sizes == sorted(sizes, reverse=True)


def test_no_interaction_is_called_real_in_most_tables_of_noise() -> None:
    """Pairs whose toxicity is the sum of the single changes and independent noise of every prompt."""
    false = 0
    for seed in range(10):
        found = made_up(seed, n=30, additive=True)
        rng = np.random.default_rng(seed)
        noisy = replace(found, nats=found.nats + rng.normal(0, 0.5, found.nats.shape))
        false += analyse(noisy).quantities[NATS].beyond_noise > 0
    assert false <= 2


def test_a_planted_interaction_is_found() -> None:
    found = made_up(5, additive=True)
    rng = np.random.default_rng(5)
    nats = found.nats + rng.normal(0, 0.3, found.nats.shape)
    nats[found.sets.index((1, 4))] += 0.05 * found.counts
    result = analyse(replace(found, nats=nats)).quantities[NATS]
    top = result.pairs[0]
    assert (top.first, top.second) == ("L0H1", "L1H1")
    assert top.interaction.value == pytest.approx(0.05, abs=0.01)
    assert top.q < interactions.RATE
    assert {row.head for row in result.heads[:2]} == {"L0H1", "L1H1"}
    assert result.heads[0].partner in ("L0H1", "L1H1")


def test_the_outcome_says_what_the_interval_says() -> None:
    result = analyse(made_up(6, additive=True)).quantities[NATS]
    sets = result.fit("sets")
    for low, high, what in ((1.1, 1.5, "do more"), (0.2, 0.6, "do less"), (0.8, 1.2, "no departure")):
        other = replace(sets, slope=replace(sets.slope, low=low, high=high))
        assert what in replace(result, fits=(other, result.fit("pairs"))).outcome
    nan = replace(sets, slope=replace(sets.slope, low=float("nan"), high=float("nan")))
    assert "enough to tell" in replace(result, fits=(nan, result.fit("pairs"))).outcome


# --- the plan ---


def test_sets_grow_and_hold_no_critical_head() -> None:
    table = make_table(6, HEADS, n=60)
    plan = Plan("axis", sizes=SIZES, nested=2, pairs=7, strong=5)
    chosen = choose(table, plan)
    free = set(prunable(table))
    by_kind: dict[str, list[set[int]]] = {}
    for s in chosen:
        assert set(s.heads) <= free
        by_kind.setdefault(s.name, []).append(set(s.heads))
    for kind in ("FASP", "random 1", "random 2"):
        assert [len(s) for s in by_kind[kind]] == list(SIZES)
        assert all(a < b for a, b in zip(by_kind[kind], by_kind[kind][1:], strict=False))
    z = table.bias.z_bias("neutral")
    assert by_kind["FASP"][-1] == set(sorted(free, key=lambda h: -z[h])[: SIZES[-1]])
    assert len(by_kind["random pair"]) == 7
    assert len(by_kind["strong pair"]) == 10
    strong = set.union(*by_kind["strong pair"])
    assert len(strong) == 5
    assert max(free, key=lambda h: abs(z[h])) in strong
    assert max(free, key=lambda h: abs(table.ppl.z_nats[h])) in strong
    pairs = [tuple(sorted(s)) for s in by_kind["random pair"] + by_kind["strong pair"]]
    assert len(set(pairs)) == 17
    assert choose(table, plan) == chosen
    assert choose(table, replace(plan, seed=1)) != chosen


def test_sizes_end_with_the_heads_and_estimates_are_in_no_set() -> None:
    table = make_table(6, HEADS, n=60)
    exact = np.arange(24) % 2 == 0
    table = ImpactTable("m", 6, HEADS, table.ppl, replace(table.bias, exact=exact))
    chosen = choose(table, Plan("axis", sizes=(1, 40), pairs=1000, strong=3))
    free = [h for h in prunable(table) if exact[h]]
    assert set(chosen[1].heads) == set(free)
    assert len([s for s in chosen if "pair" in s.name]) == len(free) * (len(free) - 1) // 2
    nothing = ImpactTable("m", 6, HEADS, table.ppl, replace(table.bias, exact=np.arange(24) < 1))
    with pytest.raises(InputError, match="lower gamma"):
        choose(nothing, Plan("axis"))


@pytest.mark.parametrize(("bad", "mend"), [({"sizes": (0, 1)}, "1 or more"), ({"tokens": 9000}, "at most as many")])
def test_a_plan_that_cannot_be_is_refused(bad: dict[str, Any], mend: str) -> None:
    with pytest.raises(InputError, match=mend):
        Plan("axis", **bad)


# --- measuring ---


def test_sets_are_measured_as_a_plain_pass_measures_them(tiny: Tiny) -> None:
    lm, plan, store, result = tiny
    gauge, windows = meter(lm, plan.bias, store), token_windows(lm, plan.text)
    codes, _ = group_codes(plan.bias.prompts().groups)
    assert result.prompts == len(codes) < len(BiasConfig(plan.axis).prompts())
    assert result.tokens == windows.n_scored
    for r, reading in enumerate(plan.bias.readings):
        quantity = result.quantities[reading]
        base = float(toxicity_gap(gauge.measure()[r], codes))
        assert quantity.base == pytest.approx(base, abs=1e-7)
        for point in [*quantity.sets[1:4], *quantity.sets[-1:]]:
            with masked(lm, PruneSet.parse(point.heads)):
                assert point.measured.value == pytest.approx(
                    float(toxicity_gap(gauge.measure()[r], codes)) - base, abs=1e-7
                )
            single = 0.0
            for head in PruneSet.parse(point.heads):
                with masked(lm, PruneSet.of([head])):
                    single += float(toxicity_gap(gauge.measure()[r], codes)) - base
            assert point.predicted[SUMMED].value == pytest.approx(single, abs=1e-6)
    nats = result.quantities[NATS]
    base = measure_nll(lm, windows).mean
    for pair in nats.pairs[:3]:
        with masked(lm, PruneSet.parse(f"{pair.first},{pair.second}")):
            assert pair.measured.value == pytest.approx(measure_nll(lm, windows).mean - base, abs=1e-5)
        for head, alone in zip((pair.first, pair.second), pair.alone, strict=True):
            with masked(lm, PruneSet.parse(head)):
                assert alone == pytest.approx(measure_nll(lm, windows).mean - base, abs=1e-5)
    first = [p for p in result.quantities["neutral"].sets if p.size == 1]
    for point in first:  # a set of one head is its own prediction
        assert point.measured.value == pytest.approx(point.predicted[SUMMED].value, abs=1e-6)


def test_a_stopped_run_goes_on_and_a_finished_one_needs_no_model(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, plan, store, _ = tiny
    plan, asked = replace(plan, seed=1), []

    def stop_at_ten(done: float, _total: float, _text: str) -> None:
        asked.append(done)
        if len(asked) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        additivity.run(lm, plan, store, stop_at_ten)
    after_stop = len(store.entries(measurements.KIND))
    table = additivity.scores_of(plan.axis, plan.scored_text, lm.id, lm.name, store)
    assert additivity.find(plan, table, lm.id, store) is None
    result = additivity.run(lm, plan, store)
    assert len(store.entries(measurements.KIND)) > after_stop > 0
    entry = additivity.find(plan, table, lm.id, store)
    assert entry is not None
    assert entry.path.name.startswith("tiny-llama--additivity-own--")
    monkeypatch.setattr(additivity, "toxicity_of", None)  # nothing is measured from here on
    assert asdict(additivity.run(lm, plan, store)) == asdict(result) == asdict(additivity.read(entry))


def test_scores_of_other_prompts_or_text_are_refused(tiny: Tiny) -> None:
    lm, plan, store, _ = tiny
    table = additivity.scores_of(plan.axis, plan.scored_text, lm.id, lm.name, store)
    plan = replace(plan, seed=2)
    shifted = replace(table.bias, base=table.bias.base + 0.01)
    with pytest.raises(InputError, match="not of this model"):
        additivity.run(lm, plan, store, impacts=replace(table, bias=shifted))
    with pytest.raises(InputError, match="multiple of"):
        additivity.run(lm, replace(plan, tokens=150), store)
    fewer = replace(table.bias, base=table.bias.base[:, :9], ablated=table.bias.ablated[..., :9])
    with pytest.raises(InputError, match="at most 9 prompts"):
        additivity.run(lm, plan, store, impacts=replace(table, bias=replace(fewer, codes=table.bias.codes[:9])))
    with pytest.raises(InputError, match="python -m fasp_core score"):
        additivity.run(lm, replace(plan, scored_text=replace(plan.scored_text, tokens=256)), store)


def test_results_become_tables_and_json(tiny: Tiny) -> None:
    *_, result = tiny
    text = additivity.markdown([result])
    assert f"{result.prompts} prompts, 3 groups" in text
    assert result.quantities["counted"].outcome in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.strip().split("\n")}) == 1
    document = json.loads(to_json(asdict(result)))
    assert len(document["quantities"]["neutral"]["sets"]) == 3 * len(SIZES)


@pytest.mark.parametrize("n", [720, 1440])
def test_the_whole_sample_holds_the_smaller_one(n: int) -> None:
    """What the rows are cut by, on a real axis, whatever number of prompts the scores have."""
    plan = Plan("race_ethnicity")
    scored = BiasConfig("race_ethnicity", n_prompts=n).prompts()
    assert plan.scores(len(scored)).prompts().texts == scored.texts
    assert set(plan.bias.prompts().texts) <= set(scored.texts)


def test_groups_that_are_short_of_prompts_are_no_hindrance(tmp_path: Path) -> None:
    with (tmp_path / "own.csv").open("w", newline="") as file:
        rows = [(f"{i} {g}", g) for i in range(400) for g in ("a", "b", "c") if g != "c" or i < 30]
        csv.writer(file).writerows([("text", "group"), *rows])
    axis = str(tmp_path / "own.csv")
    scored = BiasConfig(axis, n_prompts=60).prompts()
    assert len(set(scored.counts().values())) == 2
    assert Plan(axis).scores(len(scored)).prompts().texts == scored.texts
