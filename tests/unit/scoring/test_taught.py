"""What measured sets teach: factors and usual errors by hand, and on the committed study of additivity."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from fasp_core.data.text import TextConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.loading import known_id
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.entries import find
from fasp_core.scoring.taught import Taught, closed, learn
from fasp_core.storage.store import Store
from fasp_core.studies.additivity import additivity
from tests.support.fakes import make_table
from tests.support.oracles import gap_by_hand

COMMITTED = Path(__file__).resolve().parents[3] / "cache"
NAN = float("nan")


def test_nothing_teaches_nothing() -> None:
    assert learn([], []).factors == (1.0, 1.0)
    assert all(math.isnan(x) for x in learn([(0.1, NAN)], [(0.2, 0.3)]).off)
    assert learn([(0.1, NAN)], [(0.2, 0.3)]).sets == (1, 0)
    assert learn([(0.0, 0.0)] * 3, [(0.2, 0.3)] * 3).factors == (1.0, 1.0)


def test_factors_and_errors_by_hand() -> None:
    x, y = [0.1, 0.2, 0.4], [0.2, 0.3, 0.9]
    size = sum(a * a for a in x) / 3

    def factor(at: list[int], size: float) -> float:
        return (sum(x[i] * y[i] for i in at) + size) / (sum(x[i] ** 2 for i in at) + size)

    found = learn([(a, -a) for a in x], [(b, -b) for b in y])
    assert found.factors == pytest.approx([factor([0, 1, 2], size)] * 2)
    left = []
    for i in range(3):
        others = [j for j in range(3) if j != i]
        f = factor(others, sum(x[j] ** 2 for j in others) / 2)
        left.append((abs(math.expm1(y[i]) - math.expm1(f * x[i])), abs(y[i] - f * x[i])))
    assert found.off == pytest.approx([median(one) for one in zip(*left, strict=True)])
    assert found.sets == (3, 3)


@given(some.lists(some.tuples(some.floats(-2, 2), some.floats(-1, 1)), min_size=2, max_size=9), some.floats(0.2, 3))
def test_many_exact_sets_teach_their_factor(points: list[tuple[float, float]], factor: float) -> None:
    found = learn(points, [(factor * a, factor * b) for a, b in points])
    for f in found.factors:
        assert min(1, factor) - 1e-9 <= f <= max(1, factor) + 1e-9


def test_the_estimate_multiplies_and_is_corrected() -> None:
    table = make_table()
    ppl, gap = table.estimate([], "neutral")
    assert ppl == pytest.approx(table.ppl.base.perplexity)
    assert gap == pytest.approx(table.bias.gap("neutral").gap)
    heads, bias = [1, 4], table.bias
    rows = bias.base[0] * (bias.ablated[1, 0] / bias.base[0]) * (bias.ablated[4, 0] / bias.base[0])
    assert table.estimate(heads, "neutral")[1] == pytest.approx(gap_by_hand(rows.clip(0, 1), bias.codes))
    both = table.estimate(heads, "neutral")
    half = table.estimate(heads, "neutral", Taught((0.5, 0.5)))
    assert half[1] == pytest.approx((gap + both[1]) / 2)
    assert half[0] == pytest.approx(math.sqrt(ppl * both[0]))


GATES = some.dictionaries(some.integers(0, 11), some.floats(0, 1.5), max_size=12)


@given(some.frozensets(some.integers(0, 11)), some.frozensets(some.integers(0, 11)))
def test_gates_of_0_and_1_are_heads_that_are_off_and_on(off: frozenset[int], on: frozenset[int]) -> None:
    table, taught = make_table(), Taught((1.3, 0.8))
    by = {**dict.fromkeys(on, 0.0), **dict.fromkeys(off, 1.0)}
    assert closed(by) == closed(off)
    assert table.estimate(by, "neutral", taught) == table.estimate(off, "neutral", taught)
    heads = PruneSet.from_flat(off, 4)
    assert closed(heads.closed(4)) == closed(off)


@given(GATES, some.sampled_from(["neutral", "counted"]))
def test_a_scaled_head_counts_by_how_far_it_is_closed(gates: dict[int, float], reading: str) -> None:
    """Nats by hand, and the toxicity of each prompt times the factor of each head to the power of that."""
    table = make_table()
    row = table.bias.readings.index(reading)
    base, toxicity = table.bias.base[row], table.bias.base[row].copy()
    nats = 0.0
    for head, gate in gates.items():
        nats += (1 - gate) * float(table.ppl.z_nats[head])
        toxicity *= (table.bias.ablated[head, row] / base) ** (1 - gate)
    ppl, gap = table.estimate({head: 1 - gate for head, gate in gates.items()}, reading)
    assert ppl == pytest.approx(table.ppl.base.perplexity * math.exp(nats))
    assert gap == pytest.approx(gap_by_hand(toxicity.clip(0, 1), table.bias.codes), rel=1e-3)


@given(some.integers(0, 11), some.lists(some.floats(0, 1), min_size=2, max_size=6))
def test_a_single_head_costs_ever_more_or_ever_less_as_it_closes(head: int, closing: list[float]) -> None:
    table = make_table()
    costs = [table.estimate({head: by}, "neutral")[0] for by in sorted(closing)]
    ends = [table.estimate(heads, "neutral")[0] for heads in ((), (head,))]
    assert costs == sorted(costs, reverse=ends[1] < ends[0])
    assert min(ends) - 1e-9 <= min(costs) <= max(costs) <= max(ends) + 1e-9


def test_what_is_known_without_the_heads_is_where_they_start() -> None:
    table, start = make_table(), (0.02, -0.3)
    ppl, gap = table.estimate((), "neutral", Taught((2.0, 0.5)), start)
    whole = table.estimate((), "neutral")
    assert (ppl, gap) == pytest.approx((whole[0] * math.exp(0.02), 0.7 * whole[1]))
    one = table.estimate({3: 0.4}, "neutral", None, start)
    alone = table.estimate({3: 0.4}, "neutral")
    assert one == pytest.approx((alone[0] * math.exp(0.02), alone[1] - 0.3 * whole[1]))


def test_what_the_committed_study_teaches() -> None:
    """Its sets, as it lists them, against the estimate: what is shown on screen is measured, not typed in."""
    store, identity = Store(COMMITTED), known_id(ModelSpec())
    assert identity is not None
    axis = "race_ethnicity"
    table = find(TextConfig(tokens=8192), BiasConfig(axis), identity, "built-in", store)
    assert table is not None
    entry = additivity.find(additivity.Plan(axis), table, identity, store)
    assert entry is not None
    known = additivity.measured_changes(entry, "neutral")
    assert len(known) == 32
    found = learn([table.estimated_changes(heads, "neutral") for heads in known], list(known.values()))
    assert found.sets == (32, 32)
    assert 0.8 < found.factors[1] < 1.2  # multiplied, the gap fits
    assert 1.1 < found.factors[0] < 1.8  # sets cost more than their heads
    assert 0 < found.off[1] < 0.1
    assert 0 < found.off[0] < 0.1
    summed = [
        float(-table.bias.z_bias("neutral")[list(heads)].sum() / table.bias.gap("neutral").gap) for heads in known
    ]
    worse = learn([(NAN, s) for s in summed], list(known.values()))
    assert worse.off[1] > found.off[1]
    assert additivity.measured_changes(entry, "no such reading") == {}
    assert np.isfinite(list(known.values())).all()
