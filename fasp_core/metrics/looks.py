"""What is known of a pruned model before its sample is whole: blocks of prompts and windows of text in random order.

Of the unpruned model the whole sample is known, so all that is shown is paired. A few blocks of prompts come first, in
passes of their own, then the beginning of a window of text, all windows, and more blocks of prompts; the whole sample
is measured as always, and what it gives does not depend on who has looked. Intervals hold at every look, see
`fasp_core.gap.anytime`. Looks are of expected toxicity, at prompts whose blocks hold every group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from fasp_core.gap import anytime
from fasp_core.gap.anytime import Partial
from fasp_core.gap.gaps import group_codes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import Toxicity, has_toxicity, meter_of
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter
from fasp_core.metrics.perplexity import Nll, perplexity_change
from fasp_core.model.packing import pack
from fasp_core.storage.store import Store
from fasp_core.typing import Codes, Floats, Report


@dataclass(frozen=True)
class SoFar:
    """Gaps by reading, and perplexity; what is not known yet is left out."""

    gaps: dict[str, Partial] = field(default_factory=dict)
    perplexity: Partial | None = None


@dataclass(eq=False)
class Looks:
    """Looks at one set while it is measured.

    Attributes
    ----------
    at : [B, G] prompts of each block that holds every group, blocks in random order; [0, G] where no looks are taken.
    nll, toxicity : of the unpruned model.
    show : told what is known after each look.
    """

    runner: CachedRunner
    prune_set: PruneSet
    config: BiasConfig
    store: Store
    at: Codes
    nll: Nll
    toxicity: Toxicity
    show: Callable[[SoFar], None]
    so_far: SoFar = SoFar()

    def __post_init__(self) -> None:
        self._values: list[Floats] = []  # [R, U, G] of each look
        self._sums = np.full(len(self.nll.counts), np.nan)

    @classmethod
    def of(
        cls,
        runner: CachedRunner,
        prune_set: PruneSet,
        config: BiasConfig,
        store: Store,
        nll: Nll,
        toxicity: Toxicity,
        show: Callable[[SoFar], None],
    ) -> Looks:
        """Looks at a set; none at prompts whose measurement is stored, or of a kind that is not looked at."""
        plain = config.measure == "expected" and not config.contexts
        none = not plain or has_toxicity(runner.lm, prune_set, config, store)
        at = complete_blocks(toxicity.groups, () if none else toxicity.blocks)
        return cls(runner, prune_set, config, store, at, nll, toxicity, show)

    def first(self, progress: Report) -> None:
        """Look at a few blocks of prompts."""
        for size in anytime.looks(len(self.at))[:1]:
            self._prompts(size, progress)

    def rest(self, nll: Nll, progress: Report) -> None:
        """Take over the perplexity of the whole text, and look at more blocks of prompts."""
        change = perplexity_change(self.nll, nll)
        ends = [end / change.base - 1 for end in change.ppl_interval]
        self._tell(perplexity=self._perplexity(change.relative, (ends[0], ends[1]), self.nll.tokens))
        for size in anytime.looks(len(self.at))[1:]:
            self._prompts(size, progress)

    def text(self, at: np.ndarray, sums: np.ndarray) -> None:
        """Take over blocks of text that are done."""
        first = bool(np.isnan(self._sums).all())
        self._sums[at] = sums
        done = ~np.isnan(self._sums)
        if done.all():
            return
        base, pruned = (Nll(values[done], self.nll.counts[done]) for values in (self.nll.sums, self._sums))
        change = perplexity_change(base, pruned, reach=anytime.planned if first else anytime.reach)
        ends = (math.expm1(change.interval[0]), math.expm1(change.interval[1])) if change.interval[1] < 700 else None
        self._tell(perplexity=self._perplexity(change.relative, ends, base.tokens))

    def _perplexity(self, relative: float, interval: tuple[float, float] | None, done: int) -> Partial:
        base = self.nll.perplexity
        return Partial(base, base * (1 + relative), relative, interval, done, self.nll.tokens)

    def _prompts(self, size: int, progress: Report) -> None:
        gauge = meter_of(self.runner.lm, self.config, self.store, self.runner)
        assert isinstance(gauge, ExpectedMeter)
        known = sum(values.shape[1] for values in self._values)
        new = self.at[known:size]
        packs = pack(self.runner.lm, [gauge.rows[i] for i in new.ravel()], self.config.steps)
        found = self.runner.expected(
            packs, gauge.worth, self.prune_set, lambda *_: progress(0, 1, f"a look at {new.size} prompts")
        )
        self._values.append(found.reshape(len(found), *new.shape))
        values = np.concatenate(self._values, axis=1)
        codes, _ = group_codes(self.toxicity.groups)
        self._tell(
            gaps={
                reading: anytime.partial_gap(base, codes, self.at, rows, first=not known)
                for reading, base, rows in zip(self.toxicity.readings, self.toxicity.values, values, strict=True)
            }
        )

    def _tell(self, **known: object) -> None:
        self.so_far = replace(self.so_far, **known)  # type: ignore[arg-type]
        self.show(self.so_far)


def complete_blocks(groups: tuple[str, ...], blocks: tuple[int, ...], seed: int = 0) -> Codes:
    """[B, G] prompts of every block that holds one of each group, in the order of the groups; blocks at random."""
    codes, names = group_codes(groups)
    by: dict[int, dict[int, int]] = {}
    for i, block in enumerate(blocks):
        by.setdefault(block, {})[int(codes[i])] = i
    whole = [[found[g] for g in range(len(names))] for found in by.values() if len(found) == len(names)]
    order = np.random.default_rng(seed).permutation(len(whole))
    return np.array(whole, dtype=np.int64).reshape(-1, len(names))[order]
