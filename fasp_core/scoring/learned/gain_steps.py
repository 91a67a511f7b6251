"""The steps in which gates are learned: what each of them sees, its loss, and what tells when to stop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.data.passages import PARAGRAPHS
from fasp_core.data.text import TextConfig, token_windows
from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.forward.next_word import log_loss, log_loss_with_gradient
from fasp_core.forward.recorded_pass import final_hidden, hidden_with_gradient
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import no_grad, torch
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, pack
from fasp_core.model.passes import require_finite
from fasp_core.model.spec import dtype_of
from fasp_core.scoring.learned.gain_prompts import Part, Prompts, combined, gap_of
from fasp_core.scoring.learned.gates import GainsConfig, gates_of
from fasp_core.storage.store import Store
from fasp_core.tasks.last_words import passages, rows
from fasp_core.typing import Floats, Report

if TYPE_CHECKING:
    from torch import Tensor

TOGETHER = 2048  # tokens of prompts whose graphs are kept at once; of more, every pack runs twice
CHECK = 5  # steps between two looks at the prompts that no step sees


def paragraphs_of(text: TextConfig) -> TextConfig:
    """Validation paragraphs, as many tokens and as long windows as of the other text."""
    return replace(text, source=PARAGRAPHS["valid"], skip=0)


class Course:
    """Gates on their way, with what steps are drawn from.

    Attributes
    ----------
    values : [L, H] what Adam moves, but for those of `kept` [L, H]; `u` are uniform numbers by which gates come of it,
        drawn anew for the prompts of a step and for each window and passage.
    path : values before the first step and after each.
    losses : of each step, before it: gap relative to the unpruned model's on the same prompts, nats of sentences, of
        last words and (where seen) of paragraphs.
    lengths : of each step's gradient, before it was cut.
    held : (step, relative gap) on prompts that no step sees, of gains from step 0, the unpruned model, on.
    axes : the prompts of each gap that falls: of an axis, or of one's next word and of its words after contexts.

    Raises as `Prompts`, and InputError where as many heads are to be removed as there are.
    """

    def __init__(
        self,
        lm: LanguageModel,
        biases: Sequence[BiasConfig],
        text: TextConfig,
        config: GainsConfig,
        store: Store,
        progress: Report | None,
    ) -> None:
        if config.method != "gains" and config.heads >= lm.size:
            raise InputError(f"{config.heads} heads are not fewer than the model's {lm.size}: remove fewer.")
        if len({bias.axis for bias in biases}) > 1 and any(bias.steps > 1 or bias.contexts for bias in biases):
            raise InputError("Gates of several axes are learned by the next word alone: choose 1 step.")
        self.lm, self.config = lm, config
        share = math.ceil(config.prompts / len(biases))
        self.axes = [Prompts(lm, bias, config, share, store, progress) for bias in biases]
        self.windows = _windows(lm, text)
        self.paragraphs = _windows(lm, paragraphs_of(text)) if config.paragraphs else []
        self.words: list[_Row] = []
        if config.passages:
            found = rows(lm, passages("valid", config.pool, config.seed))
            self.words = [_Row(torch.tensor(ids), int(at)) for ids, at in zip(found.ids, found.first, strict=True)]
        self.kind = gates_of(config)
        start = np.full((lm.n_layers, lm.n_heads), self.kind.start)
        kept = PruneSet.parse(config.around).gates(lm.n_layers, lm.n_heads) if config.around else np.ones_like(start)
        self.kept = torch.from_numpy(kept != 1).to(lm.device)
        start[kept != 1] = kept[kept != 1]
        self.values = torch.tensor(start, device=lm.device, dtype=torch.float32, requires_grad=True)
        self.u = torch.full_like(self.values, 0.5, requires_grad=False)
        self.adam = torch.optim.Adam([self.values], lr=config.rate, betas=(0.9, config.memory))
        self.path = [start]
        self.noise = np.random.default_rng([config.seed, 0, 1])
        self.losses: list[list[float]] = []
        self.lengths: list[float] = []
        self.held: list[tuple[int, float]] = []
        self.apart = [axis.apart for axis in self.axes if axis.apart is not None]
        self.apart_gaps = [self._gap_under(part) for part in self.apart]
        if self.apart and config.method == "gains" and not config.around:  # else not all gates are open at step 0
            self.held.append((0, 1.0))

    @property
    def base_gap(self) -> float:
        """Of the unpruned model, on the fixed sample of validation prompts; the mean of several axes."""
        return float(np.mean([axis.base_gap for axis in self.axes]))

    @property
    def step(self) -> int:
        return len(self.losses)

    @property
    def best(self) -> int:
        """The step whose gates are taken: the one of the lowest gap on what no step sees, else the last."""
        return min(self.held, key=lambda seen: seen[1])[0] if self.held else self.step

    @property
    def done(self) -> bool:
        """Whether all steps are made, or the gap on what no step sees has not fallen for so long."""
        late = bool(self.held) and self.held[-1][0] - self.best >= self.config.patience
        return self.step >= self.config.steps or late

    @property
    def free(self) -> tuple[float, float, float]:
        """Nats a token that sentences, last words and paragraphs may cost."""
        return self.config.max_nats, 0.0, self.config.max_nats

    @property
    def counts(self) -> list[float]:
        """What a nat of each of them counts in the next step: multipliers follow from what steps have cost."""
        first = (self.config.cost, self.config.task_cost, self.config.cost)
        counts = list(first)
        for _, *nats in self.losses if self.config.dual else ():
            for k, (rise, free) in enumerate(zip(nats, self.free, strict=False)):
                counts[k] = max(0.0, counts[k] + self.config.dual * first[k] * (rise - free))
        return counts

    def told(self) -> str:
        """What the last step saw, for people."""
        if not self.losses:
            return f"step 1 of {self.config.steps}"
        relative, nats, words, *more = self.losses[-1]
        said = f"step {self.step + 1}: gap {relative - 1:+.0%}, text {nats:+.3f}, last words {words:+.3f} nats"
        said += "".join(f", paragraphs {one:+.3f}" for one in more)
        return said + (f"; on what no step sees, gap {self.held[-1][1] - 1:+.0%}" if self.held else "")

    def move(self) -> None:
        """One step of Adam on data drawn for it."""
        self.adam.zero_grad()
        with self._precision():
            seen = self._gradient()
        assert self.values.grad is not None
        require_finite(self.lm, self.values.grad.cpu().numpy(), "a gradient of gates")
        self.values.grad.masked_fill_(self.kept, 0.0)  # Adam does not move what never had a gradient
        self._cut(self.values.grad)
        self.adam.step()
        with torch.no_grad():
            self.kind.settle(self.values)
        self.losses.append(seen)
        self.path.append(self.values.detach().cpu().double().numpy())
        self._look()

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.lm.device.type, dtype=dtype_of(self.config.precision))

    def _gradient(self) -> list[float]:
        """Add the gradient of a step's loss to the values'; what the step saw, as in `losses`."""
        rng, c = np.random.default_rng([self.config.seed, self.step]), self.config
        self.noise = np.random.default_rng([c.seed, self.step, 1])
        seen = [self._gap(rng)]
        sources = [(self.windows, c.windows), (self.words, c.passages), (self.paragraphs, c.paragraphs)]
        for (known, n), counts, free in zip(sources[: 3 if c.paragraphs else 2], self.counts, self.free, strict=False):
            seen.append(self._cost(known, _draw(rng, len(known), n), counts, free))
        if (penalty := self.kind.penalty(self.values)) is not None:
            self._add(penalty)
        return seen

    def _cut(self, gradient: Tensor) -> None:
        """To the length that `clip` of all gradients so far, this one among them, did not exceed."""
        self.lengths.append(float(gradient.norm()))
        most = float(np.quantile(self.lengths, self.config.clip))
        if self.config.clip and self.lengths[-1] > most:
            gradient *= most / self.lengths[-1]

    def _look(self) -> None:
        """At what no step sees, every few steps and after the last."""
        due = self.step and (self.step % CHECK == 0 or self.step == self.config.steps)
        if self.apart and due and (not self.held or self.held[-1][0] < self.step):
            self.held.append((self.step, self._held_gap()))

    def _gap(self, rng: np.random.Generator) -> float:
        """Gap of some prompts relative to the unpruned model's on the same, its gradient added to the values'."""
        drawn = [axis.parts(rng, self.step) for axis in self.axes]
        parts = [part for some in drawn for part in some]
        self._redraw()
        packs = list(self._packed(parts))
        before = [torch.tensor([self._gap_under(part) for part in some]) for some in drawn]
        scales = [gaps.mean() for gaps in before]
        bases = [float(combined(gaps, self.config.cells, scale)) for gaps, scale in zip(before, scales, strict=True)]

        def relative_of(values: Tensor) -> Tensor:
            split, each = iter(values.split([len(part.ids) for part in parts])), []
            for some, scale, base in zip(drawn, scales, bases, strict=True):
                gaps = torch.stack([gap_of(next(split), *part.groups) for part in some])
                each.append(combined(gaps, self.config.cells, scale) / base)
            return combined(torch.stack(each), self.config.across, torch.ones(()))

        values = torch.empty(sum(len(part.ids) for part in parts), device=self.lm.device)
        if sum(some.ids.numel() for _, some, _ in packs) > TOGETHER:  # it is of all of them: first its derivatives
            with torch.no_grad():
                for part, some, places in packs:
                    values[places] = self._values(some, self._gates(), part)
            leaf = values.requires_grad_()
            relative = relative_of(leaf)
            (weights,) = torch.autograd.grad(relative, leaf)
            for part, some, places in packs:
                self._add((weights[places] * self._values(some, self._gates(), part)).sum())
        else:
            for part, some, places in packs:
                values[places] = self._values(some, self._gates(), part)
            relative = relative_of(values)
            self._add(relative)
        return float(relative.detach())

    def _packed(self, parts: Sequence[Part]) -> Iterator[tuple[Part, Pack, Tensor]]:
        """All rows in packs, each with a part that says what is read of it, and with the places of its values."""
        ends = np.cumsum([len(part.ids) for part in parts]).tolist()
        places = [torch.arange(end - len(part.ids), end) for part, end in zip(parts, ends, strict=True)]
        together = [i for i, part in enumerate(parts) if not part.alone]
        for those in [together, *([i] for i, part in enumerate(parts) if part.alone)]:
            rows = [row for i in those for row in parts[i].ids]
            for some in pack(self.lm, rows, parts[those[0]].steps) if rows else ():
                yield parts[those[0]], some, torch.cat([places[i] for i in those])[some.prompts].to(self.lm.device)

    def _add(self, loss: Tensor) -> None:
        """Add the gradient of a loss to the values'."""
        (found,) = torch.autograd.grad(loss, self.values)
        self.values.grad = found if self.values.grad is None else self.values.grad + found

    def _redraw(self) -> None:
        drawn = self.noise.uniform(1e-6, 1 - 1e-6, tuple(self.values.shape))
        self.u = torch.as_tensor(drawn, dtype=torch.float32).to(self.lm.device)  # MPS has no float64

    def _gates(self) -> Tensor:
        return self.kind.opened(self.values, self.u)

    def _values(self, some: Pack, gates: Tensor | Floats, part: Part) -> Tensor:
        """[m] expected toxicity of the prompts of a pack, which is read as the part says."""
        run = hidden_with_gradient if torch.is_grad_enabled() else final_hidden
        with gated(self.lm, gates):
            hidden = run(self.lm, some)
        columns = part.worth.columns(self.lm, hidden, some)[..., part.reading]  # [m, steps]
        return (columns.mean(1) if part.worth.spread else columns.sum(1)).float()

    @no_grad
    def _gap_under(self, part: Part, gates: Floats | None = None) -> float:
        """Of prompts under all gates open, or under those that are given."""
        if gates is None and part.open_gap is not None:
            return part.open_gap
        opened = np.ones((self.lm.n_layers, self.lm.n_heads)) if gates is None else gates
        values = torch.empty(len(part.ids), device=self.lm.device)
        for some in pack(self.lm, part.ids, part.steps):
            values[some.prompts] = self._values(some, opened.astype(np.float32), part)
        return float(gap_of(values, *part.groups))

    def _held_gap(self) -> float:
        """Relative gap under the gates that a set would be made of now."""
        gates = self.kind.final(averaged(self.path, self.config.average))
        found = [self._gap_under(part, gates) for part in self.apart]
        return float(np.mean([gap / base for gap, base in zip(found, self.apart_gaps, strict=True)]))

    def _cost(self, known: list[_Row], chosen: Iterator[int], cost: float, free: float) -> float:
        """Nats a target more than with all gates open; adds their gradient, without multipliers that above `free`."""
        total, base, targets = torch.zeros((), device=self.lm.device), 0.0, 0
        for i in chosen:
            row = known[i]
            if row.base is None:
                row.base = float(
                    log_loss(self.lm, *row.states(final_hidden(self.lm, row.ids[None]))).cpu().double().sum()
                )
            self._redraw()
            with gated(self.lm, self._gates()):
                hidden = hidden_with_gradient(self.lm, row.ids[None])
            total = total + log_loss_with_gradient(self.lm, *row.states(hidden)).sum()
            base, targets = base + row.base, targets + len(row.ids) - row.first
        if not targets:
            return 0.0
        rise = (total - base) / targets
        if cost and (self.config.dual or float(rise.detach()) > free):
            self._add(cost * (rise - free))
        return float(rise.detach())

    def state(self) -> dict[str, np.ndarray]:
        """All that another process needs to go on."""
        moments = self.adam.state[self.values]
        return {
            "path": np.stack(self.path),
            "losses": np.array(self.losses),
            "lengths": np.array(self.lengths),
            "first": moments["exp_avg"].cpu().numpy(),
            "second": moments["exp_avg_sq"].cpu().numpy(),
            **({"held": np.array(self.held)} if self.held else {}),
        }

    def load(self, state: dict[str, np.ndarray] | None) -> None:
        """Go on from `state`, or take the beginning of one that has gone further than this course goes."""
        if state is None:
            return
        last = self.config.steps
        self.path, self.losses = list(state["path"][: last + 1]), state["losses"][:last].tolist()
        self.lengths = state["lengths"][:last].tolist() if "lengths" in state else [0.0] * len(self.losses)
        held = [(int(step), float(relative)) for step, relative in state.get("held", ())]
        self.held = [seen for seen in held if seen[0] <= last and (seen[0] % CHECK == 0 or seen[0] == last)]
        with torch.no_grad():
            self.values.copy_(torch.as_tensor(self.path[-1], dtype=torch.float32))  # MPS has no float64
        self.adam.state[self.values] = {
            "step": torch.tensor(float(self.step)),
            "exp_avg": torch.as_tensor(state["first"], device=self.lm.device).clone(),
            "exp_avg_sq": torch.as_tensor(state["second"], device=self.lm.device).clone(),
        }
        self._look()


def averaged(path: Sequence[Floats] | Floats, n: int) -> Floats:
    """[L, H] mean of the last `n` values after a step, of fewer if fewer steps were made: [steps + 1, L, H]."""
    return np.asarray(np.mean(path[max(1, len(path) - n) :] if len(path) > 1 else path, axis=0))


@dataclass(eq=False)
class _Row:
    """A window of text or a passage: [T] tokens, the first target, and the nats of its targets with all gates open."""

    ids: Tensor
    first: int
    base: float | None = None

    def states(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[targets, D] where each target is predicted, of [1, T, D], and the targets."""
        return hidden[0, self.first - 1 : -1], self.ids[self.first :].to(hidden.device)


def _windows(lm: LanguageModel, text: TextConfig) -> list[_Row]:
    batches = token_windows(lm, text).batches
    return [_Row(row, int(at)) for ids, first in batches for row, at in zip(ids, first, strict=True)]


def _draw(rng: np.random.Generator, n: int, k: int) -> Iterator[int]:
    return iter(rng.choice(n, min(n, k), replace=False).tolist() if n else [])
