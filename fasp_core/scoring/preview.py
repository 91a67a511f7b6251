"""A preview of `z_ppl` of all heads from a few passes. An approximation, and to be labelled as one.

A parabola through the unmasked model: removing head h moves its gate by -1, so `z(h)` is about `-g + d/2` with g the
first and d the second derivative of the NLL in the gate. For d stands the Gauss-Newton (here: Fisher) diagonal, which
is never negative and which is what keeps important heads apart from idle ones: at a good model g is near 0 for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fasp_core.data.text import TokenWindows
from fasp_core.errors import InputError
from fasp_core.forward.gate_gradients import gated_hidden
from fasp_core.forward.next_word import CHUNK
from fasp_core.lazy import enable_grad, functional, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import two
from fasp_core.model.passes import in_halves, require_finite

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Preview:
    """Approximate `z_nats` of every head: an estimate, not a measurement.

    Attributes
    ----------
    first : [N] -g, the first-order part, in nats a token.
    curvature : [N] d >= 0, the estimated Gauss-Newton diagonal, in nats a token.
    n : number of scored targets.
    """

    first: np.ndarray
    curvature: np.ndarray
    n: int

    @property
    def z_nats(self) -> np.ndarray:
        """[N] nats a token, comparable with the exact change of the mean NLL. Positive: the head helps."""
        return self.first + self.curvature / 2


@enable_grad
def gauss_newton(
    lm: LanguageModel,
    windows: TokenWindows,
    seed: int = 0,
    progress: Callable[[float, float, str], None] | None = None,
    rows: int = 2,
    draws: int = 1,
) -> Preview:
    """One forward pass over the text and `1 + draws` backward passes.

    For labels drawn from the model itself, the gradients of different tokens have mean 0 and are uncorrelated. So the
    square of a row's summed gradient is an unbiased estimate of the row's Fisher diagonal, cross terms included, and
    rows add up. A row's square has a relative standard deviation of about sqrt(2), so d has sqrt(2 / (rows of the text
    * draws)): more draws or more, shorter windows make it better. (Squares of parts of a row would cost a backward
    pass each as well, and are no better than as many draws.)

    Parameters
    ----------
    seed : of the drawn labels, which depend on nothing else but the window's and the draw's number.
    rows : windows in one pass; moves memory and time, not the result.
    draws : label draws that d is averaged over.

    Raises
    ------
    InputError
        `rows` or `draws` is below 1.
    """
    if rows < 1 or draws < 1:
        raise InputError("A preview needs at least 1 row a pass and 1 draw of labels.")
    slope, curvature = np.zeros(lm.size), np.zeros(lm.size)
    passes = (1 + draws) * sum(-(-len(ids) // rows) for ids, _ in windows.batches)
    done = 0
    for batch, (ids, first) in enumerate(windows.batches):

        def run(places: list[int], batch: int = batch, ids: Tensor = ids, first: np.ndarray = first) -> np.ndarray:
            part = ids[places]
            scored = torch.from_numpy(np.arange(1, part.shape[1]) >= first[places][:, None])
            chances = [
                np.random.default_rng([seed, batch, i]).random((draws, int(n)))
                for i, n in zip(places, scored.sum(1), strict=True)
            ]
            gates, hidden = gated_hidden(lm, part)
            states = hidden[:, :-1][scored.to(lm.device)]
            grads = _label_gradients(lm, states, part[:, 1:][scored], np.concatenate(chances, axis=1))
            found = [
                torch.autograd.grad(states, gates, grad, retain_graph=k < draws)[0].flatten(1).cpu().double().numpy()
                for k, grad in enumerate(grads)
            ]
            require_finite(lm, found, "the gradients of a preview", part)
            return np.stack(found)  # [1 + draws, rows, N]

        for start in range(0, len(ids), rows):
            places = list(range(start, min(start + rows, len(ids))))
            for found in in_halves(lm, run, places, two, "a single window of text"):
                slope += found[0].sum(0)
                curvature += (found[1:] ** 2).sum((0, 1)) / draws
            done += 1 + draws
            if progress is not None:
                progress(done, passes, f"{done} of {passes} passes")
    return Preview(-slope / windows.n_scored, curvature / windows.n_scored, windows.n_scored)


def _label_gradients(lm: LanguageModel, states: Tensor, goals: Tensor, chances: np.ndarray) -> Tensor:
    """Gradients of the summed NLL in the final hidden states, for the text's labels and for drawn ones.

    Parameters
    ----------
    states : [n, D].
    goals : [n] labels of the text.
    chances : [draws, n] in [0, 1), which label to draw: the one at this place of the cumulative distribution.

    Returns
    -------
    [1 + draws, n, D], the text's own labels first.
    """
    out = []
    for start in range(0, len(goals), CHUNK):
        part = states[start : start + CHUNK].detach().requires_grad_()
        logits = lm.logits(part)
        labels = [goals[start : start + CHUNK].to(lm.device)]
        upto = logits.detach().softmax(-1).cumsum(-1)  # [CHUNK, V]
        for row in chances[:, start : start + CHUNK]:
            place = torch.tensor(row[:, None], dtype=upto.dtype, device=lm.device) * upto[:, -1:]
            drawn = torch.searchsorted(upto, place, right=True)[:, 0]
            labels.append(drawn.clamp(max=upto.shape[1] - 1))  # rounding may reach the end
        losses = [functional.cross_entropy(logits, label, reduction="sum") for label in labels]
        grads = [torch.autograd.grad(loss, part, retain_graph=True)[0] for loss in losses]
        out.append(torch.stack(grads))
    return torch.cat(out, dim=1)
