"""GGUF files of tiny models, written as llama.cpp's converters write them; nothing here is the reader's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

from tests.support.tiny import VOCAB

ARCH = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3", "phi3": "phi3", "gpt2": "gpt2"}
MERGES = ("Ġ r", "e d", "Ġr ed", "t h", "1 2", "Ġ Ġ")
SPELLED = ("<unk>", "<eos>", *"abcdefghijklmnopqrstuvwxyz0123456789", "Ġ", *(m.replace(" ", "") for m in MERGES))
TOKENS = (*SPELLED, *(f"[PAD{i}]" for i in range(len(SPELLED), VOCAB)))
_NORMS_FROM_ONE = "gemma3"  # GGUF holds w + 1 where transformers holds w


def drawn(config: Any, seed: int = 0) -> Any:
    """A transformers model with weights at which everything that a config says moves the logits."""
    noise = torch.Generator().manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=noise) + (p.ndim == 1 and bool((p == 1).all())))
    return model.eval()


def keys_of(config: Any) -> dict[str, Any]:
    """The keys of the architecture that every converter writes."""
    get = lambda *names: next(v for n in names if (v := getattr(config, n, None)) is not None)  # noqa: E731
    heads, hidden = get("num_attention_heads", "n_head"), get("hidden_size", "n_embd")
    keys: dict[str, Any] = {
        "context_length": get("max_position_embeddings", "n_positions"),
        "embedding_length": hidden,
        "block_count": get("num_hidden_layers", "n_layer"),
        "feed_forward_length": getattr(config, "intermediate_size", None) or config.n_inner or 4 * hidden,
        "attention.head_count": heads,
    }
    if config.model_type == "gpt2":
        return keys | {"attention.layer_norm_epsilon": config.layer_norm_epsilon}
    keys["attention.head_count_kv"] = config.num_key_value_heads
    keys["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
    width = getattr(config, "head_dim", None) or hidden // heads
    if config.model_type in ("qwen3", "gemma3_text"):
        keys |= {"attention.key_length": width, "attention.value_length": width}
    if config.model_type in ("llama", "phi3"):
        turned = config.rope_parameters.get("partial_rotary_factor", 1.0)
        keys["rope.dimension_count"] = int(width * turned)
    rope = config.rope_parameters
    keys["rope.freq_base"] = rope.get("full_attention", rope)["rope_theta"]
    if config.model_type == "gemma3_text":
        keys["attention.sliding_window"] = config.sliding_window
    return keys


def write(
    path: Path,
    model: Any,
    keys: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    tokenizer: dict[str, Any] | None = None,
    general: dict[str, Any] | None = None,
    pieces: tuple[str, ...] = (),
) -> Path:
    """A GGUF of `model`; keys are added or changed (None: left out), `tensors` added.

    `pieces`: a sentencepiece vocabulary, the first three special, in place of byte-level BPE.
    """
    config = model.config
    arch = ARCH[config.model_type]
    writer = gguf.GGUFWriter(path, arch)
    for key, value in {**keys_of(config), **(keys or {})}.items():
        add(writer, f"{arch}.{key}", value)
    spelled = pieces or SPELLED
    add(writer, "tokenizer.ggml.model", "llama" if pieces else "gpt2")
    writer.add_token_list([*spelled, *(f"[PAD{i}]" for i in range(len(spelled), VOCAB))])
    special = 3 if pieces else 2
    writer.add_token_types([3] * special + [1] * (len(spelled) - special) + [5] * (VOCAB - len(spelled)))
    if pieces:
        writer.add_token_scores([-float(i) for i in range(VOCAB)])
    else:
        writer.add_token_merges(list(MERGES))
    for key, value in {"eos_token_id": 1, "unknown_token_id": 0, **(tokenizer or {})}.items():
        add(writer, f"tokenizer.ggml.{key}", value)
    for key, value in (general or {}).items():
        add(writer, key, value)
    names = gguf.get_tensor_name_map(
        next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), config.num_hidden_layers
    )
    state = model.state_dict()
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    for name, tensor in state.items():
        if name.endswith(".attn.bias"):
            continue
        stem, suffix = name.rsplit(".", 1)
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", stored(arch, name, tensor, config))
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    kinds = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    if isinstance(value, list):
        writer.add_array(key, value)
    elif value is not None:
        kinds[type(value)](key, value)


def stored(arch: str, name: str, tensor: torch.Tensor, config: Any) -> np.ndarray:
    array = tensor.numpy()
    if arch == "llama" and any(f".{one}_proj." in name for one in "qk"):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        array = halves.swapaxes(1, 2).reshape(array.shape)  # neighbouring dimensions turn together there
    if arch == "gpt2" and ".c_" in name and array.ndim == 2:
        array = array.T
    if arch == _NORMS_FROM_ONE and "norm" in name:
        array = array + 1
    return np.ascontiguousarray(array)
