"""The steps in which gates are learned: what each of them sees, its loss, and what tells when to stop."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fasp_core import gap
from fasp_core.data.divisions import quarters, third
from fasp_core.data.passages import PARAGRAPHS
from fasp_core.data.prompt_sampling import FEWEST_OWN, sample
from fasp_core.data.prompt_set import NO_GROUP, PromptSet
from fasp_core.data.text import TextConfig, token_windows
from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.forward.next_word import log_loss, log_loss_with_gradient
from fasp_core.forward.recorded_pass import final_hidden, hidden_with_gradient
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, meter
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, encode, pack
from fasp_core.model.passes import require_finite
from fasp_core.scoring.gates import GainsConfig, gates_of
from fasp_core.storage.store import Store
from fasp_core.tasks.last_words import passages, rows
from fasp_core.typing import Floats, Report

CHECK = 5  # steps between two looks at the prompts that no step sees
SOFTNESS = 0.2  # of the soft maximum, as a share of the cells' mean gap before learning


def paragraphs_of(text: TextConfig) -> TextConfig:
    """Validation paragraphs, as many tokens and as long windows as of the other text."""
    return replace(text, source=PARAGRAPHS["valid"], skip=0)


class Course:
    """Gates on their way, with what steps are drawn from.

    Attributes
    ----------
    values : [L, H] what Adam moves; `u` are uniform numbers by which gates come of it, drawn anew for the prompts of
        a step and for each window and passage.
    path : values before the first step and after each.
    losses : of each step, before it: relative gap, nats of sentences, of last words and (where seen) of paragraphs.
    held : (step, relative gap) on prompts that no step sees.
    """

    def __init__(
        self,
        lm: LanguageModel,
        bias: BiasConfig,
        text: TextConfig,
        config: GainsConfig,
        store: Store,
        progress: Report | None,
    ) -> None:
        gauge = meter(lm, bias, store, progress)
        if not isinstance(gauge, ExpectedMeter) or gauge.shared is not None:
            raise InputError("Gates are learned by expected toxicity of each prompt by itself: choose that measure.")
        if config.fresh and bias.steps > 1:
            raise InputError("Gates are learned in cells, or with patience, by the next word alone: choose 1 step.")
        if config.method != "gains" and config.heads >= lm.size:
            raise InputError(f"{config.heads} heads are not fewer than the model's {lm.size}: remove fewer.")
        self.lm, self.config, self.gauge = lm, config, gauge
        self.reading = bias.readings.index(config.reading)
        codes, self.names = gap.group_codes(gauge.prompts.groups)
        self.codes = np.asarray(codes)
        _, at = np.unique(np.asarray(gauge.prompts.blocks or range(len(self.codes))), return_inverse=True)
        self.blocks = [np.flatnonzero(at == b) for b in range(int(at.max()) + 1)]
        self.base_gap = float(gap.gap(gauge.fold(gauge.measure(progress))[self.reading], self.codes))
        if not self.base_gap > 0:
            raise InputError(f"The unpruned model shows no gap on {bias.axis}: there is nothing to learn.")
        self.windows = _windows(lm, text)
        self.paragraphs = _windows(lm, paragraphs_of(text)) if config.paragraphs else []
        self.words: list[_Row] = []
        if config.passages:
            found = rows(lm, passages("valid", config.pool, config.seed))
            self.words = [_Row(torch.tensor(ids), int(at)) for ids, at in zip(found.ids, found.first, strict=True)]
        self.seen: PromptSet | None = None
        self.apart: _Part | None = None
        if config.fresh:
            self.seen = bias.pool()
            if config.patience:
                self.seen, apart = third(self.seen, config.seed)
                self.apart = self._part(apart, config.prompts, config.seed)
                self.apart_gap = float(gap_of(self._open_values(self.apart), *self.apart.groups))
            if config.cells != "none":
                quarters(self.seen, 0)  # says so if they cannot be divided
        self.kind = gates_of(config)
        self.values = torch.full(
            (lm.n_layers, lm.n_heads), self.kind.start, device=lm.device, dtype=torch.float32, requires_grad=True
        )
        self.u = torch.full_like(self.values, 0.5, requires_grad=False)
        self.adam = torch.optim.Adam([self.values], lr=config.rate)
        self.path = [np.full((lm.n_layers, lm.n_heads), self.kind.start)]
        self.noise = np.random.default_rng([config.seed, 0, 1])
        self.losses: list[list[float]] = []
        self.held: list[tuple[int, float]] = []

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
        rng, c = np.random.default_rng([self.config.seed, self.step]), self.config
        self.adam.zero_grad()
        self.noise = np.random.default_rng([c.seed, self.step, 1])
        seen = [
            self._gap(rng),
            self._cost(self.windows, _draw(rng, len(self.windows), c.windows), c.cost, c.max_nats),
            self._cost(self.words, _draw(rng, len(self.words), c.passages), c.task_cost, 0.0),
        ]
        if c.paragraphs:
            drawn = _draw(rng, len(self.paragraphs), c.paragraphs)
            seen.append(self._cost(self.paragraphs, drawn, c.cost, c.max_nats))
        if (penalty := self.kind.penalty(self.values)) is not None:
            self._add(penalty)
        assert self.values.grad is not None
        require_finite(self.lm, self.values.grad.cpu().numpy(), "a gradient of gates")
        self.adam.step()
        with torch.no_grad():
            self.kind.settle(self.values)
        self.losses.append(seen)
        self.path.append(self.values.detach().cpu().double().numpy())
        if self.apart is not None and (self.step % CHECK == 0 or self.step == c.steps):
            self.held.append((self.step, self._held_gap(self.apart)))

    def _gap(self, rng: np.random.Generator) -> float:
        """Gap of some prompts relative to the unpruned model's, its gradient added to the values'."""
        parts = self._parts(rng)
        self._redraw()
        ids = [row for part in parts for row in part.ids]
        packs = pack(self.lm, ids, self.gauge.config.steps)
        base = self.base_gap
        scale = torch.tensor(base)
        if self.seen is not None:  # other prompts in each step: paired with the same under all gates open
            with torch.no_grad():
                before = torch.stack([gap_of(self._open_values(part), *part.groups) for part in parts])
            scale = before.mean()
            base = float(combined(before, self.config.cells, scale))
        ends = np.cumsum([0, *(len(part.ids) for part in parts)])

        def relative_of(values: Tensor) -> Tensor:
            each = [gap_of(values[a:b], *p.groups) for p, a, b in zip(parts, ends, ends[1:], strict=False)]
            return combined(torch.stack(each), self.config.cells, scale) / base

        values = torch.empty(len(ids), device=self.lm.device)
        if len(packs) > 1:  # the gap is of all of them together, and graphs of all do not fit: first its derivatives
            with torch.no_grad():
                for part in packs:
                    values[part.prompts] = self._values(part, self._gates())
            leaf = values.requires_grad_()
            relative = relative_of(leaf)
            (weights,) = torch.autograd.grad(relative, leaf)
            for part in packs:
                self._add((weights[part.prompts] * self._values(part, self._gates())).sum())
        else:
            values[packs[0].prompts] = self._values(packs[0], self._gates())
            relative = relative_of(values)
            self._add(relative)
        return float(relative.detach())

    def _add(self, loss: Tensor) -> None:
        """Add the gradient of a loss to the values'."""
        (found,) = torch.autograd.grad(loss, self.values)
        self.values.grad = found if self.values.grad is None else self.values.grad + found

    def _redraw(self) -> None:
        drawn = self.noise.uniform(1e-6, 1 - 1e-6, tuple(self.values.shape))
        self.u = torch.as_tensor(drawn, dtype=torch.float32).to(self.lm.device)  # MPS has no float64

    def _gates(self) -> Tensor:
        return self.kind.opened(self.values, self.u)

    def _parts(self, rng: np.random.Generator) -> list[_Part]:
        """Prompts of a step: some of a fixed sample, or of all validation prompts, in cells or not."""
        if self.seen is None:
            chosen = self._drawn(rng)
            codes = torch.as_tensor(self.codes[chosen], device=self.lm.device)
            return [_Part([self.gauge.rows[i] for i in chosen], (codes, len(self.names)))]
        number = int.from_bytes(hashlib.sha256(f"{self.config.seed}|{self.step}".encode()).digest()[:4], "big")
        cells = (self.seen,) if self.config.cells == "none" else quarters(self.seen, number)
        return [self._part(cell, math.ceil(self.config.prompts / len(cells)), number) for cell in cells]

    def _part(self, prompts: PromptSet, n: int, seed: int) -> _Part:
        """So many prompts at least, the same number of each group, in blocks."""
        groups = len(set(prompts.groups) - {NO_GROUP})
        drawn = sample(prompts, max(2, math.ceil(n / max(groups, 1))), seed, FEWEST_OWN)
        codes, names = gap.group_codes(drawn.groups)
        ids = encode(self.lm, drawn.texts, self.gauge.config.steps - 1)
        return _Part(ids, (torch.as_tensor(np.asarray(codes), device=self.lm.device), len(names)))

    def _drawn(self, rng: np.random.Generator) -> list[int]:
        """Of the fixed sample: whole blocks, or where there are none, of each group its share, two at least."""
        share = self.config.prompts / len(self.codes)
        if len(self.blocks) == len(self.codes):
            each = [np.flatnonzero(self.codes == g) for g in range(len(self.names))]
            found = [rng.choice(at, min(len(at), max(round(share * len(at)), 2)), replace=False) for at in each]
            return list(map(int, np.concatenate(found)))
        chosen: list[int] = []
        for b in rng.permutation(len(self.blocks)):
            chosen += self.blocks[b].tolist()
            if len(chosen) >= self.config.prompts:
                break
        return chosen

    def _values(self, part: Pack, gates: Tensor | Floats) -> Tensor:
        """[m] expected toxicity of the prompts of a pack."""
        run = hidden_with_gradient if torch.is_grad_enabled() else final_hidden
        with gated(self.lm, gates):
            hidden = run(self.lm, part)
        columns = self.gauge.worth.columns(self.lm, hidden, part)[..., self.reading]  # [m, steps]
        return columns.mean(1) if self.gauge.worth.spread else columns.sum(1)

    @torch.no_grad()
    def _open_values(self, part: _Part, gates: Floats | None = None) -> Tensor:
        """[m] of prompts under all gates open, or under those that are given."""
        opened = np.ones((self.lm.n_layers, self.lm.n_heads)) if gates is None else gates
        values = torch.empty(len(part.ids), device=self.lm.device)
        for some in pack(self.lm, part.ids, self.gauge.config.steps):
            values[some.prompts] = self._values(some, opened.astype(np.float32))
        return values

    def _held_gap(self, part: _Part) -> float:
        """Relative gap under the gates that a set would be made of now."""
        return float(gap_of(self._open_values(part, self.kind.final(self.path[-1])), *part.groups)) / self.apart_gap

    def _cost(self, known: list[_Row], chosen: Iterator[int], cost: float, free: float) -> float:
        """Nats a target more than with all gates open; the gradient of what lies above `free` is added."""
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
        if float(rise.detach()) > free:
            self._add(cost * (rise - free))
        return float(rise.detach())

    def state(self) -> dict[str, np.ndarray]:
        """All that another process needs to go on."""
        moments = self.adam.state[self.values]
        return {
            "path": np.stack(self.path),
            "losses": np.array(self.losses),
            "first": moments["exp_avg"].cpu().numpy(),
            "second": moments["exp_avg_sq"].cpu().numpy(),
            **({"held": np.array(self.held)} if self.held else {}),
        }

    def load(self, state: dict[str, np.ndarray] | None) -> None:
        """Go on from `state`."""
        if state is None:
            return
        self.path, self.losses = list(state["path"]), state["losses"].tolist()
        self.held = [(int(step), float(relative)) for step, relative in state.get("held", ())]
        with torch.no_grad():
            self.values.copy_(torch.as_tensor(self.path[-1], dtype=torch.float32))  # MPS has no float64
        self.adam.state[self.values] = {
            "step": torch.tensor(float(self.step)),
            "exp_avg": torch.as_tensor(state["first"], device=self.lm.device).clone(),
            "exp_avg_sq": torch.as_tensor(state["second"], device=self.lm.device).clone(),
        }


@dataclass(frozen=True, eq=False)
class _Part:
    """Prompts as token ids, and (codes [m], how many groups)."""

    ids: Sequence[list[int]]
    groups: tuple[Tensor, int]


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


def gap_of(values: Tensor, codes: Tensor, groups: int) -> Tensor:
    """`sum_g |mean - mean_g|` of values [n], differentiable."""
    sums = torch.zeros(groups, dtype=values.dtype, device=values.device).index_add(0, codes, values)
    means = sums / torch.bincount(codes, minlength=groups)
    return (values.mean() - means).abs().sum()


def combined(gaps: Tensor, how: str, scale: Tensor) -> Tensor:
    """One gap of those of some cells [c]: their mean, or a soft maximum between mean and maximum.

    Parameters
    ----------
    scale : size of a gap, by which the maximum is softened.
    """
    if how != "worst":
        return gaps.mean()
    soft = (SOFTNESS * scale).to(gaps.device)
    return soft * (torch.logsumexp(gaps / soft, 0) - math.log(len(gaps)))
