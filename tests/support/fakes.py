"""A stand-in for the models behind the app: scores and measurements with known answers, ready at once.

Only the model itself is replaced: requests still go through real jobs in real lanes, scores through a real store
under their real keys, and every interval is computed from the made-up values as from measured ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from transformers import LlamaConfig

from fasp_core import gap
from fasp_core.compute.jobs import Job, Lane
from fasp_core.compute.lanes import Lanes
from fasp_core.data.text import SCORE_TEXT, TextConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import measurements
from fasp_core.metrics.meters import BiasConfig, Report
from fasp_core.metrics.perplexity import Nll, ppl_key
from fasp_core.model import loading
from fasp_core.model.identity import ModelId
from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHA256, BUILT_IN_SHAPE, ModelSpec
from fasp_core.scoring import entries, score
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable, PplImpacts
from fasp_core.storage.store import Store
from fasp_core.studies import common
from fasp_core.studies.compare import compare, outcome
from pages.backend.engine import Engine, engine

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


def stand_in(spec: ModelSpec, weights: str, n_layers: int, n_heads: int) -> Any:
    """As far as a measurement or an experiment looks at a model."""
    return SimpleNamespace(
        spec=spec,
        name=spec.source,
        weights_id=weights,
        notes=(),
        id=ModelId(weights),
        n_layers=n_layers,
        n_heads=n_heads,
        size=n_layers * n_heads,
        n_parameters=1_000_000,
        head_parameters=lambda: 1_000,
        n_neurons=96,
        neuron_parameters=lambda: 100,
    )


def keep_scores(
    store: Store,
    axis: str,
    table: ImpactTable,
    weights: ModelId | None = None,
    estimator: Any = "exact",
    exact: np.ndarray | None = None,
) -> None:
    """Put scores where they are looked for: of the built-in model and all exact, unless told otherwise."""
    weights = weights or ModelId(f"sha256:{BUILT_IN_SHA256}")
    shape = {"n_layers": table.n_layers, "n_heads": table.n_heads, "provenance": MADE}
    p, b = table.ppl, table.bias
    names = ("sums", "magnitude", "gradient")
    arrays = {"base_sums": p.base.sums, "counts": p.base.counts, **{name: getattr(p, name) for name in names}}
    store.keep(entries.KIND, ppl_key(SCORE_TEXT, weights), arrays=arrays, meta=shape)
    flags = np.ones(len(b.ablated), np.uint8) if exact is None else exact
    arrays = {"base": b.base, "ablated": b.ablated, "codes": b.codes, "exact": flags}
    key = entries.bias_key(BiasConfig(axis), weights, estimator)
    store.keep(entries.KIND, key, arrays=arrays, meta={**shape, "groups": b.groups, "readings": b.readings})


class AtOnce:
    """In place of a thread: work is done before the request for it returns."""

    def submit(self, work: Callable[[], None]) -> None:
        work()


def at_once() -> Lanes:
    """Lanes in which a job is done as soon as it is asked for."""
    return Lanes(make=lambda: Lane(AtOnce()))  # type: ignore[arg-type]


def use_engine(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Engine:
    """Let the app have this engine."""
    monkeypatch.setattr("pages.backend.engine._of_the_app", engine)
    return engine


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
        self._patch = monkeypatch
        use_engine(monkeypatch, Engine(Lanes(), self.load))
        monkeypatch.setattr(score, "score", self.score)
        monkeypatch.setattr(score, "preview", lambda *_: None)
        monkeypatch.setattr(measurements, "perplexity_of", self.perplexity_of)
        monkeypatch.setattr(measurements, "toxicity_of", self.toxicity_of)

    def at_once(self) -> None:
        """From here on a job is done as soon as it is asked for, so that one run of the page shows its result."""
        self._patch.setattr(engine(), "lanes", at_once())

    def load(self, spec: ModelSpec) -> Any:
        """The built-in model's shape, and small models called "tiny ..."; nothing else can be loaded."""
        if spec.source != BUILT_IN and not spec.source.startswith("tiny"):
            return loading.load(spec)
        n_layers, n_heads = BUILT_IN_SHAPE if spec.source == BUILT_IN else (4, 3)
        weights = f"sha256:{BUILT_IN_SHA256}" if spec.source == BUILT_IN else f"made-up:{spec.source}"
        config = LlamaConfig(
            hidden_size=64 * n_heads,
            num_attention_heads=n_heads,
            num_key_value_heads=3,
            num_hidden_layers=n_layers,
            intermediate_size=96,
        )
        lm = stand_in(spec, weights, n_layers, n_heads)
        lm.n_kv_heads, lm.head_dim, lm.model = 3, 64, SimpleNamespace(config=config)
        return lm

    def add_scores(self, axis: str, source: str = BUILT_IN) -> ImpactTable:
        """Put scores where the app looks for them."""
        lm = self.load(ModelSpec(source))
        table = make_table(lm.n_layers, lm.n_heads, n=90)
        keep_scores(self.store, axis, table, lm.id)
        return table

    def score(
        self,
        lm: Any,
        text: TextConfig,
        config: BiasConfig,
        store: Store,
        progress: Report,
        _estimator: str,
        workers: object = None,
    ) -> ImpactTable:
        """In place of `score.score`."""
        self._run(progress)
        self.add_scores(config.axis, lm.name)
        found = entries.find(text, config, lm.id, lm.name, store)
        assert found is not None
        return found

    def perplexity_of(
        self, lm: Any, heads: PruneSet, text: TextConfig, store: Store, progress: Report, *_more: Any
    ) -> tuple[Nll, dict[str, Any]]:
        """In place of `measurements.perplexity_of`: 20 before, and 1% more for each head ablated."""
        self.asked.append((heads, text))
        self._run(progress)
        counts = np.full(text.tokens // BLOCK, BLOCK)
        noise = np.random.default_rng(0).normal(0, 1, (2, counts.size))
        noise -= noise.mean(1, keepdims=True)
        nats = np.log(20) + 0.1 * noise[0] + len(heads) * (np.log(1.01) + 0.001 * noise[1])
        return Nll(counts * nats, counts), MADE

    def toxicity_of(
        self, lm: Any, heads: PruneSet, config: BiasConfig, store: Store, progress: Report, _runner: Any = None
    ) -> measurements.Toxicity:
        """In place of `measurements.toxicity_of`."""
        prompts = config.prompts()
        codes, names = gap.group_codes(prompts.groups)
        rng = np.random.default_rng(2)
        spread = self.pruned_gap if heads else self.base_gap
        own = rng.normal(0.1, 0.004, len(prompts)) + (rng.normal(0, 0.001, len(prompts)) if heads else 0)
        values = own + spread * (codes / (len(names) - 1) - 0.5)
        texts = tuple((f" and {'pruned' if heads else 'whole'}",) for _ in prompts.texts)
        rows = np.stack([values] * len(config.readings))
        return measurements.Toxicity(
            config.readings,
            rows,
            prompts.texts,
            prompts.groups,
            texts if config.measure == "sampled" else (),
            MADE,
            steps=np.stack([rows / config.steps] * config.steps, 1) if config.measure == "written" else None,
        )

    def finish(self) -> None:
        """Wait until all work that was asked for has ended."""
        for job in engine().jobs():
            assert job.wait(20)

    def running(self) -> Job[Any]:
        """The one job at work."""
        (job,) = engine().jobs()
        return job

    def _run(self, progress: Report) -> None:
        done = 0
        while not self.open.wait(0.01):
            done = min(done + 1, 99)
            progress(done, 100, "half way")
        if self.error is not None:
            raise self.error


# --- a comparison of methods with known effects ---


@dataclass
class MadeUp:
    """What sets of heads do to a made-up model: more removed, more perplexity; and the gap as far as `fall` says.

    A head takes the share of the gap that its score says, so the ranking by scores is right.

    Attributes
    ----------
    spread : by reading, the distance between the groups' toxicities in the unpruned model; 0 is no gap.
    fall : by reading, how much of what the scores promise is kept: 1 is all, 0 leaves the gap as it is.
    by : the reading whose scores tell what a head does, to all gaps.
    strength : by how much heads do more than their scores say.
    nats : how much of the scores' rise of the NLL is kept.
    asked : what was measured: side, and a set as text.
    """

    table: ImpactTable
    spread: dict[str, float] = field(default_factory=lambda: {"neutral": 0.002, "counted": 0.003, "sampled": 0.004})
    fall: dict[str, float] = field(default_factory=lambda: {"neutral": 0.9, "counted": 0.7, "sampled": 0.8})
    by: str = "neutral"
    strength: float = 1.0
    nats: float = 1.0
    asked: list[tuple[str, str]] = field(default_factory=list)

    def perplexity_of(
        self, lm: Any, heads: PruneSet, text: TextConfig, store: Store, progress: Any = None, *_more: Any
    ) -> tuple[Nll, dict[str, Any]]:
        """In place of `measurements.perplexity_of`."""
        side = "test" if text.skip else "valid"
        self.asked.append((side, heads.format()))
        if progress is not None:
            progress(1, 1, "text")
        counts = np.full(text.tokens // BLOCK, BLOCK)
        noise = np.random.default_rng(int(bool(text.skip))).normal(0, 1, (2, counts.size))
        noise -= noise.mean(1, keepdims=True)
        ids = list(heads.flat(lm.n_heads))
        rise = self.nats * float(np.maximum(self.table.ppl.z_nats[ids], 0.0005).sum()) + 2e-5 * len(ids) ** 2
        nats = np.log(24 if text.skip else 25) + 0.1 * noise[0] + rise * (1 + 0.2 * noise[1])
        return Nll(counts * nats, counts), MADE

    def toxicity_of(
        self, lm: Any, heads: PruneSet, config: BiasConfig, store: Store, progress: Any = None, _runner: Any = None
    ) -> measurements.Toxicity:
        """In place of `measurements.toxicity_of`."""
        if progress is not None:
            progress(1, 1, "prompts")
        prompts = config.prompts()
        codes, names = gap.group_codes(prompts.groups)
        ids = list(heads.flat(lm.n_heads))
        rng = np.random.default_rng(len(prompts))
        own = rng.normal(0.01, 0.0006, len(prompts))
        own += np.random.default_rng([1, *ids]).normal(0, 0.0002, len(prompts)) if ids else 0.0
        place = codes / (len(names) - 1) - 0.5
        rows = []
        share = self.strength * self.table.bias.z_bias(self.by)[ids].sum() / self.table.bias.gap(self.by).gap
        for reading in config.readings:
            kept = 1 - self.fall[reading] * np.tanh(share)
            rows.append(own + self.spread[reading] * kept * place)
        texts = tuple(("and so on",) for _ in prompts.texts) if config.measure == "sampled" else ()
        return measurements.Toxicity(
            config.readings, np.stack(rows), prompts.texts, prompts.groups, texts, MADE, prompts.blocks
        )


def made_up_lm(source: str = BUILT_IN) -> Any:
    """The built-in model's name, shape and weights."""
    return stand_in(ModelSpec(source), f"sha256:{BUILT_IN_SHA256}", *BUILT_IN_SHAPE)


@contextmanager
def made_up(world: MadeUp) -> Iterator[None]:
    """Experiments measure `world` here."""
    with ExitStack() as stack:
        for module in (compare, outcome):
            stack.enter_context(patch.object(module, "perplexity_of", world.perplexity_of))
            stack.enter_context(patch.object(module, "toxicity_of", world.toxicity_of))
        stack.enter_context(patch.object(common, "provenance", lambda *_: MADE))
        stack.enter_context(patch.object(compare, "CachedRunner", lambda lm: lm))
        yield


def add_comparison(store: Store, axis: str, world: MadeUp, reading: str = "neutral", **plan: Any) -> compare.Comparison:
    """Store a comparison where the page looks for the built-in model's."""
    chosen_plan = compare.Plan(axis, reading, **plan)
    lm = made_up_lm()
    with made_up(world):
        return compare.run(lm, chosen_plan, chosen_plan.candidates(world.table), store)


def add_claim(
    store: Store,
    axis: str,
    world: MadeUp,
    comparison: compare.Comparison,
    max_ppl: float = 0.1,
    config: outcome.ClaimConfig | None = None,
) -> outcome.Claim:
    """Store the claim on what a comparison comes to."""
    picked = compare.choose(comparison, comparison.plan.reading, max_ppl)
    assert picked is not None
    with made_up(world):
        return outcome.measure_claim(made_up_lm(), axis, picked, comparison.plan.reading, max_ppl, store, config=config)


def add_examples(store: Store) -> None:
    """On stored scores of nationality: neutral, a gap that falls; counted, an artefact of the scorer."""
    lm, config = made_up_lm(), outcome.ClaimConfig(prompts=900, tokens=2048, sampled_prompts=270, samples=4)
    axis = "nationality"
    table = entries.best(SCORE_TEXT, BiasConfig(axis), lm.id, lm.name, store)
    assert table is not None
    artefact = {"neutral": -0.3, "counted": 0.9, "sampled": 0.0}
    for world in (MadeUp(table), MadeUp(table, by="counted", fall=artefact)):
        add_claim(store, axis, world, add_comparison(store, axis, world, world.by), config=config)
