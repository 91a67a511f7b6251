"""What a prune set does to a model: both models measured on the same text, prompts and noise, and compared.

A measurement of one set is stored by itself, so a set tried before, and the unpruned model, are never run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from fasp_core.compute.shards import CUTS, Workers, results
from fasp_core.data.prompts import PromptSet
from fasp_core.data.text import TextConfig, fitting, said, token_windows
from fasp_core.forward.ablation import masked
from fasp_core.gap import Change, GapStats, PromptRows
from fasp_core.gap.within import Within, within_if_any
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, Meter, SampledMeter, left_out, meter, result_key
from fasp_core.metrics.perplexity import Nll, PerplexityChange, measure_nll, perplexity_change, ppl_key
from fasp_core.metrics.shared_contexts import effective
from fasp_core.metrics.work import Sets
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import provenance
from fasp_core.storage.entry import DamagedEntry
from fasp_core.storage.store import Entry, Store, digest
from fasp_core.typing import Report

KIND = "measured"


@dataclass(frozen=True)
class EvalConfig:
    """What is measured: perplexity on a text, and the toxicity of an axis."""

    bias: BiasConfig
    text: TextConfig = field(default_factory=TextConfig)


@dataclass(frozen=True, eq=False)
class Toxicity:
    """Toxicity of every prompt under one model.

    Attributes
    ----------
    readings : names of the R readings.
    values : [R, n].
    texts, groups : [n] the prompts and their groups.
    continuations : for the sampled measure, the texts of each prompt; else empty.
    blocks : [n] the block of each prompt, see `fasp_core.data.prompts.PromptSet`; empty if they are in none.
    templates : [n] the template of each prompt, "" where there is none.
    steps : [R, steps, n] for the written measure, of which `values` are the sums.
    weights : [n, C] of contexts that prompts share, see `fasp_core.metrics.shared_contexts`.
    """

    readings: tuple[str, ...]
    values: np.ndarray
    texts: tuple[str, ...]
    groups: tuple[str, ...]
    continuations: tuple[tuple[str, ...], ...]
    provenance: dict[str, Any]
    blocks: tuple[int, ...] = ()
    templates: tuple[str, ...] = ()
    steps: np.ndarray | None = None
    weights: np.ndarray | None = None

    def row(self, reading: str) -> np.ndarray:
        """[n] values of one reading."""
        return np.asarray(self.values[self.readings.index(reading)])


@dataclass(frozen=True, eq=False)
class Reading:
    """The toxicity gap of both models in one reading, and its paired change; what takes a while is made when asked."""

    name: str
    base: GapStats
    pruned: GapStats
    gap: Change
    toxicity: Change
    within_of: Callable[[], Within | None] = lambda: None
    steps_of: Callable[[], list[Change]] = list

    @cached_property
    def within(self) -> Within | None:
        """The gap within templates; None where fewer than two templates hold every group."""
        return self.within_of()

    @cached_property
    def steps(self) -> list[Change]:
        """The gap at each step, of the written measure."""
        return self.steps_of()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A prune set against the unpruned model."""

    prune_set: PruneSet
    config: EvalConfig
    perplexity: PerplexityChange
    readings: dict[str, Reading]
    base: Toxicity
    pruned: Toxicity
    heads_removed: int
    parameters_removed: int
    parameters: int
    provenance: dict[str, Any]

    def as_dict(self, continuations: int = 0) -> dict[str, Any]:
        """JSON-ready, with up to `continuations` prompts' texts before and after (sampled measure only)."""
        bias_config = self.config.bias
        out: dict[str, Any] = {
            "heads": [list(h) for h in self.prune_set],
            "prune_set": self.prune_set.format(),
            "heads_removed": self.heads_removed,
            "neurons": [list(n) for n in sorted(self.prune_set.neurons)],
            "neurons_removed": len(self.prune_set.neurons),
            "parameters_removed": self.parameters_removed,
            "parameters": self.parameters,
            "perplexity": {
                "base": self.perplexity.base,
                "pruned": self.perplexity.pruned,
                "relative_change": self.perplexity.relative,
                "change_nats": self.perplexity.change_nats,
                "interval_nats": list(self.perplexity.interval),
                "tokens": self.perplexity.tokens,
                "text": asdict(self.config.text),
                "windows": said(self.config.text, self.provenance),
            },
            "axis": bias_config.axis,
            "split": bias_config.split,
            "measure": bias_config.measure,
            "scored": bias_config.scored if bias_config.measure == "sampled" else "next word",
            "steps": bias_config.steps,
            "prompts": len(self.base.texts),
            "notes": left_out(bias_config),
            "readings": {},
            "provenance": self.provenance,
        }
        for name, r in self.readings.items():
            out["readings"][name] = {
                "gap_base": r.base.gap,
                "gap_base_interval": r.base.interval,
                "gap_base_noise": r.base.noise_gap,
                "gap_base_noise_p": r.base.noise_p,
                "gap_pruned": r.pruned.gap,
                "gap_pruned_interval": r.pruned.interval,
                "gap_change": r.gap.change,
                "gap_change_interval": r.gap.interval,
                "gap_relative_change": r.gap.relative,
                "gap_relative_interval": r.gap.relative_interval,
                "mean_gap": [r.base.mean_gap, r.pruned.mean_gap],
                "max_min": [r.base.max_min, r.pruned.max_min],
                "min_max_ratio": [r.base.min_max_ratio, r.pruned.min_max_ratio],
                "toxicity": [r.base.overall, r.pruned.overall],
                "groups": {
                    g: {"n": n, "base": r.base.group_means[g], "pruned": r.pruned.group_means[g]}
                    for g, n in r.base.group_sizes.items()
                },
                "within_templates": None if r.within is None else r.within.as_dict(),
            }
            if r.steps:
                out["readings"][name]["steps"] = [
                    {"gap_base": c.base, "gap_pruned": c.pruned, "gap_change_interval": c.interval} for c in r.steps
                ]
        if self.base.weights is not None and self.pruned.weights is not None:
            sides = {"base": self.base.weights, "pruned": self.pruned.weights}
            out["contexts"] = {name: effective(w, self.base.groups) for name, w in sides.items()}
        if continuations and self.base.continuations:
            out["continuations"] = self.side_by_side().head(continuations).to_dict("records")
        return out

    def side_by_side(self) -> pd.DataFrame:
        """One row a prompt: group, prompt, toxicity and first continuation of both models, largest change first."""
        frame = pd.DataFrame({"group": self.base.groups, "prompt": self.base.texts})
        for name, side in (("base", self.base), ("pruned", self.pruned)):
            frame[f"toxicity_{name}"] = side.values[0]
            if side.continuations:
                frame[f"continuation_{name}"] = [c[0] for c in side.continuations]
        order = (frame.toxicity_pruned - frame.toxicity_base).abs().sort_values(ascending=False, kind="stable")
        return frame.loc[order.index].reset_index(drop=True)


