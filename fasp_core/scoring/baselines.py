"""Scores of heads that need no ablation: the baselines `magnitude` and `gradient` of the FASP paper's comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fasp_core.data.text import TokenWindows
from fasp_core.forward.gate_gradients import log_ratio_gradients
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import no_grad
from fasp_core.model.architectures import columns
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import present
from fasp_core.model.passes import in_halves, require_finite

if TYPE_CHECKING:
    from torch import Tensor


@no_grad
def magnitude(lm: LanguageModel) -> np.ndarray:
    """[N] L2 norm of each head's q, k, v and output weights and q, k, v biases; low scores are pruned first.

    With grouped-query attention a k or v slice counts for every query head that reads it.
    """
    scores = []
    for block in lm.blocks:
        with present(block):
            outputs = columns(block.get_submodule(lm.architecture.out_proj)).split(lm.head_dim, dim=1)
            parts = lm.architecture.head_qkv(block, lm.n_heads, lm.n_kv_heads, lm.head_dim)
            for column, tensors in zip(outputs, parts, strict=True):
                squares = sum(float(t.cpu().double().square().sum()) for t in [column, *tensors])
                scores.append(squares**0.5)
    if not np.isfinite(scores).all():
        bad = PruneSet.from_flat(np.flatnonzero(~np.isfinite(scores)), lm.n_heads)
        require_finite(lm, scores, f"the weights of {bad.format()[:60]}")
    return np.array(scores)


def gradient(lm: LanguageModel, windows: TokenWindows) -> np.ndarray:
    """[N] sum over windows of |d loss / d head gate|, L2-normalised in each layer (Michel et al., 2019).

    The loss of a window is its mean NLL in nats. One backward pass a window.
    """
    total = np.zeros(lm.size)

    def run(window: tuple[Tensor, int]) -> np.ndarray:
        row, start = window
        _, ratios = log_ratio_gradients(lm, row[None], np.array([start]))  # of minus the summed loss, without each head
        return np.asarray(np.abs(ratios[0]) / (len(row) - start))

    for ids, first in windows.batches:
        for window in zip(ids, first.tolist(), strict=True):
            total += in_halves(lm, run, window, lambda w: [w], "the gradients of a single window of text")[0]
    layers = total.reshape(lm.n_layers, lm.n_heads)
    norms = np.linalg.norm(layers, axis=1, keepdims=True)
    return np.asarray(layers / np.where(norms > 0, norms, 1.0)).reshape(-1)
