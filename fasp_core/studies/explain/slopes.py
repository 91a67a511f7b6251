"""Slopes along the line on which all gates of a set move: of prompts' toxicities and of the nats of windows of text."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fasp_core.forward.gate_gradients import functional_gradients
from fasp_core.forward.next_word import log_loss_with_gradient
from fasp_core.gap.parts import nodes
from fasp_core.metrics.meters import ExpectedMeter, meter
from fasp_core.metrics.perplexity import window_packs, windows_of
from fasp_core.model.devices import sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves, pack_equal
from fasp_core.model.passes import in_halves
from fasp_core.storage.store import Store
from fasp_core.studies.common import KIND
from fasp_core.studies.explain.plan import Plan
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor


class Slopes:
    """Derivatives along the line, of prompts' toxicities and of windows' nats."""

    def __init__(self, lm: LanguageModel, plan: Plan, store: Store, progress: Report | None) -> None:
        gauge = meter(lm, plan.bias, store, progress)
        assert isinstance(gauge, ExpectedMeter)
        self.lm, self.plan, self.gauge, self.progress = lm, plan, gauge, progress
        key = plan.key(lm.id)
        self.parts = store.parts(KIND, key)
        self.ends = np.asarray(plan.prune_set.gates(lm.n_layers, lm.n_heads), dtype=np.float64)
        self.flat = [layer * lm.n_heads + head for layer, head, _ in plan.movers]
        self.packs = pack_equal(gauge.rows, plan.bias.steps, max_tokens=sizes(lm.device).backward)
        self.windows, self.first = window_packs(windows_of(lm, plan.text, key["text"]))
        self.tokens = np.array([part.ids.shape[1] for part in self.windows]) - self.first
        self.reading = plan.bias.readings.index(plan.reading)

    def all(self) -> dict[str, np.ndarray]:
        """`slopes` [K, H, n] and `window_slopes` [K, H, W] in float32, and `window_tokens` [W]."""
        found = []
        for k, t in enumerate(nodes(self.plan.nodes)[0]):
            part = self.parts.load(f"node{k}")
            if part is None:
                part = self._at(k, float(t))
                self.parts.save(f"node{k}", part)
            found.append(part)
        stacked = {name: np.stack([part[name] for part in found]) for name in ("slopes", "window_slopes")}
        return {**stacked, "window_tokens": self.tokens}

    def _at(self, k: int, t: float) -> dict[str, np.ndarray]:
        """At one node."""
        gates = 1 + t * (self.ends - 1)
        total = len(self.packs) + len(self.windows)
        done = itertools.count(1)

        def slopes(batch: Pack, read: Callable[[Pack, Tensor], Tensor], what: str) -> np.ndarray:
            """[H, rows]"""

            def one(part: Pack) -> np.ndarray:
                _, effects = functional_gradients(self.lm, part.ids, lambda hidden: read(part, hidden), gates)
                return effects[self.flat, 0]

            # an effect is of a gate that closes by 1, and these move by as much as they end away from 1
            out = np.concatenate(in_halves(self.lm, one, batch, halves, what), axis=1)
            if self.progress is not None:
                of = f"slopes at {k + 1} of {self.plan.nodes} places"
                self.progress(k * total + next(done), self.plan.nodes * total, of)
            return out * (1 - self.ends.reshape(-1)[self.flat])[:, None]

        prompts = np.empty((len(self.flat), len(self.gauge.rows)))
        for batch in self.packs:
            prompts[:, batch.prompts] = slopes(batch, self._toxicity, "a single prompt")
        texts = [slopes(batch, self._nats, "a single window of text") for batch in self.windows]
        return {
            "slopes": prompts.astype(np.float32),
            "window_slopes": np.concatenate(texts, axis=1).astype(np.float32),
        }

    def _toxicity(self, part: Pack, hidden: Tensor) -> Tensor:
        """[rows, 1]"""
        return self.gauge.worth.columns(self.lm, hidden, part)[..., self.reading].mean(1, keepdim=True)

    def _nats(self, part: Pack, hidden: Tensor) -> Tensor:
        """[1, 1]"""
        first = int(self.first[part.prompts[0]])
        return log_loss_with_gradient(self.lm, hidden[0, first - 1 : -1], part.ids[0, first:].to(hidden.device)).sum()[
            None, None
        ]
