"""Which heads and neurons carry a difference between groups.

By first-order effect: with answers a sampled from p, the mean of f(a) = log(1 + number) over answers that give a number
changes with a gate g by

    d E[f] / d g = E[(f - E[f]) d log p(a) / d g]     (score function; expectations over answers with a number)

so one backward pass over the stored answers gives what removing each head and each neuron does to the difference of
the groups' means, without further sampling. Each name has gates of its own, which is what errors are computed from.

By what is looked at (Ma et al. 2025): attention from the place where the answer begins to the name's tokens, and
|activation| times the norm of the unit's output column; parts that stand out for one group and not for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.forward.attention import attentions
from fasp_core.forward.next_word import CHUNK
from fasp_core.lazy import enable_grad, functional, no_grad, torch
from fasp_core.model.architectures import columns
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import present
from fasp_core.model.packing import Pack, halves, pack
from fasp_core.model.passes import in_halves, on_host, require_finite
from fasp_core.studies.contexts.audit import Replies
from fasp_core.studies.contexts.chats import ask, inputs_of, name_places
from fasp_core.studies.contexts.scenarios import Scenario
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Effects:
    """What removing each part does to the difference of the groups' mean log numbers, to first order.

    Attributes
    ----------
    heads, neurons : [names, L, H] and [names, L, F], each name's share; a group's effect is their sum.
    codes : [names] group, 0 or 1.
    masses, sums : [names] how many answers gave a number, or the probability of one, and the sum of log(1 + number).
    """

    heads: Floats
    neurons: Floats
    codes: NDArray[np.int64]
    masses: NDArray[np.float64]
    sums: NDArray[np.float64]

    @property
    def gap(self) -> float:
        """Mean of log(1 + number) of group 0 minus that of group 1; nan if a group gave no number."""
        first, second = group_means(self.codes, self.masses, self.sums)
        return float(first - second)

    def of(self, members: NDArray[np.bool_]) -> Effects:
        """On the difference of some names alone, with the mean of a whole group in the place of theirs (it counts where
        a removal changes how many answers give a number).

        Parameters
        ----------
        members : [names] of which names.
        """
        share = shares(self.codes, self.masses, members)[self.codes[members]].astype(np.float32)
        heads, neurons = (rows[members] * share[:, None, None] for rows in (self.heads, self.neurons))
        return Effects(heads, neurons, self.codes[members], self.masses[members], self.sums[members])

    def change(self, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Change of the gap and its standard error (nan: one name), [L, H] of `heads` or [L, F] of `neurons`."""
        rows = (self.heads if kind == "heads" else self.neurons).astype(np.float64)
        parts = [rows[self.codes == g] for g in (0, 1)]
        variance = sum(len(p) * p.var(0, ddof=1) if len(p) > 1 else np.full(p.shape[1:], np.nan) for p in parts)
        return parts[0].sum(0) - parts[1].sum(0), np.sqrt(variance)

    def reduction(self, kind: str) -> NDArray[np.float64]:
        """By how much |gap| falls, to first order, when the part is removed; below 0: it grows."""
        return np.asarray(-np.sign(self.gap) * self.change(kind)[0])


