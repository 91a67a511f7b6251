"""The weights of a smaller model, taken from those of the whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fasp_core.export import constants
from fasp_core.export.layouts import LAYOUTS
from fasp_core.export.planning import Places, Plan
from fasp_core.lazy import nn, torch
from fasp_core.metrics.meters import Report
from fasp_core.model.language_model import LanguageModel

if TYPE_CHECKING:
    from torch import Tensor


def smaller_state(lm: LanguageModel, plan: Plan, progress: Report) -> dict[str, Tensor]:
    """The state dict of the model that `plan` describes. Unchanged tensors are the model's own, not copies.

    A part that is zeroed loses its rows of q, k, v (of the MLP: of the projections in), their biases, and its columns
    of the output projection. The columns alone decide the result; the output projection's bias stays. Keys and values
    that a kept head shares stay as well. A head that is scaled has its columns multiplied by its gain. Constants that
    take the place of heads are added to biases.
    """
    state: dict[str, Tensor] = dict(lm.model.state_dict())
    gates = plan.removed.gates(lm.n_layers, lm.n_heads)
    before, layout = plan.before, LAYOUTS[lm.model.config.model_type]
    for layer in range(lm.n_layers):
        progress(layer, lm.n_layers, "taking the weights")
        block, base = lm.blocks[layer], f"{lm.architecture.blocks}.{layer}."
        heads, kv, neurons = plan.heads[layer], plan.kv_heads[layer], plan.neurons[layer]
        if not heads.unchanged(before.heads):
            q_rows, kv_rows = _spread(heads, lm.head_dim), _spread(kv, lm.head_dim)
            if lm.architecture.fused == "per head":
                (fused,) = lm.architecture.qkv
                _rows(state, block, base, fused, _spread(heads, 3 * lm.head_dim))
            elif lm.architecture.fused:
                (fused,) = lm.architecture.qkv
                sizes = [n * lm.head_dim for n in (before.heads, before.kv_heads, before.kv_heads)]
                _rows(state, block, base, fused, _beside([q_rows, kv_rows, kv_rows], sizes))
            else:
                for path, places in zip(lm.architecture.qkv, (q_rows, kv_rows, kv_rows), strict=True):
                    _rows(state, block, base, path, places)
            _columns(state, block, base, lm.architecture.out_proj, q_rows)
        gains = gates[layer, list(heads.old)]
        if any(gain not in (0, 1) for gain in gains):
            _scale_columns(state, block, base, lm.architecture.out_proj, np.repeat(gains, lm.head_dim))
        if not neurons.unchanged(before.neurons):
            rows = _beside([neurons, neurons], [before.neurons] * 2) if layout.fused_mlp else neurons
            for path in layout.mlp_in:
                _rows(state, block, base, path, rows)
            _columns(state, block, base, lm.architecture.mlp_out, neurons)
    constants.fold(lm, plan.removed, state)
    return state


def _spread(places: Places, width: int) -> Places:
    """Places of parts as places of their rows, `width` to each."""
    return Places(
        tuple(old * width + i for old in places.old for i in range(width)),
        tuple(zero for zero in places.zero for _ in range(width)),
    )


def _beside(parts: list[Places], sizes: list[int]) -> Places:
    """Places in a fused projection, which lays parts of the given old sizes one after the other."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    old = tuple(start + at for part, start in zip(parts, starts, strict=True) for at in part.old)
    return Places(old, tuple(zero for part in parts for zero in part.zero))


def _rows(state: dict[str, Tensor], block: nn.Module, base: str, path: str, places: Places) -> None:
    """Outputs of a projection, and their biases."""
    _take(state, f"{base}{path}.weight", _output_dimension(block, path), places)
    if f"{base}{path}.bias" in state:
        _take(state, f"{base}{path}.bias", 0, places)


def _columns(state: dict[str, Tensor], block: nn.Module, base: str, path: str, places: Places) -> None:
    """Inputs of a projection; its bias stays."""
    _take(state, f"{base}{path}.weight", 1 - _output_dimension(block, path), places)


def _scale_columns(state: dict[str, Tensor], block: nn.Module, base: str, path: str, gains: np.ndarray) -> None:
    name, dimension = f"{base}{path}.weight", 1 - _output_dimension(block, path)
    shape = [1, 1]
    shape[dimension] = -1
    tensor = state[name]
    state[name] = tensor * torch.as_tensor(gains, device=tensor.device, dtype=tensor.dtype).view(shape)


def _output_dimension(block: nn.Module, path: str) -> int:
    return 0 if isinstance(block.get_submodule(path), nn.Linear) else 1  # GPT-2's Conv1D keeps [in, out]


def _take(state: dict[str, Tensor], name: str, dimension: int, places: Places) -> None:
    tensor = state[name]
    taken = tensor.index_select(dimension, torch.tensor(places.old, device=tensor.device))
    zero = [i for i, empty in enumerate(places.zero) if empty]
    state[name] = taken.index_fill_(dimension, torch.tensor(zero, device=tensor.device, dtype=torch.long), 0)
