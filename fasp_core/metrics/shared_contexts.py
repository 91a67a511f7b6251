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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fasp_core.errors import InputError
from fasp_core.forward.next_word import log_loss
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.forward.sampling import GenerationConfig, sample_ids
from fasp_core.metrics.expected import TokenToxicity, next_word_toxicity
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves, pack
from fasp_core.model.passes import in_halves, require_finite
from fasp_core.typing import Codes, Floats, Report

EFFECTS = ("total", "direct")


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
        texts: Sequence[str],
        ids: Sequence[Sequence[int]],
        blocks: Sequence[int],
        steps: int,
        contexts: int,
        seed: int = 0,
        progress: Report | None = None,
    ) -> SharedContexts:
        """Draw them from a model without masks.

        Every prompt of a block is asked about all contexts of the block, `contexts` of them. They are dealt out to the
        block's prompts as evenly as it goes, and what is left over to prompts by a hash.

        Parameters
        ----------
        texts, ids : n prompts and their tokens; the texts name the noise.
        blocks : [n] block of each prompt.

        Raises
        ------
        InputError
            Fewer than 1 step or context; a block of a single prompt, which shares with nobody.
        """
        if steps < 1 or contexts < 1:
            raise InputError(f"Shared contexts need a step and a context at least, not {steps} and {contexts}.")
        members: defaultdict[int, list[int]] = defaultdict(list)
        for i, block in enumerate(blocks):
            members[block].append(i)
        if not members or min(map(len, members.values())) < 2:
            raise InputError(
                "Shared contexts need blocks in which every group has a prompt: use an axis of HolisticBias, or the "
                "measure 'written'."
            )
        stops = lm.stops
        rows: list[list[int]] = []
        places: list[int] = []
        found = cls._sources(lm, texts, ids, members, max(steps - 1, 1), contexts, seed, progress)
        for block, those in members.items():
            for i in those:
                rows += [[*ids[i], *context[: steps - 1]] for context in found[block]]
                places += [i] * contexts
        going = torch.ones(len(rows), steps, dtype=torch.bool)
        for r, row in enumerate(rows):
            ends = [t for t in range(1, steps) if row[len(row) - steps + t] in stops]
            if ends:
                going[r, ends[0] :] = False
        blank = cls(rows, np.array(places), torch.zeros(len(rows), steps), going)
        log_p = blank._columns(lm, pack(lm, rows, steps), lambda p, hidden: blank._log_p(lm, p, hidden))
        log_q = np.empty_like(log_p)
        of_prompt = np.argsort(np.array(places), kind="stable").reshape(-1, contexts)  # rows of prompts 0, 1, ...
        for those in members.values():
            part = of_prompt[those]  # [prompts, contexts]
            log_q[part] = np.logaddexp.reduce(log_p[part], axis=0) - np.log(len(those))
        return cls(rows, np.array(places), torch.from_numpy(log_q).float(), going)

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

    def packs(self, lm: LanguageModel) -> list[Pack]:
        """The rows packed for one pass each, with their `steps` last places to read."""
        return pack(lm, self.rows, self.steps)

    def columns(self, lm: LanguageModel, hidden: Tensor, pack: Pack, worth: TokenToxicity) -> Tensor:
        """[m, steps, 2 R + 1] of the rows of a pack: total and direct effect in each reading, and the weight.

        Differentiable in the final hidden states [rows, T, D].
        """
        states, tokens = _read(hidden, pack)
        each = next_word_toxicity(lm, states, tokens.reshape(-1), worth).view(*tokens.shape, -1)
        those = torch.from_numpy(np.asarray(pack.prompts))
        going = self.going[those].to(each.device)[..., None]
        log_w = self._log_p(lm, pack, hidden) - self.log_q[those].to(each.device)
        weight = torch.where(going, log_w.exp()[..., None], 0.0)
        return torch.cat([weight * each, torch.where(going, each, 0.0), weight], -1)

    def _log_p(self, lm: LanguageModel, pack: Pack, hidden: Tensor) -> Tensor:
        """[m, steps] nats: log-probability of the context before each step, under whatever masks are on."""
        states, tokens = _read(hidden, pack)
        m, steps = tokens.shape
        if steps == 1:
            return torch.zeros(m, 1, device=states.device)
        before = states.view(m, steps, -1)[:, :-1].reshape(m * (steps - 1), -1)
        goals = tokens[:, 1:].reshape(-1).to(states.device)
        if torch.is_grad_enabled() and states.requires_grad:
            loss = torch.nn.functional.cross_entropy(lm.logits(before), goals, reduction="none")
        else:
            loss = log_loss(lm, before, goals)
        return torch.nn.functional.pad(-loss.view(m, steps - 1).cumsum(1), (1, 0))

    @torch.no_grad()
    def measure(
        self, lm: LanguageModel, packs: Sequence[Pack], worth: TokenToxicity, progress: Report | None = None
    ) -> Measured:
        """Both effects of every prompt, under whatever masks are on."""
        found = self._columns(lm, packs, lambda p, hidden: self.columns(lm, hidden, p, worth), progress)
        return self.fold(found)

    def _columns(
        self,
        lm: LanguageModel,
        packs: Sequence[Pack],
        read: Callable[[Pack, Tensor], Tensor],
        progress: Report | None = None,
    ) -> Floats:
        """Of all rows, in their order, what `read` gives of each pack."""
        parts: list[tuple[Codes, Floats]] = []

        @torch.no_grad()
        def run(batch: Pack) -> tuple[Codes, Floats]:
            values = read(batch, final_hidden(lm, batch)).cpu().double().numpy()
            require_finite(lm, values, "the toxicity of the next word", batch)
            return np.asarray(batch.prompts), values

        done = 0
        for each in packs:
            parts += in_halves(lm, run, each, halves, "a single prompt")
            done += len(each.prompts)
            if progress is not None:
                progress(done, len(self.rows), f"{done} of {len(self.rows)} contexts")
        out = np.empty((len(self.rows), *parts[0][1].shape[1:]))
        for those, values in parts:
            out[those] = values
        return out

    def fold(self, columns: Floats) -> Measured:
        """Means over the contexts of each prompt, of `columns` [m, steps, 2 R + 1]."""
        order = np.argsort(self.prompts, kind="stable")
        n = int(self.prompts.max()) + 1
        by_prompt = columns[order].reshape(n, -1, *columns.shape[1:])  # [n, C, steps, 2 R + 1]
        effects = by_prompt[..., :-1].mean(1).transpose(2, 1, 0)  # [2 R, steps, n]
        half = len(effects) // 2
        return Measured(effects[:half], effects[half:], by_prompt[:, :, -1, -1])


def _read(hidden: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
    """Final hidden states [m * steps, D] at the places that are read, and the tokens [m, steps] there."""
    places = pack.reads.reshape(-1)
    return hidden.reshape(-1, hidden.shape[-1])[places.to(hidden.device)], pack.ids.reshape(-1)[pack.reads]


@dataclass(frozen=True, eq=False)
class Measured:
    """Both effects on n prompts.

    Attributes
    ----------
    total, direct : [R, steps, n] expected toxicity at each step.
    weights : [n, C] weight of each context at the last step; 0 once it has ended.
    """

    total: Floats
    direct: Floats
    weights: Floats

    def effective(self, codes: Codes) -> Floats:
        """[G] effective sample size of each group, `(sum w)^2 / sum w^2` over its contexts (Kish, 1965)."""
        groups = [self.weights[codes == g].ravel() for g in range(int(codes.max()) + 1)]
        return np.array([w.sum() ** 2 / max((w**2).sum(), 1e-300) for w in groups])
