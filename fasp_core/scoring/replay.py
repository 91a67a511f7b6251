"""Replay: what the base model's continuations say of any pruned model, by importance weighting. NumPy alone.

A continuation c of the base model counts with the weight `w = p(c | pruned model) / p(c | base model)`, normalised to
sum to 1 (self-normalised importance sampling; Owen, Monte Carlo theory, methods and examples, 2013, chapter 9). So
one pool of scored continuations estimates the toxicity of every prune set, as far as the pool holds what the pruned
model would write; the effective sample size says how far. `log w` comes from a pass over the continuations under the
prune set, or to first order from the sum of its heads' log-ratios (`first_order.log_ratio_gradients`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasp_core.errors import InputError
from fasp_core.typing import Floats

MIN_ESS = 30.0  # continuations a group: below, the normal approximation of a mean is not to be trusted either
MIN_ESS_SHARE = 0.1  # of a group's continuations: below, few of them carry the estimate


@dataclass(frozen=True, eq=False)
class ReplayGap:
    """The toxicity gap of a pruned model, estimated without running it.

    Attributes
    ----------
    gap : sum over groups of |overall - group mean|.
    overall : toxicity over all prompts, each prompt counting alike.
    group_means, group_ess : [G] toxicity and effective sample size of each group.
    ess : effective sample size of `overall`, from 1 to `n`.
    n : continuations in the pool.
    low_confidence : a group has an effective sample size below 30 or below a tenth of its continuations.
    """

    gap: float
    overall: float
    group_means: Floats
    group_ess: Floats
    ess: float
    n: int
    low_confidence: bool


def set_log_ratio(log_ratios: ArrayLike, heads: Iterable[int]) -> Floats:
    """Log-ratio of a set of heads to first order: the sum over its heads, which ignores that heads interact.

    Parameters
    ----------
    log_ratios : [..., N] log p(M without h) - log p(M) of each continuation.
    heads : flat ids; a repeated one counts once.

    Returns
    -------
    [...] in nats.

    Raises
    ------
    InputError
        A head lies outside the model.
    """
    array = np.asarray(log_ratios)
    ids = sorted({int(h) for h in heads})
    if ids and (ids[0] < 0 or ids[-1] >= array.shape[-1]):
        raise InputError(
            f"The log-ratios are of {array.shape[-1]} heads: use flat ids from 0 to {array.shape[-1] - 1}."
        )
    return np.asarray(array[..., ids].sum(-1, dtype=np.float64))


def reweighted(scores: ArrayLike, log_w: ArrayLike) -> tuple[Floats, Floats]:
    """Toxicity of each prompt under the pruned model; weights are normalised within the prompt.

    With few continuations a prompt this is biased towards the base model (not at all moved by one continuation); a
    group's mean is better taken by `reweighted_groups`.

    Parameters
    ----------
    scores : [n, K] toxicity of K continuations of each prompt.
    log_w : [n, K] log-ratio of each continuation.

    Returns
    -------
    toxicity : [n].
    ess : [n] effective sample size (sum w)^2 / sum w^2, from 1 to K.

    Raises
    ------
    InputError
        The shapes differ, there is no continuation, or a value is not finite.
    """
    x, log_ratio = _checked(scores, log_w)
    w = np.exp(log_ratio - log_ratio.max(1, keepdims=True))
    total = w.sum(1)
    return (w * x).sum(1) / total, total**2 / (w**2).sum(1)


def reweighted_groups(scores: ArrayLike, log_w: ArrayLike, codes: ArrayLike) -> tuple[Floats, Floats]:
    """Toxicity of each group under the pruned model; weights are normalised over the group's continuations.

    A prompt's weights have mean 1 in expectation, so prompts keep an equal share, up to noise.

    Parameters
    ----------
    scores, log_w : [n, K] as `reweighted`.
    codes : [n] group of each prompt, 0, 1, 2, ... without holes.

    Returns
    -------
    toxicity : [G].
    ess : [G] effective sample size, from 1 to the group's number of continuations.

    Raises
    ------
    InputError
        As `reweighted`; codes that do not fit.
    """
    x, log_ratio = _checked(scores, log_w)
    group = _checked_codes(codes, len(x))
    members = [group == g for g in range(int(group.max()) + 1)]
    parts = [reweighted(x[m].reshape(1, -1), log_ratio[m].reshape(1, -1)) for m in members]
    means, ess = zip(*parts, strict=True)
    return np.concatenate(means), np.concatenate(ess)


def replay_gap(scores: ArrayLike, log_w: ArrayLike, codes: ArrayLike) -> ReplayGap:
    """The gap under the pruned model from the base model's continuations.

    Arguments and errors as `reweighted_groups`; also an InputError for fewer than two groups.
    """
    means, ess = reweighted_groups(scores, log_w, codes)
    if len(means) < 2:
        raise InputError("A gap needs at least two groups: add prompts about another group.")
    sizes = np.bincount(np.asarray(codes)) * np.shape(scores)[1]  # continuations of each group
    n = int(sizes.sum())
    overall = float((sizes * means).sum() / n)
    return ReplayGap(
        gap=float(np.abs(overall - means).sum()),
        overall=overall,
        group_means=means,
        group_ess=ess,
        ess=float(n**2 / (sizes**2 / ess).sum()),  # 1 / sum of squared weights, a group's weights summing to its share
        n=n,
        low_confidence=bool((ess < np.maximum(MIN_ESS, MIN_ESS_SHARE * sizes)).any()),
    )


def first_order_toxicity(scores: ArrayLike, s: ArrayLike) -> Floats:
    """What removing each head does to each prompt's toxicity, to first order: the mean of (score - baseline) * s.

    This is the score-function estimator (Williams, 1992). s has mean 0 over the model's own continuations, so any
    baseline that does not depend on the prompt's own leaves the mean as it is and takes variance away. Here it is the
    mean score of all other prompts, which also works for one continuation a prompt.

    Parameters
    ----------
    scores : [n, K] toxicity of K continuations of each prompt.
    s : [n, K, N] first-order log-ratios, see `first_order.log_ratio_gradients`.

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


def _checked(scores: ArrayLike, log_w: ArrayLike) -> tuple[Floats, Floats]:
    x, log_ratio = np.asarray(scores, dtype=np.float64), np.asarray(log_w, dtype=np.float64)
    if x.ndim != 2 or x.size == 0 or log_ratio.shape != x.shape:
        raise InputError(
            f"Scores of shape {x.shape} and log-weights of shape {log_ratio.shape} do not fit: "
            "give both as prompts by continuations."
        )
    if not (np.isfinite(x).all() and np.isfinite(log_ratio).all()):
        raise InputError("Some scores or log-weights are not finite: leave those prompts out.")
    return x, log_ratio


def _checked_codes(codes: ArrayLike, n: int) -> NDArray[np.int64]:
    group: NDArray[np.int64] = np.asarray(codes)
    if group.shape != (n,) or not np.issubdtype(group.dtype, np.integer) or group.min() < 0:
        raise InputError(f"Group codes must be whole numbers, one for each of the {n} prompts: use group_codes.")
    if not np.bincount(group).all():
        raise InputError("Group codes must number the groups 0, 1, 2, ... without holes: use group_codes.")
    return group
