"""What steps see: paragraphs, halves of templates and descriptors, prompts set apart; and gates that close."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasp_core.data.divisions import quarters, third
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import meters
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gain_prompts import combined, gap_of
from fasp_core.scoring.learned.gain_steps import CHECK, Course, averaged
from fasp_core.scoring.learned.gains import learn
from fasp_core.scoring.learned.gates import GainsConfig, expected_l0
from fasp_core.storage.store import Store
from tests.support.made.courses import AXIS, GUILTY, TEMPLATES, course
from tests.support.tiny import STARTS, tiny_lm
from tests.support.words import TableScorer, guilty_model
from tests.support.worlds import use_scorer, write_axis


def test_no_part_of_a_division_shares_what_it_should_not(bias: BiasConfig) -> None:
    pool = bias.pool()
    parts = quarters(pool, 5)
    assert len(parts) == 4
    assert sum(len(p) for p in parts if p) >= len(pool)  # blue, with its single descriptor, twice
    for part in parts:
        assert set(part.groups) == set(AXIS)
    kinds = {(frozenset(p.templates), frozenset(d for d in p.descriptors if d != "blue")) for p in parts}
    templates, descriptors = ({kind[i] for kind in kinds} for i in (0, 1))
    assert len(kinds) == 4
    assert len(templates) == len(descriptors) == 2
    assert not frozenset.intersection(*templates)
    assert not frozenset.intersection(*descriptors)
    assert {p.digest for p in quarters(pool, 6)} != {p.digest for p in parts}
    seen, apart = third(pool, 0)
    assert not set(seen.templates) & set(apart.templates)
    assert {d for d in set(seen.descriptors) & set(apart.descriptors) if d in AXIS["red"]} == set()
    assert set(apart.groups) == set(seen.groups) == set(AXIS)
    assert len(set(apart.templates)) == len(TEMPLATES) // 3
    assert third(pool, 0)[1] == apart != third(pool, 1)[1]


def test_prompts_without_templates_cannot_be_divided(tmp_path: Path, text: TextConfig, monkeypatch: Any) -> None:
    use_scorer(monkeypatch, TableScorer(), complete=False)
    own = BiasConfig(write_axis(tmp_path / "own.csv", ("person", "house", "team", "tree"), ("met",), STARTS), "valid")
    for told in ({"cells": "mean"}, {"patience": 5}):
        with pytest.raises(InputError, match="cannot be divided"):
            course(own, text, tmp_path, **told)


def test_a_soft_maximum_lies_between_mean_and_maximum() -> None:
    gaps = torch.tensor([0.1, 0.2, 0.9, 0.4], dtype=torch.float64, requires_grad=True)
    mean, worst = (combined(gaps, how, gaps.mean().detach()) for how in ("mean", "worst"))
    assert float(mean.detach()) == pytest.approx(0.4)
    assert 0.4 < float(worst.detach()) < 0.9
    (toward,) = torch.autograd.grad(worst, gaps)
    assert float(toward.sum()) == pytest.approx(1)
    assert int(toward.argmax()) == 2
    same = torch.full((4,), 0.3)
    assert float(combined(same, "worst", same.mean())) == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("cells", ["none", "mean", "worst"])
def test_cells_start_at_the_unpruned_gap_and_have_its_gradient(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, cells: str
) -> None:
    run = course(bias, text, tmp_path, cells=cells, patience=CHECK)
    assert run._gap(np.random.default_rng(5)) == pytest.approx(1, rel=1e-5)
    with torch.no_grad():
        run.values.copy_(torch.from_numpy(np.random.default_rng(1).uniform(0.3, 1.2, run.values.shape)))
    run.values.grad = None
    run._gap(np.random.default_rng(5))
    assert run.values.grad is not None
    found, ends = run.values.grad.clone(), []
    for sign in (1, -1):
        with torch.no_grad():
            run.values[GUILTY] += sign * 0.01
        ends.append(run._gap(np.random.default_rng(5)))
        with torch.no_grad():
            run.values[GUILTY] -= sign * 0.01
    assert float(found[GUILTY]) == pytest.approx((ends[0] - ends[1]) / 0.02, rel=0.03, abs=2e-3)


def test_steps_draw_other_halves_and_none_of_what_is_apart(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    run = course(bias, text, tmp_path, cells="mean", patience=CHECK)
    (axis,) = run.axes
    assert axis.seen is not None
    assert axis.apart is not None
    apart = {tuple(row) for row in axis.apart.ids}
    drawn = []
    for _ in range(3):
        parts = axis.parts(np.random.default_rng(0), run.step)
        assert len(parts) > 1
        rows = {tuple(row) for part in parts for row in part.ids}
        assert not rows & apart
        drawn.append(rows)
        run.losses.append([1.0, 0.0, 0.0])  # a step is made
    assert drawn[0] != drawn[1] != drawn[2]


def test_learning_stops_when_what_no_step_sees_gets_no_better(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, store = tiny_lm("gpt2"), Store(tmp_path / "store")
    values = iter([0.8, 0.5, 0.6, 0.7, 0.9, 0.4])
    monkeypatch.setattr(Course, "_held_gap", lambda *_: next(values))
    config = GainsConfig(steps=60, prompts=24, passages=0, paragraphs=0, windows=0, patience=2 * CHECK, average=1)
    found = learn(lm, bias, text, config, store)
    seen = [[0, 1.0], [CHECK, 0.8], [2 * CHECK, 0.5], [3 * CHECK, 0.6], [4 * CHECK, 0.7]]
    assert found.held.tolist() == seen
    assert (len(found.losses), found.at_step) == (4 * CHECK, 2 * CHECK)
    assert np.array_equal(found.gates, found.path[2 * CHECK])
    again = gains.find(lm.id, bias, text, config, store)
    assert again is not None
    assert again.at_step == found.at_step
    document = again.as_dict()
    assert (document["steps"], document["gates_of_step"]) == (4 * CHECK, 2 * CHECK)
    assert document["unseen_curve"][2] == {"step": 2 * CHECK, "gap_relative": 0.5}


def test_gains_that_are_worse_than_the_unpruned_model_are_not_taken(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Course, "_held_gap", lambda *_: 1.2)
    config = GainsConfig(steps=40, prompts=24, passages=0, paragraphs=0, windows=0, patience=CHECK)
    found = learn(tiny_lm("gpt2"), bias, text, config, Store(tmp_path / "store"))
    assert (len(found.losses), found.at_step) == (CHECK, 0)
    assert (found.gates == 1).all()
    assert not len(found.at(1))


def test_paragraphs_are_part_of_the_loss(bias: BiasConfig, text: TextConfig, tmp_path: Path, paragraphs: None) -> None:
    run = course(bias, text, tmp_path, paragraphs=2, windows=0, cost=5.0)
    assert len(run.paragraphs) == 4  # 150 tokens of documents of 40 are cut after the fourth
    run.move()
    assert len(run.losses[0]) == 4
    assert run.losses[0][3] == pytest.approx(0, abs=1e-6)  # all gates open
    with torch.no_grad():
        run.values.fill_(0.2)
    run.values.grad = None
    rise = run._cost(run.paragraphs, iter([0, 1]), 5.0, -9.0)
    assert rise != pytest.approx(0, abs=1e-6)
    assert run.values.grad is not None
    assert float(run.values.grad.abs().max()) > 0


def test_multipliers_follow_what_steps_have_cost(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    run = course(bias, text, tmp_path, cost=10.0, task_cost=0.5, max_nats=0.01, dual=4.0)
    assert run.counts == [10.0, 0.5, 10.0]
    run.losses = [[1.0, 0.03, 0.1], [0.9, -0.2, -1.0], [0.8, -0.9, 0.2]]
    by_hand = [10.0 + 40 * 0.02, 0.5 + 2 * 0.1]
    by_hand = [by_hand[0] - 40 * 0.21, max(0, by_hand[1] - 2 * 1.0)]
    by_hand = [max(0, by_hand[0] - 40 * 0.91), by_hand[1] + 2 * 0.2]
    assert run.counts == pytest.approx([*by_hand, 10.0])
    assert course(bias, text, tmp_path, cost=10.0).counts == [10.0, 1.0, 10.0]


def test_with_multipliers_what_is_within_a_limit_counts_too(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    """Else single steps, which scatter about the limit, would always push away from it."""
    for dual, moved in ((0.0, False), (2.0, True)):
        run = course(bias, text, tmp_path, dual=dual)
        with torch.no_grad():
            run.values[GUILTY] = 0.2
        run.values.grad = None
        rise = run._cost(run.windows, iter([0]), 5.0, 9.0)  # far within
        assert rise < 9
        assert (run.values.grad is not None) == moved
        run.values.grad = None
        run._cost(run.windows, iter([0]), 0.0, -9.0)
        assert run.values.grad is None


def test_gates_may_be_the_mean_of_the_last_steps(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    lm, store = tiny_lm("gpt2"), Store(tmp_path / "store")
    config = GainsConfig(steps=5, prompts=24, passages=0, paragraphs=0, average=3)
    found = learn(lm, bias, text, config, store)
    assert np.allclose(found.gates, found.path[3:6].mean(0))
    assert not np.allclose(found.gates, found.path[5])
    assert np.array_equal(averaged(found.path[:1], 3), found.path[0])
    assert np.allclose(averaged(found.path[:3], 9), found.path[1:3].mean(0))


def test_heads_of_a_set_keep_their_gates_while_the_others_make_up_for_them(
    bias: BiasConfig, text: TextConfig, tmp_path: Path
) -> None:
    lm, store, kept = tiny_lm("gpt2"), Store(tmp_path / "store"), "L0H1,L1H2*0.4"
    config = GainsConfig(steps=4, prompts=24, passages=0, paragraphs=0, around=kept)
    found = learn(lm, bias, text, config, store)
    assert (found.path[:, 0, 1] == 0).all()
    assert np.allclose(found.path[:, 1, 2], 0.4)
    others = np.ones(found.gates.shape, dtype=bool)
    others[[0, 1], [1, 2]] = False
    assert (found.path[0][others] == 1).all()
    assert (found.gates[others] != 1).all()
    assert found.at(1.0).heads >= {(0, 1)}
    assert (1, 2, 0.4) in found.at(1.0).gains
    half = found.at(0.5).gates(lm.n_layers, lm.n_heads)
    assert np.allclose(half[others], (1 + found.gates[others]) / 2, atol=1e-4)
    assert (half[0, 1], half[1, 2]) == (0, 0.4)
    assert found.at(0.0) == PruneSet.parse(kept)
    with pytest.raises(InputError, match="L7H0 does not exist"):
        learn(lm, bias, text, replace(config, around="L7H0"), store)


def test_only_what_differs_from_before_is_in_a_key(bias: BiasConfig, text: TextConfig, paragraphs: None) -> None:
    model = tiny_lm("llama").id
    before = ("reading", "steps", "rate", "prompts", "windows", "passages", "max_nats", "cost", "task_cost", "keep")
    usual = {"passages": 0, "paragraphs": 0, "average": 1, "clip": 0.0, "memory": 0.999}
    old = gains.gains_key(model, bias, text, GainsConfig(**usual))
    assert tuple(old["gains"]) == (*before, "pool", "seed")
    assert set(old) - set(meters.result_key(bias, model)) == {"gains", "text", "passages", "gap"}
    keys = [old]
    for told in (
        {"paragraphs": 2},
        {"cells": "mean"},
        {"cells": "worst"},
        {"patience": 5},
        {"method": "hard-concrete"},
        {"method": "hard-concrete", "heads": 4},
        {"method": "hard-concrete", "sparsity": 2.0},
        {"dual": 1.0},
        {"average": 4},
        {"around": "L0H1"},
        {"clip": 0.5},
        {"memory": 0.9},
        {"precision": "bfloat16"},
    ):
        keys.append(gains.gains_key(model, bias, text, GainsConfig(**usual | told)))
    assert len({repr(key) for key in keys}) == len(keys)


def test_other_prompts_than_validation_ones_are_refused(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="validation prompts, not on 'test'"):
        learn(tiny_lm("llama"), BiasConfig("colors", "test"), text, GainsConfig(), Store(tmp_path))


def test_hard_concrete_gates_remove_the_guilty_head(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    lm, store = guilty_model(*GUILTY), Store(tmp_path / "store")
    told = {"method": "hard-concrete", "steps": 30, "rate": 0.3, "prompts": 24, "passages": 0, "paragraphs": 0}
    for seed in (0, 1):
        found = learn(lm, bias, text, GainsConfig(**told, heads=1, cost=0.0, seed=seed), store)
        assert found.at(1).format() == f"L{GUILTY[0]}H{GUILTY[1]}"
        assert not found.at(1).gains
        assert found.path[-1].argmin() == GUILTY[0] * lm.n_heads + GUILTY[1]
    assert [
        one.config.seed
        for one in sorted(
            gains.stored(lm.id, "colors", "neutral", "hard-concrete", store), key=lambda one: one.config.seed
        )
    ] == [0, 1]
    assert gains.stored(lm.id, "colors", "neutral", "gains", store) == []
    assert gains.stored(lm.id, "colors", "counted", "hard-concrete", store) == []
    with pytest.raises(InputError, match="not fewer than the model's"):
        learn(lm, bias, text, GainsConfig(**told, heads=lm.size), store)


def test_the_gradient_of_a_closing_gate_is_its_difference(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    run = course(bias, text, tmp_path, method="hard-concrete", heads=2, windows=0)
    with torch.no_grad():
        run.values.copy_(torch.from_numpy(np.random.default_rng(4).normal(0, 0.5, run.values.shape)))

    def loss() -> float:
        run.values.grad, run.noise = None, np.random.default_rng(9)
        relative = run._gap(np.random.default_rng(5))
        penalty = run.kind.penalty(run.values)
        assert penalty is not None
        run._add(penalty)
        return relative + float(penalty.detach())

    loss()
    assert run.values.grad is not None
    found = run.values.grad.clone()
    for head in (GUILTY, (0, 0)):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                run.values[head] += sign * 0.01
            ends.append(loss())
            with torch.no_grad():
                run.values[head] -= sign * 0.01
        assert float(found[head]) == pytest.approx((ends[0] - ends[1]) / 0.02, rel=0.03, abs=2e-3)


def test_a_stopped_run_of_closing_gates_goes_on_to_the_same(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    lm = tiny_lm("llama")
    config = GainsConfig(
        steps=CHECK + 2,
        prompts=24,
        passages=0,
        paragraphs=0,
        method="hard-concrete",
        heads=2,
        cells="mean",
        patience=20,
    )
    straight = learn(lm, bias, text, config, Store(tmp_path / "whole"))

    def stop(done: float, _total: float, told: str) -> None:
        if done == CHECK + 1 and "gap" in told:
            raise KeyboardInterrupt

    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        learn(lm, bias, text, config, store, stop)
    again = learn(lm, bias, text, config, store)
    assert again.path == pytest.approx(straight.path, abs=1e-5)
    assert again.held == pytest.approx(straight.held, abs=1e-5)
    assert asdict(again.config) == asdict(straight.config)
    assert float(expected_l0(torch.from_numpy(again.path[-1]))) < again.gates.size
    assert float(gap_of(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]), 2)) == 2


@pytest.mark.parametrize("patience", [0, 20])
def test_more_steps_go_on_and_fewer_are_the_first_of_them(
    bias: BiasConfig, text: TextConfig, tmp_path: Path, patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, made = tiny_lm("gpt2"), []
    move = Course.move
    monkeypatch.setattr(Course, "move", lambda run: (made.append(run.step), move(run)))

    def found(steps: int, store: str) -> gains.Gains:
        made.clear()
        config = GainsConfig(steps=steps, prompts=24, passages=0, paragraphs=0, patience=patience)
        return learn(lm, bias, text, config, Store(tmp_path / store))

    straight, short = found(CHECK + 4, "whole"), found(CHECK + 2, "short")
    found(CHECK + 2, "more")
    assert made == list(range(CHECK + 2))
    more = found(CHECK + 4, "more")
    assert made == [CHECK + 2, CHECK + 3]
    fewer = found(CHECK + 2, "whole")
    assert made == []
    for one, other in ((more, straight), (fewer, short)):
        assert one.path == pytest.approx(other.path, abs=1e-6)
        assert one.losses == pytest.approx(other.losses, abs=1e-6)
        assert one.held == pytest.approx(other.held, abs=1e-6)
