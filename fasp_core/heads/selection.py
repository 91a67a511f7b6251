"""Which heads to prune, given their scores, gamma and alpha.

Selection is kept apart from scoring so that a slider can move without touching a model: it is arithmetic on
a few arrays of N numbers. Every method is the same act, "prune the k heads of lowest cost"; only FASP first
sets the critical heads aside. Heads are flat ids, `layer * n_heads + head`.

Heads may be set beforehand: locked ones are never pruned, forced ones always. They are part of the choice and not
a change to its outcome: forced heads count toward alpha, and a place that a locked head leaves goes to the next
best, so that sets stay comparable in size.

References
----------
Zayed et al., "Fairness-Aware Structured Pruning in Transformers", AAAI 2024, arXiv 2312.15398. Rule
`released` follows the behavior of their `main.py`, https://github.com/chandar-lab/FASP.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasp_core import defaults
from fasp_core.errors import InputError
from fasp_core.typing import Floats

METHODS = ("fasp", "magnitude", "gradient", "ppl-only", "bias-only", "random")
RULES = ("stable", "released")
PROTECTS = ("perplexity", "task", "worse")  # what FASP's critical heads are critical by


# the scores that each method reads, and so the only ones that must be there and be finite
_READS: dict[str, tuple[str, ...]] = {
    "fasp": ("z_ppl", "z_bias"),
    "magnitude": ("magnitude",),
    "gradient": ("gradient",),
    "ppl-only": ("z_ppl",),
    "bias-only": ("z_bias",),
    "random": (),
}


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Scores of all N = n_layers * n_heads heads, each array of shape [N] in flat order, or None.

    Parameters
    ----------
    z_ppl : perplexity without the head minus perplexity. Positive: the head helps language modeling.
    z_bias : gap minus gap without the head. Positive: removing the head lowers the gap.
    magnitude, gradient : baseline scores; the lowest are pruned first.
    z_task : loss on a task without the head minus loss. Positive: the head helps the task.
    protect : what FASP's critical heads are critical by: "perplexity" (z_ppl, as published), "task" (z_task), or
        "worse": a head's place is the better of its places by either, so that each half of the critical heads is what
        one of the two would protect first.

    Adding a constant to a whole array changes no selection, so metrics after removal will do as well.
    The arrays are copied and read-only. They may hold NaN here; `select` refuses those that it reads.

    Raises
    ------
    InputError
        A size below 1, an array that does not hold numbers or is not of shape [N].
    """

    n_layers: int
    n_heads: int
    z_ppl: Floats | None = None
    z_bias: Floats | None = None
    magnitude: Floats | None = None
    gradient: Floats | None = None
    z_task: Floats | None = None
    protect: str = PROTECTS[0]

    def __post_init__(self) -> None:
        if self.protect not in PROTECTS:
            raise InputError(f"Nothing is protected by '{self.protect}': choose one of {', '.join(PROTECTS)}.")
        if self.n_layers < 1 or self.n_heads < 1:
            raise InputError(
                f"A model has at least 1 layer and 1 head a layer, not {self.n_layers} and {self.n_heads}."
            )
        for name in ("z_ppl", "z_bias", "magnitude", "gradient", "z_task"):
            if (given := getattr(self, name)) is None:
                continue
            try:
                array = np.array(given, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise InputError(f"{name} must be numbers, one for each head ({error}).") from error
            if array.shape != (self.n_layers * self.n_heads,):
                raise InputError(
                    f"{name} has shape {array.shape}: {self.n_layers} layers of {self.n_heads} heads need "
                    f"({self.n_layers * self.n_heads},), in flat order."
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def protection(self) -> Floats:
        """[N] the highest are critical; of `worse` these are places counted down, without ties."""
        if self.protect == "worse":
            return _worse(self._of("z_ppl"), self._of("z_task"))
        return self._of("z_task" if self.protect == "task" else "z_ppl")

    def _of(self, name: str) -> Floats:
        array: Floats | None = getattr(self, name)
        assert array is not None  # `select` has looked
        return array


@dataclass(frozen=True)
class Selection:
    """The heads to prune, and what led to them.

    Attributes
    ----------
    pruned, critical : sorted flat ids; `critical` is empty for methods that protect nothing.
    k : how many heads are pruned. `requested_k` is how many alpha asked for; `notes` say why they differ.
    locked, forced : sorted flat ids of heads that were set beforehand; `forced` are among `pruned`.
    """

    pruned: tuple[int, ...]
    critical: tuple[int, ...]
    k: int
    requested_k: int
    notes: tuple[str, ...]
    method: str
    gamma: float
    alpha: float
    rule: str
    seed: int
    n_layers: int
    n_heads: int
    locked: tuple[int, ...] = ()
    forced: tuple[int, ...] = ()
    protect: str = PROTECTS[0]

    @property
    def heads(self) -> list[tuple[int, int]]:
        """The pruned heads as (layer, head), both from 0, in flat order."""
        return [divmod(flat, self.n_heads) for flat in self.pruned]


def select(
    scores: HeadScores,
    method: str = "fasp",
    gamma: float = defaults.GAMMA,
    alpha: float = defaults.ALPHA,
    rule: str = "stable",
    seed: int = 0,
    locked: Iterable[int] = (),
    forced: Iterable[int] = (),
) -> Selection:
    """Choose the heads to prune.

    Parameters
    ----------
    method : one of `METHODS`. `fasp` prunes the highest z_bias outside the critical heads. The others choose
        among all heads: `magnitude` and `gradient` prune the lowest score, `ppl-only` the lowest z_ppl,
        `bias-only` the highest z_bias, and `random` the first k of a permutation, so that for one seed the
        sets are nested in alpha.
    gamma : share of all heads, in [0, 1], that is critical: those of highest z_ppl, unless the scores' `protect` says
        otherwise. Only `fasp` reads it.
    alpha : share of all heads, in [0, 1], to prune.
    rule : `stable` takes exactly the number asked for, ties going to the lower flat id; where fewer heads
        than that are not critical, it takes those and says so in `notes`. `released` repeats the FASP
        authors' code: every head up to a threshold goes, so ties prune too many and protect too few.
    seed : of `random`, 0 or greater.
    locked : flat ids of heads that no method prunes.
    forced : flat ids of heads that every method prunes, critical or not. They count toward alpha; where they are more
        than it asks for, they are the set, and `notes` say so.

    Raises
    ------
    InputError
        An unknown method or rule; gamma or alpha outside [0, 1]; a score that the method reads is missing,
        NaN or infinite; a locked or forced head outside the model, one that is both, or any with
        `released`; with `released` and `fasp`, gamma = 1 (their code would protect no head at all) or more heads asked
        for than are not critical (it would crash).
    """
    if method not in METHODS:
        raise InputError(f"There is no method '{method}': choose one of {', '.join(METHODS)}.")
    if rule not in RULES:
        raise InputError(f"There is no rule '{rule}': choose one of {', '.join(RULES)}.")
    for name, share in (("gamma", gamma), ("alpha", alpha)):
        if not 0 <= share <= 1:  # also refuses NaN
            raise InputError(f"{name} is a share of all heads: give a number from 0 to 1, not {share}.")
    for name in _reads(method, scores.protect):
        _require_finite(scores, name)

    kept, off = set_beforehand(locked, forced, scores.n_layers, scores.n_heads)
    if rule == "released" and (kept.size or off.size):
        raise InputError("Rule 'released' knows no heads that are set beforehand: use rule 'stable'.")

    cost = _cost(scores, method, seed)
    protect_by = scores.protection if method == "fasp" else None
    if rule == "stable":
        pruned, critical, requested, notes = _pick_stable(cost, protect_by, float(gamma), float(alpha), kept, off)
    else:
        pruned, critical, requested, notes = _pick_released(cost, protect_by, float(gamma), float(alpha))
    if method == "random" and rule == "released":
        notes.append(f"The authors' random heads had no seed and cannot be repeated: these are seed {seed}.")
    return Selection(
        pruned=tuple(sorted(pruned.tolist())),
        critical=tuple(sorted(critical.tolist())),
        k=pruned.size,
        requested_k=requested,
        notes=tuple(notes),
        method=method,
        gamma=float(gamma),
        alpha=float(alpha),
        rule=rule,
        seed=seed,
        n_layers=scores.n_layers,
        n_heads=scores.n_heads,
        locked=tuple(kept.tolist()),
        forced=tuple(off.tolist()),
        protect=scores.protect if method == "fasp" else PROTECTS[0],
    )


def orders(scores: HeadScores, method: str, seed: int = 0) -> tuple[list[int], list[int] | None]:
    """All heads in the order in which rule `stable` of `select` prunes them, and in which it protects them.

    With them a choice needs no scores: the critical heads are the first `floor(gamma * N)` of the second order, and
    those that go the first of the other order that are neither critical nor set beforehand. The second is None where
    nothing is critical.

    Raises
    ------
    InputError
        As `select`, of the method, its scores and the seed.
    """
    if method not in METHODS:
        raise InputError(f"There is no method '{method}': choose one of {', '.join(METHODS)}.")
    for name in _reads(method, scores.protect):
        _require_finite(scores, name)
    first = np.argsort(_cost(scores, method, seed), kind="stable").tolist()
    return first, critical_heads(scores.protection, 1.0).tolist() if method == "fasp" else None


def set_beforehand(
    locked: Iterable[int], forced: Iterable[int], n_layers: int, n_heads: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Locked and forced heads as sorted flat ids, each once.

    Raises
    ------
    InputError
        A head outside the model, or one that is both locked and forced.
    """
    found = []
    for name, ids in (("locked", locked), ("forced", forced)):
        heads = np.array(sorted({int(i) for i in ids}), dtype=np.intp)
        outside = heads[(heads < 0) | (heads >= n_layers * n_heads)]
        if outside.size:
            raise InputError(
                f"Head {outside[0]} cannot be {name}: flat ids of this model run from 0 to {n_layers * n_heads - 1}."
            )
        found.append(heads)
    both = np.intersect1d(found[0], found[1])
    if both.size:
        layer, head = divmod(int(both[0]), n_heads)
        raise InputError(f"L{layer}H{head} is both locked and forced: say one of them.")
    return found[0], found[1]


def critical_heads(z_ppl: Floats, gamma: float) -> NDArray[np.intp]:
    """Flat ids of the floor(gamma * N) heads of highest `z_ppl` [N], the highest first; ties: lower flat id."""
    return np.argsort(-z_ppl, kind="stable")[: _whole_heads(gamma, z_ppl.size)]


def _worse(z_ppl: Floats, z_task: Floats) -> Floats:
    """[N] places counted down: by the better of both places, then by the other one, then by the lower flat id."""
    order = [np.argsort(-z, kind="stable") for z in (z_ppl, z_task)]
    places = np.array([np.argsort(one) for one in order])
    found = np.lexsort((places.max(0), places.min(0)))  # stable
    return -np.argsort(found).astype(np.float64)


def _reads(method: str, protect: str) -> tuple[str, ...]:
    """The scores that a method reads, what its critical heads are critical by included."""
    if method != "fasp" or protect == "perplexity":
        return _READS[method]
    return ("z_task", "z_bias") if protect == "task" else ("z_ppl", "z_task", "z_bias")


Picked = tuple[NDArray[np.intp], NDArray[np.intp], int, list[str]]  # pruned, critical, requested k, notes


def _pick_stable(
    cost: Floats,
    z_ppl: Floats | None,
    gamma: float,
    alpha: float,
    locked: NDArray[np.intp],
    forced: NDArray[np.intp],
) -> Picked:
    """Exactly k heads, forced ones first: a stable sort of ids in ascending order leaves ties to the lower id."""
    requested = _whole_heads(alpha, cost.size)
    critical = np.empty(0, dtype=np.intp)
    if z_ppl is not None:
        critical = critical_heads(z_ppl, gamma)
    free = np.setdiff1d(np.arange(cost.size), np.concatenate([critical, locked, forced]))  # ascending
    best = free[np.argsort(cost[free], kind="stable")[: max(requested - forced.size, 0)]]
    pruned = np.concatenate([forced, best])
    notes = []
    if pruned.size < requested:
        left = "not critical" if not locked.size else "neither critical nor kept by hand"
        more = f" besides the {forced.size} pruned by hand" if forced.size else ""
        notes.append(
            f"Only {free.size} of {cost.size} heads are {left} at gamma {gamma:g}{more}: "
            f"k is {pruned.size}, not the {requested} that alpha {alpha:g} asks for."
        )
    elif pruned.size > requested:
        notes.append(
            f"{forced.size} heads are pruned by hand: k is {pruned.size}, not the {requested} that alpha {alpha:g} "
            "asks for."
        )
    return pruned, critical, requested, notes


def _pick_released(cost: Floats, z_ppl: Floats | None, gamma: float, alpha: float) -> Picked:
    """Every head up to a threshold, with the authors' own rounding, which is that of the float product."""
    requested = int(cost.size * alpha)
    free = np.ones(cost.size, dtype=bool)
    notes = []
    if z_ppl is not None:
        n_free = cost.size - int(cost.size * gamma)
        if n_free == 0:
            raise InputError("Rule 'released' protects nothing at gamma 1: lower gamma or use rule 'stable'.")
        free = z_ppl <= np.sort(z_ppl)[n_free - 1]
        if free.sum() > n_free:
            n_critical = cost.size - free.sum()
            notes.append(f"Ties in perplexity: critical heads are {n_critical}, not {cost.size - n_free}.")
        if requested > free.sum():
            raise InputError(
                f"Rule 'released' cannot prune {requested} heads with only {free.sum()} not critical: "
                "lower alpha or gamma, or use rule 'stable'."
            )
    pruned = np.zeros(cost.size, dtype=bool)
    if requested:
        pruned = free & (cost <= np.sort(cost[free])[requested - 1])
    if pruned.sum() > requested:
        notes.append(f"Ties at the threshold: k is {pruned.sum()}, not the {requested} that alpha {alpha:g} asks for.")
    return np.flatnonzero(pruned), np.flatnonzero(~free), requested, notes


def _cost(scores: HeadScores, method: str, seed: int) -> Floats:
    """The number by which heads go, lowest first, shape [N]."""
    if method == "random":
        if seed < 0:
            raise InputError(f"A seed is a whole number from 0 up, not {seed}.")
        n = scores.n_layers * scores.n_heads
        order = np.random.Generator(np.random.PCG64(seed)).permutation(n)
        return np.argsort(order).astype(np.float64)  # each head's place in that order
    array: Floats = getattr(scores, _READS[method][-1])
    return -array if method in ("fasp", "bias-only") else array


def _whole_heads(share: float, n: int) -> int:
    """floor(share * n), free of rounding: the largest k whose own share, k / n, is no more than `share`.

    In floats .29 * 100 is 28.999999999999996, and a head would be lost. The quotient 29 / 100 and the literal
    .29 are both rounded once, to the same float. So a decimal is never cut short, and `share = k / n` gives
    back k even where k / n has no finite decimal.
    """
    return int(np.count_nonzero(np.arange(1, n + 1) / n <= share))


def _require_finite(scores: HeadScores, name: str) -> None:
    array: Floats | None = getattr(scores, name)
    if array is None and name == "z_task":
        raise InputError(
            "It is not known what heads are worth for a task: score them with 'python -m fasp_core score --task "
            "lambada', or protect by perplexity."
        )
    if array is None:
        raise InputError(f"These scores hold no {name}: score the heads for it, or choose another method.")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        named = ", ".join(f"L{flat // scores.n_heads}H{flat % scores.n_heads}" for flat in bad[:5])
        more = f" and {bad.size - 5} more" if bad.size > 5 else ""
        raise InputError(
            f"{name} is not a finite number for {named}{more}: score these heads again, or choose a method that does "
            "not read it."
        )
