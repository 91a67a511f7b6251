"""Hard-concrete gates: derivatives against differences, the expected count against simulation, and how they end."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.scoring.learned.gates import GainsConfig, HardConcrete, Soft, expected_l0, gates_of, hard_concrete


def test_gates_at_fixed_noise_have_the_gradient_of_differences() -> None:
    rng = np.random.default_rng(3)
    a = torch.tensor(rng.normal(0, 2, 400), requires_grad=True)
    u = torch.tensor(rng.uniform(0.01, 0.99, 400))
    (found,) = torch.autograd.grad(hard_concrete(a, u).sum(), a)
    step = 1e-6
    ends = [hard_concrete(a.detach() + sign * step, u) for sign in (1, -1)]
    assert found.numpy() == pytest.approx(((ends[0] - ends[1]) / (2 * step)).numpy(), abs=1e-6)
    assert (found == 0).any()
    assert (found > 0).any()


@pytest.mark.parametrize("log_odds", [-3.0, -0.5, 0.0, 1.2, 3.0])
def test_the_expected_number_of_open_gates_is_that_of_simulation(log_odds: float) -> None:
    n = 200_000
    u = torch.tensor(np.random.default_rng(7).uniform(size=n))
    a = torch.full((n,), log_odds, dtype=torch.float64)
    gates = hard_concrete(a, u)
    assert gates.min() >= 0
    assert gates.max() <= 1
    share = float((gates > 0).double().mean())
    assert share == pytest.approx(float(expected_l0(a)) / n, abs=4 * math.sqrt(0.25 / n))
    # of the definition, by hand: it is 0 where u lies below the point at which the stretched variable is 0
    at_zero = 1 / (1 + math.exp(log_odds - 2 / 3 * math.log(0.1 / 1.1)))
    assert 1 - float(expected_l0(a)) / n == pytest.approx(at_zero, rel=1e-9)


@given(st.integers(0, 11), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_lowest_are_removed_and_the_others_as_they_were(heads: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 3, (3, 4)).round(1)
    final = HardConcrete(heads).final(values)
    assert set(np.unique(final)) <= {0.0, 1.0}
    if heads:
        assert (final == 0).sum() == heads
        assert values[final == 0].max() <= values[final == 1].min()
    else:
        assert ((final == 1) == (values > 0)).all()


def test_what_gates_cost_is_their_distance() -> None:
    values = torch.tensor([[1.0, 0.5], [1.5, 1.0]])
    penalty = Soft(keep=2.0).penalty(values)
    assert penalty is not None
    assert float(penalty) == pytest.approx(2 * (0.25 + 0.25) / 4)
    assert Soft().penalty(values) is None
    odds = torch.zeros(5, 2)
    closed = 10 - float(expected_l0(odds))
    some, none = HardConcrete(4, 3.0).penalty(odds), HardConcrete(0, 3.0).penalty(odds)
    assert some is not None
    assert none is not None
    assert float(some) == pytest.approx(3 * abs(closed - 4) / 4, rel=1e-6)
    assert float(none) == pytest.approx(3 * closed / 10, rel=1e-6)
    assert HardConcrete(4, 0.0).penalty(odds) is None


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"method": "soft"}, "no method 'soft'"),
        ({"cells": "some"}, "no cells 'some'"),
        ({"rate": 0.0}, "at a rate above 0"),
        ({"rate": float("nan")}, "at a rate above 0"),
        ({"keep": -1.0}, "0 or more"),
        ({"clip": 1.5}, "a share from 0 to 1"),
        ({"memory": 1.0}, "memory is below 1"),
        ({"precision": "float64"}, "no precision 'float64'"),
        ({"patience": -1}, "whole numbers from 0 up"),
        ({"method": "hard-concrete", "keep": 1.0}, "leave --keep out"),
    ],
)
def test_settings_that_mean_nothing_are_refused(told: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        GainsConfig(**told)  # type: ignore[arg-type]


def test_most_gates_begin_open() -> None:
    for config in (GainsConfig(), GainsConfig(method="hard-concrete")):
        kind = gates_of(config)
        values = torch.full((300, 90), kind.start)
        gates = kind.opened(values, torch.rand(values.shape, generator=torch.Generator().manual_seed(0)))
        assert float((gates == 1).float().mean()) > 0.5
        assert float((gates == 0).float().mean()) < 0.03
