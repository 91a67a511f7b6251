"""Shared contexts against an enumeration of all contexts, and against what models write of their own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fasp_core.data.prompt_set import PromptSet
from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated, masked
from fasp_core.forward.gate_gradients import functional_gradients
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import TokenToxicity, measure_expected
from fasp_core.metrics.shared_contexts import SharedContexts, effective
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, encode, pack, pack_equal
from tests.support.oracles import SET, after, enumerated, worth_of
from tests.support.tiny import KINDS, VOCAB, tiny_lm

PROMPTS = ("I met a red person", "I met a green person", "I met a tall person", "My blue friend", "My old friend")
BLOCKS = (0, 0, 0, 1, 1)
SET_OF = PromptSet("made", "all", PROMPTS, tuple("abcab"), *[("",) * 5] * 3, blocks=BLOCKS)


def measured(lm: LanguageModel, shared: SharedContexts, worth: TokenToxicity) -> tuple[np.ndarray, np.ndarray]:
    """Effects [4, n], total ones first, and weights [n, C]."""
    columns = measure_expected(lm, pack(lm, shared.rows, shared.steps), shared.reader(worth))
    return shared.fold(columns), shared.weights(columns)


@pytest.mark.parametrize(
    ("kind", "removed"), [pytest.param("gpt2", PruneSet(), marks=pytest.mark.slow), ("llama", SET)]
)
def test_the_total_effect_is_what_models_write(kind: str, removed: PruneSet) -> None:
    """Of the unpruned model and of a pruned one, from the contexts of the unpruned one."""
    lm = tiny_lm(kind)
    worth, ids, parts = worth_of(lm), encode(lm, PROMPTS), 50
    drawn = [SharedContexts.draw(lm, SET_OF, ids, 3, 42, seed) for seed in range(parts)]
    with masked(lm, removed):
        right = np.stack([enumerated(lm, row, 3, worth).sum(1) for row in ids], -1)
        found = np.stack([measured(lm, shared, worth)[0][:2] for shared in drawn])
    assert found.shape[1:] == right.shape
    noise = found.std(0, ddof=1) / math.sqrt(parts)
    off = np.abs(found.mean(0) - right) / noise
    assert off.max() < 4
    assert np.sqrt((off**2).mean()) < 1.5
    assert noise.max() < (0.2 if len(removed) else 0.02)  # weights grow with what was pruned


def test_both_effects_row_by_row() -> None:
    """Each context after each prompt of its block, in whole passes, weights from the definition."""
    lm = tiny_lm("llama")
    worth, ids, steps, contexts = worth_of(lm), encode(lm, PROMPTS), 4, 5
    shared = SharedContexts.draw(lm, SET_OF, ids, steps, contexts, seed=3)
    with masked(lm, SET):
        effects, found = measured(lm, shared, worth)
    weights = np.zeros_like(found)
    for i, row in enumerate(ids):
        block = [j for j, b in enumerate(BLOCKS) if b == BLOCKS[i]]
        mine = [r[len(row) :] for r, p in zip(shared.rows, shared.prompts, strict=True) if p == i]
        assert len(mine) == contexts
        assert all(len(context) == steps - 1 for context in mine)
        total, direct = np.zeros((steps, 2)), np.zeros((steps, 2))
        for c, context in enumerate(mine):
            for t in range(steps):
                if lm.stops & set(context[:t]):
                    break
                with masked(lm, SET):
                    _, toxicity = after(lm, torch.tensor([row + context[:t]]), worth)
                    own = math.exp(log_p(lm, row, context[:t]))
                q = np.mean([math.exp(log_p(lm, ids[j], context[:t])) for j in block])
                direct[t] += toxicity[0] / contexts
                total[t] += own / q * toxicity[0] / contexts
                if t == steps - 1:
                    weights[i, c] = own / q
        assert effects[:2, i] == pytest.approx(total.sum(0), rel=1e-3, abs=1e-5)
        assert effects[2:, i] == pytest.approx(direct.sum(0), abs=5e-6)
    assert found == pytest.approx(weights, rel=1e-3, abs=1e-6)


@torch.no_grad()
def log_p(lm: LanguageModel, row: list[int], context: list[int]) -> float:
    return sum(
        math.log(float(after(lm, torch.tensor([row + context[:t]]), worth_of(lm))[0][0, context[t]]))
        for t in range(len(context))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_the_unpruned_model_are_balanced(kind: str) -> None:
    """At most G each, and 1 on average over the prompts of a block, for every context; so much is effective at most."""
    lm = tiny_lm(kind)
    shared = SharedContexts.draw(lm, SET_OF, encode(lm, PROMPTS), 3, 6)
    _, weights = measured(lm, shared, worth_of(lm))
    for those in ([0, 1, 2], [3, 4]):
        w = weights[those]
        assert w.max() <= len(those) + 1e-4
        assert w.mean(0)[w.any(0)] == pytest.approx(1, abs=1e-4)
    each = effective(weights, tuple("abbab"))
    assert list(each) == ["a", "b"]
    assert all(1 < found <= contexts + 0.001 for found, contexts in each.values())
    assert [contexts for _, contexts in each.values()] == [12, 18]


def test_one_step_is_the_expected_measure() -> None:
    lm = tiny_lm("gpt2")
    worth, ids = worth_of(lm), encode(lm, PROMPTS)
    shared = SharedContexts.draw(lm, SET_OF, ids, 1, 2)
    found, weights = measured(lm, shared, worth)
    right = measure_expected(lm, pack(lm, ids), worth)
    assert found == pytest.approx(np.concatenate([right, right]), abs=1e-6)
    assert (weights == 1).all()


def test_effects_of_heads_to_first_order_are_the_slope_of_a_small_step() -> None:
    """Each gate moved a little, by itself, in float64: the total effect with its weights, and the direct one."""
    lm = tiny_lm("llama")
    worth, ids = worth_of(lm), encode(lm, PROMPTS)
    shared = SharedContexts.draw(lm, SET_OF, ids, 3, 2)
    reader = shared.reader(worth)
    lm.model.double()
    try:
        for batch in pack_equal(shared.rows, shared.steps):

            def read(hidden: torch.Tensor, batch: Pack = batch) -> torch.Tensor:
                return reader.columns(lm, hidden, batch).sum(1)

            base, slopes = functional_gradients(lm, batch.ids, read)
            assert base.shape == (len(batch.ids), 5)
            assert slopes.shape == (lm.size, 5, len(batch.ids))
            step = 1e-3
            for flat in range(lm.size):
                sides = []
                for sign in (1, -1):
                    gates = torch.ones(lm.n_layers, lm.n_heads)
                    gates[divmod(flat, lm.n_heads)] += sign * step
                    with gated(lm, gates[None]):
                        hidden = lm.model.base_model(batch.ids).last_hidden_state
                        sides.append(read(hidden).detach().double().numpy())
                slope = -(sides[0] - sides[1]) / (2 * step)
                assert pytest.approx(slope, rel=2e-2, abs=2e-3) == slopes[flat].T
    finally:
        lm.model.float()


def test_prompts_without_partners_are_refused() -> None:
    lm = tiny_lm("gpt2")
    ids = encode(lm, PROMPTS)
    alone = replace(SET_OF, blocks=(0, 0, 1, 2, 2), templates=("met", "met", "seen", "my", "my"))
    with pytest.raises(InputError, match="every group has a prompt"):
        SharedContexts.draw(lm, alone, ids, 3, 2)
    with pytest.raises(InputError, match="at least"):
        SharedContexts.draw(lm, SET_OF, ids, 0, 2)


def test_the_contexts_are_those_of_the_blocks_prompts() -> None:
    """Dealt out evenly: of six contexts each of three prompts wrote two; all prompts of a block have the same six."""
    lm = tiny_lm("gpt2")
    ids = encode(lm, PROMPTS)
    shared = SharedContexts.draw(lm, SET_OF, ids, 4, 6)
    contexts = [
        [tuple(r[len(ids[i]) :]) for r, p in zip(shared.rows, shared.prompts, strict=True) if p == i]
        for i in range(len(ids))
    ]
    assert contexts[0] == contexts[1] == contexts[2] != contexts[3] == contexts[4]
    assert all(0 <= t < VOCAB for row in contexts[0] for t in row)


def test_a_prompt_alone_in_its_block_joins_another_of_its_template() -> None:
    lm = tiny_lm("gpt2")
    ids, templates = encode(lm, PROMPTS), ("met", "met", "met", "my", "my")
    alone = replace(SET_OF, blocks=(0, 0, 1, 2, 2), templates=templates)
    found, whole = (SharedContexts.draw(lm, prompts, ids, 4, 6) for prompts in (alone, SET_OF))
    assert found.rows == whole.rows
    assert torch.equal(found.log_q, whole.log_q)
