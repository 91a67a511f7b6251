"""Replay: what the base model's continuations say of any pruned model, by importance weighting. NumPy alone.

A continuation c of the base model counts with the weight `w = p(c | pruned model) / p(c | base model)`, normalised to
sum to 1 (self-normalised importance sampling; Owen, Monte Carlo theory, methods and examples, 2013, chapter 9). So
one pool of scored continuations estimates the toxicity without each head, as far as the pool holds what the pruned
model would write. `log w` is taken to first order (`gate_gradients.log_ratio_gradients`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.typing import Codes, Floats


def reweighted(scores: ArrayLike, log_w: ArrayLike, codes: Codes) -> Floats:
    """[n] what each prompt adds to its group's mean under the pruned model: the mean over a group is its toxicity.

    Weights are normalised over the group's continuations. A prompt's weights have mean 1 in expectation, so prompts
    keep an equal share, up to noise. With few continuations a group the mean is biased towards the base model's.

    Parameters
    ----------
    scores : [n, K] toxicity of K continuations of each prompt.
    log_w : [n, K] log-ratio of each continuation.
    codes : [n] group of each prompt.

    Raises
    ------
    InputError
        The shapes differ, there is no continuation, or a value is not finite.
    """
    x, log_ratio = np.asarray(scores, dtype=np.float64), np.asarray(log_w, dtype=np.float64)
    if x.ndim != 2 or x.size == 0 or log_ratio.shape != x.shape:
        raise InputError(
            f"Scores of shape {x.shape} and log-weights of shape {log_ratio.shape} do not fit: "
            "give both as prompts by continuations."
        )
    if not (np.isfinite(x).all() and np.isfinite(log_ratio).all()):
        raise InputError("Some scores or log-weights are not finite: leave those prompts out.")
    out = np.empty(len(x))
    for g in np.unique(codes):
        at = codes == g
        w = np.exp(log_ratio[at] - log_ratio[at].max())
        out[at] = (w * x[at]).mean(1) / w.mean()
    return out


def first_order_toxicity(scores: ArrayLike, s: ArrayLike) -> Floats:
    """What removing each head does to each prompt's toxicity, to first order: the mean of (score - baseline) * s.

    This is the score-function estimator (Williams, 1992). s has mean 0 over the model's own continuations, so any
    baseline that does not depend on the prompt's own leaves the mean as it is and takes variance away. Here it is the
    mean score of all other prompts, which also works for one continuation a prompt.

    Parameters
    ----------
    scores : [n, K] toxicity of K continuations of each prompt.
    s : [n, K, N] first-order log-ratios, see `gate_gradients.log_ratio_gradients`.

    Returns
    -------
    [N, n]: to first order, toxicity without head h - toxicity.

    Raises
    ------
    InputError
        The shapes do not fit, a value is not finite, or there is only one prompt.
    """
    x, ratios = np.asarray(scores, dtype=np.float64), np.asarray(s)
    if x.ndim != 2 or x.size == 0 or ratios.ndim != 3 or ratios.shape[:2] != x.shape:
        raise InputError(
            f"Scores of shape {x.shape} and log-ratios of shape {ratios.shape} do not fit: "
            "give log-ratios as prompts by continuations by heads."
        )
    if not (np.isfinite(x).all() and np.isfinite(ratios).all()):
        raise InputError("Some scores or log-ratios are not finite: leave those prompts out.")
    n, k = x.shape
    if n < 2:
        raise InputError("The first-order effect on toxicity needs at least two prompts: add one.")
    baseline = (x.sum() - x.sum(1, keepdims=True)) / ((n - 1) * k)  # [n, 1]
    return np.asarray(((x - baseline)[:, None] @ ratios)[:, 0].T / k)
