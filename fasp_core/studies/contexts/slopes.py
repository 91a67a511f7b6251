"""What each head and neuron does to an exact difference between groups, to first order.

With p(v | t) the probability of token v behind a text t of a tree (`exact.py`), and Q(t, v) the mean of
h = (log(1 + number) - the group's mean) / the group's probability of a number over all answers that begin with t and v,

    d (group's mean) / d gate = sum over names and texts t of p(t) * sum over v of Q(t, v) * d p(v | t) / d gate,

which is the gradient of one pass over the tree's texts with Q held (the policy gradient theorem: Sutton et al. 2000,
with nothing sampled). An open text takes the number that its draws found, else the one it gives so far: what it will
say is not differentiated any further, and the whole of it is small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, pack
from fasp_core.studies.answers.exact import ExactConfig, Grower, Node, Sampling, Tree, grow
from fasp_core.studies.answers.reading import Reader
from fasp_core.studies.contexts.chats import ask
from fasp_core.studies.contexts.localise import Effects, Floats, through_gates
from fasp_core.studies.contexts.scenarios import Scenario
from fasp_core.typing import Report

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
    chats = [ask(lm, scenario, name) for name, _ in people]
    reader = Reader(scenario.unit, scenario.per)
    trees = grow(lm, chats, reader, scenario.opening, sampling, config)
    codes = np.array([groups.index(group) for _, group in people])
    totals = np.array([_sums(tree) for tree in trees])  # [names, 2]
    masses, means = np.zeros(2), np.zeros(2)
    for g in (0, 1):
        masses[g] = totals[codes == g, 0].sum()
        means[g] = totals[codes == g, 1].sum() / masses[g] if masses[g] else float("nan")
    grower = Grower(lm, reader, scenario.opening, sampling, config)
    heads, neurons = [], []
    for i, ((_, chat), tree) in enumerate(zip(chats, trees, strict=True)):
        g = int(codes[i])
        worth = Worth(tree, reader, means[g], masses[g])
        by_head, by_neuron = gradients(lm, chat, tree, worth, grower)
        heads.append(-by_head)  # a removal moves a gate from 1 to 0
        neurons.append(-by_neuron)
        if progress is not None:
            progress(i + 1, len(chats), f"effects in {scenario.title}")
    return Effects(np.stack(heads), np.stack(neurons), codes, float(means[0] - means[1]))


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
        drawn: dict[str, list[float]] = defaultdict(list)
        for text, value, _ in tree.drawn:
            drawn[text].append(value)
        self._drawn, self._reader = drawn, reader
        self._known: dict[int, float] = {}

    def _of(self, value: float) -> float:
        return (float(np.log1p(value)) - self._mean) / self._mass if value == value and self._mass else 0.0

    def open(self, text: str) -> float:
        """Of an open text: the mean of its draws, else of the number that it gives so far."""
        found = [value for said, values in self._drawn.items() if said.startswith(text) for value in values]
        return float(np.mean([self._of(v) for v in found])) if found else self._of(self._reader.value(text))

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

    for packed in pack(lm, [[*chat, *node.ids] for node in tree.nodes]):
        by_head, by_neuron = through_gates(lm, packed, packed.reads[:, -1], back)
        heads += by_head
        neurons += by_neuron
    return heads, neurons


def _worths(tree: Tree, nodes: Sequence[Node], worth: Worth, grower: Grower, like: Tensor) -> Tensor:
    """[m, V] Q of every token behind some texts; 0 of tokens that were left open."""
    by_class = [[0.0 if leaf is None else worth.leaves[leaf] for leaf in node.classes] for node in nodes]
    q = torch.tensor(by_class, device=like.device, dtype=like.dtype) @ grower.members.T.to(like.dtype)
    for row, node in zip(q, nodes, strict=True):
        row[grower.stops] = worth.leaves[node.stop]
        worths = [worth.leaves[c] if isinstance(c, int) else worth.below(c, tree, grower) for c in node.came]
        row[node.told] = torch.tensor(worths, device=q.device, dtype=q.dtype)
    return q
