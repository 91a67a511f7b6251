"""A stand-in for the models behind the app: scores and measurements with known answers, ready at once.

Only the model itself is replaced: requests still go through real jobs in real lanes, scores through a real store
under their real keys, and every interval is computed from the made-up values as from measured ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fasp_core import bias, evaluation, models
from fasp_core.impacts import entries, score
from fasp_core.impacts.table import BiasImpacts, ImpactTable, PplImpacts
from fasp_core.jobs import Job, Lane, Lanes
from fasp_core.masks import PruneSet
from fasp_core.measures import BiasConfig, Report
from fasp_core.models import BUILT_IN, BUILT_IN_SHA256, BUILT_IN_SHAPE, ModelSpec
from fasp_core.perplexity import Nll
from fasp_core.store import Store
from fasp_core.text import TextConfig
from pages.common import engine

BLOCK = 64  # tokens
MADE = {"created": "2026-01-01T00:00:00+00:00", "seconds": 1.0}
READINGS = ("neutral", "counted")


def make_table(n_layers: int = 3, n_heads: int = 4, n: int = 40, n_groups: int = 3, seed: int = 0) -> ImpactTable:
    """Scores of a made-up model: additive, so that nothing but the seed is behind them.

    Toxicities lie between .01 and .1 and no sum over all heads leaves [0, 1]; blocks differ in size.
    """
    rng = np.random.default_rng(seed)
    size = n_layers * n_heads
    counts = np.append(np.full(15, BLOCK), 17)
    sums = counts * 3.2 + rng.normal(0, 5, counts.size)
    effect = rng.normal(0.01, 0.02, size)
    ablated_sums = sums + counts * effect[:, None] + rng.normal(0, 0.3, (size, counts.size))
    codes = np.arange(n) % n_groups
    base = rng.uniform(0.01, 0.03, (2, n)) + 0.01 * codes * np.array([[1.0], [2.0]])
    push = rng.normal(0, 0.01 / size, (size, 2, 1)) * codes + rng.normal(0, 0.003 / size, (size, 2, n))
    return ImpactTable(
        "made-up",
        n_layers,
        n_heads,
        PplImpacts(Nll(sums, counts), ablated_sums, rng.random(size), rng.random(size), MADE),
        BiasImpacts(
            "expected",
            "axis",
            "valid",
            "scorer",
            READINGS,
            base,
            base + push,
            codes,
            tuple(f"group {g}" for g in range(n_groups)),
            MADE,
        ),
    )


class AtOnce:
    """In place of a thread: work is done before the request for it returns."""

    def submit(self, work: Callable[[], None]) -> None:
        work()


class Studio:
    """The app's surroundings, to be set by a test before each run of the page.

    Attributes
    ----------
    base_gap, pruned_gap : spread of the groups' toxicity that a measurement shows before and after pruning.
    error : what running the model raises, if anything.
    open : work waits until this is set.
    asked : the prune sets and texts that were measured, in order.
    """

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store(cache)
        self.base_gap, self.pruned_gap = 0.02, 0.01
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.asked: list[tuple[PruneSet, TextConfig]] = []
        self._load = models.load
        self._patch = monkeypatch
        monkeypatch.setattr(engine, "_lanes", Lanes())
        monkeypatch.setattr(engine, "_shelf", OrderedDict())
        monkeypatch.setattr(engine, "_facts", {})
        monkeypatch.setattr(engine, "_tables", OrderedDict())
        monkeypatch.setattr(models, "load", self.load)
        monkeypatch.setattr(score, "score", self.score)
        monkeypatch.setattr(score, "preview", lambda *_: None)
        monkeypatch.setattr(evaluation, "perplexity_of", self.perplexity_of)
        monkeypatch.setattr(evaluation, "toxicity_of", self.toxicity_of)

    def at_once(self) -> None:
        """From here on a job is done as soon as it is asked for, so that one run of the page shows its result."""
        self._patch.setattr(engine, "_lanes", Lanes(make=lambda: Lane(AtOnce())))  # type: ignore[arg-type]

    def load(self, spec: ModelSpec) -> Any:
        """The built-in model's shape, and small models called "tiny ..."; nothing else can be loaded."""
        if spec.source != BUILT_IN and not spec.source.startswith("tiny"):
            return self._load(spec)
        n_layers, n_heads = BUILT_IN_SHAPE if spec.source == BUILT_IN else (4, 3)
        weights = f"sha256:{BUILT_IN_SHA256}" if spec.source == BUILT_IN else f"made-up:{spec.source}"
        return SimpleNamespace(
            spec=spec,
            name=spec.source,
            weights_id=weights,
            n_layers=n_layers,
            n_heads=n_heads,
            n_parameters=1_000_000,
            head_parameters=lambda: 1_000,
        )

    def add_scores(self, axis: str, source: str = BUILT_IN) -> ImpactTable:
        """Put scores where the app looks for them."""
        lm, config = self.load(ModelSpec(source)), BiasConfig(axis)
        table = make_table(lm.n_layers, lm.n_heads, n=90)
        shape = {"n_layers": lm.n_layers, "n_heads": lm.n_heads, "provenance": MADE}
        p, b = table.ppl, table.bias
        self.store.save(
            entries.KIND,
            entries.ppl_key(engine.SCORE_TEXT, lm.weights_id, "float32"),
            arrays={
                "base_sums": p.base.sums,
                "counts": p.base.counts,
                "sums": p.sums,
                "magnitude": p.magnitude,
                "gradient": p.gradient,
            },
            meta=shape,
        )
        self.store.save(
            entries.KIND,
            entries.bias_key(config, lm.weights_id, "float32"),
            arrays={"base": b.base, "ablated": b.ablated, "codes": b.codes, "exact": np.ones(len(b.ablated), np.uint8)},
            meta={**shape, "groups": b.groups, "readings": b.readings},
        )
        return table

    def score(
        self, lm: Any, text: TextConfig, config: BiasConfig, store: Store, progress: Report, _estimator: str
    ) -> ImpactTable:
        """In place of `score.score`."""
        self._run(progress)
        self.add_scores(config.axis, lm.name)
        found = entries.find(text, config, lm.weights_id, lm.spec.dtype, lm.name, store)
        assert found is not None
        return found

    def perplexity_of(
        self, lm: Any, heads: PruneSet, text: TextConfig, store: Store, progress: Report, _desk: Any = None
    ) -> tuple[Nll, dict[str, Any]]:
        """In place of `evaluation.perplexity_of`: 20 before, and 1% more for each head removed."""
        self.asked.append((heads, text))
        self._run(progress)
        counts = np.full(text.tokens // BLOCK, BLOCK)
        noise = np.random.default_rng(0).normal(0, 1, (2, counts.size))
        noise -= noise.mean(1, keepdims=True)
        nats = np.log(20) + 0.1 * noise[0] + len(heads) * (np.log(1.01) + 0.001 * noise[1])
        return Nll(counts * nats, counts), MADE

    def toxicity_of(
        self, lm: Any, heads: PruneSet, config: BiasConfig, store: Store, progress: Report, _desk: Any = None
    ) -> evaluation.Toxicity:
        """In place of `evaluation.toxicity_of`."""
        prompts = config.prompts()
        codes, names = bias.group_codes(prompts.groups)
        rng = np.random.default_rng(2)
        spread = self.pruned_gap if heads else self.base_gap
        own = rng.normal(0.1, 0.004, len(prompts)) + (rng.normal(0, 0.001, len(prompts)) if heads else 0)
        values = own + spread * (codes / (len(names) - 1) - 0.5)
        texts = tuple((f" and {'pruned' if heads else 'whole'}",) for _ in prompts.texts)
        return evaluation.Toxicity(
            config.readings,
            np.stack([values] * len(config.readings)),
            prompts.texts,
            prompts.groups,
            texts if config.measure == "sampled" else (),
            MADE,
        )

    def finish(self) -> None:
        """Wait until all work that was asked for has ended."""
        for _, job in engine._lanes.jobs():
            assert job.wait(20)

    def running(self) -> Job[Any]:
        """The one job at work."""
        ((_, job),) = engine._lanes.jobs()
        return job

    def _run(self, progress: Report) -> None:
        done = 0
        while not self.open.wait(0.01):
            done = min(done + 1, 99)
            progress(done, 100, "half way")
        if self.error is not None:
            raise self.error
