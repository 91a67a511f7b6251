"""Removing parts of a model: gates on the inputs of output projections, the only way in which it is done.

Ablating a head multiplies its slice of the attention output projection's *input* by zero (the projection's bias
stays), or, where the model says so, puts a constant there: a gate g gives x * g + (1 - g) * constant. Ablating a
neuron, a hidden unit of an MLP, multiplies its place in the input of the MLP's output projection. A gate of 1 leaves a
number bit for bit as it was, so an untouched part is exactly untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import nn, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.passes import NotFinite
from fasp_core.model.spec import ABLATIONS

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def gated(
    lm: LanguageModel, gates: Tensor | np.ndarray, neurons: Mapping[int, Tensor | np.ndarray] | None = None
) -> Iterator[None]:
    """Multiply inputs of output projections by gates, for the time of the `with` block.

    Parameters
    ----------
    gates : [L, H], the same for every row of a batch, or [rows, L, H], one gate for each row. May require grad. A
        head's slice of the attention output projection's input is multiplied by its gate; of a model whose heads are
        taken out by constants, (1 - gate) times the head's constant is added.
    neurons : by layer, [F] or [rows, F], for the input of the MLP's output projection. May require grad.

    The model is locked meanwhile, and always left as it was.

    Raises
    ------
    InputError
        The model's spec wants constants that it was not given, see `fasp_core.metrics.calibration`.
    """
    gates = torch.as_tensor(gates)
    if gates.shape[-2:] != (lm.n_layers, lm.n_heads) or gates.ndim not in (2, 3):
        raise ValueError(f"gates have shape {tuple(gates.shape)}, expected [..., {lm.n_layers}, {lm.n_heads}]")
    if lm.constants is None and lm.spec.ablation != ABLATIONS[0]:
        raise InputError(
            f"What heads become by '{lm.spec.ablation}' is not known in this process: take --ablation zero here."
        )
    rows = gates if gates.ndim == 3 else gates[None]  # [rows or 1, L, H]
    closed = range(lm.n_layers) if gates.requires_grad else _closed(rows)
    per_layer = rows.to(lm.device) if closed else rows
    constants = lm.constants.to(lm.device) if closed and lm.constants is not None else None
    units = {layer: torch.as_tensor(gate, device=lm.device) for layer, gate in (neurons or {}).items()}
    for gate in units.values():
        if gate.shape[-1:] != (lm.n_neurons,) or gate.ndim not in (1, 2):
            raise ValueError(f"gates of neurons have shape {tuple(gate.shape)}, expected [..., {lm.n_neurons}]")
    with lm.lock, ExitStack() as hooks:
        for layer in closed:
            constant = None if constants is None else constants[layer]
            hook = _gate_input(per_layer[:, layer], constant)
            hooks.callback(lm.out_proj(layer).register_forward_pre_hook(hook).remove)
        for layer, gate in units.items():
            per_row = gate if gate.ndim == 2 else gate[None]  # [rows or 1, F]
            hooks.callback(lm.mlp_out(layer).register_forward_pre_hook(_gate_input(per_row)).remove)
        yield


def _closed(gates: Tensor) -> list[int]:
    """Layers with a gate that is not 1, asked once: gates of a set lie on the CPU, and a device would be waited for."""
    layers: list[int] = (gates != 1).any(-1).any(0).nonzero()[:, 0].tolist()
    return layers


@contextmanager
def masked(lm: LanguageModel, prune_set: PruneSet) -> Iterator[None]:
    """Under which the heads and neurons of `prune_set` are removed; an error of numbers is told which are off."""
    neurons = prune_set.neuron_gates(lm.n_layers, lm.n_neurons) if prune_set.neurons else None
    try:
        with gated(lm, prune_set.gates(lm.n_layers, lm.n_heads), neurons):
            yield
    except NotFinite as error:
        raise error.under(prune_set.format()) from None


def _gate_input(gate: Tensor, constant: Tensor | None = None) -> Any:
    """A pre-hook. `gate` [rows or 1, parts]; `constant` [parts, width of a part] is what a closed part gives."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]  # [rows, T, parts * width of a part]; OPT's MLP sees [rows * T, parts]
        rows = len(x) if x.ndim == 3 else len(gate)
        parts = x.reshape(rows, -1, gate.shape[-1], x.shape[-1] // gate.shape[-1])
        g = gate.to(x.device, x.dtype)[:, None, :, None]
        out = parts * g
        if constant is not None:
            out = out + (1 - g) * constant.to(x.device, x.dtype)
        return (out.view(x.shape), *args[1:])

    return hook
