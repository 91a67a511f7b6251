"""What each head, neuron and weight does to an exact difference between groups, to first order.

With p(v | t) the probability of token v behind a text t of a tree (`exact.py`), and Q(t, v) the mean of
h = (log(1 + number) - the group's mean) / the group's probability of a number over all answers that begin with t and v,

    d (group's mean) / d gate = sum over names and texts t of p(t) * sum over v of Q(t, v) * d p(v | t) / d gate,

which is the gradient of one pass over the tree's texts with Q held (the policy gradient theorem: Sutton et al. 2000,
with nothing sampled). An open text takes the number that its draws found, else the one it gives so far: what it will
say is not differentiated any further, and the whole of it is small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fasp_core.lazy import enable_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, pack
from fasp_core.model.passes import require_finite
from fasp_core.studies.answers.exact import ExactConfig, Grower, Node, Sampling, Tree, grow
from fasp_core.studies.answers.reading import Reader
from fasp_core.studies.contexts import weights
from fasp_core.studies.contexts.chats import ask
from fasp_core.studies.contexts.localise import Effects, Floats, group_means, shares, through_gates
from fasp_core.studies.contexts.scenarios import Scenario
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 32  # texts whose probabilities exist at once


def effects(
    lm: LanguageModel,
    scenario: Scenario,
    people: Sequence[tuple[str, str]],
    groups: tuple[str, str],
    sampling: Sampling,
    config: ExactConfig,
    progress: Report | None = None,
) -> Effects:
    """First-order effects of all heads and neurons on the difference of the groups' mean log numbers.

    Parameters
    ----------
    people : (name, group).
    """
    grown = _Grown.of(lm, scenario, people, groups, sampling, config)
    heads, neurons = [], []
    for i, (chat, tree) in enumerate(zip(grown.chats, grown.trees, strict=True)):
        by_head, by_neuron = gradients(lm, chat, tree, grown.worth(i), grown.grower)
        heads.append(-by_head)  # a removal moves a gate from 1 to 0
        neurons.append(-by_neuron)
        if progress is not None:
            progress(i + 1, len(grown.chats), f"effects in {scenario.title}")
    return Effects(np.stack(heads), np.stack(neurons), grown.codes, *grown.totals.T)


@enable_grad
def weight_effects(
    lm: LanguageModel,
    scenario: Scenario,
    people: Sequence[tuple[str, str]],
    groups: tuple[str, str],
    sampling: Sampling,
    config: ExactConfig,
    progress: Report | None = None,
    parts: Sequence[NDArray[np.bool_]] = (),
) -> list[tuple[dict[weights.Place, Tensor], float]]:
    """First-order change of the difference of the groups' mean log numbers when each weight is set to 0.

    Each takes as much memory as the model's weights in float32, all at once.

    Parameters
    ----------
    parts : [names] of which names, as `Effects.of` has them.

    Returns
    -------
    Of all names, and then of each part: changes, [n] float32 on the CPU for each projection in the order of its weight
    as it is stored; and the difference.

    Raises
    ------
    InputError
        A part of the model waits in main memory.
    """
    grown = _Grown.of(lm, scenario, people, groups, sampling, config)
    masses, sums = grown.totals.T
    every = [np.ones(len(grown.codes), dtype=bool), *parts]
    signs = np.where(grown.codes == 0, 1.0, -1.0)
    factors = np.array([signs * shares(grown.codes, masses, of)[grown.codes] * of for of in every])  # [parts, names]
    with weights.differentiable(lm) as leaves:
        totals = {place: [torch.zeros(leaf.numel()) for _ in every] for place, leaf in leaves.items()}
        for i, (chat, tree) in enumerate(zip(grown.chats, grown.trees, strict=True)):
            back = _back(tree, grown.worth(i), grown.grower)
            for p in pack(lm, [[*chat, *node.ids] for node in tree.nodes]):
                hidden = lm.model.base_model(**p.inputs(lm), use_cache=False).last_hidden_state
                states = hidden.flatten(0, 1)[p.reads[:, -1].to(lm.device)]
                found = torch.autograd.grad(states, list(leaves.values()), back(p, states))
                for mine, grad in zip(totals.values(), found, strict=True):
                    here = grad.flatten().float().cpu()
                    for total, factor in zip(mine, factors[:, i].tolist(), strict=True):
                        if factor:
                            total.add_(here, alpha=factor)
            if progress is not None:
                progress(i + 1, len(grown.chats), f"effects of weights in {scenario.title}")
        for place, leaf in leaves.items():
            weight = leaf.detach().flatten().float().cpu()
            for total in totals[place]:
                total.mul_(-weight)
    require_finite(lm, np.array([float(t[0].sum()) for t in totals.values()]), "the gradients of an answer")
    gaps = [-float(np.diff(group_means(grown.codes[of], masses[of], sums[of]))[0]) for of in every]
    return [({place: mine[k] for place, mine in totals.items()}, gap) for k, gap in enumerate(gaps)]


@dataclass(frozen=True, eq=False)
class _Grown:
    """The trees of a scenario's answers, and what their gradients are weighted by."""

    chats: list[list[int]]
    trees: list[Tree]
    codes: NDArray[np.int64]
    totals: NDArray[np.float64]  # [names, 2] as of `_sums`
    reader: Reader
    grower: Grower

    @classmethod
    def of(
        cls,
        lm: LanguageModel,
        scenario: Scenario,
        people: Sequence[tuple[str, str]],
        groups: tuple[str, str],
        sampling: Sampling,
        config: ExactConfig,
    ) -> _Grown:
        chats = [ask(lm, scenario, name) for name, _ in people]
        reader = Reader(scenario.unit, scenario.per)
        trees = grow(lm, chats, reader, scenario.opening, sampling, config)
        codes = np.array([groups.index(group) for _, group in people])
        totals = np.array([_sums(tree) for tree in trees])
        grower = Grower(lm, reader, scenario.opening, sampling, config)
        return cls([chat for _, chat in chats], trees, codes, totals, reader, grower)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        return group_means(self.codes, *self.totals.T)

    def worth(self, name: int) -> Worth:
        mine = self.codes == self.codes[name]
        mean, mass = float(self.means[self.codes[name]]), float(self.totals[mine, 0].sum())
        return Worth(self.trees[name], self.reader, mean, mass)


