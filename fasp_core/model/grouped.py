"""Grouped-query attention in float32 on CUDA, with keys and values repeated for their query heads.

PyTorch's fused kernels for float32 on CUDA take no groups. Asked for them (`enable_gqa`, as transformers does where
there is no mask), it makes attention out of nine kernels and writes every weight to memory. With keys and values
repeated it takes the memory-efficient kernel (Rabe and Staats, 2021), which gives the same numbers up to rounding.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fasp_core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


NAME = "sdpa_repeated"
DEVICES = ["cuda"]  # kinds on which float32 attention with groups is not fused


def attend_fused(model: Any, device: torch.device) -> None:
    """Let a transformers model on `device` use it, if it has groups, computes in float32 and would not be fused."""
    config = model.config
    heads = config.num_attention_heads
    grouped = (getattr(config, "num_key_value_heads", None) or heads) < heads
    if grouped and model.dtype == torch.float32 and device.type in DEVICES and config._attn_implementation == "sdpa":
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        AttentionInterface.register(NAME, _repeated)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def _repeated(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """What transformers calls for attention: `[rows, heads, T, D]` queries, fewer heads of keys and values."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    times = query.shape[1] // key.shape[1]
    alike = SimpleNamespace(is_causal=getattr(module, "is_causal", True))  # with as many heads of each
    return sdpa_attention_forward(alike, query, repeat_kv(key, times), repeat_kv(value, times), mask, **options)
