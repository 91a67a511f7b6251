"""The exact estimator: every head really removed, once.

z_ppl and expected z_bias resume each ablated pass from the head's own layer; the sampled measure writes all
continuations again under each ablation, with common noise. Every finished head is on disk before the next begins,
so a run that was killed goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from fasp_core import gap
from fasp_core.compute.shards import StopCheck, Workers, results
from fasp_core.data.text import KNOWN, TextConfig, TokenWindows
from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import torch
from fasp_core.metrics.expected import scatter
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, Meter, Report, SampledMeter, WrittenMeter, meter
from fasp_core.metrics.perplexity import BLOCK, Nll, ppl_key, windows_of
from fasp_core.metrics.work import Prompts, Windows, Written, swept
from fasp_core.model.devices import sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import pack
from fasp_core.model.provenance import provenance
from fasp_core.scoring.baselines import gradient, magnitude
from fasp_core.scoring.entries import KIND, KnownRows, bias_key, known_nll, known_toxicity, read_bias, read_ppl, row_ids
from fasp_core.scoring.impact_table import BiasImpacts, PplImpacts
from fasp_core.storage.keys import slug
from fasp_core.storage.parts import Parts
from fasp_core.storage.store import Store

Rows = list[np.ndarray | None]
Compute = Callable[
    [list[int], list[int], StopCheck], Iterator[tuple[int, list[np.ndarray]]]
]  # heads, rows -> (head, rows)


def ppl_impacts(
    lm: LanguageModel,
    text: TextConfig,
    store: Store,
    progress: Report | None = None,
    workers: Workers | None = None,
) -> PplImpacts:
    """NLL of the text with each head ablated, and the two weight-based baselines."""
    key = ppl_key(text, lm.id)

    def work() -> Any:
        started = time.monotonic()
        windows = windows_of(lm, text, key)
        rows = list(_rows(windows))
        ids = np.concatenate([row_ids([row.tolist()], first) for row, first in rows])
        parts = store.parts(KIND, key)

        def compute(heads: list[int], missing: list[int], tell: StopCheck) -> Iterator[tuple[int, list[np.ndarray]]]:
            batches: list[list[int]] = []
            side_by_side = sizes(lm.device).swept
            for i in missing:
                if batches and len(batches[-1]) < side_by_side and len(rows[batches[-1][0]][0]) == len(rows[i][0]):
                    batches[-1].append(i)
                else:
                    batches.append([i])
            texts = [
                Windows(torch.stack([rows[i][0] for i in batch]), np.array([rows[i][1] for i in batch]))
                for batch in batches
            ]
            cuts = np.cumsum([_n_blocks(rows[i]) for i in missing])[:-1]
            for flat, readings in swept(lm, texts, heads, workers, parts, tell):
                yield flat, np.split(np.concatenate(readings), cuts)

        everything = list(range(lm.size))
        sums = collect(lm, everything, ids, known_nll(store, key), compute, parts, progress, "perplexity")
        counts = [min(BLOCK, len(row) - b) for row, first in rows for b in range(first, len(row), BLOCK)]
        blocks = np.array([_n_blocks(row) for row in rows], dtype=np.int32)
        base = Nll(np.concatenate(sums[-1]), np.array(counts))
        ablated = np.stack([np.concatenate(sums[flat]) for flat in everything])
        return ppl_contents(lm, windows, base, ablated, started, rows=ids, row_blocks=blocks)

    return store.made(KIND, key, work, read_ppl, label=f"{slug(lm.name)}--ppl")


def ppl_contents(
    lm: LanguageModel, windows: TokenWindows, base: Nll, sums: np.ndarray, started: float, **more: np.ndarray
) -> Any:
    """What an entry of scores on a text holds: sums [N, blocks] of nats, the baselines, and further arrays."""
    arrays = {
        "base_sums": base.sums,
        "counts": base.counts.astype(np.int32),
        "sums": sums,
        "magnitude": magnitude(lm),
        "gradient": gradient(lm, windows),
        **more,
    }
    source = windows.config.source
    return contents(lm, arrays, started, text=source if source in KNOWN else "file")


def contents(lm: LanguageModel, arrays: dict[str, np.ndarray], started: float, **meta: Any) -> Any:
    """What an entry of scores holds: arrays, the model's shape and what made it."""
    made = provenance(lm, time.monotonic() - started)
    return {"arrays": arrays, "meta": {"n_layers": lm.n_layers, "n_heads": lm.n_heads, **meta, "provenance": made}}


