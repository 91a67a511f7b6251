"""The facts that tell one transformer architecture from another, as far as heads are concerned.

Every supported model is a stack of blocks. In each block the attention heads are concatenated and go through
one output projection; ablating a head zeroes its slice of that projection's *input*. So three facts are enough
to mask heads: where the blocks are, what the projection is called, how many heads there are. A fourth (what
follows the blocks) lets a pass be resumed from any block, a fifth (where q, k and v lie) gives weight magnitudes.
Hidden units of the MLP ("neurons") are masked likewise, at the input of its own output projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from fasp_core.errors import InputError
from fasp_core.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Architecture:
    """Where one `config.model_type` keeps what head ablation needs. All paths are dotted attribute names."""

    title: str
    blocks: str  # from the causal language model to the list of blocks
    out_proj: str  # from a block to the attention output projection
    tail: tuple[str, ...]  # what follows the blocks, in order; missing or None parts are skipped
    qkv: tuple[str, ...]  # from a block to q, k, v: three projections or one fused
    mlp_out: str  # from a block to the MLP's output projection
    fused: str = ""  # layout of a fused projection: "q|k|v", or "per head" for q, k, v of head 0, then head 1, ...
    gated_mlp: bool = False  # the MLP's hidden units are products of two projections
    after_attention: str = ""  # from a block to a norm that its attention's output passes before it is added
    trees: bool = True  # attention takes a mask of one's own, and positions say where a token stands

    def block_list(self, model: nn.Module) -> list[nn.Module]:
        """The `L` blocks of `model`."""
        return list(model.get_submodule(self.blocks).children())

    def tail_modules(self, model: nn.Module) -> list[Callable[[Tensor], Tensor]]:
        """Modules between the last block and the unembedding (final norm, OPT's project_out)."""
        whole: Any = model
        found = (reduce(lambda at, name: getattr(at, name, None), path.split("."), whole) for path in self.tail)
        return [part for part in found if part is not None]

    def head_qkv(self, block: nn.Module, n_heads: int, n_kv_heads: int, head_dim: int) -> list[list[Tensor]]:
        """Weights and biases of q, k and v that belong to each query head.

        With grouped-query attention the query heads of a group share their k and v.

        Returns
        -------
        list of `n_heads` lists of tensors, each of any shape.
        """
        rows: list[list[Tensor]] = [[] for _ in range(n_heads)]
        for tensor in _qkv_tensors(block, self.qkv):
            if self.fused == "per head":
                for h, part in enumerate(tensor.split(3 * head_dim)):
                    rows[h].append(part)
                continue
            if self.fused:
                q, k, v = tensor.split([n * head_dim for n in (n_heads, n_kv_heads, n_kv_heads)])
                parts = [q, k, v]
            else:
                parts = [tensor]
            for part in parts:
                pieces = part.split(head_dim)  # n_heads or n_kv_heads pieces of [head_dim, ...]
                for h in range(n_heads):
                    rows[h].append(pieces[h * len(pieces) // n_heads])
        return rows


def _qkv_tensors(block: nn.Module, paths: tuple[str, ...]) -> list[Tensor]:
    """Weights as [out, in] and biases as [out], whatever the projection's class."""
    tensors = []
    for path in paths:
        module = block.get_submodule(path)
        tensors.append(columns(module).detach())
        if isinstance(bias := getattr(module, "bias", None), torch.Tensor):
            tensors.append(bias.detach())
    return tensors


def _llama_like(title: str) -> Architecture:
    return Architecture(
        title,
        "model.layers",
        "self_attn.o_proj",
        ("model.norm",),
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "mlp.down_proj",
        gated_mlp=True,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(
        "GPT-2, DistilGPT-2",
        "transformer.h",
        "attn.c_proj",
        ("transformer.ln_f",),
        ("attn.c_attn",),
        "mlp.c_proj",
        "q|k|v",
    ),
    "gpt_neo": Architecture(
        "GPT-Neo",
        "transformer.h",
        "attn.attention.out_proj",
        ("transformer.ln_f",),
        ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        "mlp.c_proj",
        trees=False,  # local attention goes by the place in the row
    ),
    "gptj": Architecture(
        "GPT-J",
        "transformer.h",
        "attn.out_proj",
        ("transformer.ln_f",),
        ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        "mlp.fc_out",
    ),
    "llama": _llama_like("Llama 2 and 3, SmolLM2"),
    "mistral": _llama_like("Mistral"),
    "qwen2": _llama_like("Qwen2"),
    "qwen3": _llama_like("Qwen3"),
    "gemma3_text": replace(_llama_like("Gemma 3 (text)"), after_attention="post_attention_layernorm"),
    "opt": Architecture(
        "OPT",
        "model.decoder.layers",
        "self_attn.out_proj",
        ("model.decoder.final_layer_norm", "model.decoder.project_out"),
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "fc2",
    ),
    "gpt_neox": Architecture(
        "GPT-NeoX, Pythia",
        "gpt_neox.layers",
        "attention.dense",
        ("gpt_neox.final_layer_norm",),
        ("attention.query_key_value",),
        "mlp.dense_4h_to_h",
        "per head",
    ),
    "phi3": Architecture(
        "Phi-3",
        "model.layers",
        "self_attn.o_proj",
        ("model.norm",),
        ("self_attn.qkv_proj",),
        "mlp.down_proj",
        "q|k|v",
        gated_mlp=True,
    ),
}


def architecture_named(model_type: str) -> Architecture:
    """The entry for the type of a transformers config.

    Raises
    ------
    InputError
        The model type is not supported; the message lists those that are.
    """
    found = ARCHITECTURES.get(model_type)
    if found is None:
        known = ", ".join(f"{a.title} ({key})" for key, a in ARCHITECTURES.items())
        raise InputError(f"Models of type '{model_type}' are not supported; choose one of these: {known}.")
    return found


def positions(config: Any) -> int | None:
    """Most tokens that a model of this config takes at a time, by whatever name the config has it; None: unknown.

    Rotary positions go on beyond, but the model was not trained there. A sliding window is no limit.
    """
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def columns(module: nn.Module) -> Tensor:
    """A projection's weight as [out, in]: columns belong to its inputs. A view, not a copy."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight if isinstance(module, nn.Linear) else weight.T  # GPT-2's Conv1D keeps [in, out]
