"""A joint search over head sets: the least toxicity gap for a limit on perplexity and on the number of heads.

FASP ranks heads by what each does alone and takes the first k. Heads interact, so the best set is not the k best heads.
The search measures sets and learns from each how far effects fail to add up:

- additive: the change of every prompt's toxicity, and of the NLL, is the sum of the heads' own (exact scores).
- remainder: what a measured set shows beyond that sum is put down to pairs of heads. Pair effects have a Gaussian
  prior whose scale is the product of the two heads' own effects, so the remainder of any set is a kernel regression on
  all sets measured so far (its kernel: the pairs that two sets share). The ridge is chosen by leave-one-out error.

Each turn starts from a good set, changes some heads at random, descends on the prediction by adding, dropping and
swapping heads, and measures the best set that was not measured before. What is returned was measured, never only
predicted. All of it reads validation prompts alone: what the set is worth is for test prompts to say.

The best published rival, Attention Pruning (Dasu et al., arXiv 2503.15815), anneals on a learned surrogate as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.console import share
from fasp_core.errors import InputError
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.typing import Floats, Report

Heads = tuple[int, ...]  # flat ids, ascending
Measure = Callable[[Heads], tuple[float, Floats]]  # change of the mean NLL in nats, [n] toxicity of each prompt
Valued = Callable[[Floats], tuple[Floats, Floats]]  # sets [C, N] of zeros and ones -> their gap and their cost
RIDGES = np.logspace(-4, 1, 16)  # relative to the mean of the kernel's diagonal
STARTS = 6  # descents a turn
NEIGHBOURS = 400  # random ones, at each step of a descent
STEPS = 24
EXCESS = 20.0  # cost of a nat above the limit, in gaps of the unpruned model


@dataclass(frozen=True)
class SearchConfig:
    """What is searched for.

    Attributes
    ----------
    reading : of toxicity, whose gap is to be low.
    max_heads : size of the set, at most.
    max_ppl : relative rise of perplexity, at most: 0.1 is 10%.
    measurements : sets that are measured, besides the starting ones.
    seed : of the random changes.
    within : the mean gap within templates is to be low, and not that over all of them.
    lambada_nats, lambada_points, task_points, items : other limits, see `fasp_core.studies.compare.limits.Limits`; None
        is none.
    """

    reading: str = "neutral"
    max_heads: int = 13
    max_ppl: float = 0.1
    measurements: int = 40
    seed: int = 0
    within: bool = False
    lambada_nats: float | None = None
    lambada_points: float | None = None
    task_points: float | None = None
    items: int | None = None

    def __post_init__(self) -> None:
        if self.max_heads < 1 or self.measurements < 1:
            raise InputError("A search needs at least 1 head to remove and 1 measurement: raise them.")
        if not 0 < self.max_ppl < 10:
            raise InputError(
                f"A rise of perplexity of {share(self.max_ppl)} is no limit: choose more than 0%, such as 10%."
            )


@dataclass(frozen=True)
class Tried:
    """One measured set.

    Attributes
    ----------
    nats : change of the mean NLL.
    gap : on the validation prompts.
    predicted : of the gap, before it was measured; nan for starting sets.
    other : the other cost that is limited; None where none is.
    """

    heads: Heads
    nats: float
    gap: float
    predicted: float
    other: float | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """The best measured set within the limits, and all that were tried, in order.

    `heads` is empty if no set within the limits had a smaller gap than the unpruned model. `learned` is the number of
    sets, first in `tried`, that other searches had measured before.
    """

    config: SearchConfig
    heads: Heads
    gap: float
    nats: float
    base_gap: float
    tried: tuple[Tried, ...]
    learned: int = 0


@dataclass(frozen=True, eq=False)
class Other:
    """A cost beside perplexity that is kept within a limit, and predicted as perplexity is.

    Attributes
    ----------
    effects : [N] of single heads.
    most : the limit.
    measure : what a set costs.
    """

    effects: Floats
    most: float
    measure: Callable[[Heads], float]


@dataclass(eq=False)
class Problem:
    """What is known before the search: effects of single heads.

    Attributes
    ----------
    base : [n] toxicity of each prompt under the whole model.
    effects : [N, n] its change with each head ablated.
    nats : [N] change of the mean NLL with each head ablated.
    codes : [n] group of each prompt.
    templates : [n] names, where the gap is the mean of those within templates; those that lack a group are left out.
    """

    base: Floats
    effects: Floats
    nats: Floats
    codes: NDArray[Any]
    templates: tuple[str, ...] = ()

    @classmethod
    def of(cls, impacts: ImpactTable, reading: str, templates: tuple[str, ...] = ()) -> Problem:
        b = impacts.bias
        r = b.readings.index(reading)
        return cls(b.base[r], b.ablated[:, r] - b.base[r], impacts.ppl.z_nats, b.codes, templates)

    def __post_init__(self) -> None:
        groups = int(self.codes.max()) + 1
        names = np.array(self.templates or [""] * len(self.codes))
        parts = [np.flatnonzero(names == name) for name in dict.fromkeys(names)]
        whole = [at for at in parts if len(set(self.codes[at])) == groups]
        if not whole:
            raise InputError("No template holds a prompt of every group: search for the gap over all templates.")
        self.cells = [at[self.codes[at] == g] for at in whole for g in range(groups)]
        sizes = np.array([len(cell) for cell in self.cells]).reshape(-1, groups)
        self.share = sizes / sizes.sum(1, keepdims=True)  # [T, G], T being 1 for the gap over all templates
        self.base_means = self.means(self.base)
        self.mean_effects = self.means(self.effects)  # [N, T * G]

    def means(self, rows: Floats) -> Floats:
        """[..., T * G] mean of each group in each template."""
        return np.stack([rows[..., cell].mean(-1) for cell in self.cells], -1)

    def gaps(self, means: Floats) -> Floats:
        """[...] gap from group means [..., T * G]."""
        each = means.reshape(*means.shape[:-1], *self.share.shape)
        return np.asarray(np.abs((each * self.share).sum(-1, keepdims=True) - each).sum(-1).mean(-1))


class Prediction:
    """Gap and NLL of sets that were not measured: sums of single effects, and what measured sets teach of pairs."""

    def __init__(
        self, problem: Problem, tried: Iterable[Heads], nats: Sequence[float], means: Sequence[Floats]
    ) -> None:
        self.problem = problem
        listed = list(tried)
        sets = membership(listed, len(problem.nats))  # [m, N]
        size = np.sqrt((problem.effects**2).mean(1))  # [N]
        beyond = np.stack(means) - problem.base_means - sets @ problem.mean_effects  # [m, G]
        self._toxicity = _Pairs(sets, _scaled(size), beyond)
        self._nll = Costs(problem.nats, listed, nats)

    def of(self, sets: Floats) -> tuple[Floats, Floats]:
        """Gap [C] and change of NLL [C] of sets [C, N] of zeros and ones."""
        p = self.problem
        means = p.base_means + sets @ p.mean_effects + self._toxicity.of(sets)
        return p.gaps(np.clip(means, 0.0, 1.0)), self._nll.of(sets)


class Costs:
    """One cost of sets that were not measured: the sum of single effects, and what measured sets teach of pairs."""

    def __init__(self, effects: Floats, tried: Iterable[Heads], measured: Sequence[float]) -> None:
        sets = membership(tried, len(effects))
        self._effects = effects
        self._pairs = _Pairs(sets, _scaled(np.abs(effects)), (np.array(measured) - sets @ effects)[:, None])

    def of(self, sets: Floats) -> Floats:
        """[C] of sets [C, N] of zeros and ones."""
        return np.asarray(sets @ self._effects + self._pairs.of(sets)[:, 0])


class _Pairs:
    """Kernel ridge regression of remainders [m, D] on the pairs of heads that sets share."""

    def __init__(self, sets: Floats, weight: Floats, remainder: Floats) -> None:
        self._sets, self._weight = sets, weight
        kernel = self._kernel(sets)
        scale = max(float(np.diag(kernel).mean()), 1e-300)
        values, vectors = np.linalg.eigh(kernel / scale)
        values, turned = np.maximum(values, 0.0), vectors.T @ remainder
        best = np.inf
        for ridge in RIDGES:
            shrunk = 1.0 / (values + ridge)
            dual = vectors @ (shrunk[:, None] * turned)  # [m, D]
            left_out = dual / ((vectors**2) @ shrunk)[:, None]  # residual of each set when it is left out
            if (error := float((left_out**2).sum())) < best:
                best, self._dual = error, dual / scale

    def _kernel(self, sets: Floats) -> Floats:
        """[C, m]: sum over pairs of heads in both sets of the product of their weights' squares."""
        w = self._weight**2
        return np.asarray(((sets * w) @ self._sets.T) ** 2 - (sets * w**2) @ self._sets.T) / 2

    def of(self, sets: Floats) -> Floats:
        """[C, D] remainder."""
        return np.asarray(self._kernel(sets) @ self._dual)