def evaluate(
    lm: LanguageModel,
    prune_set: PruneSet,
    config: EvalConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
) -> Evaluation:
    """Measure the unpruned and the pruned model and compare them.

    With a desk, perplexity and expected toxicity resume from its latest measurement, and the pruned model's is the one
    that stays there.

    Raises
    ------
    InputError
        A head or neuron is not in the model, or the config does not fit it.
    """
    prune_set.gates(lm.n_layers, lm.n_heads)  # says so before anything is run
    prune_set.neuron_gates(lm.n_layers, lm.n_neurons)
    config = replace(config, text=fitting(config.text, lm.id.longest))
    steps = [(s, what) for s in (PruneSet(), prune_set) for what in ("perplexity", "toxicity")]
    results: list[Any] = []
    for i, (subject, what) in enumerate(steps):
        label = f"{what} of the {'pruned' if len(subject) else 'unpruned'} model"
        if progress is not None:
            progress(i, len(steps), label)

        def inner(done: float, total: float, text: str, i: int = i, label: str = label) -> None:
            if progress is not None:
                progress(i + done / max(total, 1), len(steps), f"{label}: {text}")

        if what == "perplexity":
            results.append(perplexity_of(lm, subject, config.text, store, inner, runner))
        else:
            results.append(toxicity_of(lm, subject, config.bias, store, inner, runner))
    if progress is not None:
        progress(len(steps), len(steps), "done")
    (base_nll, _), base_tox, (nll, made), tox = results
    readings = {}
    for name in base_tox.readings:
        rows = PromptRows.of([base_tox.row(name), tox.row(name)], base_tox.groups, base_tox.blocks)
        readings[name] = Reading(
            name,
            rows.stats(),
            rows[1:].stats(),
            rows.changes()[0],
            rows.mean_changes()[0],
            partial(within_if_any, rows, base_tox.templates),
            partial(_by_step, base_tox, tox, name),
        )
    return Evaluation(
        prune_set,
        config,
        perplexity_change(base_nll, nll),
        readings,
        base_tox,
        tox,
        len(prune_set.heads),
        len(prune_set.heads) * lm.head_parameters() + len(prune_set.neurons) * lm.neuron_parameters(),
        lm.n_parameters,
        {**made, "seconds": made["seconds"] + tox.provenance["seconds"]},
    )


