"""The config of a GGUF file: what its metadata says about the numbers of the model, read in full or refused by name.

The reader of transformers takes sizes, the base of the rotary embeddings and the norms' epsilon, and passes over the
rest: scaled rotary embeddings, the width of a head (Qwen3), the number of positions (GPT-2), windows. Here each key of
the architecture is one of three: taken from the file, without effect on numbers, or refused by its name. The meanings
are those of llama.cpp (`src/llama-hparams.h`, `llama-model.cpp`), which wrote the file's form.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from fasp_core.errors import InputError

# GGUF's name of an architecture that is read here
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2")
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
_REQUIRED = ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count")
_TAKEN = {  # by the reader of transformers or below
    *_REQUIRED,
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.scale",
    "attention.causal",
    "final_logit_softcapping",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
_SILENT = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "pooling_type")  # without effect here
_NEUTRAL: dict[str, tuple[Any, ...]] = {  # values at which a key that is not read changes nothing
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attn_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
    "use_parallel_residual": (False,),
}


class Metadata:
    """The keys of one architecture in a GGUF file.

    Parameters
    ----------
    keys : all keys of the file and their values; arrays as lists.
    name : the file's, for messages.
    """

    def __init__(self, keys: Mapping[str, Any], name: str) -> None:
        self.arch, self.name = str(keys.get("general.architecture")), name
        prefix = f"{self.arch}."
        self.held = {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}

    def get(self, key: str, default: Any = None) -> Any:
        return self.held.get(key, default)

    def refuse(self, key: str, why: str = "which is not read for it here") -> InputError:
        value = f"sets {self.arch}.{key} to {self.held[key]!r:.40}" if key in self.held else f"does not set {key}"
        return InputError(
            f"The GGUF file '{self.name}' {value}, {why}: use the model's safetensors, or a GGUF of a model without it."
        )


def config_of(
    found: Mapping[str, Any], keys: Mapping[str, Any], tensors: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """The settings of a transformers config.

    Parameters
    ----------
    found : those that the reader of transformers takes from the file.
    keys : the file's metadata.
    tensors : its tensors by name; those of `ROPE_TENSORS` as lists of numbers.
    name : the file's, for messages.

    Raises
    ------
    InputError
        The file says something about numbers that cannot be carried over; the message names it.
    """
    meta = Metadata(keys, name)
    config, arch = dict(found), meta.arch
    if arch not in ARCHITECTURES:
        raise InputError(
            f"The GGUF file '{name}' could not be read as a GGUF language model: its architecture is '{arch}', and "
            f"those of {', '.join(ARCHITECTURES)} are read."
        )
    kind = config["model_type"] = "llama" if arch == "llama" else str(config["model_type"])  # a name may say "mistral"
    _check_keys(meta)
    heads, hidden = _number(meta, "attention.head_count"), _number(meta, "embedding_length")
    for token in ("bos", "eos", "pad"):  # a default of the class is a token of another model
        config.setdefault(f"{token}_token_id", None)
    if arch == "gpt2":
        return config | {"n_positions": meta.get("context_length"), "n_inner": meta.get("feed_forward_length")}
    if (groups := meta.get("attention.head_count_kv")) is None and arch == "llama":
        raise meta.refuse("attention.head_count_kv", "by which the weights of keys are ordered")
    config["num_key_value_heads"] = heads if groups is None else _number(meta, "attention.head_count_kv")
    width = meta.get("attention.key_length", hidden // max(heads, 1))
    turned = meta.get("rope.dimension_count", width)
    if meta.get("attention.value_length", width) != width:
        raise meta.refuse("attention.value_length")
    if kind != "phi3":
        config["head_dim"] = width
    elif width * heads != hidden:
        raise meta.refuse("attention.key_length")
    if turned != width and kind != "phi3":
        raise meta.refuse("rope.dimension_count")
    _biases(config, kind, tensors)
    rope = {"rope_theta": meta.get("rope.freq_base", 10000.0), **_rope(meta, kind, tensors)}
    if any(len(rope[key]) != turned // 2 for key in ("short_factor", "long_factor") if key in rope):
        raise InputError(
            f"The GGUF file '{name}' holds factors of its rotary embeddings (rope_freqs or rope_factors) in another "
            f"number than {turned // 2}: use the model's safetensors."
        )
    config.pop("rope_theta", None)
    if kind == "phi3":
        rope["partial_rotary_factor"] = turned / width
        config["original_max_position_embeddings"] = rope.get(
            "original_max_position_embeddings", meta.get("context_length")
        )
    config["rope_parameters"] = rope
    _attention(config, meta, kind, width)
    if kind == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": meta.get("rope.freq_base_swa", 10000.0)}
        config["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
    return config


def _check_keys(meta: Metadata) -> None:
    for key, value in meta.held.items():
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                raise meta.refuse(key)
        elif key not in _TAKEN and key not in _SILENT:
            raise meta.refuse(key)
    norm = "attention.layer_norm_epsilon" if meta.arch == "gpt2" else "attention.layer_norm_rms_epsilon"
    for key in (*_REQUIRED, norm):
        if key not in meta.held:
            raise meta.refuse(key, "without which its numbers are not known")
    if meta.get("attention.causal", True) is not True:
        raise meta.refuse("attention.causal", "so it is no model that writes text")
    softcap = meta.get("final_logit_softcapping", 0.0)
    if softcap and meta.arch != "gemma3":
        raise meta.refuse("final_logit_softcapping")


def _number(meta: Metadata, key: str) -> int:
    value = meta.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise meta.refuse(key, "one for each layer, where all must be alike")
    return value


def _biases(config: dict[str, Any], kind: str, tensors: Collection[str]) -> None:
    """Llama's switches for biases, which GGUF tells by the tensors alone; a switch is for all of its projections."""
    if kind == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in tensors
        config["mlp_bias"] = "blk.0.ffn_up.bias" in tensors
    elif kind in ("qwen3", "gemma3_text"):
        config["attention_bias"] = "blk.0.attn_q.bias" in tensors


