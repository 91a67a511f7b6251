"""How the sizes of each architecture are written in its config, and which of them may become smaller.

A config has one number of heads and one width of the MLP for all layers. transformers can write sizes by layer into a
config (`per_layer_config`), but none of these architectures reads them when it builds its layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Layout:
    """What a smaller model of one `config.model_type` needs beside its `Architecture`.

    Attributes
    ----------
    width : the config's name for the hidden units of an MLP.
    mlp_in : from a block to the projections into the MLP's hidden units; a fused one holds gate and up, in this order.
    fewer_heads : the width of a head is a number of its own, so that there can be fewer heads of the same width.
    bias_switch : the config's name for whether all projections of attention have biases; "" where there is no choice.
    """

    width: str
    mlp_in: tuple[str, ...]
    fewer_heads: bool = False
    fused_mlp: bool = False
    bias_switch: str = ""


_UNBIASED = Layout("intermediate_size", ("mlp.gate_proj", "mlp.up_proj"), fewer_heads=True)
_LLAMA_LIKE = replace(_UNBIASED, bias_switch="attention_bias")

LAYOUTS: dict[str, Layout] = {
    "gpt2": Layout("n_inner", ("mlp.c_fc",)),
    "gpt_neo": Layout("intermediate_size", ("mlp.c_fc",)),
    "gptj": Layout("n_inner", ("mlp.fc_in",)),
    "llama": _LLAMA_LIKE,
    "mistral": _UNBIASED,
    "qwen2": _UNBIASED,
    "qwen3": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "opt": Layout("ffn_dim", ("fc1",)),
    "gpt_neox": Layout("intermediate_size", ("mlp.dense_h_to_4h",), bias_switch="attention_bias"),
    "phi3": Layout("intermediate_size", ("mlp.gate_up_proj",), fewer_heads=True, fused_mlp=True),
}


@dataclass(frozen=True)
class Shape:
    """Sizes that all layers share: query heads, key and value heads, and neurons (hidden units of the MLP)."""

    heads: int
    kv_heads: int
    neurons: int


def config_of(config: Any, shape: Shape, head_dim: int) -> Any:
    """A copy of a transformers config with other sizes; None where transformers refuses them.

    It does so where the hidden size is no multiple of the number of heads (Llama, Gemma 3), or where a rotary table has
    the length of another size (Phi-3 with long contexts).
    """
    layout = LAYOUTS[config.model_type]
    settings: dict[str, Any] = {**config.to_dict(), layout.width: shape.neurons}
    if layout.fewer_heads:
        settings |= {"num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": head_dim}
    try:
        return type(config).from_dict(settings)
    except Exception:  # each config class checks itself in its own way
        return None
