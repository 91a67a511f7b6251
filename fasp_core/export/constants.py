"""Constants that take the place of heads, folded into biases of output projections.

A head with gate g gives `g x + (1 - g) c`, so the projection's bias grows by `(1 - g) W_h c`, whether the head's place
is gone, zeroed or scaled. An architecture whose config switches the biases of attention on and off gets all of them,
with zeros elsewhere; one without a place for such a bias cannot be exported so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fasp_core.errors import InputError
from fasp_core.export.layouts import LAYOUTS
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import torch
from fasp_core.model.architectures import columns
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ABLATIONS

if TYPE_CHECKING:
    from torch import Tensor


def check(lm: LanguageModel, removed: PruneSet) -> None:
    """Refuse what no checkpoint can hold.

    Raises
    ------
    InputError
        Heads are scaled in 16 bits, or taken out by a constant that was drawn, in 16 bits, or in an architecture
        without such a bias.
    """
    if removed.gains and lm.spec.dtype != "float32":
        raise InputError(f"Gains are folded in float32, not in {lm.spec.dtype}: add --dtype float32.")
    if not _needed(lm, removed):
        return
    if lm.spec.ablation != ABLATIONS[1]:
        raise InputError(
            f"Heads that are taken out by '{lm.spec.ablation}' are for scores and measurements: export with --ablation "
            "zero or mean."
        )
    if lm.spec.dtype != "float32":
        raise InputError(f"Means of heads are folded in float32, not in {lm.spec.dtype}: add --dtype float32.")
    if not (_has_bias(lm) or LAYOUTS[lm.model.config.model_type].bias_switch):
        raise InputError(
            f"A model of the type {lm.architecture.title} has no bias at the output of attention, where means of heads "
            "would be folded: export with --ablation zero."
        )


def switch(lm: LanguageModel, removed: PruneSet) -> str:
    """The field of the config that has to say that attention has biases; "" where it has them, or needs none."""
    if not _needed(lm, removed) or _has_bias(lm):
        return ""
    return LAYOUTS[lm.model.config.model_type].bias_switch


def fold(lm: LanguageModel, removed: PruneSet, state: dict[str, Tensor]) -> None:
    """Add what the constants give to biases of a state dict whose weights are those of the export."""
    if not _needed(lm, removed):
        return
    assert lm.constants is not None  # `_needed` has looked
    gates = torch.from_numpy(removed.gates(lm.n_layers, lm.n_heads))
    given = ((1 - gates)[..., None] * lm.constants).flatten(1)  # [L, H d]
    every = switch(lm, removed)
    for layer in range(lm.n_layers):
        base, out = f"{lm.architecture.blocks}.{layer}.", lm.architecture.out_proj
        if every:
            for path in (*lm.architecture.qkv, out):  # all of these are nn.Linear, [out, in]
                weight = state[f"{base}{path}.weight"]
                state[f"{base}{path}.bias"] = weight.new_zeros(len(weight))
        weight = columns(lm.out_proj(layer)).detach()
        more = (weight.cpu().double() @ given[layer].double()).to(weight.dtype).to(weight.device)  # MPS has no float64
        state[f"{base}{out}.bias"] = state[f"{base}{out}.bias"] + more


def _needed(lm: LanguageModel, removed: PruneSet) -> bool:
    return lm.constants is not None and bool(removed.heads or removed.gains)


def _has_bias(lm: LanguageModel) -> bool:
    return isinstance(getattr(lm.out_proj(0), "bias", None), torch.Tensor)
