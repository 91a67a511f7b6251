"""Gates that are learned on the words after contexts that all groups of a block share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap import gap, group_codes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.measurements import toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.packing import pack_equal
from fasp_core.scoring.learned import gain_steps
from fasp_core.scoring.learned.gain_steps import Course
from fasp_core.scoring.learned.gains import axes_of, gains_key, learn, stored
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.storage.store import Store
from tests.support.made.courses import GUILTY, course
from tests.support.tiny import tiny_lm
from tests.support.words import guilty_model

ALL = 10_000  # prompts of a step: more rows than there are


@pytest.fixture
def later(bias: BiasConfig) -> BiasConfig:
    return replace(bias, steps=3, contexts=2)


def drawn_gates(run: Course) -> np.ndarray:
    gates = np.random.default_rng(1).uniform(0.3, 1.4, run.values.shape)
    with torch.no_grad():
        run.values.copy_(torch.from_numpy(gates))
    return gates


@pytest.mark.parametrize("reading", ["neutral", "counted"])
def test_the_gap_of_all_rows_is_the_one_that_is_measured(
    later: BiasConfig, text: TextConfig, tmp_path: Path, reading: str
) -> None:
    run = course(later, text, tmp_path, prompts=ALL, reading=reading)
    relative_open = run._gap(np.random.default_rng(0))
    gates = drawn_gates(run)
    relative, store = run._gap(np.random.default_rng(0)), Store(tmp_path / "measured")
    measured = [toxicity_of(run.lm, one, later, store) for one in (PruneSet(), PruneSet.from_gates(gates))]
    codes, _ = group_codes(measured[0].groups)
    base, pruned = (float(gap(one.row(f"{reading} direct"), codes)) for one in measured)
    assert run.base_gap == pytest.approx(base, rel=1e-5)
    assert relative_open == pytest.approx(1, rel=1e-4)
    assert relative == pytest.approx(pruned / base, rel=1e-4)
    assert abs(relative - 1) > 0.01


def test_the_next_word_and_those_after_contexts_fall_together(
    later: BiasConfig, text: TextConfig, tmp_path: Path
) -> None:
    both = axes_of(later)
    assert [(one.steps, one.contexts) for one in both] == [(3, 2), (1, None)]
    told: dict[str, Any] = {"passages": 0, "paragraphs": 0}
    store, found = Store(tmp_path / "store"), []
    for biases in (both, both[:1], both[1:]):
        config = GainsConfig(**told, prompts=len(biases) * ALL)
        run = Course(guilty_model(*GUILTY), biases, text, config, store, None)
        drawn_gates(run)
        value = run._gap(np.random.default_rng(0))
        assert run.values.grad is not None
        found.append((value, run.values.grad.numpy()))
    (value, gradient), *each = found
    assert value == pytest.approx(np.mean([one for one, _ in each]), rel=1e-4)
    assert gradient == pytest.approx(np.mean([one for _, one in each], axis=0), rel=1e-3, abs=1e-5)
    assert abs(each[0][0] - each[1][0]) > 0.01


def test_rows_of_a_block_after_one_context_go_together(later: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    run = course(later, text, tmp_path, prompts=6)
    (axis,) = run.axes
    assert axis.gauge.shared is not None
    assert later.contexts is not None
    assert sorted(np.concatenate(axis.blocks)) == list(range(len(axis.gauge.rows)))
    for block in axis.blocks:
        tails = {tuple(axis.gauge.rows[i][1 - later.steps :]) for i in block}
        assert len(tails) == 1
        assert len({int(axis.gauge.shared.prompts[i]) for i in block}) == len(block)


def test_its_gradient_is_its_difference_in_one_pack_and_in_several(
    later: BiasConfig, text: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[float, np.ndarray]] = []
    for most, together in ((4096, 4096), (24, 4096), (24, 0)):  # in one, in several, and in several that run twice
        monkeypatch.setattr(gain_steps, "pack", lambda _lm, rows, steps, most=most: pack_equal(rows, steps, most))
        monkeypatch.setattr(gain_steps, "TOGETHER", together)
        run = course(later, text, tmp_path)
        drawn_gates(run)
        value = run._gap(np.random.default_rng(5))
        assert run.values.grad is not None
        found.append((value, run.values.grad.numpy().copy()))
    for value, gradient in found[1:]:
        assert value == pytest.approx(found[0][0], rel=1e-5)
        assert gradient == pytest.approx(found[0][1], rel=1e-3, abs=1e-6)
    step = 1e-2
    for head in ((1, 3), (0, 0), (1, 2)):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                run.values[head] += sign * step
            ends.append(run._gap(np.random.default_rng(5)))
            with torch.no_grad():
                run.values[head] -= sign * step
        assert float(found[0][1][head]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02, abs=2e-4)


def test_the_guilty_head_is_turned_down(later: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    config: dict[str, Any] = {"steps": 20, "rate": 0.1, "prompts": 60, "passages": 0, "paragraphs": 0, "cost": 0.0}
    run = course(later, text, tmp_path, **config)
    store = Store(tmp_path / "store")
    found = learn(run.lm, later, text, GainsConfig(**config, keep=0.5), store)
    assert (found.words, found.as_dict()["words"]) == (3, 3)
    assert [one.words for one in stored(run.lm.id, later.axis, "neutral", "gains", store)] == [3]
    gates = found.gates
    assert np.unravel_index(gates.argmin(), gates.shape) == (1, 3)
    assert gates[1, 3] < 0.5
    assert gains_key(run.lm.id, later, text, GainsConfig()) != gains_key(
        run.lm.id, replace(later, steps=1, contexts=None), text, GainsConfig()
    )


def test_cells_patience_and_several_axes_are_of_the_next_word(
    later: BiasConfig, text: TextConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="by the next word alone"):
        course(later, text, tmp_path, cells="mean")
    config = GainsConfig(passages=0, paragraphs=0)
    with pytest.raises(InputError, match="by the next word alone"):
        Course(tiny_lm("gpt2"), [later, replace(later, axis="b")], text, config, Store(tmp_path / "store"), None)
