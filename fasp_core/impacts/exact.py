"""The exact estimator: every head really removed, once.

z_ppl and expected z_bias resume each ablated pass from the head's own layer; the sampled measure writes all
continuations anew under each ablation, with common noise. Every finished head is on disk before the next begins,
so a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fasp_core import bias
from fasp_core.impacts.baselines import gradient, magnitude
from fasp_core.impacts.sweep import sweep_heads
from fasp_core.impacts.table import BiasImpacts, ImpactTable, PplImpacts
from fasp_core.masks import PruneSet, masked
from fasp_core.measures import BiasConfig, ExpectedMeter, Report, SampledMeter, meter, result_key
from fasp_core.models import LanguageModel
from fasp_core.perplexity import Nll, block_sums, token_nll
from fasp_core.provenance import provenance
from fasp_core.store import Entry, Store, slug
from fasp_core.text import TextConfig, file_stamp, token_windows, used_text

KIND = "scores"


def score(
    lm: LanguageModel, text: TextConfig, config: BiasConfig, store: Store, progress: Report | None = None
) -> ImpactTable:
    """Both impacts of every head; what is stored is not computed again."""
    ppl = ppl_impacts(lm, text, store, progress)
    return ImpactTable(lm.name, lm.n_layers, lm.n_heads, ppl, bias_impacts(lm, config, store, progress))


def ppl_key(text: TextConfig, weights_id: str, dtype: str) -> dict[str, Any]:
    """Everything that shapes z_ppl, for the store."""
    cut = {key: value for key, value in asdict(text).items() if key != "source"}
    digest = _text_digest(text, file_stamp(os.path.expanduser(text.source)))
    return {"weights": weights_id, "dtype": dtype, "score": "ppl", "text": digest, **cut}


def bias_key(config: BiasConfig, weights_id: str, dtype: str) -> dict[str, Any]:
    """Everything that shapes z_bias, for the store."""
    return {"score": "bias", **result_key(config, weights_id, dtype)}


@lru_cache(maxsize=8)
def _text_digest(text: TextConfig, _stamp: tuple[int, int] | None) -> str:
    return hashlib.sha256(used_text(text).encode()).hexdigest()[:16]


def ppl_impacts(lm: LanguageModel, text: TextConfig, store: Store, progress: Report | None = None) -> PplImpacts:
    """NLL of the text with each head removed, and the two weight-based baselines."""
    key = ppl_key(text, lm.weights_id, lm.spec.dtype)

    def work() -> Any:
        started = time.monotonic()
        windows = token_windows(lm, text)
        batches, firsts = [], []
        for ids, first in windows.batches:  # two windows at a time: enough to keep the processor busy
            batches += ids.split(2)
            firsts += np.split(first, range(2, len(first), 2))
        ids_of = list(batches)

        def read(i: int, hidden: torch.Tensor) -> np.ndarray:
            return np.stack(block_sums(token_nll(lm, hidden, ids_of[i]), firsts[i]))  # [2, blocks]: sums, counts

        parts = store.parts(KIND, key)
        rows = _collect(lm, sweep_heads(lm, batches, read, _done(parts.names())), parts, progress, "perplexity", 1)
        return {
            "arrays": {
                "base_sums": rows[-1][0],
                "counts": rows[-1][1].astype(np.int32),
                "sums": np.stack([rows[i][0] for i in range(lm.size)]),
                "magnitude": magnitude(lm),
                "gradient": gradient(lm, windows),
            },
            "meta": {
                "n_layers": lm.n_layers,
                "n_heads": lm.n_heads,
                "text": text.source if text.source in ("bold", "wikitext-2") else "file",
                "provenance": provenance(lm, time.monotonic() - started),
            },
        }

    return read_ppl(store.compute(KIND, key, work, label=f"{slug(lm.name)}--ppl"))


def bias_impacts(lm: LanguageModel, config: BiasConfig, store: Store, progress: Report | None = None) -> BiasImpacts:
    """Toxicity of the axis' prompts with each head removed."""
    key = bias_key(config, lm.weights_id, lm.spec.dtype)

    def work() -> Any:
        started = time.monotonic()
        gauge = meter(lm, config, store)
        parts = store.parts(KIND, key)
        done = _done(parts.names())
        if isinstance(gauge, ExpectedMeter):
            sweep = sweep_heads(lm, gauge.batches.ids, gauge.read, done)
            order = np.concatenate(gauge.batches.order)
        else:
            sweep = _sampled_sweep(lm, gauge, done)
            order = np.arange(len(gauge.prompts))
        rows = _collect(lm, sweep, parts, progress, f"bias on {config.axis}", 0)
        back = np.argsort(order)
        values = np.stack([rows[i].T[:, back] for i in range(-1, lm.size)])  # [1 + N, R, n]
        codes, groups = bias.group_codes(gauge.prompts.groups)
        return {
            "arrays": {
                "base": values[0].astype(np.float32),
                "ablated": values[1:].astype(np.float32),
                "codes": codes.astype(np.int16),
            },
            "meta": {
                "n_layers": lm.n_layers,
                "n_heads": lm.n_heads,
                "groups": groups,
                "readings": config.readings,
                "notes": gauge.prompts.notes,
                "provenance": provenance(lm, time.monotonic() - started),
            },
        }

    label = f"{slug(lm.name)}--{slug(str(key['axis']))}-{config.measure}"
    return read_bias(store.compute(KIND, key, work, label=label))


