"""The distribution of what a model answers to a question, computed instead of sampled.

Behind each chat the tree of possible answers is grown, likeliest texts first (those whose number may still change its
size before those that only lack decimals), until next to all probability is in
answers whose number is settled (`reading.py`) or a limit of texts is reached; answers as `AuditConfig.temperature`
would draw them, no longer than its `tokens`. Words that cannot belong to a number are added up without being told
apart. Best first in batches: of each name the likeliest open texts grow together in one pass, so a few grow that one
at a time would not have.

Nothing is dropped. What is left open is finished by a few draws, spread evenly over the open texts in the order of the
numbers that they give so far (systematic sampling), each for its share of the open probability: a sum of what is known
exactly and an unbiased estimate of the rest (Liu et al., Rao-Blackwellized stochastic gradients for discrete
distributions, ICML 2019). Where the size of a number is likely to stay (`Reader.doubt`), each open text keeps its own,
times what its draw made of the one that it finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fasp_core.errors import InputError
from fasp_core.forward.branching import Branching
from fasp_core.forward.noise import gumbel, keys, uniforms, words_of
from fasp_core.lazy import no_grad, torch
from fasp_core.metrics.spelling import token_texts
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import two
from fasp_core.model.passes import in_halves, require_finite
from fasp_core.studies.answers.drawing import spread, systematic
from fasp_core.studies.answers.reading import CLASSES, LITTLE, Reader, class_of
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

NAMES = 16  # side by side
WIDTH = 16  # texts of a name that grow in one pass
LEAST = 2e-5  # probability of a text that is told apart
LOGITS = 64  # rows of the vocabulary at once
NOTHING = 1e-9  # probability that is left by rounding alone

Chat = tuple[str, Sequence[int]]  # its text, which names the noise, and its tokens


@dataclass(frozen=True)
class ExactConfig:
    """How far answers are followed.

    Attributes
    ----------
    covered : share of the probability in settled answers at which a name is done, below 1.
    nodes : texts of a name that are run, at most; the chat is one.
    draws : that finish what is left open of a name.
    seed : of these draws.
    """

    covered: float = 0.99
    nodes: int = 96
    draws: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.covered < 1 or self.nodes < 1 or self.draws < 1:
            raise InputError("Exact answers need a share to cover between 0 and 1, and at least 1 text and 1 draw.")


@dataclass(frozen=True)
class Sampling:
    """What is asked of each token: the longest answer, and what divides the logits."""

    tokens: int
    temperature: float


@dataclass(eq=False)
class Node:
    """A text: its tokens, its probability, where it stands in its tree, and once it was run what came of it.

    Attributes
    ----------
    place, parent : of its last token and of the one before, in the row of the tree; -1: the chat.
    state : [D] final hidden state behind it.
    told : tokens that were told apart, and `came` what each came to: a leaf, or the node of a longer text.
    classes : leaf of each class of other tokens; None: left open.
    stop : leaf of the tokens that end an answer.
    lost : probability of tokens that are neither told apart nor in a class.
    """

    ids: tuple[int, ...]
    mass: float
    parent: int = -1
    place: int = -1
    state: Tensor | None = None
    told: list[int] = field(default_factory=list)
    came: list[int | Node] = field(default_factory=list)
    classes: list[int | None] = field(default_factory=list)
    stop: int = -1
    lost: float = 0.0


@dataclass(eq=False)
class Tree:
    """Answers to one chat. Leaves are settled answers; probabilities of leaves and `left` sum to 1.

    Attributes
    ----------
    texts, values, masses : of leaves; a value is nan where the answer gives no number.
    left : probability outside of the leaves.
    drawn : (text, value, probability) of what its draws say; together all of `left`.
    origins : of each of them the text that was open, or whose lost tokens it is.
    nodes : texts that were run; the first is the chat.
    """

    texts: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)
    left: float = 1.0
    drawn: list[tuple[str, float, float]] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    waiting: list[tuple[float, int, Node]] = field(default_factory=list)  # a heap of (-worth, number, node)

    def settle(self, text: str, value: float, mass: float) -> int:
        """A new leaf."""
        self.texts.append(text)
        self.values.append(value)
        self.masses.append(mass)
        self.left = max(self.left - mass, 0.0)
        return len(self.values) - 1

    @property
    def open(self) -> list[Node]:
        """Texts that were not run."""
        return [node for _, _, node in self.waiting]


def grow(
    lm: LanguageModel,
    chats: Sequence[Chat],
    reader: Reader,
    opening: str,
    sampling: Sampling,
    config: ExactConfig = ExactConfig(),
    progress: Report | None = None,
) -> list[Tree]:
    """The answers to some chats, under whatever masks are on.

    Parameters
    ----------
    opening : text that stands before what is generated.

    Raises
    ------
    NotFinite
        The model gave no probabilities.
    """
    found: dict[int, Tree] = {}
    by_length: dict[int, list[int]] = {}
    for i, (_, ids) in enumerate(chats):
        by_length.setdefault(len(ids), []).append(i)
    grower = Grower(lm, reader, opening, sampling, config)
    for members in by_length.values():
        for start in range(0, len(members), NAMES):
            part = members[start : start + NAMES]
            asked = [chats[i] for i in part]
            grown = [tree for trees in in_halves(lm, grower.run, asked, two, "the answers of a name") for tree in trees]
            found |= dict(zip(part, grown, strict=True))
            if progress is not None:
                progress(len(found), len(chats), "following answers")
    return [found[i] for i in range(len(chats))]


class Grower:
    """What the trees of one question share.

    Attributes
    ----------
    stops : [n] tokens that end an answer and that the model can give.
    members : [V, C] whether a token is in a class, as numbers; on the model's device.
    """

    def __init__(
        self, lm: LanguageModel, reader: Reader, opening: str, sampling: Sampling, config: ExactConfig
    ) -> None:
        self._lm, self._reader, self._opening = lm, reader, opening
        self._sampling, self._config = sampling, config
        classes = token_classes(lm)
        self.stops = torch.tensor([i for i in sorted(lm.stops) if i < len(classes)], device=lm.device, dtype=torch.long)
        kinds = torch.from_numpy(classes.copy()).to(lm.device)
        kinds[self.stops] = -1
        self._kinds = kinds
        self.members = torch.stack([(kinds == c).float() for c in range(len(CLASSES))], 1)  # [V, C]
        self._decoded: dict[tuple[int, ...], str] = {}

    def run(self, chats: Sequence[Chat]) -> list[Tree]:
        """Trees of chats of one length."""
        trees = [Tree() for _ in chats]
        branching = Branching(self._lm, [ids for _, ids in chats], self._sampling.tokens)
        self._expand(branching.begin(), [(tree, Node((), 1.0)) for tree in trees])
        while any(picked := [self._next(tree) for tree in trees]):
            hidden = _run(branching, picked)
            self._expand(hidden, [(tree, node) for tree, mine in zip(trees, picked, strict=True) for node in mine])
        self._finish(branching, trees, [text for text, _ in chats])
        return trees

    def _next(self, tree: Tree) -> list[Node]:
        """The likeliest open texts, if there is need of more."""
        if tree.left <= 1 - self._config.covered:
            return []
        room = min(WIDTH, self._config.nodes - len(tree.nodes), len(tree.waiting))
        return [heappop(tree.waiting)[2] for _ in range(room)]

    def chances(self, states: Tensor) -> Tensor:
        """[m, V] probability of the next token."""
        return (self._lm.logits(states) / self._sampling.temperature).softmax(-1)

    @no_grad
    def _expand(self, hidden: Tensor, nodes: Sequence[tuple[Tree, Node]]) -> None:
        """Say what comes of each token behind nodes that were run."""
        for start in range(0, len(nodes), LOGITS):
            part, states = nodes[start : start + LOGITS], hidden[start : start + LOGITS]
            p = self.chances(states)
            masses = torch.tensor([node.mass for _, node in part], device=p.device, dtype=p.dtype)
            stopped = p[:, self.stops].sum(1)
            p[:, self.stops] = 0.0
            told = p * masses[:, None] >= LEAST
            at, token = told.nonzero(as_tuple=True)
            chance = p[at, token].cpu().double().numpy()
            p[told] = 0.0
            sums = torch.cat([p @ self.members, p.sum(1, keepdim=True), stopped[:, None]], 1).cpu().double().numpy()
            require_finite(self._lm, sums, "the probabilities of an answer")
            ends = np.searchsorted(at.cpu().numpy(), np.arange(len(part) + 1))
            tokens = token.cpu().tolist()
            for k, (tree, node) in enumerate(part):
                node.state, span = states[k], slice(ends[k], ends[k + 1])
                self._branch(tree, node, list(zip(tokens[span], chance[span].tolist(), strict=True)), sums[k])

    def _branch(self, tree: Tree, node: Node, told: Sequence[tuple[int, float]], sums: NDArray[np.float64]) -> None:
        """What came of a node: leaves and open texts of a tree."""
        *by_class, rest, stopped = sums.tolist()
        scale = node.mass / (stopped + rest + sum(chance for _, chance in told))  # 1 up to rounding
        text, last = self.text(node.ids), len(node.ids) + 1 >= self._sampling.tokens
        tree.nodes.append(node)
        node.stop = tree.settle(text, self._reader.value(text), stopped * scale)
        for token, chance in told:
            longer = (*node.ids, token)
            said = self.text(longer)
            node.told.append(token)
            if last or self._reader.settled(said):
                node.came.append(tree.settle(said, self._reader.value(said), chance * scale))
            else:
                child = Node(longer, chance * scale, node.place)
                worth = child.mass * self._reader.doubt(said)
                heappush(tree.waiting, (-worth, len(tree.nodes) << 20 | len(node.told), child))
                node.came.append(child)
        for kind, chance in enumerate(by_class):
            value = self._reader.class_value(text, kind) if chance else None
            node.classes.append(None if value is None else tree.settle(text, value, chance * scale))
            rest -= 0.0 if value is None else chance
        node.lost = max(rest, 0.0) * scale

    @no_grad
    def _finish(self, branching: Branching, trees: Sequence[Tree], names: Sequence[str]) -> None:
        """Draws for what is left open."""
        draws, tokens = self._config.draws, self._sampling.tokens
        key = keys(self._config.seed, names, range(draws), tokens + 2).view(len(names), draws, tokens + 2, 2)
        going: list[list[tuple[int, Node]]] = []  # (draw, text) by tree
        lost: list[tuple[int, int, Node]] = []  # (tree, draw, node) whose next token is one of the lost ones
        strata: list[list[tuple[int, int, list[tuple[Node, float, bool]]]]] = [[] for _ in trees]
        begun: list[list[float]] = [[] for _ in trees]  # the number so far of the text that each draw finishes
        for r, tree in enumerate(trees):
            going.append([])
            if tree.left < NOTHING:
                continue
            offsets = uniforms(key[r, :2, tokens + 1], words_of(1, "cpu"))[:, 0].tolist()
            for (count, pieces), offset in zip(self._strata(tree), offsets * 2, strict=False):
                share = sum(mass for _, mass, _ in pieces) / count
                strata[r].append((len(tree.drawn), count, pieces))
                for i in systematic([mass for _, mass, _ in pieces], count, offset):
                    node, _, is_lost = pieces[i]
                    begun[r].append(self._reader.value(self.text(node.ids)))
                    if is_lost:
                        lost.append((r, len(tree.drawn), node))
                    else:
                        going[r].append((len(tree.drawn), node))
                    tree.drawn.append(("", float("nan"), share))
                    tree.origins.append(self.text(node.ids))
        if lost:
            chances = self.chances(torch.stack([n.state for _, _, n in lost if n.state is not None]))
            chances[:, self.stops] = 0.0
            for row, (_, _, node) in zip(chances, lost, strict=True):
                row[node.told] = 0.0
                for kind, leaf in enumerate(node.classes):
                    if leaf is not None:
                        row[self._kinds == kind] = 0.0
            self._draw(chances, lost, key, trees, going)
        while any(going):
            run = [[Node(n.ids, 0.0, n.parent) for _, n in mine] for mine in going]
            hidden = _run(branching, run)
            at = [
                (r, d, node)
                for r, (mine, those) in enumerate(zip(going, run, strict=True))
                for (d, _), node in zip(mine, those, strict=True)
            ]
            going = [[] for _ in trees]
            for start in range(0, len(at), LOGITS):
                chances = self.chances(hidden[start : start + LOGITS])
                self._draw(chances, at[start : start + LOGITS], key, trees, going)
        for r, tree in enumerate(trees):
            if len(strata[r]) == 2:  # of the second the numbers are nearly known
                first, count, pieces = strata[r][1]
                texts = [self.text(node.ids) for node, _, _ in pieces]
                known = [(t, self._reader.value(t), m) for t, (_, m, _) in zip(texts, pieces, strict=True)]
                found = [value for _, value, _ in tree.drawn[first:]]
                tree.drawn[first:] = spread(known, found, begun[r][first:], count)
                tree.origins[first:] = [text for text, _, _ in tree.drawn[first:]]

    def _strata(self, tree: Tree) -> list[tuple[int, list[tuple[Node, float, bool]]]]:
        """(draws, open texts and lost tokens with their probabilities, in the order of their numbers so far): first
        where the size of a number is open, then the others; draws by probability times doubt."""
        pieces = [(n, n.mass, False) for n in tree.open] + [(n, n.lost, True) for n in tree.nodes]
        pieces.sort(key=lambda piece: (self._reader.value(self.text(piece[0].ids)), piece[0].ids))
        parts: list[list[tuple[Node, float, bool]]] = [[], []]
        for piece in pieces:
            parts[self._reader.doubt(self.text(piece[0].ids)) < 1].append(piece)
        draws = self._config.draws
        wide, narrow = (sum(mass for _, mass, _ in part) for part in parts)
        if draws < 4 or min(wide, narrow) < NOTHING:
            return [(draws, pieces)]
        count = round(draws * wide / (wide + LITTLE * narrow))
        count = min(max(count, 2), draws - 2)
        return [(count, parts[0]), (draws - count, parts[1])]

    def _draw(
        self,
        chances: Tensor,
        rows: Sequence[tuple[int, int, Node]],
        key: Tensor,
        trees: Sequence[Tree],
        going: Sequence[list[tuple[int, Node]]],
    ) -> None:
        """A token for each row: its answer is finished, or goes on."""
        which = torch.stack([key[r, d, len(node.ids)] for r, d, node in rows])
        tokens = (chances.log() + gumbel(which, chances.shape[1], chances.device)).argmax(-1).tolist()
        stops = set(self.stops.tolist())
        for token, (r, d, node) in zip(tokens, rows, strict=True):
            ids = node.ids if token in stops else (*node.ids, token)
            text = self.text(ids)
            if token in stops or len(ids) >= self._sampling.tokens or self._reader.settled(text):
                trees[r].drawn[d] = (text, self._reader.value(text), trees[r].drawn[d][2])
            else:
                going[r].append((d, Node(ids, 0.0, node.place)))

    def text(self, ids: tuple[int, ...]) -> str:
        """The answer that some tokens make, with its opening."""
        if ids not in self._decoded:
            self._decoded[ids] = self._opening + self._lm.tokenizer.decode(list(ids), skip_special_tokens=True)
        return self._decoded[ids]


def _run(branching: Branching, nodes: Sequence[Sequence[Node]]) -> Tensor:
    """Final hidden states of texts, tree by tree, each told its place."""
    before = branching.width
    for mine in nodes:
        for j, node in enumerate(mine):
            node.place = before + j
    parents, tokens = [[n.parent for n in mine] for mine in nodes], [[n.ids[-1] for n in mine] for mine in nodes]
    return branching.grow(parents, tokens)


_classes: WeakKeyDictionary[Any, NDArray[np.int64]] = WeakKeyDictionary()  # by tokenizer: seconds for large ones


def token_classes(lm: LanguageModel) -> NDArray[np.int64]:
    """[V] class of each token by what it adds to a text, of `reading.CLASSES`; -1: none of them. Not to be changed.

    V is what the model gives logits of: a tokenizer may have tokens beyond it.
    """
    size = lm.model.get_output_embeddings().weight.shape[0]
    found = _classes.get(lm.tokenizer)
    if found is None or len(found) != size:
        found = np.full(size, -1, dtype=np.int64)
        try:
            texts, _ = token_texts(lm.tokenizer)
        except InputError:  # it does not mark where words begin: every token is told apart
            texts = {}
        for i, text in texts.items():
            if i < size:
                found[i] = class_of(text)
        _classes[lm.tokenizer] = found
    return found
