"""What is learned of every head, and how a gate comes of it: a gain, or a hard-concrete gate that ends as 0 or 1.

Adam moves one number a head. For gains it is the gate itself. For hard-concrete gates (Louizos, Welling and Kingma
2018) it is the log-odds `a` of a random gate, a binary concrete variable stretched beyond 0 and 1 and cut there:

    s = sigmoid((log u - log(1 - u) + a) / beta),  gate = min(1, max(0, s (zeta - gamma) + gamma)),  u uniform

so that it is exactly 0 with probability `1 - sigmoid(a - beta log(-gamma / zeta))`, which has a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import MAX_GAIN
from fasp_core.lazy import torch
from fasp_core.typing import Floats

if TYPE_CHECKING:
    from torch import Tensor

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3  # stretch and temperature of the paper
START, FURTHEST = 2.0, 6.0  # log-odds that gates begin with (most of them open), and beyond which none goes
METHODS = ("gains", "hard-concrete")
CELLS = ("none", "mean", "worst")
ACROSS = ("mean", "worst")
LATER: dict[str, Any] = {  # fields that came later, and what their absence from a key stands for
    "paragraphs": 0,
    "cells": "none",
    "patience": 0,
    "method": "gains",
    "heads": 13,
    "sparsity": 1.0,
    "across": "mean",
    "dual": 0.0,
    "average": 1,
    "around": "",
    "clip": 0.0,
    "memory": 0.999,
    "precision": "float32",
}
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class GainsConfig:
    """How gates are learned.

    Attributes
    ----------
    reading : the gap that falls: "neutral" or "counted".
    steps, rate : of Adam.
    prompts, windows, passages, paragraphs : what each step sees, drawn anew: of prompts at least so many, in whole
        blocks, of several axes each its share; windows of sentences, LAMBADA's passages, and windows of contiguous
        paragraphs.
    max_nats : what sentences, and what paragraphs, may cost for nothing, in nats a token.
    cost : what each further nat counts, a gap of the unpruned model's size being 1; with multipliers at first.
    task_cost : the same of the last words' nats, for which nothing is free.
    dual : how fast what a nat counts is learned itself, a step's nats too many raising it by so many times `cost`
        (lowering it where a step costs less than it may): the multiplier of a limit, by stochastic gradient ascent on
        the dual (Arrow, Hurwicz and Uzawa 1958). 0: it stays, and what is within the limit counts nothing.
    keep : what the mean squared distance of the gates from 1 counts.
    pool : passages that are drawn from.
    cells : "none": the gap is that of all prompts of a step. Else each step halves templates and descriptors anew and
        the gap is the mean of the four cells' gaps ("mean"), or a soft maximum of them ("worst").
    patience : steps without a lower gap on templates and descriptors that no step sees, after which learning stops;
        the gates are those of the lowest. 0: all steps are made, and all prompts are seen.
    method : of `METHODS`. Hard-concrete gates end as 0 or 1.
    heads : of hard-concrete gates, how many end as 0; 0: those that are rather 0 than 1.
    sparsity : what the expected number of closed gates counts: its distance from `heads` as a share of them, or where
        none are asked for itself, as a share of all.
    across : of several axes, whether the mean of their relative gaps falls, or a soft maximum of them ("worst").
    average : of how many last steps the gates are the mean, which takes the noise of single steps away (Polyak and
        Juditsky 1992).
    around : heads that keep the gates they have in this set, as `PruneSet.format` writes it, so that the others make up
        for them; "": every gate is learned.
    clip : a step's gradient is cut to the length that this share of all gradients so far did not exceed (AutoClip:
        Seetharaman, Wichern, Pardo and Le Roux 2020), so that no window or passage throws all gates about. 0: never.
    memory : of Adam for squared gradients (its second beta).
    precision : in which the model runs in a step, the weights' own or "bfloat16" by autocast; results are measured in
        the weights' own in any case.
    """

    reading: str = "neutral"
    steps: int = 60
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
    paragraphs: int = 2
    cells: str = "none"
    patience: int = 0
    method: str = "gains"
    heads: int = 13
    sparsity: float = 1.0
    across: str = "mean"
    dual: float = 0.0
    average: int = 10
    around: str = ""
    clip: float = 0.3
    memory: float = 0.99
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.prompts < 1 or min(self.windows, self.passages, self.paragraphs) < 0:
            raise InputError(
                "Gates are learned in 1 step or more, from 1 prompt or more, and windows, passages and paragraphs of a "
                "step are whole numbers from 0 up."
            )
        counts = (self.keep, self.cost, self.task_cost, self.sparsity, self.max_nats)
        if not 0 < self.rate < math.inf or not all(0 <= one < math.inf for one in counts):  # NaN too
            raise InputError("Gates are learned at a rate above 0, and what counts in the loss is a number, 0 or more.")
        named = {"method": METHODS, "cells": CELLS, "across": ACROSS, "precision": PRECISIONS}
        for name, known in named.items():
            if getattr(self, name) not in known:
                raise InputError(f"There is no {name} '{getattr(self, name)}': choose one of {', '.join(known)}.")
        if not 0 <= self.dual < math.inf or self.average < 1:
            raise InputError("Multipliers move at a rate of 0 or more, and gates are the mean of 1 step or more.")
        if not 0 <= self.clip <= 1 or not 0 <= self.memory < 1:
            raise InputError("Gradients are cut at a share from 0 to 1 of those so far, and Adam's memory is below 1.")
        if self.around and self.method != "gains":
            raise InputError("Hard-concrete gates choose the heads that go: leave --around out.")
        if self.patience < 0 or self.heads < 0 or self.seed < 0:
            raise InputError("Patience, heads and seed are whole numbers from 0 up.")
        if self.keep and self.method != "gains":
            raise InputError("Hard-concrete gates end as 0 or 1 and are not kept near 1: leave --keep out.")

    @property
    def fresh(self) -> bool:
        """Whether steps draw from all validation prompts, and not from a fixed sample of them."""
        return self.cells != "none" or self.patience > 0


class Gates(Protocol):
    """How gates [L, H] come of what Adam moves, of the same shape."""

    @property
    def start(self) -> float:
        """What all of the values begin with."""

    def opened(self, values: Tensor, u: Tensor) -> Tensor:
        """Gates for uniform numbers `u` of the same shape, differentiable in the values."""

    def penalty(self, values: Tensor) -> Tensor | None:
        """What the values themselves cost; None: nothing."""

    def settle(self, values: Tensor) -> None:
        """Bring the values back to where they may be, after a step."""

    def final(self, values: Floats) -> Floats:
        """The gates that a set is made of."""


@dataclass(frozen=True)
class Soft:
    """Gains from 0 to `MAX_GAIN`, as they are; `keep` counts their mean squared distance from 1."""

    keep: float = 0.0
    start: float = 1.0

    def opened(self, values: Tensor, u: Tensor) -> Tensor:
        return values

    def penalty(self, values: Tensor) -> Tensor | None:
        return self.keep * ((values - 1) ** 2).mean() if self.keep else None

    def settle(self, values: Tensor) -> None:
        values.clamp_(0.0, MAX_GAIN)

    def final(self, values: Floats) -> Floats:
        return values


@dataclass(frozen=True)
class HardConcrete:
    """Gates that close; `heads` and `sparsity` as in `GainsConfig`."""

    heads: int = 0
    sparsity: float = 1.0
    start: float = START

    def opened(self, values: Tensor, u: Tensor) -> Tensor:
        return hard_concrete(values, u)

    def penalty(self, values: Tensor) -> Tensor | None:
        closed = values.numel() - expected_l0(values)
        if not self.sparsity:
            return None
        return self.sparsity * ((closed - self.heads).abs() / self.heads if self.heads else closed / values.numel())

    def settle(self, values: Tensor) -> None:
        values.clamp_(-FURTHEST, FURTHEST)

    def final(self, values: Floats) -> Floats:
        """1, and 0 for the `heads` of lowest log-odds (ties: lower flat id), or for all that are rather 0 than 1."""
        gates = (values > 0).astype(np.float64)  # the paper's gate without noise is above one half where a > 0
        if self.heads:
            gates = np.ones(values.shape)
            gates.ravel()[np.argsort(values.ravel(), kind="stable")[: self.heads]] = 0.0
        return gates


def gates_of(config: GainsConfig) -> Gates:
    """Those of a config."""
    made: dict[str, Gates] = {
        "gains": Soft(config.keep),
        "hard-concrete": HardConcrete(config.heads, config.sparsity),
    }
    return made[config.method]


def hard_concrete(log_odds: Tensor, u: Tensor) -> Tensor:
    """Gates in [0, 1] of the same shape, for uniform numbers `u` in (0, 1); differentiable in the log-odds."""
    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_odds) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def expected_l0(log_odds: Tensor) -> Tensor:
    """How many of the gates are not 0, expected; differentiable."""
    return torch.sigmoid(log_odds - BETA * math.log(-GAMMA / ZETA)).sum()