def _by_step(base: Toxicity, pruned: Toxicity, reading: str) -> list[Change]:
    if base.steps is None or pruned.steps is None:
        return []
    at = base.readings.index(reading)
    both = np.stack([base.steps[at], pruned.steps[at]], 1)  # [steps, 2, n]
    return [PromptRows.of(values, base.groups, base.blocks).changes()[0] for values in both]


def perplexity_of(
    lm: LanguageModel,
    prune_set: PruneSet,
    text: TextConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
) -> tuple[Nll, dict[str, Any]]:
    """NLL of the text with a set of heads pruned, and its provenance; stored."""

    def work() -> Any:
        started = time.monotonic()
        windows = token_windows(lm, text)
        if runner is not None:
            nll = runner.nll(windows, prune_set, progress)
        else:
            with masked(lm, prune_set):
                nll = measure_nll(lm, windows, progress)
        return _nll_contents(lm, nll, time.monotonic() - started)

    def read(entry: Entry) -> tuple[Nll, dict[str, Any]]:
        arrays = entry.arrays
        return Nll(arrays["sums"], arrays["counts"].astype(np.int64)), entry.meta["provenance"]

    return store.made(KIND, _nll_key(lm, prune_set, text), work, read, label=_label(lm, "ppl"))


def toxicity_of(
    lm: LanguageModel,
    prune_set: PruneSet,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
) -> Toxicity:
    """Toxicity of every prompt with a set of heads pruned; stored."""

    def work() -> Any:
        started = time.monotonic()
        gauge = meter(lm, config, store)
        if runner is not None and isinstance(gauge, ExpectedMeter):
            values = runner.expected(gauge.packs, gauge.worth, prune_set, progress)
        else:
            with masked(lm, prune_set):
                values = gauge.measure(progress)
        tables: dict[str, pd.DataFrame] = {}
        if isinstance(gauge, SampledMeter):
            tables["continuations"] = pd.DataFrame(gauge.texts).rename(columns=str)
        return _toxicity_contents(lm, gauge, values, time.monotonic() - started) | {"tables": tables}

    return store.made(
        KIND,
        _toxicity_key(lm, prune_set, config),
        work,
        lambda entry: _read(entry, config),
        label=_label(lm, config.axis),
    )


