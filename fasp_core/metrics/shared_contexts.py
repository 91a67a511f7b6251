"""Expected toxicity after contexts that all groups of a block share.

The prompts of a block are one sentence with another group in it. A context `c` is drawn from the mixture of what the
unpruned model would write after each of them, `q(c) = mean_g p(c | x_g)`, and every group is asked about the same one:

    total(g)  = sum_t E_q[ w_t a_t ],   w_t = p(c_<t | x_g) / q(c_<t)
    direct(g) = sum_t E_q[ a_t ]

`a_t` is the expected toxicity of the next word after `x_g c_<t`. The total effect is what `written` estimates: contexts
drawn from several proposals and weighted by the balance heuristic (Veach and Guibas, Optimally combining sampling
techniques for Monte Carlo rendering, SIGGRAPH 1995), here w_t <= G for the unpruned model. The direct effect is what
the group's name does when the words in between are the same. Differences between groups hold no noise of different
words.

The contexts and q are those of the unpruned model, whatever is measured. So a value is a deterministic, differentiable
function of the model, and a sum over rows that do not see each other: heads can be ranked by it, to first order and
exactly.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.data.prompt_set import PromptSet
from fasp_core.errors import InputError
from fasp_core.forward.next_word import log_loss
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.forward.sampling import GenerationConfig, sample_ids
from fasp_core.lazy import functional, no_grad, torch
from fasp_core.metrics.expected import TokenToxicity, scatter
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves, pack
from fasp_core.model.passes import in_halves, require_finite
from fasp_core.typing import Codes, Floats, Report

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class SharedContexts:
    """Contexts of every block, after each of its prompts.

    Attributes
    ----------
    rows : m token rows: a prompt, then `steps - 1` tokens of a context.
    prompts : [m] place of each row's prompt.
    log_q : [m, steps] nats: log-probability, under the mixture of the block, of the context before each step.
    going : [m, steps] bool: whether the context had not ended before the step.
    """

    rows: list[list[int]]
    prompts: Codes
    log_q: Tensor
    going: Tensor

    @property
    def steps(self) -> int:
        """Positions that are read: the one after the prompt and one after each token of the context."""
        return self.log_q.shape[1]

    @classmethod
    def draw(
        cls,
        lm: LanguageModel,
        prompts: PromptSet,
        ids: Sequence[Sequence[int]],
        steps: int,
        contexts: int,
        seed: int = 0,
        progress: Report | None = None,
    ) -> SharedContexts:
        """Draw them from a model without masks.

        Every prompt of a block is asked about all contexts of the block, `contexts` of them. They are dealt out to the
        block's prompts as evenly as it goes, and what is left over to prompts by a hash. A prompt that is alone in its
        block, as where a group has more nouns than others, joins another block of its template.

        Parameters
        ----------
        prompts, ids : n prompts in blocks, and their tokens; the texts name the noise.

        Raises
        ------
        InputError
            Fewer than 1 step or context; a prompt that shares its template with no other.
        """
        if steps < 1 or contexts < 1:
            raise InputError(f"Shared contexts need a step and a context at least, not {steps} and {contexts}.")
        members = _sharing(prompts)
        if not members or min(map(len, members.values())) < 2:
            raise InputError(
                "Shared contexts need blocks in which every group has a prompt: use an axis of HolisticBias, or the "
                "measure 'written'."
            )
        stops = lm.stops
        rows: list[list[int]] = []
        places: list[int] = []
        found = cls._sources(lm, prompts.texts, ids, members, max(steps - 1, 1), contexts, seed, progress)
        for block, those in members.items():
            for i in those:
                rows += [[*ids[i], *context[: steps - 1]] for context in found[block]]
                places += [i] * contexts
        going = torch.ones(len(rows), steps, dtype=torch.bool)
        for r, row in enumerate(rows):
            ends = [t for t in range(1, steps) if row[len(row) - steps + t] in stops]
            if ends:
                going[r, ends[0] :] = False
        log_p = _log_probabilities(lm, rows, steps)
        log_q = np.empty_like(log_p)
        of_prompt = np.argsort(np.array(places), kind="stable").reshape(-1, contexts)  # rows of prompts 0, 1, ...
        for those in members.values():
            part = of_prompt[those]  # [prompts, contexts]
            log_q[part] = np.logaddexp.reduce(log_p[part], axis=0) - np.log(len(those))
        return cls(rows, np.array(places), torch.from_numpy(log_q).float(), going)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As a store keeps them."""
        return {
            "lengths": np.array([len(row) for row in self.rows], dtype=np.int32),
            "tokens": np.array([token for row in self.rows for token in row], dtype=np.int32),
            "prompts": np.asarray(self.prompts, dtype=np.int32),
            "log_q": self.log_q.numpy(),
            "going": self.going.numpy(),
        }

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]]) -> SharedContexts:
        """What `arrays` gave."""
        cuts = np.cumsum(arrays["lengths"])[:-1]
        rows = [row.tolist() for row in np.split(arrays["tokens"], cuts)]
        log_q, going = (torch.from_numpy(np.array(arrays[name])) for name in ("log_q", "going"))
        return cls(rows, arrays["prompts"].astype(np.int64), log_q, going)

    @staticmethod
    def _sources(
        lm: LanguageModel,
        texts: Sequence[str],
        ids: Sequence[Sequence[int]],
        members: dict[int, list[int]],
        tokens: int,
        contexts: int,
        seed: int,
        progress: Report | None,
    ) -> dict[int, list[list[int]]]:
        """The contexts of each block: those of a prompt have the noise of its draws 0, 1, ..."""
        wanted: dict[int, int] = {}
        for those in members.values():
            by_hash = sorted(those, key=lambda i: hashlib.sha256(f"contexts|{seed}|{texts[i]}".encode()).digest())
            for turn, i in enumerate(by_hash):
                wanted[i] = contexts // len(those) + (turn < contexts % len(those))
        drawn: dict[int, list[list[int]]] = {}
        for count in sorted(set(wanted.values()) - {0}):
            those = [i for i, of in wanted.items() if of == count]
            config = GenerationConfig(samples=count, tokens=tokens, seed=seed)
            found = sample_ids(lm, [texts[i] for i in those], config, progress=progress, ids=[ids[i] for i in those])
            drawn |= zip(those, found, strict=True)
        return {block: [c for i in those for c in drawn.get(i, [])] for block, those in members.items()}

    def reader(self, worth: TokenToxicity) -> AfterShared:
        """What is read of the rows in a pass."""
        return AfterShared(worth, self.log_q.to(worth.values.device), self.going.to(worth.values.device))

    def fold(self, columns: Floats) -> Floats:
        """[..., 2 R, n] mean over the contexts of each prompt, of `columns` [..., 2 R + 1, m]; weights left out."""
        return np.asarray(self._by_prompt(columns[..., :-1, :]).mean(-1))

    def weights(self, columns: Floats) -> Floats:
        """[n, C] weight of each context at the last step; 0 once it has ended."""
        return np.asarray(self._by_prompt(columns[-1]))

    def _by_prompt(self, rows: Floats) -> Floats:
        """[..., n, C] of [..., m]."""
        order = np.argsort(self.prompts, kind="stable")
        return rows[..., order].reshape(*rows.shape[:-1], int(self.prompts.max()) + 1, -1)