def bias_impacts(
    lm: LanguageModel,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    workers: Workers | None = None,
) -> BiasImpacts:
    """Toxicity of the axis' prompts with each head ablated."""
    key = bias_key(config, lm.id)

    def work() -> Any:
        started = time.monotonic()
        gauge = meter(lm, config, store, progress)
        everything = list(range(lm.size))
        rows = toxicity_rows(lm, gauge, everything, store, key, progress, workers)
        ablated = np.stack([rows[flat] for flat in everything])
        return bias_contents(lm, gauge, rows[-1], ablated, np.ones(lm.size, dtype=bool), started)

    return store.made(KIND, key, work, read_bias, label=bias_label(lm, key))


def bias_label(lm: LanguageModel, key: dict[str, Any]) -> str:
    """What the folder of an entry says to people."""
    return f"{slug(lm.name)}--{slug(str(key['axis']))}-{key['measure']}"


def bias_contents(
    lm: LanguageModel,
    gauge: Meter,
    base: np.ndarray,
    ablated: np.ndarray,
    exact: np.ndarray,
    started: float,
) -> Any:
    """What an entry of bias scores holds: base [R, n], ablated [N, R, n], exact [N], and what the rows are."""
    codes, groups = gap.group_codes(gauge.prompts.groups)
    arrays: dict[str, np.ndarray] = {
        "base": base.astype(np.float32),
        "ablated": ablated.astype(np.float32),
        "exact": exact.astype(np.uint8),
        "codes": codes.astype(np.int16),
    }
    if gauge.prompts.blocks:
        arrays["blocks"] = np.array(gauge.prompts.blocks, dtype=np.int32)
    if isinstance(gauge, ExpectedMeter) and gauge.shared is None:  # else a row is more than its tokens
        arrays["rows"] = row_ids(gauge.rows)
    readings, notes = gauge.config.readings, gauge.prompts.notes
    return contents(lm, arrays, started, groups=groups, readings=readings, notes=notes)


def toxicity_rows(
    lm: LanguageModel,
    gauge: Meter,
    heads: Sequence[int],
    store: Store,
    key: dict[str, Any],
    progress: Report | None = None,
    workers: Workers | None = None,
) -> dict[int, np.ndarray]:
    """[R, n] toxicity of the prompts with each of `heads` (flat ids) removed; under -1 that of the whole model."""
    parts = store.parts(KIND, key)
    known, ids = KnownRows(), np.arange(len(gauge.prompts))
    if isinstance(gauge, ExpectedMeter):
        compute, ids = _expected_rows(lm, gauge, workers, parts), row_ids(gauge.rows)
        known = known if gauge.shared else known_toxicity(store, key)
    elif isinstance(gauge, WrittenMeter):
        compute = _written_rows(lm, gauge, workers)
    else:
        compute = _sampled_rows(lm, gauge, workers)
    what = f"bias on {gauge.config.axis}"
    rows = collect(lm, heads, ids, known, compute, parts, progress, what)
    found = {flat: np.stack(values).T for flat, values in rows.items()}
    return {flat: gauge.fold(columns) for flat, columns in found.items()} if isinstance(gauge, ExpectedMeter) else found


