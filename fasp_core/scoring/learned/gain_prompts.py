"""The prompts that gates are learned on: of each axis, what a step draws, and the gap of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fasp_core import gap
from fasp_core.data.divisions import quarters, third
from fasp_core.data.prompt_sampling import FEWEST_OWN, sample
from fasp_core.data.prompt_set import NO_GROUP, PromptSet
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import torch
from fasp_core.metrics.expected import Reader
from fasp_core.metrics.measurements import toxicity_of
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, meter
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import encode
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.storage.store import Store
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

SOFTNESS = 0.2  # of the soft maximum, as a share of the mean gap before learning


@dataclass(frozen=True, eq=False)
class Part:
    """Some prompts of a step, and what is read of them.

    Attributes
    ----------
    ids, groups : token ids, and (codes [m], how many groups).
    worth, steps, reading : what is read after them, at how many positions, and which of its columns.
    alone : whether `worth` is of these rows in this order, so that others cannot be read with them.
    open_gap : of the unpruned model, where it is known without a pass.
    """

    ids: Sequence[list[int]]
    groups: tuple[Tensor, int]
    worth: Reader
    steps: int
    reading: int
    alone: bool = False
    open_gap: float | None = None


class Prompts:
    """Validation prompts of one axis, each by itself or after every context that its block shares.

    Attributes
    ----------
    n : how many a step sees, at least.
    base_gap : of the unpruned model, on the fixed sample.
    seen : all that steps draw from; None: from the fixed sample.
    apart : what no step sees; None without patience.

    Raises
    ------
    InputError
        The gap is measured in a way that has no gradient here, is not there, or the prompts cannot be divided although
        the config asks for it.
    """

    def __init__(
        self,
        lm: LanguageModel,
        bias: BiasConfig,
        config: GainsConfig,
        n: int,
        store: Store,
        progress: Report | None,
    ) -> None:
        gauge = meter(lm, bias, store, progress)
        if not isinstance(gauge, ExpectedMeter):
            raise InputError("Gates are learned by expected toxicity: choose that measure.")
        if config.fresh and (bias.steps > 1 or bias.contexts):
            raise InputError("Gates are learned in cells, or with patience, by the next word alone: choose 1 step.")
        self.lm, self.config, self.gauge, self.n = lm, config, gauge, n
        self.reading = bias.readings.index(f"{config.reading} direct" if bias.contexts else config.reading)
        codes, self.names = gap.group_codes(gauge.prompts.groups)
        self.codes, blocks = np.asarray(codes), np.asarray(gauge.prompts.blocks or range(len(codes)))
        if gauge.shared is None:
            self.known = toxicity_of(lm, PruneSet(), bias, store, progress).row(config.reading)  # stored
        else:  # a row is a prompt with a context; rows of a block after the same context go together
            of, contexts = gauge.shared.prompts, bias.contexts or 1
            blocks = blocks[of] * contexts + np.arange(len(of)) % contexts
            self.codes = self.codes[of]
            self.known = gauge.measure(progress)[self.reading]
        _, at = np.unique(blocks, return_inverse=True)
        self.blocks = [np.flatnonzero(at == b) for b in range(int(at.max()) + 1)]
        self.base_gap = float(gap.gap(self.known, self.codes))
        if not self.base_gap > 0:
            raise InputError(f"The unpruned model shows no gap on {bias.axis}: there is nothing to learn.")
        self.seen: PromptSet | None = None
        self.apart: Part | None = None
        if config.fresh:
            self.seen = bias.pool()
            if config.patience:
                self.seen, apart = third(self.seen, config.seed)
                self.apart = self._part(apart, n, config.seed)
            if config.cells != "none":
                quarters(self.seen, 0)  # says so if they cannot be divided

    def parts(self, rng: np.random.Generator, step: int) -> list[Part]:
        """Prompts of a step: some of a fixed sample, or of all validation prompts, in cells or not."""
        if self.seen is None:
            chosen = self._drawn(rng)
            codes = torch.as_tensor(self.codes[chosen], device=self.lm.device)
            open_gap = float(gap.gap(self.known[chosen], self.codes[chosen]))
            ids, worth, alone = [self.gauge.rows[i] for i in chosen], self.gauge.worth, self.gauge.shared is not None
            read = worth.at(chosen) if alone else worth, self.gauge.config.steps, self.reading
            return [Part(ids, (codes, len(self.names)), *read, alone, open_gap)]
        number = int.from_bytes(hashlib.sha256(f"{self.config.seed}|{step}".encode()).digest()[:4], "big")
        cells = (self.seen,) if self.config.cells == "none" else quarters(self.seen, number)
        return [self._part(cell, math.ceil(self.n / len(cells)), number) for cell in cells]

    def _part(self, prompts: PromptSet, n: int, seed: int) -> Part:
        """So many prompts at least, the same number of each group, in blocks."""
        groups = len(set(prompts.groups) - {NO_GROUP})
        drawn = sample(prompts, max(2, math.ceil(n / max(groups, 1))), seed, FEWEST_OWN)
        codes, names = gap.group_codes(drawn.groups)
        ids = encode(self.lm, drawn.texts, self.gauge.config.steps - 1)
        known = torch.as_tensor(np.asarray(codes), device=self.lm.device), len(names)
        return Part(ids, known, self.gauge.worth, self.gauge.config.steps, self.reading)

    def _drawn(self, rng: np.random.Generator) -> list[int]:
        """Of the fixed sample: whole blocks, until every group is there, or of each group its share, two at least."""
        share = self.n / len(self.codes)
        if len(self.blocks) == len(self.codes):
            each = [np.flatnonzero(self.codes == g) for g in range(len(self.names))]
            found = [rng.choice(at, min(len(at), max(round(share * len(at)), 2)), replace=False) for at in each]
            return list(map(int, np.concatenate(found)))
        chosen: list[int] = []
        for b in rng.permutation(len(self.blocks)):
            chosen += self.blocks[b].tolist()
            if len(chosen) >= self.n and len(set(self.codes[chosen])) == len(self.names):
                break
        return chosen


def gap_of(values: Tensor, codes: Tensor, groups: int) -> Tensor:
    """`sum_g |mean - mean_g|` of values [n], differentiable."""
    sums = torch.zeros(groups, dtype=values.dtype, device=values.device).index_add(0, codes, values)
    means = sums / torch.bincount(codes, minlength=groups)
    return (values.mean() - means).abs().sum()


def combined(gaps: Tensor, how: str, scale: Tensor) -> Tensor:
    """One gap of those of some cells or axes [c]: their mean, or a soft maximum between mean and maximum.

    Parameters
    ----------
    scale : size of a gap, by which the maximum is softened.
    """
    if how != "worst":
        return gaps.mean()
    soft = (SOFTNESS * scale).to(gaps.device)
    return soft * (torch.logsumexp(gaps / soft, 0) - math.log(len(gaps)))