def _sums(tree: Tree) -> tuple[float, float]:
    """Probability of a number, and the sum of log(1 + number), draws included."""
    values = np.log1p([*tree.values, *(value for _, value, _ in tree.drawn)])
    masses = np.array([*tree.masses, *(mass for _, _, mass in tree.drawn)])
    seen = np.isfinite(values)
    return float(masses[seen].sum()), float(masses[seen] @ values[seen])


class Worth:
    """h of a tree's leaves and open texts, and its mean over all that begins with a text."""

    def __init__(self, tree: Tree, reader: Reader, mean: float, mass: float) -> None:
        self._mean, self._mass = mean, mass
        self.leaves = [self._of(value) for value in tree.values]
        drawn: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for origin, (_, value, share) in zip(tree.origins, tree.drawn, strict=True):
            drawn[origin].append((share, self._of(value)))
        self._drawn, self._reader = drawn, reader
        self._known: dict[int, float] = {}

    def _of(self, value: float) -> float:
        return (float(np.log1p(value)) - self._mean) / self._mass if value == value and self._mass else 0.0

    def open(self, text: str) -> float:
        """Of an open text: the mean of its draws, else of the number that it gives so far."""
        if text not in self._drawn:
            return self._of(self._reader.value(text))
        shares, found = zip(*self._drawn[text], strict=True)
        return float(np.average(found, weights=shares))

    def below(self, node: Node, tree: Tree, text_of: Grower) -> float:
        """Mean h of the answers that begin with a text."""
        if id(node) not in self._known:
            if node.state is None:
                self._known[id(node)] = self.open(text_of.text(node.ids))
            else:
                leaves = [node.stop, *(leaf for leaf in node.classes if leaf is not None)]
                leaves += [c for c in node.came if isinstance(c, int)]
                total = sum(tree.masses[leaf] * self.leaves[leaf] for leaf in leaves)
                total += sum(c.mass * self.below(c, tree, text_of) for c in node.came if isinstance(c, Node))
                self._known[id(node)] = total / node.mass if node.mass else 0.0
        return self._known[id(node)]


def gradients(
    lm: LanguageModel, chat: Sequence[int], tree: Tree, worth: Worth, grower: Grower
) -> tuple[Floats, Floats]:
    """Gradient of the sum of p(answer) h(answer) in the gates of heads [L, H] and of neurons [L, F]."""
    heads = np.zeros((lm.n_layers, lm.n_heads), dtype=np.float32)
    neurons = np.zeros((lm.n_layers, lm.n_neurons), dtype=np.float32)

    back = _back(tree, worth, grower)
    for packed in pack(lm, [[*chat, *node.ids] for node in tree.nodes]):
        by_head, by_neuron = through_gates(lm, packed, packed.reads[:, -1], back)
        heads += by_head
        neurons += by_neuron
    return heads, neurons


def _back(tree: Tree, worth: Worth, grower: Grower) -> Callable[[Pack, Tensor], Tensor]:
    """Gradients in final hidden states [n, D] of a pack of the tree's texts, Q held."""

    def back(p: Pack, states: Tensor) -> Tensor:
        found = []
        nodes = [tree.nodes[int(i)] for i in p.prompts]
        for start in range(0, len(nodes), CHUNK):
            part = nodes[start : start + CHUNK]
            mine = states[start : start + CHUNK].detach().requires_grad_()
            chances = grower.chances(mine)
            q = _worths(tree, part, worth, grower, chances)
            masses = torch.tensor([node.mass for node in part], device=q.device, dtype=q.dtype)
            found.append(torch.autograd.grad(((chances * q).sum(1) * masses).sum(), mine)[0])
        return torch.cat(found)

    return back


def _worths(tree: Tree, nodes: Sequence[Node], worth: Worth, grower: Grower, like: Tensor) -> Tensor:
    """[m, V] Q of every token behind some texts; 0 of tokens that were left open."""
    by_class = [[0.0 if leaf is None else worth.leaves[leaf] for leaf in node.classes] for node in nodes]
    q = torch.tensor(by_class, device=like.device, dtype=like.dtype) @ grower.members.T.to(like.dtype)
    for row, node in zip(q, nodes, strict=True):
        row[grower.stops] = worth.leaves[node.stop]
        worths = [worth.leaves[c] if isinstance(c, int) else worth.below(c, tree, grower) for c in node.came]
        row[node.told] = torch.tensor(worths, device=q.device, dtype=q.dtype)
    return q