def _expected_rows(lm: LanguageModel, gauge: ExpectedMeter, workers: Workers | None, parts: Parts) -> Compute:
    def compute(heads: list[int], missing: list[int], tell: StopCheck) -> Iterator[tuple[int, list[np.ndarray]]]:
        packs = pack(lm, [gauge.rows[i] for i in missing], gauge.config.steps)
        batches = [Prompts(one, gauge.worth.at(missing)) for one in packs]
        for flat, readings in swept(lm, batches, heads, workers, parts, tell):
            yield flat, list(scatter(packs, readings).T)

    return compute


def _written_rows(lm: LanguageModel, gauge: WrittenMeter, workers: Workers | None) -> Compute:
    if workers is not None:
        raise InputError("Scores by the measure written are made on one machine: leave workers out.")

    def compute(heads: list[int], _missing: list[int], tell: StopCheck) -> Iterator[tuple[int, list[np.ndarray]]]:
        for flat in heads:
            with masked(lm, PruneSet() if flat < 0 else PruneSet.from_flat([flat], lm.n_heads)):
                yield flat, list(gauge.fold(gauge.measure()).T)

    return compute


def _sampled_rows(lm: LanguageModel, gauge: SampledMeter, workers: Workers | None) -> Compute:
    def compute(heads: list[int], _missing: list[int], tell: StopCheck) -> Iterator[tuple[int, list[np.ndarray]]]:
        texts = gauge.prompts.texts
        each = [heads] if workers is None else [[flat] for flat in heads]
        shards = [Written(tuple(flats), texts, gauge.config.generation) for flats in each]
        for _, (flat, written) in results(lm, shards, workers, tell):
            yield flat, list(gauge.worth(written).T)

    return compute


def collect(
    lm: LanguageModel,
    heads: Collection[int],
    ids: np.ndarray,
    known: KnownRows,
    compute: Compute,
    parts: Parts,
    progress: Report | None,
    what: str,
) -> dict[int, list[np.ndarray]]:
    """All rows of the whole model (-1) and of some heads; each head is on disk before the next one is begun."""
    found: dict[int, list[np.ndarray]] = {}
    todo: dict[tuple[int, ...], dict[int, Rows]] = {}  # missing rows -> heads that miss them
    for flat in (-1, *heads):
        if (part := parts.load(_name(flat))) is not None and len(part["cuts"]) == len(ids):
            found[flat] = np.split(part["values"], part["cuts"][:-1])
            continue
        rows = known.get(flat, ids)
        missing = tuple(i for i, row in enumerate(rows) if row is None)
        todo.setdefault(missing, {})[flat] = rows
    done = len(heads) - sum(flat >= 0 for group in todo.values() for flat in group)

    def tell() -> None:
        if progress is not None:
            progress(done, len(heads), f"{what}: {done} of {len(heads)} heads")

    for missing, group in todo.items():
        whole = {flat: rows for flat, rows in group.items() if not missing}
        found.update({flat: [np.asarray(row) for row in rows] for flat, rows in whole.items()})
        done += sum(flat >= 0 for flat in whole)
        if not missing:
            continue
        for flat, fresh in compute(sorted(group), list(missing), tell):
            rows = list(group[flat])
            for i, values in zip(missing, fresh, strict=True):
                rows[i] = values
            found[flat] = [np.asarray(row) for row in rows]
            cuts = np.cumsum([np.size(row) for row in found[flat]])
            parts.save(_name(flat), {"values": np.concatenate(found[flat], axis=None), "cuts": cuts})
            done += flat >= 0
            tell()
    return found


def _rows(windows: TokenWindows) -> Iterator[tuple[torch.Tensor, int]]:
    for ids, firsts in windows.batches:
        yield from zip(ids, firsts.tolist(), strict=True)


def _n_blocks(row: tuple[torch.Tensor, int]) -> int:
    return -(-(len(row[0]) - row[1]) // BLOCK)


def _name(flat: int) -> str:
    return "base" if flat < 0 else f"head-{flat:05d}"
