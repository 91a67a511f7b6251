"""First-order effects of every head at once, from gates of 1 that require a gradient.

Removing head h moves its gate from 1 to 0, so to first order a quantity f changes by `-df/d gate`. Each row of a batch
has gates of its own; rows do not see each other, so one backward pass gives the effects of all heads on all rows.
First order fails for heads with large effects: it prepares a choice, and exact removals decide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.forward.next_word import CHUNK
from fasp_core.lazy import enable_grad, functional, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.passes import require_finite

if TYPE_CHECKING:
    from torch import Tensor


@enable_grad
def gated_hidden(lm: LanguageModel, ids: Tensor, at: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Gates [rows, L, H] of ones, or `at` [L, H], and final hidden states [rows, T, D], differentiable in them.

    The graph holds the activations of every block, so memory grows with rows * T * L. It is freed by the last
    backward pass, which touches no hook and so needs no lock.
    """
    gates = torch.ones(len(ids), lm.n_layers, lm.n_heads, device=lm.device)
    if at is not None:
        gates *= torch.as_tensor(at, dtype=torch.float32, device=lm.device)
    gates.requires_grad_()
    with gated(lm, gates):
        hidden: Tensor = lm.model.base_model(ids.to(lm.device), use_cache=False).last_hidden_state
    return gates, hidden


@enable_grad
def functional_gradients(
    lm: LanguageModel, ids: Tensor, read: Callable[[Tensor], Tensor], at: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What removing each head does, to first order, to any differentiable readings of the final hidden states.

    One forward pass and one backward pass a reading. Memory: see `gated_hidden`.

    Raises as `require_finite`.

    Parameters
    ----------
    ids : [rows, T] tokens, no padding on the left.
    read : final hidden states [rows, T, D] -> [rows, R]; the readings of a row may depend on that row alone.
    at : [L, H] gates at which slopes are taken; None: all open.

    Returns
    -------
    values : [rows, R] float64, readings at these gates, by default of the unmasked model.
    effects : [N, R, rows] float64: to first order, reading without head h - reading.
    """
    gates, hidden = gated_hidden(lm, ids, at)
    values = read(hidden)
    n_readings = values.shape[1]
    grads = [  # [rows, L, H] each
        torch.autograd.grad(values[:, r].sum(), gates, retain_graph=r < n_readings - 1)[0] for r in range(n_readings)
    ]
    effects = _float64(-torch.stack(grads).flatten(2).permute(2, 0, 1))
    found = _float64(values)
    require_finite(lm, found, "a first-order pass", ids)
    require_finite(lm, effects, "the gradients of a first-order pass", ids)
    return found, effects


@enable_grad
def log_ratio_gradients(
    lm: LanguageModel,
    ids: Tensor,
    first: np.ndarray,
    end: np.ndarray | None = None,
    temperature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What removing each head does, to first order, to the log-probability of given continuations.

    One forward and one backward pass; logits are made at the continuations' positions only, in chunks.

    Parameters
    ----------
    ids : [rows, T] prompt and continuation. What follows a continuation is ignored, so shorter ones may be padded
        on the right with any token.
    first : [rows] position of each continuation's first token, at least 1.
    end : [rows] position after its last token; default: T. A stop token that was sampled belongs to it.
    temperature : that the continuations were sampled at.

    Returns
    -------
    log_p : [rows] float64, log p(continuation | prompt) in nats.
    s : [rows, N] float64: to first order, log p(M without h) - log p(M).

    Raises
    ------
    InputError
        A continuation begins before position 1, ends before it begins, or ends beyond its row.
    """
    rows, length = ids.shape
    begin = np.asarray(first)
    stop = np.full(rows, length) if end is None else np.asarray(end)
    if (begin < 1).any() or (stop < begin).any() or (stop > length).any():
        raise InputError(f"A continuation does not lie within positions 1 to {length}: give each prompt a token.")
    at = np.arange(1, length)
    scored = torch.from_numpy((at >= begin[:, None]) & (at < stop[:, None]))  # [rows, T-1]
    gates, hidden = gated_hidden(lm, ids)
    states = hidden[:, :-1][scored.to(lm.device)]  # [n, D]
    goals = ids.cpu()[:, 1:][scored].to(lm.device)
    log_p, grads = [], []
    for part, goal in zip(states.detach().split(CHUNK), goals.split(CHUNK), strict=True):
        nll = functional.cross_entropy(lm.logits(part.requires_grad_()) / temperature, goal, reduction="none")
        grads.append(torch.autograd.grad(nll.sum(), part)[0])  # of -log p: the sign that a removal has
        log_p.append(-nll.detach())
    (s,) = torch.autograd.grad(states, gates, torch.cat(grads))
    totals = np.zeros(rows)
    np.add.at(totals, scored.nonzero()[:, 0].numpy(), _float64(torch.cat(log_p)))
    ratios = _float64(s.flatten(1))
    require_finite(lm, totals, "the log-probability of a text", ids)
    require_finite(lm, ratios, "the gradients of a first-order pass", ids)
    return totals, ratios


def _float64(values: Tensor) -> np.ndarray:
    out: np.ndarray = values.detach().cpu().double().numpy()
    return out
