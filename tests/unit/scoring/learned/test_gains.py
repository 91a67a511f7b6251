"""Gates learned by gradients: derivatives against differences, a guilty head found, and a stopped run that goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.learned import gain_steps, gains
from fasp_core.scoring.learned.gain_steps import Course
from fasp_core.scoring.learned.gains import Gains, learn
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.storage.store import Store
from tests.support.tiny import STARTS, tiny_lm
from tests.support.words import COLORS, TableScorer, guilty_model
from tests.support.worlds import use_scorer, write_axis, write_text

GUILTY = (1, 3)
QUICK = GainsConfig(steps=3, prompts=24, windows=1, passages=0, paragraphs=0)


@pytest.fixture
def bias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BiasConfig:
    use_scorer(monkeypatch, TableScorer(), complete=False)
    nouns = ("person", "house", "team", "tree", "person and my")
    axis = write_axis(tmp_path / "axis.csv", nouns, ("met", "saw"), STARTS[:4], COLORS)
    return BiasConfig(axis, "valid", 80)


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 200, tokens=150, window=48, stride=48)


def course(bias: BiasConfig, text: TextConfig, tmp_path: Path, config: GainsConfig = QUICK, lm: Any = None) -> Any:
    return Course(lm or guilty_model(*GUILTY), [bias], text, config, Store(tmp_path / "course"), None)


def test_the_gradient_of_the_gap_is_its_difference(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    run = course(bias, text, tmp_path)
    with torch.no_grad():
        run.values.copy_(torch.from_numpy(np.random.default_rng(1).uniform(0.3, 1.4, run.values.shape)))

    def loss() -> float:
        return float(run._gap(np.random.default_rng(5)))

    loss()
    found = run.values.grad.clone()
    step = 1e-2
    for head in (GUILTY, (0, 0), (1, 2)):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                run.values[head] += sign * step
            ends.append(loss())
            with torch.no_grad():
                run.values[head] -= sign * step
        assert float(found[head]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02, abs=2e-4)


@pytest.mark.parametrize("prompts", [4, 24])
def test_a_step_is_relative_to_the_same_prompts(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, prompts: int
) -> None:
    config = replace(QUICK, prompts=prompts)
    run = course(bias, text, tmp_path, config)
    for seed in range(5):
        assert run._gap(np.random.default_rng(seed)) == pytest.approx(1, rel=1e-4)


def test_a_step_sees_every_group(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    """Also where blocks lack some."""
    run = course(bias, text, tmp_path, replace(QUICK, prompts=2))
    (axis,) = run.axes
    axis.blocks = [np.array([i]) for block in axis.blocks for i in block]
    axis.blocks = [np.concatenate(axis.blocks[:2]), *axis.blocks[2:]]  # not one prompt a block throughout
    for seed in range(20):
        (part,) = axis.parts(np.random.default_rng(seed), 0)
        codes, groups = part.groups
        assert len(set(codes.tolist())) == groups == len(COLORS)
        assert np.isfinite(run._gap(np.random.default_rng(seed)))


def test_several_packs_give_the_gradient_of_one(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, found = tiny_lm("llama"), []
    for most, together in ((4096, 4096), (24, 4096), (24, 0)):  # in one, in several, and in several that run twice
        monkeypatch.setattr(gain_steps, "pack", lambda _lm, rows, steps, most=most: gains_packs(rows, steps, most))
        monkeypatch.setattr(gain_steps, "TOGETHER", together)
        run = course(bias, text, tmp_path, lm=lm)
        value = run._gap(np.random.default_rng(5))
        found.append((value, run.values.grad.numpy()))
    for other in found[1:]:
        assert found[0][0] == pytest.approx(other[0], rel=1e-5)
        assert found[0][1] == pytest.approx(other[1], rel=1e-3, abs=1e-6)


def gains_packs(rows: Any, steps: int, most: int) -> Any:
    from fasp_core.model.packing import pack_equal

    return pack_equal(rows, steps, most)


def test_the_gradient_of_a_cost_is_its_difference(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    run = course(bias, text, tmp_path)
    assert run._cost(run.windows, iter([0, 1]), 3.0, 0.0) == pytest.approx(0, abs=1e-6)  # all gates open
    with torch.no_grad():
        run.values.copy_(torch.from_numpy(np.random.default_rng(2).uniform(0.2, 0.6, run.values.shape)))
    if run.values.grad is not None:
        run.values.grad.zero_()
    rise = run._cost(run.windows, iter([0, 1]), 3.0, -9.0)
    found, head, step, ends = run.values.grad.clone(), (0, 1), 0.1, []
    for sign in (1, -1):
        with torch.no_grad():
            run.values[head] += sign * step
        ends.append(run._cost(run.windows, iter([0, 1]), 0.0, 9.0))
        with torch.no_grad():
            run.values[head] -= sign * step
    assert min(ends) < rise < max(ends)
    assert float(found[head]) == pytest.approx(3 * (ends[0] - ends[1]) / (2 * step), rel=0.02, abs=1e-4)


def test_the_guilty_head_is_turned_down_and_no_other(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    lm, store = guilty_model(*GUILTY), Store(tmp_path / "store")
    config = GainsConfig(steps=20, rate=0.1, prompts=60, passages=0, paragraphs=0, keep=0.5, cost=0.0)
    found = learn(lm, bias, text, config, store)
    assert found.gates.shape == (lm.n_layers, lm.n_heads)
    moved = np.abs(found.gates - 1)
    assert np.unravel_index(int(moved.argmax()), moved.shape) == GUILTY
    assert moved[GUILTY] > 2 * np.sort(moved.ravel())[-2]
    assert found.losses[-1, 0] < 0.5 * found.losses[0, 0]
    whole = evaluate(lm, found.at(1), EvalConfig(bias, text), store).readings["neutral"]
    half = evaluate(lm, found.at(0.5), EvalConfig(bias, text), store).readings["neutral"]
    assert whole.base.gap == pytest.approx(found.base_gap, rel=1e-5)
    assert whole.pruned.gap < half.pruned.gap < whole.base.gap
    assert not len(found.at(0))
    assert found.at(1).gates(*found.gates.shape) == pytest.approx(found.gates, abs=1e-4)


def test_a_stopped_run_goes_on_to_the_same_gates(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    lm, whole = tiny_lm("gpt2"), Store(tmp_path / "whole")
    config = GainsConfig(steps=4, prompts=24, passages=0, paragraphs=0)
    straight = learn(lm, bias, text, config, whole)

    def stop(done: float, _total: float, _text: str) -> None:
        if done == 2 and "gap" in _text:
            raise KeyboardInterrupt

    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        learn(lm, bias, text, config, store, stop)
    again = learn(lm, bias, text, config, store)
    assert again.path == pytest.approx(straight.path, abs=1e-6)
    assert again.losses == pytest.approx(straight.losses, abs=1e-6)
    stored = gains.find(lm.id, bias, text, config, store)
    assert isinstance(stored, Gains)
    assert np.array_equal(stored.path, again.path)
    other = GainsConfig(steps=4, prompts=24, passages=0, paragraphs=0, seed=1)
    assert gains.find(lm.id, bias, text, other, store) is None


def test_what_cannot_be_learned_is_refused(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at a rate above 0"):
        GainsConfig(rate=0.0)
    sampled = BiasConfig(bias.axis, "valid", 80, measure="sampled")
    with pytest.raises(InputError, match="expected toxicity"):
        learn(tiny_lm("llama"), sampled, text, GainsConfig(passages=0, paragraphs=0), Store(tmp_path / "store"))


def test_of_several_gains_those_that_saw_paragraphs_go_before_others_of_as_many_steps() -> None:
    def made(steps: int, **told: Any) -> gains.Gains:
        return gains.Gains(GainsConfig(**told), np.ones((steps + 1, 2, 2)), np.zeros((steps, 3)), 1.0, {})

    first, blind, later, more = made(4), made(4, paragraphs=0), made(4, seed=1), made(5, paragraphs=0)
    assert gains.furthest([blind, later, first]) is first
    assert gains.furthest([blind, later]) is later
    assert gains.furthest([blind, first, more]) is more
    thrown = made(9, clip=0.0)
    assert gains.furthest([replace(first, words=6), later]) is later
    assert gains.furthest([thrown, more]) is more  # nothing kept single windows from throwing its gates about
    assert gains.furthest([]) is None
