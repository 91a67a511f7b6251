"""Every architecture against copies whose weights are zeroed by name, and resumed passes against whole ones."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fasp_core.forward.ablation import gated, masked
from fasp_core.forward.recorded_pass import ResumablePass, final_hidden
from fasp_core.forward.sweep import sweep_heads
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import token_nll
from fasp_core.model.architectures import ARCHITECTURES
from fasp_core.model.language_model import LanguageModel
from tests.support.oracles import OUT_PROJ, without
from tests.support.tiny import HEAD_DIMS, HEADS, KINDS, KV_HEADS, tiny_config, tiny_lm, token_rows

LAYERS = 2
MLP_OUT = {
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gpt_neo": "transformer.h.{}.mlp.c_proj",
    "gptj": "transformer.h.{}.mlp.fc_out",
    "llama": "model.layers.{}.mlp.down_proj",
    "mistral": "model.layers.{}.mlp.down_proj",
    "qwen2": "model.layers.{}.mlp.down_proj",
    "qwen3": "model.layers.{}.mlp.down_proj",
    "gemma3_text": "model.layers.{}.mlp.down_proj",
    "opt": "model.decoder.layers.{}.fc2",
    "opt_post_norm": "model.decoder.layers.{}.fc2",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "phi3": "model.layers.{}.mlp.down_proj",
}
SETS = (
    [(0, 1)],
    [(1, 3)],
    [(0, 0), (1, 2)],
    [(1, 0), (1, 1), (1, 2), (1, 3)],
    [(layer, head) for layer in range(LAYERS) for head in range(HEADS)],
)


@pytest.fixture(scope="module", params=KINDS)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return tiny_lm(request.param, n_layers=LAYERS)


def kind_of(lm: LanguageModel) -> str:
    return lm.name.removeprefix("tiny-")


@torch.no_grad()
def logits(model: Any, ids: Tensor) -> Tensor:
    out: Tensor = model(ids).logits
    return out


def hooks(lm: LanguageModel) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in lm.model.modules())


def test_every_supported_architecture_is_tested() -> None:
    assert {tiny_config(kind).model_type for kind in KINDS} == set(ARCHITECTURES)


def test_shape(lm: LanguageModel) -> None:
    kind = kind_of(lm)
    assert (lm.n_layers, lm.n_heads, lm.size) == (LAYERS, HEADS, LAYERS * HEADS)
    assert (lm.n_kv_heads, lm.head_dim) == (KV_HEADS[kind], HEAD_DIMS[kind])


@pytest.mark.parametrize("heads", SETS, ids=lambda heads: PruneSet.of(heads).format())
def test_masking_equals_zeroing_the_weights(lm: LanguageModel, heads: list[tuple[int, int]]) -> None:
    ids = token_rows(2, 11)
    expected = logits(without(lm, heads), ids)
    with masked(lm, PruneSet.of(heads)):
        found = logits(lm.model, ids)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (expected - logits(lm.model, ids)).abs().max() > 0.1  # the heads matter


@pytest.mark.parametrize("text", ["L0N5", "L1N0-9", "L0H1,L0N3-20,L1H2,L1N7"])
def test_masking_neurons_equals_zeroing_their_columns(lm: LanguageModel, text: str) -> None:
    ids, prune_set = token_rows(2, 11), PruneSet.parse(text)
    model = without(lm, sorted(prune_set.heads))
    for layer, unit in prune_set.neurons:
        weight = model.get_submodule(MLP_OUT[kind_of(lm)].format(layer)).weight.data
        assert lm.n_neurons in weight.shape
        (weight if kind_of(lm) == "gpt2" else weight.T)[unit] = 0  # Conv1D keeps [in, out]
    expected = logits(model, ids)
    with masked(lm, prune_set):
        found = logits(lm.model, ids)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (expected - logits(lm.model, ids)).abs().max() > 1e-3  # the neurons matter
    assert hooks(lm) == 0


def test_each_row_has_its_own_gates_of_neurons(lm: LanguageModel) -> None:
    ids, gates = token_rows(3, 9), torch.rand(3, lm.n_neurons, generator=torch.Generator().manual_seed(6))
    heads = torch.ones(LAYERS, HEADS)
    with gated(lm, heads, {1: gates}):
        together = logits(lm.model, ids)
    for row in range(3):
        with gated(lm, heads, {1: gates[row]}):
            alone = logits(lm.model, ids[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="gates of neurons"), gated(lm, heads, {1: gates[:, 1:]}):
        pass


def test_a_removed_layer_comes_back_bit_for_bit(lm: LanguageModel) -> None:
    ids = token_rows(2, 7)
    before = logits(lm.model, ids)
    for layer in range(LAYERS):
        with masked(lm, PruneSet.of((layer, head) for head in range(HEADS))):
            assert not torch.equal(logits(lm.model, ids), before)
        assert torch.equal(logits(lm.model, ids), before)
    with pytest.raises(RuntimeError, match="inside"), masked(lm, PruneSet.of([(0, 0)])):
        raise RuntimeError("inside")
    assert torch.equal(logits(lm.model, ids), before)
    assert hooks(lm) == 0


def test_gates_of_one_change_no_bit(lm: LanguageModel) -> None:
    ids = token_rows(2, 7)
    before = logits(lm.model, ids)
    gates = torch.ones(LAYERS, HEADS, requires_grad=True)  # a hook is set, unlike for plain ones
    with gated(lm, gates):
        assert torch.equal(logits(lm.model, ids), before)


def test_each_row_has_its_own_gates(lm: LanguageModel) -> None:
    ids = token_rows(4, 9)
    gates = torch.rand(4, LAYERS, HEADS, generator=torch.Generator().manual_seed(5))
    gates[1] = 1.0
    gates[2, 1, 2] = 0.0
    with gated(lm, gates):
        together = logits(lm.model, ids)
    for row in range(4):
        with gated(lm, gates[row]):
            alone = logits(lm.model, ids[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1], logits(lm.model, ids[1:2])[0], atol=1e-5, rtol=0)
    assert (together[0] - logits(lm.model, ids[:1])[0]).abs().max() > 0.1


def test_gate_gradients_equal_finite_differences(lm: LanguageModel) -> None:
    """Where no gate is 1; at 1 they are those of test_first_order.py."""
    double = copy.copy(lm)
    double.model = copy.deepcopy(lm.model).double()
    double.__dict__.pop("blocks", None)  # the copy's own
    ids = token_rows(1, 8)
    weights = torch.randn(8, lm.model.config.vocab_size, generator=torch.Generator().manual_seed(3)).double()

    def value(gates: Tensor) -> Tensor:
        with gated(double, gates):
            out: Tensor = (double.model(ids).logits[0] * weights).mean()
            return out

    at = torch.full((LAYERS, HEADS), 0.6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(at), at)
    step = 1e-3  # norms of some architectures compute in float32 whatever the weights are
    differences = torch.zeros(LAYERS, HEADS, dtype=torch.float64)
    with torch.no_grad():
        for layer in range(LAYERS):
            for head in range(HEADS):
                nudge = torch.zeros(LAYERS, HEADS, dtype=torch.float64)
                nudge[layer, head] = step
                differences[layer, head] = (value(at + nudge) - value(at - nudge)) / (2 * step)
    torch.testing.assert_close(gradient, differences, rtol=1e-2, atol=1e-2 * float(differences.abs().max()))
    assert differences.abs().min() > 0


def test_q_k_v_of_a_head_feed_this_head_alone(lm: LanguageModel) -> None:
    """With its q, k and v at zero a head is silent, and those outside its group do not notice."""
    kind, ids = kind_of(lm), token_rows(2, 6)
    group = HEADS // KV_HEADS[kind]
    proj = OUT_PROJ[kind].format(0)

    def heads_of(model: Any) -> Tensor:
        """[rows, T, H, head_dim] as the first block's output projection gets them."""
        seen = []
        handle = model.get_submodule(proj).register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
        logits(model, ids)
        handle.remove()
        return seen[0].unflatten(-1, (HEADS, HEAD_DIMS[kind]))

    before = heads_of(lm.model)
    for head in range(HEADS):
        model = copy.deepcopy(lm.model)
        block = lm.architecture.block_list(model)[0]
        tensors = lm.architecture.head_qkv(block, HEADS, KV_HEADS[kind], HEAD_DIMS[kind])[head]
        for tensor in tensors:
            tensor.zero_()  # views of the copy's parameters
        after = heads_of(model)
        members = [h for h in range(HEADS) if h // group == head // group]
        others = [h for h in range(HEADS) if h not in members]
        assert after[:, :, members].abs().max() == 0
        assert torch.equal(after[:, :, others], before[:, :, others])
        fused_or_not = sum(t.numel() for t in tensors if t.ndim == 2)
        assert fused_or_not == 3 * HEAD_DIMS[kind] * lm.model.config.hidden_size


# resumed passes


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    return [token_rows(2, 9, seed=1), token_rows(1, 14, seed=2), token_rows(3, 2, seed=3)]


def whole_nll(model: Any, ids: Tensor) -> Tensor:
    """[B, T-1] nats from the model's own logits."""
    return torch.nn.functional.cross_entropy(logits(model, ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")


def test_resumed_passes_equal_whole_ones(lm: LanguageModel, batches: list[Tensor]) -> None:
    seen = []
    for flat, readings in sweep_heads(lm, batches, lambda ids, hidden: token_nll(lm, hidden, ids).numpy()):
        seen.append(flat)
        model = lm.model if flat < 0 else without(lm, [divmod(flat, HEADS)])
        for ids, nll in zip(batches, readings, strict=True):
            np.testing.assert_allclose(nll, whole_nll(model, ids).numpy(), atol=1e-5, rtol=0)
    assert seen == [-1, *range(lm.size)]


def test_between_heads_the_model_is_whole(lm: LanguageModel, batches: list[Tensor]) -> None:
    before = logits(lm.model, batches[0])
    sweep = sweep_heads(lm, batches, lambda _i, hidden: hidden[0, 0, :1].numpy())
    for _ in range(3):
        next(sweep)
        assert hooks(lm) == 0
        assert torch.equal(logits(lm.model, batches[0]), before)


@torch.no_grad()
def test_a_pass_can_be_resumed_at_every_block(lm: LanguageModel) -> None:
    ids = token_rows(2, 10)
    staged = ResumablePass(lm, ids)
    torch.testing.assert_close(staged.base, final_hidden(lm, ids), atol=0, rtol=0)
    for layer in range(LAYERS):
        assert staged.layer == layer
        torch.testing.assert_close(staged.resume(), staged.base, atol=1e-6, rtol=0)
        staged.advance()
    torch.testing.assert_close(lm.logits(staged.resume()), logits(lm.model, ids), atol=1e-5, rtol=0)
