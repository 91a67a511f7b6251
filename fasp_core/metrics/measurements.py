"""One measurement of one model under one set of heads, kept by itself: what was measured before is never run again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from fasp_core.compute.shards import CUTS, Workers, results
from fasp_core.data.prompts import PromptSet
from fasp_core.data.text import TextConfig
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.cached_runner import CachedRunner, Seen
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, Meter, SampledMeter, meter, result_key
from fasp_core.metrics.perplexity import Nll, measure_nll, ppl_key, windows_of
from fasp_core.metrics.work import Sets
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import provenance
from fasp_core.storage.entry import DamagedEntry
from fasp_core.storage.store import Entry, Store, digest
from fasp_core.typing import Report

KIND = "measured"
PART = 4  # continuations of a prompt, at least, that are drawn, and stored, at a time
TOKENS = 32  # of a prompt's continuations in a part: of short ones more, as they share the pass of the prompt


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


def perplexity_of(
    lm: LanguageModel,
    prune_set: PruneSet,
    text: TextConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
    seen: Seen | None = None,
) -> tuple[Nll, dict[str, Any]]:
    """NLL of the text with a set of heads pruned, and its provenance; stored. `seen` is told of it as a runner goes."""

    def work() -> Any:
        started = time.monotonic()
        windows = windows_of(lm, text, key)
        if runner is not None:
            nll = runner.nll(windows, prune_set, progress, seen)
        else:
            with masked(lm, prune_set):
                nll = measure_nll(lm, windows, progress)
        return _nll_contents(lm, nll, time.monotonic() - started)

    def read(entry: Entry) -> tuple[Nll, dict[str, Any]]:
        arrays = entry.arrays
        return Nll(arrays["sums"], arrays["counts"].astype(np.int64)), entry.meta["provenance"]

    key = _nll_key(lm, prune_set, text)
    return store.made(KIND, key, work, read, label=_label(lm, "ppl"))


def toxicity_of(
    lm: LanguageModel,
    prune_set: PruneSet,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
) -> Toxicity:
    """Toxicity of every prompt with a set of heads pruned; stored.

    Continuations are drawn, and stored, a few of each prompt at a time: a stopped measurement goes on, and one of more
    continuations takes over those of fewer.
    """
    if config.measure == "expected":
        return _stored(lm, prune_set, config, store, progress, runner)
    length = config.steps if config.measure == "written" else config.generation.tokens
    parts = config.generation.parts(max(PART, TOKENS // length))
    found: list[Toxicity] = []
    for i, part in enumerate(parts):

        def inner(done: float, total: float, text: str, i: int = i) -> None:
            if progress is not None:
                progress(i + done / max(total, 1), len(parts), text)

        found.append(_stored(lm, prune_set, replace(config, generation=part), store, inner))
    return _together(found, [part.samples for part in parts])


def _together(parts: Sequence[Toxicity], samples: Sequence[int]) -> Toxicity:
    """One measurement of several with continuations of their own, as many of each prompt as `samples` say."""
    if len(parts) == 1:
        return parts[0]

    def mean(arrays: Sequence[np.ndarray | None]) -> Any:
        known = [array for array in arrays if array is not None]
        return np.average(known, axis=0, weights=samples) if known else None

    texts = tuple(tuple(chain.from_iterable(rows)) for rows in zip(*(p.continuations for p in parts), strict=True))
    made = {**parts[-1].provenance, "seconds": sum(p.provenance["seconds"] for p in parts)}
    values, steps = mean([p.values for p in parts]), mean([p.steps for p in parts])
    return replace(parts[0], values=values, steps=steps, continuations=texts, provenance=made)


def _stored(
    lm: LanguageModel,
    prune_set: PruneSet,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
) -> Toxicity:
    """A measurement as it is stored, whole or a part."""

    def work() -> Any:
        started = time.monotonic()
        gauge = meter_of(lm, config, store, runner)
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


def meter_of(lm: LanguageModel, config: BiasConfig, store: Store, runner: CachedRunner | None) -> Meter:
    """The meter of a measurement; a runner keeps the last one of expected toxicity, as the next set needs the same."""
    if runner is None or config.measure != "expected":
        return meter(lm, config, store)
    name = digest([_toxicity_key(lm, PruneSet(), config), str(store.root)])
    known, gauge = runner.meter
    if known != name:
        gauge = meter(lm, config, store)
        runner.meter = name, gauge
    found: Meter = gauge
    return found


def has_toxicity(lm: LanguageModel, prune_set: PruneSet, config: BiasConfig, store: Store) -> bool:
    """Whether the whole measurement is stored."""
    return store.load(KIND, _toxicity_key(lm, prune_set, config)) is not None


def measure_there(
    lm: LanguageModel,
    sets: Sequence[PruneSet],
    text: TextConfig,
    config: BiasConfig,
    store: Store,
    workers: Workers,
    progress: Report | None = None,
) -> None:
    """Let workers measure those of the sets that are not stored (expected measure), and store each as it comes.

    `perplexity_of` and `toxicity_of` then find them: they are what these would have measured, bit for bit.
    """
    keys = {s: (_nll_key(lm, s, text), _toxicity_key(lm, s, config)) for s in sets}
    todo = [s for s in sets if any(store.load(KIND, key) is None for key in keys[s])]
    if not todo:
        return
    gauge, windows = meter(lm, config, store), windows_of(lm, text, keys[todo[0]][0])
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
        for key, content, what in zip(keys[subject], contents, ("ppl", config.axis), strict=True):
            store.save(KIND, key, label=_label(lm, what), **content)
        done += 1
        tell()


def _nll_key(lm: LanguageModel, prune_set: PruneSet, text: TextConfig) -> dict[str, Any]:
    return {**ppl_key(text, _id(lm, prune_set)), "score": "", "heads": prune_set.format()}


def _toxicity_key(lm: LanguageModel, prune_set: PruneSet, config: BiasConfig) -> dict[str, Any]:
    return {**result_key(config, _id(lm, prune_set)), "heads": prune_set.format()}


def _id(lm: LanguageModel, prune_set: PruneSet) -> ModelId:
    return lm.id if len(prune_set) else lm.id.whole


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
