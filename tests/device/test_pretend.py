"""The pretended device keeps its rules, and its numbers are the CPU's."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.support import pretend

HERE = pretend.NAME


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    with pretend.rules("cuda"):
        yield


def test_numbers_come_and_go() -> None:
    x = torch.randn(3, 4)
    y = x.to(HERE)
    assert y.device == torch.device(HERE, 0)
    assert torch.equal(y.cpu(), x)
    assert y.tolist() == x.tolist()
    assert float(y.sum()) == float(x.sum())
    assert torch.tensor([1, 2], device=HERE).tolist() == [1, 2]
    assert torch.arange(3, device=HERE).tolist() == [0, 1, 2]
    y[1] = 0
    assert float(y[1].abs().sum()) == 0 < float(x[1].abs().sum())


def test_devices_do_not_mix() -> None:
    x = torch.randn(3, 4)
    y, z = x.to(HERE), x.to(f"{HERE}:1")
    for wrong in (
        lambda: y + x,
        lambda: y + z,
        lambda: x @ y.T,
        lambda: torch.cat([x, y]),
        lambda: x[torch.tensor([0], device=HERE)],
        lambda: scaled_dot_product_attention(y[None], y[None], x[None]),
    ):
        with pytest.raises(RuntimeError, match=r"same device|indices"):
            wrong()
    for no_numpy in (y.numpy, lambda: np.asarray(y)):
        with pytest.raises(TypeError, match="numpy"):
            no_numpy()
    assert torch.equal((y * torch.tensor(2.0)).cpu(), x * 2)
    assert torch.equal(y[torch.tensor([0, 2])].cpu(), x[[0, 2]])


def test_mps_has_no_float64() -> None:
    with pretend.rules("mps"):
        for wrong in (lambda: torch.ones(2).to(HERE).double(), lambda: torch.zeros(2, dtype=torch.float64).to(HERE)):
            with pytest.raises(TypeError, match="float64"):
                wrong()
    assert torch.ones(2).to(HERE).double().dtype == torch.float64


def test_gradients_are_those_of_the_cpu() -> None:
    shared, key = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8)
    for options in ({"is_causal": True}, {"attn_mask": torch.randn(5, 5)}, {"is_causal": True, "scale": 0.3}):
        grads: list[list[torch.Tensor]] = []
        for device in ("cpu", HERE):
            q: Any = shared.clone().to(device).requires_grad_()
            k: Any = key.clone().to(device).requires_grad_()
            given = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in options.items()}
            out = scaled_dot_product_attention(q, k, k, enable_gqa=True, **given)
            torch.nn.functional.silu(out).square().sum().backward()
            grads.append([q.grad.cpu(), k.grad.cpu()])
        assert all(map(torch.equal, *grads))


def test_a_model_moves_with_its_ties() -> None:
    layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])
    layers[1].weight = layers[0].weight
    x = torch.randn(2, 4)
    expected = layers[0](x).detach()
    moved = copy.deepcopy(layers).to(HERE)
    again = copy.deepcopy(moved)
    for model in (moved, again):
        assert model[0].weight is model[1].weight
        assert isinstance(model[0].weight, torch.nn.Parameter)
        assert model[0].weight.device.type == HERE
        assert torch.equal(model[0](x.to(HERE)).cpu(), expected)
    assert again[0].weight is not moved[0].weight


def test_kernels_and_waits_are_counted() -> None:
    y = torch.randn(4, 4).to(HERE)
    with pretend.counting() as seen:
        bool((y != 1).any())
        y.view(16)[:3].t().detach()  # views
    assert seen.kernels == {"ne": 1, "any": 1, "_local_scalar_dense": 1}
    assert [direction for direction, _ in seen.waits] == ["to host"]
    assert next(iter(seen.waits))[1].startswith("test_pretend.py:")
    with pretend.counting() as seen:
        torch.ones(3).to(HERE)
        torch.ones(3).to(HERE, non_blocking=True)
        y[torch.tensor([0, 1])]
        y[y > 0]
        y.add_(1)
    directions = [direction for direction, _ in seen.waits.elements()]
    assert directions.count("to device") == 2
    assert directions.count("to host") == 1
    assert seen.kernels["add_"] == 1


def test_memory_ends_and_comes_back() -> None:
    gc.collect()
    before = pretend.allocated()
    with pretend.limit(1000), pytest.raises(torch.OutOfMemoryError):
        torch.zeros(1000, device=HERE)
    assert pretend.allocated() == before
    x: Any = torch.ones(1000, device=HERE, requires_grad=True)
    assert pretend.allocated() == before + 4000
    with pretend.limit(4100):
        y = (x * 2).sum()
    loss = (x * 2).square().sum()
    with pretend.limit(0), pytest.raises(torch.OutOfMemoryError):
        loss.backward()
    del x, y, loss
    gc.collect()  # the error held what the pass had made
    assert pretend.allocated() == before