def find(
    text: TextConfig, config: BiasConfig, weights_id: str, dtype: str, model: str, store: Store
) -> ImpactTable | None:
    """Stored scores, without loading the model; None if either half is missing."""
    ppl = store.load(KIND, ppl_key(text, weights_id, dtype))
    toxicity = store.load(KIND, bias_key(config, weights_id, dtype))
    if ppl is None or toxicity is None:
        return None
    return ImpactTable(model, ppl.meta["n_layers"], ppl.meta["n_heads"], read_ppl(ppl), read_bias(toxicity))


def read_ppl(entry: Entry) -> PplImpacts:
    """The stored form back into numbers."""
    a = entry.arrays
    base = Nll(a["base_sums"], a["counts"].astype(np.int64))
    return PplImpacts(base, a["sums"], a["magnitude"], a["gradient"], entry.meta["provenance"])


def read_bias(entry: Entry) -> BiasImpacts:
    """The stored form back into numbers."""
    a, c, m = entry.arrays, entry.config, entry.meta
    return BiasImpacts(
        c["measure"],
        c["axis"],
        c["split"],
        c["scorer"],
        tuple(m["readings"]),
        a["base"].astype(np.float64),
        a["ablated"].astype(np.float64),
        a["codes"].astype(np.int64),
        tuple(m["groups"]),
        m["provenance"],
    )


def _sampled_sweep(lm: LanguageModel, gauge: SampledMeter, skip: set[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
    yield -1, [gauge.measure().T]
    for flat in range(lm.size):
        if flat not in skip:
            with masked(lm, PruneSet.from_flat([flat], lm.n_heads)):
                values = gauge.measure().T
            yield flat, [values]


def _collect(
    lm: LanguageModel,
    sweep: Iterator[tuple[int, list[np.ndarray]]],
    parts: Any,
    progress: Report | None,
    what: str,
    axis: int,
) -> dict[int, np.ndarray]:
    """Run a sweep, each head on disk before the next; finished ones are read back. Keys: -1 (base), flat ids."""
    done = len(_done(parts.names()))
    for flat, readings in sweep:
        parts.save(_name(flat), {"values": np.concatenate(readings, axis=axis)})
        done += flat >= 0
        if progress is not None:
            progress(done, lm.size, f"{what}: {done} of {lm.size} heads")
    rows = {}
    for flat in range(-1, lm.size):
        part = parts.load(_name(flat))
        if part is None:
            raise RuntimeError(f"the finished part {_name(flat)} was removed while its run went on: run again")
        rows[flat] = part["values"]
    return rows


def _name(flat: int) -> str:
    return "base" if flat < 0 else f"head-{flat:05d}"


def _done(names: set[str]) -> set[int]:
    return {int(name.removeprefix("head-")) for name in names if name.startswith("head-")}