def _sharing(prompts: PromptSet) -> dict[int, list[int]]:
    """Places of the prompts of each block, those that are alone in theirs in another of the same template."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for i, block in enumerate(prompts.blocks):
        members[block].append(i)
    wide: dict[str, int] = {}
    for block, those in members.items():
        if len(those) > 1:
            wide.setdefault(prompts.templates[those[0]], block)
    for block in [block for block, those in members.items() if len(those) == 1]:
        (alone,) = members[block]
        if (other := wide.get(prompts.templates[alone])) is not None:
            members[other].append(alone)
            del members[block]
    return members


@dataclass(frozen=True, eq=False)
class AfterShared:
    """Reads the rows of shared contexts: the sum over steps of both effects in each reading, and the last weight.

    Attributes
    ----------
    worth : of tokens.
    log_q, going : [m, steps] as in `SharedContexts`, on the model's device.
    """

    worth: TokenToxicity
    log_q: Tensor
    going: Tensor
    spread: bool = False

    def columns(self, lm: LanguageModel, hidden: Tensor, pack: Pack) -> Tensor:
        """[m, steps, 2 R + 1] of the rows of a pack: total effects, direct effects, and at the last step the weight."""
        each = self.worth.columns(lm, hidden, pack)
        those = torch.from_numpy(np.asarray(pack.prompts)).to(self.log_q.device)
        going = self.going[those][..., None]
        weight = torch.where(going, (_log_p(lm, pack, hidden) - self.log_q[those]).exp()[..., None], 0.0)
        last = torch.zeros_like(weight)
        last[:, -1] = weight[:, -1]
        return torch.cat([weight * each, torch.where(going, each, 0.0), last], -1)

    def at(self, rows: Sequence[int]) -> AfterShared:
        """The same for some of the rows, in this order."""
        those = torch.tensor(list(rows), device=self.log_q.device)
        return replace(self, log_q=self.log_q[those], going=self.going[those])

    def on(self, device: torch.device | str) -> AfterShared:
        """The same on another device."""
        return replace(self, worth=self.worth.on(device), log_q=self.log_q.to(device), going=self.going.to(device))


def _log_p(lm: LanguageModel, pack: Pack, hidden: Tensor) -> Tensor:
    """[m, steps] nats: log-probability of the context before each step, under whatever masks are on. Differentiable."""
    m, steps = pack.reads.shape
    states, tokens = pack.read(hidden)
    if steps == 1:
        return torch.zeros(m, 1, device=states.device)
    before = states.view(m, steps, -1)[:, :-1].reshape(m * (steps - 1), -1)
    goals = tokens.view(m, steps)[:, 1:].reshape(-1).to(states.device)
    if torch.is_grad_enabled() and states.requires_grad:
        loss = functional.cross_entropy(lm.logits(before), goals, reduction="none")
    else:
        loss = log_loss(lm, before, goals)
    return torch.nn.functional.pad(-loss.view(m, steps - 1).cumsum(1), (1, 0))


@no_grad
def _log_probabilities(lm: LanguageModel, rows: Sequence[Sequence[int]], steps: int) -> Floats:
    """[m, steps] nats: `_log_p` of all rows, in their order."""

    def run(batch: Pack) -> Floats:
        found = _log_p(lm, batch, final_hidden(lm, batch)).cpu().double().numpy()
        require_finite(lm, found, "the probability of a context", batch)
        return np.asarray(found)

    packs = pack(lm, rows, steps)
    return scatter(packs, [part for one in packs for part in in_halves(lm, run, one, halves, "a single prompt")]).T


def effective(weights: Floats, groups: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Effective sample size of each group, `(sum w)^2 / sum w^2` (Kish, Survey Sampling, 1965), and its contexts.

    Parameters
    ----------
    weights : [n, C]. groups : [n] group of each prompt.
    """
    of = np.array(groups)
    each = {name: weights[of == name].ravel() for name in sorted(set(groups))}
    return {name: (float(w.sum() ** 2 / max((w**2).sum(), 1e-300)), w.size) for name, w in each.items()}