def _rope(meta: Metadata, kind: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """How rotary embeddings are scaled, without their base."""
    factor = meta.get("rope.scaling.factor") or meta.get("rope.scale_linear") or 0.0
    how = meta.get("rope.scaling.type", "linear" if factor else "none")
    context = meta.get("context_length")
    extra = float(meta.get("rope.scaling.attn_factor", 1.0)) * float(meta.get("rope.scaling.yarn_attn_factor", 1.0))
    listed = [tensors.get(name) for name in ROPE_TENSORS]
    if any(factors is not None for factors in listed):
        short, long = (listed[0], listed[0]) if listed[0] is not None else listed[1:]
        alone = listed[0] is not None and kind == "llama"
        pair = listed[0] is None and kind == "phi3" and short is not None and long is not None
        if not (alone or pair) or how not in ("none", "longrope") or (alone and extra != 1.0):
            raise InputError(
                f"The GGUF file '{meta.name}' holds factors of its rotary embeddings (rope_freqs or rope_factors) in a "
                f"way that is not read for '{kind}' here: use the model's safetensors."
            )
        return {
            "rope_type": "longrope",
            "short_factor": short,
            "long_factor": long,
            "attention_factor": extra,
            "original_max_position_embeddings": meta.get("rope.scaling.original_context_length", context),
        }
    if how == "none" or (how == "linear" and factor in (0.0, 1.0)):
        if extra != 1.0:
            raise meta.refuse(
                next(k for k in ("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor") if k in meta.held)
            )
        return {"rope_type": "default"}
    if how == "linear" and kind != "phi3" and extra == 1.0:
        return {"rope_type": "linear", "factor": factor}
    if how == "yarn" and factor and kind != "phi3":
        return {
            "rope_type": "yarn",
            "factor": factor,
            "attention_factor": extra * (1.0 + 0.1 * math.log(factor)),
            "beta_fast": meta.get("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": meta.get("rope.scaling.yarn_beta_slow", 1.0),
            "original_max_position_embeddings": meta.get("rope.scaling.original_context_length", context),
        }
    raise meta.refuse("rope.scaling.type" if "rope.scaling.type" in meta.held else "rope.scaling.factor")


def _attention(config: dict[str, Any], meta: Metadata, kind: str, width: int) -> None:
    """Windows, and the scale of the products of queries and keys."""
    window, context = meta.get("attention.sliding_window", 0), meta.get("context_length")
    pattern = meta.get("attention.sliding_window_pattern")
    layers = _number(meta, "block_count")
    if kind == "gemma3_text":
        if not window:
            raise meta.refuse("attention.sliding_window", "without which its numbers are not known")
        every = 6 if pattern is None else pattern
        local = every if isinstance(every, list) else [bool((i + 1) % max(int(every), 1)) for i in range(layers)]
        if len(local) != layers:
            raise meta.refuse("attention.sliding_window_pattern")
        config["layer_types"] = ["sliding_attention" if is_local else "full_attention" for is_local in local]
        config["sliding_window"] = window
        config["final_logit_softcapping"] = meta.get("final_logit_softcapping") or None
        # llama.cpp: that of the 27B model, which it tells by its 62 layers, is the width that a head would have
        own = _number(meta, "embedding_length") // _number(meta, "attention.head_count") if layers == 62 else width
        if scale := meta.get("attention.scale"):
            own = round(scale**-2)
            if not math.isclose(scale, own**-0.5, rel_tol=1e-6):  # transformers holds its inverse square, whole
                raise meta.refuse("attention.scale")
        config["query_pre_attn_scalar"] = own
        return
    if pattern is not None:
        raise meta.refuse("attention.sliding_window_pattern")
    if kind == "phi3":
        config["sliding_window"] = window or None
    elif window and window < context:
        raise meta.refuse("attention.sliding_window")
    scale = meta.get("attention.scale")
    if scale and not math.isclose(scale, width**-0.5, rel_tol=1e-6):
        raise meta.refuse("attention.scale")