def shares(codes: NDArray[np.int64], masses: NDArray[np.float64], members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[2] how often the probability of some members' numbers goes into that of their whole group; 0 without any."""
    whole, mine = (np.bincount(codes, masses * m, 2) for m in (1, members))
    return np.asarray(np.divide(whole, mine, out=np.zeros(2), where=mine > 0))


def group_means(
    codes: NDArray[np.int64], masses: NDArray[np.float64], sums: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[2] of each group's answers with a number; nan without any."""
    mass, total = (np.bincount(codes, x, 2) for x in (masses, sums))
    return np.asarray(np.divide(total, mass, out=np.full(2, np.nan), where=mass > 0))


def effects(lm: LanguageModel, replies: Replies, temperature: float, progress: Report | None = None) -> Effects:
    """First-order effects of all heads and neurons from the stored answers of the unpruned model.

    Parameters
    ----------
    temperature : that the answers were sampled at.
    """
    answers = replies.answers
    numbers = np.log1p(answers.values)  # [names, samples], nan without a number
    seen = np.isfinite(numbers)
    masses, sums = seen.sum(1).astype(float), np.where(seen, numbers, 0.0).sum(1)
    means, mass = group_means(answers.codes, masses, sums), np.bincount(answers.codes, masses, 2)
    centred = (numbers - means[answers.codes][:, None]) / np.maximum(mass, 1)[answers.codes][:, None]
    weights = np.where(seen, centred, 0.0)
    heads, neurons = [], []
    for i, (name, _) in enumerate(replies.people):
        _, chat = ask(lm, replies.scenario, name)
        by_head, by_neuron = log_p_gradients(lm, chat, replies.ids[i], weights[i], temperature)
        heads.append(-by_head)  # a removal moves a gate from 1 to 0
        neurons.append(-by_neuron)
        if progress is not None:
            progress(i + 1, len(replies.people), f"effects in {replies.scenario.title}")
    return Effects(np.stack(heads), np.stack(neurons), answers.codes, masses, sums)


@enable_grad
def log_p_gradients(
    lm: LanguageModel,
    chat: Sequence[int],
    answers: Sequence[Sequence[int]],
    weights: Sequence[float],
    temperature: float,
) -> tuple[Floats, Floats]:
    """Gradient of sum_i weights[i] log p(answers[i] | chat) in the gates of heads [L, H] and of neurons [L, F].

    Answers share the chat, and beginnings that they have in common, where the model's attention allows it.
    """
    kept = [i for i, answer in enumerate(answers) if len(answer) and weights[i]]
    heads = np.zeros((lm.n_layers, lm.n_heads), dtype=np.float32)
    neurons = np.zeros((lm.n_layers, lm.n_neurons), dtype=np.float32)
    if not kept:
        return heads, neurons

    def run(p: Pack) -> tuple[Floats, Floats]:
        members = [kept[int(i)] for i in p.prompts]
        at, before, worth = _answer_places(p, [len(answers[i]) for i in members], [weights[i] for i in members])
        goals = p.ids.flatten()[at].to(lm.device)

        def back(_: Pack, states: Tensor) -> Tensor:
            grads = []
            for part, goal, w in zip(states.detach().split(CHUNK), goals.split(CHUNK), worth.split(CHUNK), strict=True):
                nll = functional.cross_entropy(lm.logits(part.requires_grad_()) / temperature, goal, reduction="none")
                grads.append(torch.autograd.grad(-(nll * w.to(nll)).sum(), part)[0])
            return torch.cat(grads)

        return through_gates(lm, p, before, back)

    for packed in pack(lm, [[*chat, *answers[i]] for i in kept]):
        for by_head, by_neuron in in_halves(lm, run, packed, halves, "a single answer"):
            heads += by_head
            neurons += by_neuron
    return heads, neurons


@enable_grad
def through_gates(
    lm: LanguageModel, p: Pack, places: Tensor, back: Callable[[Pack, Tensor], Tensor]
) -> tuple[Floats, Floats]:
    """Gradients in the gates of heads [L, H] and of neurons [L, F] of what is made of final hidden states of a pass.

    Parameters
    ----------
    places : [n] flat places in the pack that are read.
    back : the gradient in their states [n, D], of the pack and these states.
    """
    gates = torch.ones(lm.n_layers, lm.n_heads, device=lm.device, requires_grad=True)
    units = [torch.ones(lm.n_neurons, device=lm.device, requires_grad=True) for _ in range(lm.n_layers)]
    with gated(lm, gates, dict(enumerate(units))):
        hidden = lm.model.base_model(**p.inputs(lm), use_cache=False).last_hidden_state
    states = hidden.flatten(0, 1)[places.to(lm.device)]
    found = torch.autograd.grad(states, [gates, *units], back(p, states))
    by_head, by_neuron = found[0].cpu().float().numpy(), torch.stack(found[1:]).cpu().float().numpy()
    require_finite(lm, by_head, "the gradients of an answer", p)
    return by_head, by_neuron


def _answer_places(p: Pack, lengths: Sequence[int], weights: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Flat places of the answers' tokens in a pack, those of the tokens before them, and the weight of each place."""
    worth: dict[int, float] = {}
    before: dict[int, int] = {}
    for leaf, length, weight in zip(p.reads[:, -1].tolist(), lengths, weights, strict=True):
        place = leaf
        for _ in range(length):
            before[place] = place - 1 if p.parents is None else int(p.parents[place])
            worth[place] = worth.get(place, 0.0) + weight
            place = before[place]
    at = sorted(worth)
    return torch.tensor(at), torch.tensor([before[x] for x in at]), torch.tensor([worth[x] for x in at])


def attention_to_name(lm: LanguageModel, scenario: Scenario, names: Sequence[str]) -> Floats:
    """[names, L, H] attention from the chat's last token, where the answer begins, to the name's tokens, in [0, 1].

    Raises
    ------
    InputError
        The tokenizer does not say where tokens stand in the text.
    """
    rows = []
    for name in names:
        text, ids = ask(lm, scenario, name)
        places = name_places(lm, text, name)
        looks = on_host([a[:, -1, places].sum(-1) for a in attentions(lm, ids)])  # layers may lie on several devices
        rows.append(torch.stack(looks).float().numpy())
    return np.stack(rows)


@no_grad
def activation(lm: LanguageModel, scenario: Scenario, names: Sequence[str]) -> Floats:
    """[names, L, F] mean |activation| of each hidden unit from the name's first token on, times the norm of its output
    column: what it writes, at most, into the residual stream."""
    rows = []
    norms = []
    for layer in range(lm.n_layers):
        with present(lm.mlp_out(layer)):
            norms.append(columns(lm.mlp_out(layer)).float().norm(dim=0))
    with inputs_of(lm, {layer: lm.mlp_out(layer) for layer in range(lm.n_layers)}) as read:
        for name in names:
            text, ids = ask(lm, scenario, name)
            seen, first = read(ids), name_places(lm, text, name)[0]
            units = [seen[layer].flatten(0, -2).float() for layer in range(lm.n_layers)]  # [T, F] each
            means = [x[first:].abs().mean(0) * norm for x, norm in zip(units, norms, strict=True)]
            rows.append(torch.stack(on_host(means)).numpy())
    return np.stack(rows)


def stands_out(first: NDArray[Any], second: NDArray[Any], share: float, other: float) -> list[tuple[int, int]]:
    """Parts in the top `share` of one group's scores [L, X] and not in the top `other` of the other group's.

    Raises
    ------
    InputError
        A share that is not between 0 and 1.
    """
    if not (0 < share <= 1 and 0 <= other <= 1):
        raise InputError(f"Shares of {share:g} and {other:g} cannot be taken: give more than 0 and at most 1.")
    mine, theirs = _top(first, share), _top(second, other)
    return [divmod(int(i), first.shape[1]) for i in np.flatnonzero(mine & ~theirs)]


def _top(scores: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """[L * X] whether a part is among the largest ceil(share * N); ties go to the earlier one."""
    flat = scores.ravel()
    out = np.zeros(flat.size, dtype=bool)
    out[np.argsort(-flat, kind="stable")[: int(np.ceil(share * flat.size))]] = True
    return out
