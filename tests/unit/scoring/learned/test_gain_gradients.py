"""Gradients of a step: outlying ones are cut, and bfloat16 changes them little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fasp_core.data.text import TextConfig
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.learned.gain_steps import Course
from tests.support.made.courses import course


def test_an_outlying_step_moves_gates_no_further_than_others(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after(clip: float, outlying: float) -> Course:
        run = course(bias, text, tmp_path, steps=6, clip=clip)
        sizes = iter([1.0, 1.0, 1.0, outlying, 1.0, 1.0])
        flat = torch.linspace(-1, 1, run.values.numel()).reshape(run.values.shape)

        def gradient() -> list[float]:
            run.values.grad = flat * next(sizes)
            return [1.0, 0.0, 0.0]

        monkeypatch.setattr(run, "_gradient", gradient)
        while not run.done:
            run.move()
        return run

    plain, cut, thrown = after(0.5, 1.0), after(0.5, 50.0), after(0.0, 50.0)
    assert np.array(cut.path) == pytest.approx(np.array(plain.path), abs=1e-6)
    assert np.abs(np.array(thrown.path[-1]) - plain.path[-1]).max() > 0.05
    assert cut.lengths[3] == pytest.approx(50 * cut.lengths[0], rel=1e-5)  # as they were, for people and later steps


@pytest.mark.parametrize("clip", [0.0, 0.3, 1.0])
def test_gradients_are_cut_at_the_quantile_of_all_so_far(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, clip: float
) -> None:
    run, rng, before = course(bias, text, tmp_path, clip=clip), np.random.default_rng(4), []
    for _ in range(9):
        gradient = torch.from_numpy(rng.normal(0, rng.uniform(0.1, 9), tuple(run.values.shape)))
        whole = gradient.clone()
        before.append(float(whole.norm()))
        run._cut(gradient)
        wanted = min(before[-1], float(np.quantile(before, clip))) if clip else before[-1]
        assert float(gradient.norm()) == pytest.approx(wanted, rel=1e-6)
        assert float(torch.nn.functional.cosine_similarity(gradient.ravel(), whole.ravel(), 0)) == pytest.approx(1)


def test_half_precision_gives_nearly_the_same_gradient(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, paragraphs: None
) -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        run = course(bias, text, tmp_path, paragraphs=2, max_nats=0.0, precision=precision)
        with torch.no_grad():
            run.values.copy_(torch.from_numpy(np.random.default_rng(1).uniform(0.3, 1.2, run.values.shape)))
        with run._precision():
            seen = run._gradient()
        assert run.values.grad is not None
        assert run.values.grad.dtype == torch.float32
        found.append((seen, run.values.grad.ravel().clone()))
    (whole, exact), (half, rough) = found
    assert half == pytest.approx(whole, abs=0.05)
    assert half != whole
    assert float(torch.nn.functional.cosine_similarity(exact, rough, 0)) > 0.98