def _scaled(size: Floats) -> Floats:
    """Scale of each head's share in pair effects: its own effect, but at least a tenth of a typical one."""
    typical = float(np.median(size)) or 1.0
    return np.sqrt(np.maximum(size / typical, 0.1))


def membership(sets: Iterable[Heads], n: int) -> Floats:
    """[m, N] 1 where a set holds the head."""
    listed = list(sets)
    out = np.zeros((len(listed), n))
    for row, heads in zip(out, listed, strict=True):
        row[list(heads)] = 1.0
    return out


def search(
    problem: Problem,
    config: SearchConfig,
    measure: Measure,
    starts: Iterable[Heads] = (),
    progress: Report | None = None,
    other: Other | None = None,
    fits: Callable[[Heads], bool] | None = None,
) -> Found:
    """Search for the set of least gap within the limits.

    Parameters
    ----------
    measure : removes a set and returns what it shows; called once for each set. What it raises ends the search.
    starts : sets to begin with, such as FASP's; those that are too large are cut to their first `max_heads` heads.
    other : another cost that is limited.
    fits : whether a set keeps to limits that are not searched by; asked of measured sets from the lowest gap on.

    Raises
    ------
    InputError
        A start that is not in the model.
    """
    n = len(problem.nats)
    rng = np.random.default_rng(config.seed)
    first = [tuple(sorted(set(h)))[: config.max_heads] for h in starts]
    if any(not 0 <= head < n for heads in first for head in heads):
        raise InputError(f"A head to start from is not in the model: it has {n} heads, numbered from 0.")
    limit = float(np.log1p(config.max_ppl))
    base_gap = float(problem.gaps(problem.base_means))
    tried: dict[Heads, Tried] = {}
    means: list[Floats] = []
    total = len(dict.fromkeys(first)) + config.measurements

    def look(heads: Heads, predicted: float) -> None:
        if progress is not None:
            progress(len(tried), total, f"search: set {len(tried) + 1} of {total}")
        nats, rows = measure(heads)
        means.append(problem.means(rows))
        more = None if other is None else other.measure(heads)
        tried[heads] = Tried(heads, nats, float(problem.gaps(means[-1])), predicted, more)

    def cost(gap: Floats | float, nats: Floats | float, more: Floats | float = 0.0) -> Any:
        found = gap / max(base_gap, 1e-300) + EXCESS * np.maximum(np.asarray(nats) - limit, 0.0)
        return found if other is None else found + EXCESS * np.maximum(np.asarray(more) - other.most, 0.0)

    def spent(one: Tried) -> float:
        return one.other or 0.0

    def by(known: Prediction) -> Valued:
        """Gap and cost of sets by a prediction."""
        extra = None if other is None else Costs(other.effects, [(), *tried], [0.0, *map(spent, tried.values())])

        def valued(sets: Floats) -> tuple[Floats, Floats]:
            gap, nats = known.of(sets)
            return gap, cost(gap, nats, 0.0 if extra is None else extra.of(sets))

        return valued

    for heads in dict.fromkeys(first):
        if heads:
            look(heads, float("nan"))
    for _ in range(config.measurements):
        nats = [0.0, *(t.nats for t in tried.values())]
        known = Prediction(problem, [(), *tried], nats, [problem.base_means, *means])
        valued = by(known)
        ranked = sorted(tried.values(), key=lambda t: float(cost(t.gap, t.nats, spent(t))))
        proposals: dict[Heads, tuple[float, float]] = {}
        for s in range(STARTS):
            begin = ranked[min(int(rng.geometric(0.5)) - 1, len(ranked) - 1)].heads if ranked else ()
            state = membership([begin], n)[0]
            for _ in range(0 if s == 0 else int(rng.integers(1, 5))):  # the best set as it is, others shaken
                state = _neighbours(state, config.max_heads, rng, 1)[0]
            for heads, gap, value in _descend(state, valued, config.max_heads, rng):
                if heads and heads not in tried:
                    proposals[heads] = (value, gap)
        if not proposals:
            break  # a model of few heads: all sets are known
        best = min(proposals, key=lambda heads: proposals[heads])
        look(best, proposals[best][1])
    inside = [t for t in tried.values() if t.nats <= limit and t.gap < base_gap]
    inside = [t for t in inside if other is None or spent(t) <= other.most]
    best_first = sorted(inside, key=lambda t: t.gap)
    nothing = Tried((), 0.0, base_gap, float("nan"))
    winner = nothing
    for i, one in enumerate(best_first, start=1):
        if progress is not None and fits is not None:
            progress(total, total, f"search: other limits of set {i}, of {len(best_first)} at most")
        if fits is None or fits(one.heads):
            winner = one
            break
    if progress is not None:
        progress(total, total, "search: done")
    return Found(config, winner.heads, winner.gap, winner.nats, base_gap, tuple(tried.values()))


