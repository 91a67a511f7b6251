"""The preview's two parts: the gate gradient by finite differences, the Fisher diagonal by enumeration."""

from __future__ import annotations

from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fasp_core.data.text import TextConfig, TokenWindows
from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.metrics.perplexity import measure_nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.preview import gauss_newton
from tests.support.tiny import HEADS, tiny_lm, token_rows

SIZE = 2 * HEADS


def windows(*shapes: tuple[int, int], seed: int = 0) -> TokenWindows:
    """Batches of (rows, T); every second row leaves out two more targets."""
    batches = []
    for i, (rows, length) in enumerate(shapes):
        batches.append((token_rows(rows, length, seed + i), 1 + 2 * (np.arange(rows) % 2)))
    return TokenWindows(TextConfig(), tuple(batches), "", sum(int((b.shape[1] - f).sum()) for b, f in batches))


TEXT = windows((3, 8), (1, 5))


def double_precision(kind: str) -> LanguageModel:
    """`logits` rounds to float32, which a finite difference would feel."""
    lm = tiny_lm(kind)
    lm.model.double()
    cap = getattr(lm.model.config, "final_logit_softcapping", None)

    def logits(self: LanguageModel, hidden: Tensor) -> Tensor:
        out: Tensor = self.model.get_output_embeddings()(hidden)
        return out if cap is None else torch.tanh(out / cap) * cap

    lm.logits = MethodType(logits, lm)  # type: ignore[method-assign]
    return lm


def gates_moved(flat: int, by: float) -> np.ndarray:
    gates = np.ones(SIZE)
    gates[flat] += by
    return gates.reshape(2, HEADS)


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text", "opt"])  # gates of all kinds: tests/oracle
def test_first_order_part_by_finite_differences(kind: str) -> None:
    found = gauss_newton(tiny_lm(kind), TEXT).first
    lm = double_precision(kind)
    step, expected = 1e-6 if kind.startswith("opt") else 1e-3, np.empty(SIZE)  # OPT's ReLU has kinks
    for flat in range(SIZE):
        sides = []
        for by in (step, -step):
            with gated(lm, gates_moved(flat, by)):
                sides.append(measure_nll(lm, TEXT).mean)
        expected[flat] = (sides[1] - sides[0]) / (2 * step)
    scale = np.abs(expected).max()
    assert scale > 1e-2
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_curvature_is_the_fisher_diagonal(kind: str) -> None:
    """d = sum over targets t and labels v of p_t(v) (d log p_t(v) / d gate)^2, all labels enumerated."""
    found = np.stack([gauss_newton(tiny_lm(kind), TEXT, seed, rows=3, draws=40).curvature for seed in range(6)])
    lm, step, expected = double_precision(kind), 1e-3, np.zeros(SIZE)
    for ids, first in TEXT.batches:
        for row, start in zip(ids, first, strict=True):
            with torch.no_grad():
                p = lm.model(row[None]).logits[0, start - 1 : -1].softmax(-1)
                for flat in range(SIZE):
                    sides = []
                    for by in (step, -step):
                        with gated(lm, gates_moved(flat, by)):
                            sides.append(lm.model(row[None]).logits[0, start - 1 : -1].log_softmax(-1))
                    expected[flat] += float((p * ((sides[0] - sides[1]) / (2 * step)) ** 2).sum())
    expected /= TEXT.n_scored
    mean, error = found.mean(0), found.std(0, ddof=1) / np.sqrt(len(found))
    assert (error < 0.1 * expected).all()
    # t with 5 degrees of freedom leaves 6 standard errors once in 500
    assert (np.abs(mean - expected) < 6 * error).all()
    np.testing.assert_allclose(mean, expected, rtol=0.2)
    assert mean.sum() == pytest.approx(expected.sum(), rel=0.07)


def test_more_draws_narrow_the_curvature() -> None:
    lm = tiny_lm("gpt2")

    def spread(draws: int) -> float:
        runs = np.stack([gauss_newton(lm, TEXT, seed, rows=3, draws=draws).curvature for seed in range(8)])
        return float((runs.std(0, ddof=1) / runs.mean(0)).mean())

    assert spread(12) < spread(1) / 2


def test_the_grouping_into_passes_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("llama")
    one, three = gauss_newton(lm, TEXT, seed=3, rows=1, draws=2), gauss_newton(lm, TEXT, seed=3, rows=3, draws=2)
    monkeypatch.setattr("fasp_core.scoring.preview.CHUNK", 4)
    chunks = gauss_newton(lm, TEXT, seed=3, draws=2)
    for other in (three, chunks):
        np.testing.assert_allclose(one.first, other.first, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(one.curvature, other.curvature, rtol=1e-3, atol=1e-5)
    assert not np.allclose(one.curvature, gauss_newton(lm, TEXT, seed=4, draws=2).curvature, rtol=0.05)


def test_what_is_returned() -> None:
    lm, seen = tiny_lm("gpt2"), []
    preview = gauss_newton(lm, TEXT, progress=lambda done, total, text: seen.append((done, total, text)), draws=2)
    assert preview.n == TEXT.n_scored == 7 + 5 + 7 + 4
    np.testing.assert_allclose(preview.z_nats, preview.first + 0.5 * preview.curvature)
    assert (preview.curvature > 0).all()
    # three rows two at a time and one row: three forward passes, each with three backward ones
    assert seen == [(i, 9, f"{i} of 9 passes") for i in (3, 6, 9)]
    assert sum(len(m._forward_pre_hooks) for m in lm.model.modules()) == 0


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"rows": 0}])
def test_a_preview_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least 1 row a pass and 1 draw"):
        gauss_newton(tiny_lm("gpt2"), TEXT, **wrong)
