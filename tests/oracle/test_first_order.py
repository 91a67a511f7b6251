"""Effects of heads to first order against finite differences of the gates, on every architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.forward.gate_gradients import functional_gradients, log_ratio_gradients
from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import HEADS, KINDS, VOCAB, tiny_lm, token_rows

SIZE = 2 * HEADS
ROWS, LENGTH = 3, 9
FIRST, END = np.array([3, 1, 5]), np.array([9, 6, 5])  # to the end, padded, and nothing at all


def finite_differences(lm: LanguageModel, kind: str, measure: Callable[[], np.ndarray]) -> np.ndarray:
    """-d measure / d gate of each head, [N, ...], by central differences of gates that all rows share."""
    # OPT's ReLU has kinks to stay clear of; norms of others compute in float32, which small steps would feel
    step, effects = 1e-6 if kind.startswith("opt") else 1e-3, []
    for flat in range(SIZE):
        sides = []
        for sign in (1, -1):
            gates = np.ones(SIZE)
            gates[flat] += sign * step
            with torch.no_grad(), gated(lm, gates.reshape(2, HEADS)):
                sides.append(measure())
        effects.append((sides[1] - sides[0]) / (2 * step))
    return np.stack(effects)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * scale)


def value_matrix() -> Tensor:
    return torch.rand(VOCAB, 2, generator=torch.Generator().manual_seed(1))


def reader(lm: LanguageModel) -> Callable[[Tensor], Tensor]:
    matrix = value_matrix()
    return lambda hidden: torch.softmax(lm.logits(hidden[:, -1]), -1) @ matrix


@pytest.mark.parametrize("kind", KINDS)
def test_functional_gradients_by_finite_differences(kind: str) -> None:
    lm, ids, matrix = tiny_lm(kind), token_rows(ROWS, LENGTH), value_matrix().double()
    values, effects = functional_gradients(lm, ids, reader(lm))
    lm.model.double()

    def by_hand() -> np.ndarray:
        return (lm.model(ids).logits[:, -1].double().softmax(-1) @ matrix).numpy()  # [rows, 2]

    with torch.no_grad():
        np.testing.assert_allclose(values, by_hand(), rtol=1e-4)
    assert effects.shape == (SIZE, 2, ROWS)
    assert effects.dtype == np.float64
    assert_close(effects, finite_differences(lm, kind, by_hand).transpose(0, 2, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_log_ratio_gradients_by_finite_differences(kind: str) -> None:
    lm, ids, temperature = tiny_lm(kind), token_rows(ROWS, LENGTH), 0.7
    log_p, s = log_ratio_gradients(lm, ids, FIRST, END, temperature)
    lm.model.double()

    def by_hand() -> np.ndarray:
        steps = (lm.model(ids).logits.double() / temperature).log_softmax(-1)
        return np.array(
            [
                sum(float(steps[r, t - 1, ids[r, t]]) for t in range(a, b))
                for r, (a, b) in enumerate(zip(FIRST, END, strict=True))
            ]
        )

    with torch.no_grad():
        np.testing.assert_allclose(log_p, by_hand(), rtol=1e-4)
    assert s.shape == (ROWS, SIZE)
    assert s.dtype == np.float64
    assert_close(s, finite_differences(lm, kind, by_hand).T)
    assert log_p[2] == 0
    assert not s[2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_see_each_other(kind: str) -> None:
    lm, ids = tiny_lm(kind), token_rows(ROWS, LENGTH)
    others = ids.clone()
    others[[0, 2]] = token_rows(2, LENGTH, seed=5)
    first = np.array([2, 4, 7])
    for run in (lambda x: functional_gradients(lm, x, reader(lm))[1][..., 1], lambda x: log_ratio(lm, x, first)[1]):
        same, changed = run(ids), run(others)
        np.testing.assert_allclose(same, changed, rtol=1e-4, atol=1e-5 * np.abs(same).max())
        assert np.abs(same).max() > 1e-4
    alone = log_ratio(lm, ids[1:2], first[1:2])[0]
    np.testing.assert_allclose(alone, log_ratio(lm, ids, first)[1], rtol=1e-4, atol=1e-5 * np.abs(alone).max())
    assert np.abs(log_ratio(lm, others, first)[0] - log_ratio(lm, ids, first)[0]).max() > 1e-3


def log_ratio(lm: LanguageModel, ids: Tensor, first: np.ndarray) -> np.ndarray:
    return log_ratio_gradients(lm, ids, first)[1]


def test_padding_is_ignored() -> None:
    lm, ids = tiny_lm("llama"), token_rows(ROWS, LENGTH)
    padded = torch.cat([ids, token_rows(ROWS, 4, seed=2)], dim=1)
    for a, b in zip(
        log_ratio_gradients(lm, ids, FIRST),
        log_ratio_gradients(lm, padded, FIRST, np.full(ROWS, LENGTH)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_many_tokens_go_through_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, ids = tiny_lm("gpt2"), token_rows(ROWS, LENGTH)
    whole = log_ratio_gradients(lm, ids, FIRST, END)
    monkeypatch.setattr("fasp_core.forward.gate_gradients.CHUNK", 4)
    for a, b in zip(whole, log_ratio_gradients(lm, ids, FIRST, END), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("first", "end"), [([0, 1, 1], None), ([3, 3, 3], [9, 2, 9]), ([3, 3, 3], [9, 10, 9])])
def test_a_continuation_lies_in_its_row(first: list[int], end: list[int] | None) -> None:
    with pytest.raises(InputError, match="give each prompt a token"):
        log_ratio_gradients(
            tiny_lm("gpt2"), token_rows(ROWS, LENGTH), np.array(first), None if end is None else np.array(end)
        )


@torch.no_grad()  # as callers may have it
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_gradients_leave_no_trace(kind: str) -> None:
    lm, ids = tiny_lm(kind), token_rows(ROWS, LENGTH)
    model: Any = lm.model
    before = [p.clone() for p in model.parameters()]
    functional_gradients(lm, ids, reader(lm))
    log_ratio_gradients(lm, ids, FIRST)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert sum(len(m._forward_pre_hooks) for m in model.modules()) == 0
