"""What heads write to the logits: with all the rest it is the logits, on every architecture that has a direct path."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.forward.direct_logits import direct_writes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.packing import pack_rows, pack_trees
from tests.support.tiny import HEADS, KINDS, tiny_lm, token_rows

WITH_PATH = [kind for kind in KINDS if kind != "opt_post_norm"]


def last(x: Tensor) -> Tensor:
    return x[:, -1].double()


def by_hand(norm: nn.Module, x: Tensor, part: Tensor) -> Tensor:
    """A norm with the size of x, applied to a part of x, in float64 and without its bias."""
    x, part = x.double(), part.double()
    weight = norm.weight.detach().double()
    if isinstance(norm, nn.LayerNorm):
        return (
            (part - part.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt() * weight
        )
    gain = 1 + weight if "Gemma" in type(norm).__name__ else weight
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    return part / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain


@pytest.mark.parametrize("kind", WITH_PATH)
def test_heads_and_the_rest_sum_to_the_logits(kind: str) -> None:
    lm, ids = tiny_lm(kind, n_layers=3), token_rows(4, 7)
    norm, *rest = lm.architecture.tail_modules(lm.model)
    sums: list[Tensor] = []
    outputs: list[Tensor] = []
    after = lm.architecture.after_attention
    with torch.no_grad(), ExitStack() as hooks:
        hooks.callback(norm.register_forward_pre_hook(lambda _module, args: sums.append(last(args[0]))).remove)
        for layer in range(3):
            module = lm.blocks[layer].get_submodule(after) if after else lm.out_proj(layer)
            hooks.callback(module.register_forward_hook(lambda _m, _args, out: outputs.append(last(out))).remove)
        logits = last(lm.model(ids).logits)
    with torch.no_grad():
        written = sum(direct_writes(lm, pack_rows(ids, np.arange(4)), layer).double().sum(1) for layer in range(3))
        biases = [getattr(lm.out_proj(layer), "bias", None) for layer in range(3)]
        added = sum(out - (0 if bias is None else bias.double()) for out, bias in zip(outputs, biases, strict=True))
        # what the stream holds beside the heads: the embedding, MLPs and biases
        x = sums[0]
        others = by_hand(norm, x, x - added)
        if isinstance(norm, nn.LayerNorm):
            others = others + norm.bias.double()
        for part in rest:
            others = others @ part.weight.double().T
        head = lm.model.get_output_embeddings()
        raw = (written + others) @ head.weight.double().T
        raw = raw if head.bias is None else raw + head.bias.double()
        cap = getattr(lm.model.config, "final_logit_softcapping", None)
        made = raw if cap is None else torch.tanh(raw / cap) * cap
    np.testing.assert_allclose(made.numpy(), logits.numpy(), atol=2e-4 * float(logits.abs().max()))
    assert float(written.abs().max()) > 1e-2


@pytest.mark.parametrize("kind", [kind for kind in WITH_PATH if kind != "gemma3_text"])
def test_one_head_is_what_its_removal_takes_from_the_stream(kind: str) -> None:
    """Where nothing follows that head: one layer whose MLP adds nothing."""
    lm, ids = tiny_lm(kind, n_layers=1), token_rows(3, 6)
    with torch.no_grad():
        out = lm.mlp_out(0)
        out.weight.zero_()
        norm, *rest = lm.architecture.tail_modules(lm.model)
        seen: list[Tensor] = []
        hook = norm.register_forward_pre_hook(lambda _module, args: seen.append(last(args[0])))
        lm.model(ids)
        for head in range(HEADS):
            with masked(lm, PruneSet.of([(0, head)])):
                lm.model(ids)
        hook.remove()
        found = direct_writes(lm, pack_rows(ids, np.arange(3)), 0).double()
        for head in range(HEADS):
            expected = by_hand(norm, seen[0], seen[0] - seen[1 + head])
            for part in rest:
                expected = expected @ part.weight.double().T
            np.testing.assert_allclose(found[:, head], expected, atol=2e-5 * float(expected.abs().max()) + 1e-6)


def test_trees_of_prompts_give_the_same() -> None:
    lm = tiny_lm("llama")
    rows = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 10], [11]]
    (tree,) = pack_trees(rows)
    found = direct_writes(lm, tree, 1)
    for place, prompt in enumerate(tree.prompts):
        alone = direct_writes(lm, pack_rows(torch.tensor([rows[prompt]]), np.arange(1)), 1)
        torch.testing.assert_close(found[place], alone[0], atol=1e-4, rtol=1e-3)


def test_a_model_that_normalises_after_each_block_says_so() -> None:
    with pytest.raises(InputError, match="no final norm"):
        direct_writes(tiny_lm("opt_post_norm"), pack_rows(token_rows(1, 3), np.arange(1)), 0)
