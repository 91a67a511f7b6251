"""The table of impacts against loops over heads, blocks and prompts."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.heads.selection import METHODS, select
from fasp_core.scoring import impact_table
from fasp_core.scoring.impact_table import ImpactTable
from tests.support.fakes import READINGS, make_table
from tests.support.oracles import gap_by_hand

N = 12
seeds = st.integers(0, 10_000)


def mean_by_loop(sums: np.ndarray, counts: np.ndarray) -> float:
    total, tokens = 0.0, 0
    for s, c in zip(sums, counts, strict=True):
        total, tokens = total + float(s), tokens + int(c)
    return total / tokens


# perplexity


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_impacts_on_perplexity(seed: int) -> None:
    ppl = make_table(seed=seed).ppl
    for head in range(N):
        with_it, without = (mean_by_loop(s, ppl.base.counts) for s in (ppl.base.sums, ppl.sums[head]))
        assert ppl.z_nats[head] == pytest.approx(without - with_it, abs=1e-12)
        assert ppl.z_ppl[head] == pytest.approx(math.exp(without) - math.exp(with_it), abs=1e-9)


def test_standard_error_of_a_perplexity_is_that_of_the_nats_by_slope() -> None:
    ppl = make_table(seed=3).ppl
    for head, (z, se) in enumerate(zip(ppl.z_nats, ppl.se_nats, strict=True)):
        up, down = (ppl.base.perplexity * math.exp(z + step) for step in (1e-6, -1e-6))
        assert ppl.se_ppl[head] == pytest.approx(se * (up - down) / 2e-6, rel=1e-6)


def test_a_wrecked_model_overflows_nothing() -> None:
    table = make_table()
    sums = table.ppl.sums.copy()
    sums[2] += 900 * table.ppl.base.counts
    ppl = replace(table.ppl, sums=sums)
    with np.errstate(all="raise"):
        assert np.isfinite(ppl.z_ppl).all()
    assert ppl.z_nats[2] == pytest.approx(table.ppl.z_nats[2] + 900)
    wrecked = replace(table, ppl=ppl)
    assert math.isfinite(wrecked.added_up([2, 3], "neutral")[0])
    # it is still the head that matters most
    assert select(wrecked.head_scores("neutral"), "fasp", 1 / N, 0).critical == (2,)


# bias


@pytest.mark.parametrize("reading", READINGS)
def test_impacts_on_the_gap(reading: str) -> None:
    b = make_table().bias
    r = READINGS.index(reading)
    base = gap_by_hand(b.base[r], b.codes)
    assert b.gap(reading).gap == pytest.approx(base)
    for head in range(N):
        assert b.z_bias(reading)[head] == pytest.approx(base - gap_by_hand(b.ablated[head, r], b.codes), abs=1e-12)
    assert b.labels == [f"group {i % 3}" for i in range(40)]
    assert not np.allclose(b.z_bias("neutral"), b.z_bias("counted"))


def test_standard_errors_of_the_gap_are_those_of_new_prompts() -> None:
    """Many tables that differ by their prompts: the errors of one foresee the spread over all.

    Groups lie far apart here, so that no difference changes its sign, where a gap is not smooth.
    """

    def drawn(seed: int) -> ImpactTable:
        rng = np.random.default_rng(seed)
        table = make_table(1, 3, n=60)
        base = 0.1 + 0.2 * table.bias.codes + rng.normal(0, 0.02, (2, 60))
        push = np.array([0.02, -0.01, 0.03])[:, None, None] * table.bias.codes
        return replace(
            table, bias=replace(table.bias, base=base, ablated=base + push + rng.normal(0, 0.02, (3, 2, 60)))
        )

    spread = np.std([drawn(seed).bias.z_bias("neutral") for seed in range(300)], axis=0, ddof=1)
    foreseen = np.mean([drawn(seed).bias.standard_errors("neutral", 300) for seed in range(20)], axis=0)
    np.testing.assert_allclose(foreseen, spread, rtol=0.15)


def test_an_unknown_reading_is_refused() -> None:
    table = make_table()
    b = table.bias
    for ask in (b.z_bias, b.gap, b.standard_errors, b.reliability, table.head_scores, lambda r: table.added_up([0], r)):
        with pytest.raises(InputError, match="no reading 'sampled' of these scores: choose neutral or counted"):
            ask("sampled")


def test_resampling_is_done_once() -> None:
    b = make_table().bias
    assert b.gap("neutral") is b.gap("neutral")
    assert b.gap("neutral") is not b.gap("counted")
    assert b.standard_errors("neutral") is b.standard_errors("neutral")
    assert b.standard_errors("neutral", 50) is not b.standard_errors("neutral")
    whole, part = b.reliability("neutral"), b.reliability("neutral", [0, 3, 4, 7])
    assert whole is b.reliability("neutral")
    assert part is b.reliability("neutral", (0, 3, 4, 7))
    assert (whole.heads, part.heads) == (N, 4)
    assert part is not whole
    # the memory is the table's own
    other = make_table(seed=1).bias
    assert other.gap("neutral").gap != b.gap("neutral").gap


def test_a_table_does_not_remember_every_set_that_was_ever_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impact_table, "KEPT", 5)
    table = make_table()
    errors = table.bias.standard_errors("neutral")
    for last in range(1, N):
        table.estimated_changes(range(last), "neutral")
        assert table.bias.standard_errors("neutral") is errors, "what is asked for again and again stays"
    assert len(table.bias._kept) == 5
    assert table.estimated_changes([7], "neutral") is table.estimated_changes([7], "neutral")


def test_reliability_reads_the_heads_it_is_given() -> None:
    """Heads 0 to 5 have effects of their own, the others noise alone."""
    table = make_table(n=120)
    rng = np.random.default_rng(0)
    effect = np.where(np.arange(N) < 6, 0.004 * np.arange(N), 0.0)[:, None, None]
    ablated = table.bias.base + effect * table.bias.codes + rng.normal(0, 0.002, (N, 2, 120))
    b = replace(table.bias, ablated=ablated)
    assert b.reliability("neutral", range(6)).whole > 0.9
    assert abs(b.reliability("neutral", range(6, N)).whole) < 0.6
    with pytest.raises(InputError, match="at least 3 heads"):
        b.reliability("neutral", [1, 2])


# sets


@settings(deadline=None, max_examples=60)
@given(seeds, st.frozensets(st.integers(0, N - 1)), st.sampled_from(READINGS))
def test_a_sum_is_exact_where_effects_add_up(seed: int, heads: frozenset[int], reading: str) -> None:
    table = make_table(seed=seed)
    r = READINGS.index(reading)
    sums, toxicity = table.ppl.base.sums.copy(), table.bias.base[r].copy()
    for head in heads:  # what an additive model would do without them
        sums += table.ppl.sums[head] - table.ppl.base.sums
        toxicity += table.bias.ablated[head, r] - table.bias.base[r]
    assert toxicity.min() >= 0
    ppl, gap = table.added_up(heads, reading)
    assert ppl == pytest.approx(math.exp(mean_by_loop(sums, table.ppl.base.counts)))
    assert gap == pytest.approx(gap_by_hand(toxicity, table.bias.codes), abs=1e-12)
    assert table.added_up(reversed(sorted(heads)), reading) == (ppl, gap)


def test_a_sum_of_toxicities_stays_a_toxicity() -> None:
    table = make_table()
    ablated = np.repeat(table.bias.base[None], N, axis=0)
    ablated[0] += np.where(table.bias.codes == 0, 0.9, 0.0)
    ablated[1] += np.where(table.bias.codes == 0, 0.9, 0.0)
    ablated[2] -= np.where(table.bias.codes == 1, 0.9, 0.0)
    beyond = replace(table, bias=replace(table.bias, ablated=ablated))
    expected = table.bias.base[0].copy()
    expected[table.bias.codes == 0] = 1.0
    expected[table.bias.codes == 1] = 0.0
    assert beyond.added_up([0, 1, 2], "neutral")[1] == pytest.approx(gap_by_hand(expected, table.bias.codes))


# for reading and choosing


def test_frame() -> None:
    table = make_table()
    frame = table.frame()
    assert list(frame.columns) == [
        *("layer", "head", "z_ppl", "z_ppl_se", "z_nats", "z_nats_se"),
        *("z_bias_neutral", "z_bias_neutral_se", "z_bias_counted", "z_bias_counted_se"),
        *("magnitude", "gradient"),
    ]
    assert len(frame) == N
    for flat, row in enumerate(frame.to_dict("records")):
        assert (row["layer"], row["head"]) == divmod(flat, 4)
        assert row["z_ppl"] == table.ppl.z_ppl[flat]
        assert row["z_ppl_se"] == table.ppl.se_ppl[flat]
        assert row["z_nats"] == table.ppl.z_nats[flat]
        assert row["z_nats_se"] == table.ppl.se_nats[flat]
        for reading in READINGS:
            assert row[f"z_bias_{reading}"] == table.bias.z_bias(reading)[flat]
            assert row[f"z_bias_{reading}_se"] == table.bias.standard_errors(reading)[flat]
        assert (row["magnitude"], row["gradient"]) == (table.ppl.magnitude[flat], table.ppl.gradient[flat])
    again = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, frame)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_reads_its_own_scores(method: str, reading: str) -> None:
    table = make_table()
    z_ppl, z_bias = table.ppl.z_ppl, table.bias.z_bias(reading)
    chosen = select(table.head_scores(reading), method, 0.25, 0.25)
    cost = {
        "fasp": -z_bias,
        "bias-only": -z_bias,
        "ppl-only": z_ppl,
        "magnitude": table.ppl.magnitude,
        "gradient": table.ppl.gradient,
    }.get(method)
    assert len(chosen.pruned) == 3
    if cost is not None:
        critical = sorted(range(N), key=lambda h: -z_ppl[h])[:3] if method == "fasp" else []
        assert chosen.critical == tuple(sorted(critical))
        free = sorted(set(range(N)) - set(critical), key=lambda h: cost[h])
        assert chosen.pruned == tuple(sorted(free[:3]))


def test_scores_that_are_not_there_are_refused_when_chosen_from() -> None:
    table = make_table()
    sums = table.ppl.sums.copy()
    sums[7] = np.nan
    part = replace(table, ppl=replace(table.ppl, sums=sums))
    with pytest.raises(InputError, match="z_ppl is not a finite number for L1H3"):
        select(part.head_scores("neutral"), "fasp")
    assert select(part.head_scores("neutral"), "bias-only", alpha=0.1).k == 1
