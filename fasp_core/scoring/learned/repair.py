"""Repair: what is left of a layer's heads, rescaled so that the layer's attention output changes least.

Channel pruning reconstructs a layer's output by least squares once it is chosen what goes (He, Zhang and Sun 2017,
Channel Pruning for Accelerating Very Deep Neural Networks). Here the only weights that may move are one gate a head:
with `c_h(t)` what head h adds at token t of a calibration text, through the output projection, and F the heads of a
layer that the set leaves as they are,

    minimise over g in [0, 1.5]:  sum_t || sum_(h not in F) (1 - gate_h) c_h(t) + sum_(h in F) (1 - g_h) c_h(t) ||^2

which needs of the text no more than the inner products of the heads' contributions, [H, H] a layer: its normal
equations. Heads that the set scales keep their gains. The products are those of the unpruned model, so the layers are
independent, and any set is repaired at once when they are known.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core import defaults
from fasp_core.data.passages import PARAGRAPHS
from fasp_core.data.text import TextConfig, TokenWindows
from fasp_core.errors import InputError
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.heads.prune_set import MAX_GAIN, PruneSet
from fasp_core.lazy import nn, no_grad, torch
from fasp_core.metrics.perplexity import ppl_key, windows_of
from fasp_core.model.architectures import columns
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import present
from fasp_core.model.passes import require_finite
from fasp_core.model.provenance import provenance
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.typing import Floats, Report

if TYPE_CHECKING:
    from torch import Tensor

KIND = "experiments"
CELLS = 1 << 23  # numbers of contributions that exist at once
SWEEPS = 10_000  # of coordinate descent, at most; a few do
TEXT = TextConfig(PARAGRAPHS["valid"], defaults.COST_TOKENS)  # what is repaired on, unless told


@dataclass(frozen=True, eq=False)
class Repaired:
    """A set with what is left of its layers rescaled.

    Attributes
    ----------
    before, after : by layer in which something was rescaled, what was lost of the layer's attention output on the
        calibration text, as a share of its sum of squares: without repair and with it.
    idle : layers of the set that have no head left as it was, so that nothing could be rescaled.
    """

    prune_set: PruneSet
    before: dict[int, float]
    after: dict[int, float]
    idle: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "prune_set": self.prune_set.format(),
            "heads_removed": len(self.prune_set.heads),
            "heads_scaled": len(self.prune_set.gains),
            "layers": [
                {"layer": layer, "lost_before": lost, "lost_after": self.after[layer]}
                for layer, lost in sorted(self.before.items())
            ],
            "idle_layers": list(self.idle),
        }


@dataclass(frozen=True, eq=False)
class Products:
    """What the heads of a layer add to a text, by pairs.

    Attributes
    ----------
    values : [L, H, H] inner products, summed over the places of the text that predict a token.
    tokens : how many those are.
    """

    values: Floats
    tokens: int


def products(lm: LanguageModel, text: TextConfig, store: Store, progress: Report | None = None) -> Products:
    """Of a text; stored. The output projection's bias is none of any head's."""

    def work() -> Any:
        started = time.monotonic()
        found = _products(lm, windows_of(lm, text, key), progress)
        made = {"tokens": found.tokens, "provenance": provenance(lm, time.monotonic() - started)}
        return {"arrays": {"products": found.values}, "meta": made}

    key = products_key(lm.id, text)
    return store.made(KIND, key, work, _read, label=f"{slug(lm.name)}--products")


def stored_products(model_id: ModelId, text: TextConfig, store: Store) -> Products | None:
    """The same if they are stored; without a model."""
    return store.read(KIND, products_key(model_id, text), _read)


def products_key(model_id: ModelId, text: TextConfig) -> dict[str, Any]:
    """Everything that shapes them. InputError where heads are not taken out by zero: then other terms are lost."""
    if model_id.ablation:
        raise InputError(f"A repair is of heads that are set to zero, not to '{model_id.ablation}': leave one out.")
    return {**ppl_key(text, model_id), "score": "", "experiment": "products of heads"}


def _read(entry: Entry) -> Products:
    return Products(np.asarray(entry.arrays["products"], dtype=np.float64), int(entry.meta["tokens"]))


@no_grad
def _products(lm: LanguageModel, windows: TokenWindows, progress: Report | None) -> Products:
    found = np.zeros((lm.n_layers, lm.n_heads, lm.n_heads))
    weights = []
    for layer in range(lm.n_layers):
        with present(lm.out_proj(layer)):
            weights.append(columns(lm.out_proj(layer)).detach())
    todo = [(row, int(at)) for ids, first in windows.batches for row, at in zip(ids, first, strict=True)]
    for i, (row, at) in enumerate(todo):
        if progress is not None:
            progress(i, len(todo), f"window {i + 1} of {len(todo)}")
        with lm.lock, ExitStack() as hooks:
            for layer in range(lm.n_layers):

                def see(_module: nn.Module, args: tuple[Tensor, ...], layer: int = layer, at: int = at) -> None:
                    found[layer] += products_of(args[0][0, at - 1 : -1], weights[layer], lm.n_heads)

                hooks.callback(lm.out_proj(layer).register_forward_pre_hook(see).remove)
            final_hidden(lm, row[None])
    require_finite(lm, found, "what heads add to a text")
    return Products(found, windows.n_scored)


def products_of(x: Tensor, weight: Tensor, n_heads: int) -> Floats:
    """[H, H] float64: sum over tokens of the inner products of what heads add.

    Parameters
    ----------
    x : [T, H d] input of the output projection.
    weight : [D, H d] of the projection.
    """
    w = weight.to(x.device).view(len(weight), n_heads, -1)  # [D, H, d]
    total = np.zeros((n_heads, n_heads))
    for part in x.view(len(x), n_heads, -1).split(max(CELLS // (n_heads * len(weight)), 1)):
        adds = torch.einsum("thd,ohd->hto", part.float(), w.float()).flatten(1)  # [H, t D]
        total += (adds @ adds.T).cpu().double().numpy()  # MPS has no float64
    return total


def repair(prune_set: PruneSet, known: Floats) -> Repaired:
    """Rescale what a set leaves as it was, in the layers that it touches.

    Parameters
    ----------
    known : [L, H, H], see `Products`.

    Raises
    ------
    InputError
        The set has no head, or one that the model lacks.
    """
    gates = prune_set.gates(*known.shape[:2]).astype(np.float64)
    touched = [layer for layer in range(len(known)) if (gates[layer] != 1).any()]
    if not touched:
        raise InputError("There is nothing to repair: name heads that are removed or scaled.")
    before, after, idle = {}, {}, []
    for layer in touched:
        free = gates[layer] == 1
        if not free.any():
            idle.append(layer)
            continue
        whole = float(known[layer].sum())
        before[layer] = lost(gates[layer], known[layer]) / whole if whole > 0 else 0.0
        found = gates[layer].copy()
        found[free] = np.round(least_change(gates[layer], free, known[layer]), 4)  # as a set keeps them
        if lost(found, known[layer]) < lost(gates[layer], known[layer]):
            gates[layer] = found
        after[layer] = lost(gates[layer], known[layer]) / whole if whole > 0 else 0.0
    return Repaired(PruneSet.from_gates(gates, prune_set.neurons), before, after, tuple(idle))


def lost(gates: Floats, known: Floats) -> float:
    """Sum of squares of what gates [H] take from a layer's output, by the products [H, H] of what its heads add."""
    return float((1 - gates) @ known @ (1 - gates))


def least_change(gates: Floats, free: np.ndarray, known: Floats) -> Floats:
    """Gates in [0, 1.5] of the free heads under which least is lost; the others are given.

    In closed form where that lies within the bounds; where heads can stand for each other the shortest move from 1.
    Else by coordinate descent from there, cut to the bounds: the problem is convex, so no bound is wrongly kept.

    Parameters
    ----------
    gates : [H]. free : [H] bool. known : [H, H].
    """
    own = known[np.ix_(free, free)]
    fixed = known[np.ix_(free, ~free)] @ (1 - gates[~free])
    move = np.linalg.lstsq(own, fixed, rcond=1e-10)[0]  # of the normal equations: gate - 1
    low, high = -1.0, MAX_GAIN - 1
    if ((move >= low) & (move <= high)).all():
        return np.asarray(1 + move)
    move = move.clip(low, high)
    for _ in range(SWEEPS):
        largest = 0.0
        for i in np.flatnonzero(own.diagonal() > 0):
            new = float(np.clip(move[i] + (fixed[i] - own[i] @ move) / own[i, i], low, high))
            largest, move[i] = max(largest, abs(new - move[i])), new
        if largest < 1e-9:
            break
    return np.asarray(1 + move)
