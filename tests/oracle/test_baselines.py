"""The two scores that need no ablation, against weights picked by name and against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fasp_core.data.text import TextConfig, token_windows
from fasp_core.forward.ablation import gated
from fasp_core.scoring.baselines import gradient, magnitude
from tests.support.tiny import HEADS, tiny_lm
from tests.support.worlds import write_text

SIZE = 2 * HEADS


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    return write_text(tmp_path_factory.mktemp("text"), 200, tokens=60, window=24, stride=20)  # overlapping and ragged


def head_weights(kind: str, state: dict[str, torch.Tensor], layer: int, head: int) -> list[torch.Tensor]:
    """A head's q, k, v and output weights and q, k, v biases, by name and row, as each model's code splits them."""
    mine, kv = slice(8 * head, 8 * head + 8), slice(8 * (head // 2), 8 * (head // 2) + 8)
    if kind == "gpt2":
        attn = f"transformer.h.{layer}.attn."
        w, b = state[attn + "c_attn.weight"], state[attn + "c_attn.bias"]
        fused = [part[..., mine] for tensor in (w, b) for part in tensor.chunk(3, dim=-1)]
        return [*fused, state[attn + "c_proj.weight"][mine]]
    if kind == "gpt_neox":
        attn = f"gpt_neox.layers.{layer}.attention."
        rows = slice(24 * head, 24 * head + 24)
        return [
            state[attn + "query_key_value.weight"][rows],
            state[attn + "query_key_value.bias"][rows],
            state[attn + "dense.weight"][:, mine],
        ]
    attn = f"model.layers.{layer}.self_attn."
    out = state[attn + "o_proj.weight"][:, mine]
    if kind == "phi3":
        q, k, v = state[attn + "qkv_proj.weight"].split([32, 16, 16])
        return [q[mine], k[kv], v[kv], out]
    tensors = [out]
    for name, part in (("q", mine), ("k", kv), ("v", kv)):
        tensors.append(state[f"{attn}{name}_proj.weight"][part])
        if kind == "qwen2":
            tensors.append(state[f"{attn}{name}_proj.bias"][part])
    return tensors


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "qwen2", "phi3"])
def test_magnitude_by_name(kind: str) -> None:
    lm = tiny_lm(kind)
    state = lm.model.state_dict()
    expected = [
        math.sqrt(sum(x * x for t in head_weights(kind, state, *divmod(i, HEADS)) for x in t.flatten().tolist()))
        for i in range(SIZE)
    ]
    np.testing.assert_allclose(magnitude(lm), expected, rtol=1e-6)
    assert len(set(expected)) == SIZE


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text", "opt"])  # gates of all kinds: test_masks_architectures.py
def test_gradient_by_finite_differences(kind: str, text: TextConfig) -> None:
    lm = tiny_lm(kind)
    windows = token_windows(lm, text)
    found = gradient(lm, windows)

    def losses(gates: np.ndarray) -> list[float]:
        """Mean NLL of the scored targets of each window, in double precision where the model can."""
        out = []
        with torch.no_grad(), gated(lm, gates):
            for ids, first in windows.batches:
                for row, start in zip(ids, first, strict=True):
                    log_p = lm.model(row[None]).logits[0].double().log_softmax(-1)
                    out.append(float(np.mean([-float(log_p[t - 1, row[t]]) for t in range(start, len(row))])))
        return out

    lm.model.double()
    # OPT's ReLU has kinks to stay clear of; norms of others compute in float32, which small steps would feel
    step, expected = 1e-6 if kind.startswith("opt") else 1e-3, np.zeros((2, HEADS))
    for layer in range(2):
        for head in range(HEADS):
            up, down = np.ones((2, HEADS)), np.ones((2, HEADS))
            up[layer, head] += step
            down[layer, head] -= step
            expected[layer, head] = sum(abs(a - b) / (2 * step) for a, b in zip(losses(up), losses(down), strict=True))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected.reshape(-1), atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(found.reshape(2, HEADS), axis=1), 1, rtol=1e-6)
    assert np.ptp(found) > 0.1


def test_the_gradient_leaves_no_trace(text: TextConfig) -> None:
    lm = tiny_lm("llama")
    before = [p.clone() for p in lm.model.parameters()]
    gradient(lm, token_windows(lm, text))
    assert all(torch.equal(a, b) for a, b in zip(before, lm.model.parameters(), strict=True))
    assert all(p.grad is None for p in lm.model.parameters())
    assert sum(len(m._forward_pre_hooks) for m in lm.model.modules()) == 0
