"""Gains: a gate for each head, learned by gradients, under which groups differ less and the model is as able as before.

A prune set is gates of 0 and 1. Here every head has a gate from 0 to 1.5, all of them learned together: Adam (Kingma
and Ba 2015) on validation prompts, text and passages, and nothing else of the model moves. The loss is the gap of a
batch of whole blocks relative to the unpruned model's, plus what text costs beyond a few thousandths of a nat, plus
what LAMBADA's last words cost at all. Costs are paired: the same windows and passages under all gates open.

A gate is folded into the output projection's columns on export, and costs nothing when the model runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasp_core import gap
from fasp_core.data.text import TextConfig, token_windows
from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.forward.next_word import log_loss, log_loss_with_gradient
from fasp_core.forward.recorded_pass import final_hidden, hidden_with_gradient
from fasp_core.heads.prune_set import MAX_GAIN, PruneSet
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, meter, result_key
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, pack
from fasp_core.model.passes import require_finite
from fasp_core.model.provenance import provenance
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.tasks.last_words import passages, rows
from fasp_core.typing import Floats, Report

KIND = "gains"


@dataclass(frozen=True)
class GainsConfig:
    """How gates are learned.

    Attributes
    ----------
    reading : the gap that falls: "neutral" or "counted".
    steps, rate : of Adam.
    prompts, windows, passages : what each step sees, drawn anew; of prompts at least so many, in whole blocks.
    max_nats : what text may cost for nothing, in nats a token.
    cost : what each further nat counts, a gap of the unpruned model's size being 1.
    task_cost : the same of the last words' nats, for which nothing is free.
    keep : what the mean squared distance of the gates from 1 counts.
    pool : passages that are drawn from.
    """

    reading: str = "neutral"
    steps: int = 40
    rate: float = 0.04
    prompts: int = 216
    windows: int = 1
    passages: int = 8
    max_nats: float = 0.005
    cost: float = 25.0
    task_cost: float = 1.0
    keep: float = 0.0
    pool: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.prompts < 1 or min(self.windows, self.passages) < 0 or not self.rate > 0:
            raise InputError("Gates are learned in 1 step or more, from 1 prompt or more, at a rate above 0.")


@dataclass(frozen=True, eq=False)
class Gains:
    """What was learned.

    Attributes
    ----------
    path : [steps + 1, L, H] gates before the first step and after each.
    losses : [steps, 3] before each step, on what it saw: the gap relative to the unpruned model's, nats that text costs
        more, nats that last words cost more.
    base_gap : of the unpruned model, on all prompts that steps are drawn from.
    """

    config: GainsConfig
    path: Floats
    losses: Floats
    base_gap: float
    provenance: dict[str, Any]

    @property
    def gates(self) -> Floats:
        """[L, H] after the last step."""
        return np.asarray(self.path[-1])

    def at(self, strength: float) -> PruneSet:
        """The set at a strength from 0 (the unpruned model) to 1 (as learned): gates 1 + s (g - 1)."""
        return PruneSet.from_gates(np.clip(1 + strength * (self.gates - 1), 0, MAX_GAIN))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        moved = np.abs(self.gates - 1)
        return {
            "config": asdict(self.config),
            "prune_set": self.at(1.0).format(),
            "heads": int(self.gates.size),
            "moved_by_more_than_a_fifth": int((moved > 0.2).sum()),
            "largest_move": float(moved.max()),
            "root_mean_squared_move": float(np.sqrt((moved**2).mean())),
            "base_gap": self.base_gap,
            "curve": [
                {"step": i + 1, "gap_relative": g, "text_nats": t, "last_word_nats": w}
                for i, (g, t, w) in enumerate(self.losses.tolist())
            ],
            "provenance": self.provenance,
        }


def gains_key(model_id: ModelId, bias: BiasConfig, text: TextConfig, config: GainsConfig) -> dict[str, Any]:
    """Everything that shapes the gates, for the store."""
    words = passages("valid", config.pool, config.seed).digest if config.passages else ""
    return {**result_key(bias, model_id), "gains": asdict(config), "text": ppl_key(text, model_id), "passages": words}


def learn(
    lm: LanguageModel,
    bias: BiasConfig,
    text: TextConfig,
    config: GainsConfig,
    store: Store,
    progress: Report | None = None,
) -> Gains:
    """Learn a gate for every head; stored after every step, so that a stopped run goes on.

    Parameters
    ----------
    bias, text : validation prompts (expected measure) and text that steps are drawn from.

    Raises
    ------
    InputError
        The prompts show no gap in this reading, or are measured by sampling or after contexts.
    """
    key = gains_key(lm.id, bias, text, config)

    def work() -> Any:
        started = time.monotonic()
        parts = store.parts(KIND, key)
        course = _Course(lm, bias, text, config, store, progress)
        course.load(parts.load("state"))
        while course.step < config.steps:
            if progress is not None:
                progress(course.step, config.steps, course.told())
            course.move()
            parts.save("state", course.state())
        arrays = {"path": np.stack(course.path).astype(np.float32), "losses": np.array(course.losses)}
        return {
            "arrays": arrays,
            "meta": {"base_gap": course.base_gap, "provenance": provenance(lm, time.monotonic() - started)},
        }

    return store.made(KIND, key, work, read, label=f"{slug(lm.name)}--{slug(bias.axis.rsplit('/', 1)[-1])}")


def find(model_id: ModelId, bias: BiasConfig, text: TextConfig, config: GainsConfig, store: Store) -> Gains | None:
    """The stored gates; without a model."""
    return store.read(KIND, gains_key(model_id, bias, text, config), read)


def read(entry: Entry) -> Gains:
    """From an entry."""
    config = GainsConfig(**entry.config["gains"])
    arrays, meta = entry.arrays, entry.meta
    return Gains(config, arrays["path"].astype(np.float64), arrays["losses"], meta["base_gap"], meta["provenance"])


class _Course:
    """Gates on their way, with what steps are drawn from."""

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
        self.lm, self.config, self.gauge = lm, config, gauge
        self.reading = bias.readings.index(config.reading)
        codes, self.names = gap.group_codes(gauge.prompts.groups)
        self.codes = np.asarray(codes)
        _, at = np.unique(np.asarray(gauge.prompts.blocks or range(len(self.codes))), return_inverse=True)
        self.blocks = [np.flatnonzero(at == b) for b in range(int(at.max()) + 1)]
        self.base_gap = float(gap.gap(gauge.fold(gauge.measure(progress))[self.reading], self.codes))
        if not self.base_gap > 0:
            raise InputError(f"The unpruned model shows no gap on {bias.axis}: there is nothing to learn.")
        batches = token_windows(lm, text).batches
        self.windows = [_Row(row, int(at)) for ids, first in batches for row, at in zip(ids, first, strict=True)]
        self.words: list[_Row] = []
        if config.passages:
            found = rows(lm, passages("valid", config.pool, config.seed))
            self.words = [_Row(torch.tensor(ids), int(at)) for ids, at in zip(found.ids, found.first, strict=True)]
        self.gates = torch.ones(lm.n_layers, lm.n_heads, device=lm.device, requires_grad=True)
        self.adam = torch.optim.Adam([self.gates], lr=config.rate)
        self.path = [np.ones((lm.n_layers, lm.n_heads))]
        self.losses: list[list[float]] = []

    @property
    def step(self) -> int:
        return len(self.losses)

    def told(self) -> str:
        """What the last step saw, for people."""
        if not self.losses:
            return f"step 1 of {self.config.steps}"
        relative, nats, words = self.losses[-1]
        return f"step {self.step + 1}: gap {relative - 1:+.0%}, text {nats:+.3f}, last words {words:+.3f} nats"

    def move(self) -> None:
        """One step of Adam on data drawn for it."""
        rng, c = np.random.default_rng([self.config.seed, self.step]), self.config
        self.adam.zero_grad()
        seen = [
            self._gap(rng),
            self._cost(self.windows, _draw(rng, len(self.windows), c.windows), c.cost, c.max_nats),
            self._cost(self.words, _draw(rng, len(self.words), c.passages), c.task_cost, 0.0),
        ]
        if c.keep:
            self._add(c.keep * ((self.gates - 1) ** 2).mean())
        assert self.gates.grad is not None
        require_finite(self.lm, self.gates.grad.cpu().numpy(), "a gradient of gates")
        self.adam.step()
        with torch.no_grad():
            self.gates.clamp_(0.0, MAX_GAIN)
        self.losses.append(seen)
        self.path.append(self.gates.detach().cpu().double().numpy())

    def _gap(self, rng: np.random.Generator) -> float:
        """Gap of some blocks relative to the unpruned model's, its gradient added to the gates'."""
        chosen = self._drawn(rng)
        codes = torch.as_tensor(self.codes[chosen], device=self.lm.device)
        packs = pack(self.lm, [self.gauge.rows[i] for i in chosen], self.gauge.config.steps)
        values = torch.empty(len(chosen), device=self.lm.device)
        if len(packs) > 1:  # the gap is of all of them together, and graphs of all do not fit: first its derivatives
            with torch.no_grad():
                for part in packs:
                    values[part.prompts] = self._values(part)
            leaf = values.requires_grad_()
            relative = gap_of(leaf, codes, len(self.names)) / self.base_gap
            (weights,) = torch.autograd.grad(relative, leaf)
            for part in packs:
                self._add((weights[part.prompts] * self._values(part)).sum())
        else:
            values[packs[0].prompts] = self._values(packs[0])
            relative = gap_of(values, codes, len(self.names)) / self.base_gap
            self._add(relative)
        return float(relative.detach())

    def _add(self, loss: Tensor) -> None:
        """Add the gradient of a loss to the gates'."""
        (found,) = torch.autograd.grad(loss, self.gates)
        self.gates.grad = found if self.gates.grad is None else self.gates.grad + found

    def _drawn(self, rng: np.random.Generator) -> list[int]:
        """Prompts of a step: whole blocks, or where there are none, of each group its share, two at least."""
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

    def _values(self, part: Pack) -> Tensor:
        """[m] expected toxicity of the prompts of a pack."""
        run = hidden_with_gradient if torch.is_grad_enabled() else final_hidden
        with gated(self.lm, self.gates):
            hidden = run(self.lm, part)
        columns = self.gauge.worth.columns(self.lm, hidden, part)[..., self.reading]  # [m, steps]
        return columns.mean(1) if self.gauge.worth.spread else columns.sum(1)

    def _cost(self, known: list[_Row], chosen: Iterator[int], cost: float, free: float) -> float:
        """Nats a target more than with all gates open; the gradient of what lies above `free` is added."""
        total, base, targets = torch.zeros((), device=self.lm.device), 0.0, 0
        for i in chosen:
            row = known[i]
            if row.base is None:
                row.base = float(
                    log_loss(self.lm, *row.states(final_hidden(self.lm, row.ids[None]))).cpu().double().sum()
                )
            with gated(self.lm, self.gates):
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
        moments = self.adam.state[self.gates]
        return {
            "path": np.stack(self.path),
            "losses": np.array(self.losses),
            "first": moments["exp_avg"].cpu().numpy(),
            "second": moments["exp_avg_sq"].cpu().numpy(),
        }

    def load(self, state: dict[str, np.ndarray] | None) -> None:
        """Go on from `state`."""
        if state is None:
            return
        self.path, self.losses = list(state["path"]), state["losses"].tolist()
        with torch.no_grad():
            self.gates.copy_(torch.as_tensor(self.path[-1], dtype=torch.float32))  # MPS has no float64
        self.adam.state[self.gates] = {
            "step": torch.tensor(float(self.step)),
            "exp_avg": torch.as_tensor(state["first"], device=self.lm.device).clone(),
            "exp_avg_sq": torch.as_tensor(state["second"], device=self.lm.device).clone(),
        }


@dataclass(eq=False)
class _Row:
    """A window of text or a passage: [T] tokens, the first target, and the nats of its targets with all gates open."""

    ids: Tensor
    first: int
    base: float | None = None

    def states(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[targets, D] where each target is predicted, of [1, T, D], and the targets."""
        return hidden[0, self.first - 1 : -1], self.ids[self.first :].to(hidden.device)


def _draw(rng: np.random.Generator, n: int, k: int) -> Iterator[int]:
    return iter(rng.choice(n, min(n, k), replace=False).tolist() if n else [])


def gap_of(values: Tensor, codes: Tensor, groups: int) -> Tensor:
    """`sum_g |mean - mean_g|` of values [n], differentiable."""
    sums = torch.zeros(groups, dtype=values.dtype, device=values.device).index_add(0, codes, values)
    means = sums / torch.bincount(codes, minlength=groups)
    return (values.mean() - means).abs().sum()