def _descend(
    state: Floats,
    valued: Valued,
    max_heads: int,
    rng: np.random.Generator,
) -> list[tuple[Heads, float, float]]:
    """Sets on the way down from a state, with their predicted gap and cost; the state itself is the first."""
    gap, values = valued(state[None])
    way = [(state, float(gap[0]), float(values[0]))]
    for _ in range(STEPS):
        around = _neighbours(way[-1][0], max_heads, rng, NEIGHBOURS)
        gap, values = valued(around)
        best = int(values.argmin())
        if values[best] >= way[-1][2]:
            break
        way.append((around[best], float(gap[best]), float(values[best])))
    return [(tuple(map(int, np.flatnonzero(s))), g, v) for s, g, v in way]


def _neighbours(state: Floats, max_heads: int, rng: np.random.Generator, count: int) -> Floats:
    """[count, N] sets that differ by one head more, one less, or one swapped; never more than `max_heads`."""
    inside, outside = np.flatnonzero(state), np.flatnonzero(state == 0)
    kind = rng.random(count)
    adds, drops = (0.0, 0.2) if len(inside) >= max_heads else (0.35, 0.15)  # the rest swaps
    out = np.repeat(state[None], count, 0)
    if len(outside):
        at = np.flatnonzero((kind < adds) | (kind >= adds + drops))
        out[at, rng.choice(outside, at.size)] = 1.0
    if len(inside):
        at = np.flatnonzero(kind >= adds)
        out[at, rng.choice(inside, at.size)] = 0.0
    return out