def measure_there(
    lm: LanguageModel,
    sets: Sequence[PruneSet],
    config: EvalConfig,
    store: Store,
    workers: Workers,
    progress: Report | None = None,
) -> None:
    """Let workers measure those of the sets that are not stored (expected measure), and store each as it comes.

    `perplexity_of` and `toxicity_of` then find them: they are what these would have measured, bit for bit.
    """
    keys = {s: (_nll_key(lm, s, config.text), _toxicity_key(lm, s, config.bias)) for s in sets}
    todo = [s for s in sets if any(store.load(KIND, key) is None for key in keys[s])]
    if not todo:
        return
    gauge, windows = meter(lm, config.bias, store), token_windows(lm, config.text)
    assert isinstance(gauge, ExpectedMeter)
    size = -(-len(todo) // (CUTS * workers.width()))
    flat = [tuple(s.flat(lm.n_heads)) for s in todo]  # neighbours share their lowest heads, so runs stay together
    cuts = [tuple(flat[i : i + size]) for i in range(0, len(flat), size)]
    done = 0

    def tell() -> None:
        if progress is not None:
            progress(done, len(todo), f"{done} of {len(todo)} sets")

    worth = gauge.worth.on("cpu")
    shards = [Sets(cut, windows, tuple(gauge.packs), worth) for cut in cuts]
    for _, (heads, nll, values, seconds) in results(lm, shards, workers, tell):
        subject = PruneSet.from_flat(heads, lm.n_heads)
        contents = _nll_contents(lm, nll, seconds[0]), _toxicity_contents(lm, gauge, values, seconds[1])
        for key, content, what in zip(keys[subject], contents, ("ppl", config.bias.axis), strict=True):
            store.save(KIND, key, label=_label(lm, what), **content)
        done += 1
        tell()


def _nll_key(lm: LanguageModel, prune_set: PruneSet, text: TextConfig) -> dict[str, Any]:
    return {**ppl_key(text, lm.id), "score": "", "heads": prune_set.format()}


def _toxicity_key(lm: LanguageModel, prune_set: PruneSet, config: BiasConfig) -> dict[str, Any]:
    return {**result_key(config, lm.id), "heads": prune_set.format()}


def _nll_contents(lm: LanguageModel, nll: Nll, seconds: float) -> Any:
    arrays = {"sums": nll.sums, "counts": nll.counts.astype(np.int32)}
    return {"arrays": arrays, "meta": {"provenance": provenance(lm, seconds)}}


def _toxicity_contents(lm: LanguageModel, gauge: Meter, columns: np.ndarray, seconds: float) -> Any:
    meta = {"rows": _rows(gauge.prompts), "provenance": provenance(lm, seconds)}
    return {"arrays": {"values": gauge.fold(columns), **gauge.more(columns)}, "meta": meta}


def _rows(prompts: PromptSet) -> str:
    """A hash of the prompts in their order: an entry holds values alone, and its prompts are drawn again on reading."""
    return digest({"texts": prompts.texts, "groups": prompts.groups})


def _read(entry: Entry, config: BiasConfig) -> Toxicity:
    prompts = config.prompts()
    known = entry.meta.get("rows")  # older entries have none
    if entry.arrays["values"].shape[-1] != len(prompts) or known not in (None, _rows(prompts)):
        raise DamagedEntry(entry.path, "its values are of other prompts, or of these in another order")
    texts: tuple[tuple[str, ...], ...] = ()
    if config.measure == "sampled":
        texts = tuple(tuple(row) for row in entry.table("continuations").itertuples(index=False))
    return Toxicity(
        config.readings,
        entry.arrays["values"],
        prompts.texts,
        prompts.groups,
        texts,
        entry.meta["provenance"],
        prompts.blocks,
        prompts.templates,
        entry.arrays.get("steps"),
        entry.arrays.get("weights"),
    )


def _label(lm: LanguageModel, what: str) -> str:
    return f"{lm.name.rsplit('/', 1)[-1]}--{what.rsplit('/', 1)[-1]}"
