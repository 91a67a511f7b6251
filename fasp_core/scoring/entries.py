"""How scores are named and kept, and which of their rows are known already.

A score is made of rows: the NLL of each window of text, the toxicity of each prompt, with one head ablated. Rows carry
the hash of what was run, so a run on more text or more prompts takes over what an earlier one found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fasp_core.data.text import BOLD, TextConfig
from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import Nll, ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable, PplImpacts, TaskImpacts
from fasp_core.storage.entry import DamagedEntry
from fasp_core.storage.store import Entry, Store

KIND = "scores"
PREVIEW_TEXT = TextConfig(tokens=1024, window=128, stride=128)  # enough for a first picture
ESTIMATORS = ("exact", "refined", "two-phase", "first-order", "replay")
EXACT_PROMPTS = 720  # of two-phase scores
TASK_SCORE = {"score": "task", "task": "lambada", "split": "valid"}  # in the keys of what heads are worth for a task
SURE = ("exact", "refined", "two-phase")  # no previews


def bias_key(config: BiasConfig, model_id: ModelId, estimator: str = "exact") -> dict[str, Any]:
    """Everything that shapes z_bias, for the store."""
    key = {"score": "bias", "estimator": estimator, **result_key(config, model_id)}
    return key | {"checked": few(config).prompts().digest[:16]} if estimator == "two-phase" else key


def few(config: BiasConfig) -> BiasConfig:
    """The prompts of two-phase scores on which heads are really removed."""
    return replace(config, n_prompts=min(config.n_prompts, EXACT_PROMPTS))


def load(
    text: TextConfig,
    config: BiasConfig,
    model_id: ModelId,
    model: str,
    store: Store,
    estimator: str = "exact",
) -> ImpactTable | None:
    """Stored scores by one estimator, without loading the model; None if either half is missing."""
    ppl = store.read(KIND, ppl_key(text, model_id, "exact" if estimator in SURE else "preview"), _shaped_ppl)
    toxicity = store.read(KIND, bias_key(config, model_id, estimator), read_bias)
    return None if ppl is None or toxicity is None else ImpactTable(model, *ppl, toxicity)


def find(text: TextConfig, config: BiasConfig, model_id: ModelId, model: str, store: Store) -> ImpactTable | None:
    """Stored scores by the surest estimator there is, previews left out."""
    found = (load(text, config, model_id, model, store, name) for name in SURE)
    return next((impacts for impacts in found if impacts is not None), None)


def best(
    text: TextConfig | None, config: BiasConfig, model_id: ModelId, model: str, store: Store
) -> ImpactTable | None:
    """Stored scores of an axis on the most prompts, however many `config` asks for; previews are left out.

    More prompts of an axis are a better answer to the same question. Of a CSV file only its own scores will do. Without
    a text, perplexity is of the longest one that there are scores on.
    """
    wanted = bias_key(config, model_id)
    if text is None:
        exact = store.find(KIND, {**model_id.wanted(), "score": "ppl", "estimator": "exact"})
        keys = [entry.config for entry in sorted(exact, key=lambda e: -e.config["tokens"])]
    else:
        keys = [ppl_key(text, model_id)]
    ppl = next((read for key in keys if (read := store.read(KIND, key, _shaped_ppl)) is not None), None)
    if ppl is None:
        return None
    if wanted["axis"] == "csv":
        own = (store.read(KIND, bias_key(config, model_id, name), read_bias) for name in SURE)
        toxicity = next((table for table in own if table is not None), None)
        return None if toxicity is None else ImpactTable(model, *ppl, toxicity, stored_task(model_id, store))
    open_to = {"prompts": "", "estimator": "", "checked": ""}
    fixed = {name: value for name, value in wanted.items() if name not in open_to}

    def fits(entry: Entry) -> bool:
        return entry.config | open_to == wanted | open_to and entry.config["estimator"] in SURE

    headers = store.find(KIND, fixed, fits)
    found = [table for header in headers if (table := store.read(KIND, header.config, read_bias)) is not None]
    if not found:
        return None
    most = max(found, key=lambda table: (len(table.codes), table.estimator == "exact"))
    return ImpactTable(model, *ppl, most, stored_task(model_id, store))


def filling(text: TextConfig, config: BiasConfig, model_id: ModelId, model: str, store: Store) -> ImpactTable | None:
    """Scores while they are being made: previews, and in their place the heads that were removed so far.

    None until there is a preview of both impacts. Never loads a model.
    """
    toxicity = store.read(KIND, bias_key(config, model_id, "first-order"), read_bias)
    if toxicity is None:
        return None
    key = ppl_key(text, model_id)
    if (whole := store.read(KIND, key, _shaped_ppl)) is not None:
        n_layers, n_heads, ppl = whole
    elif (rough := store.read(KIND, ppl_key(PREVIEW_TEXT, model_id, "preview"), _shaped_ppl)) is not None:
        n_layers, n_heads, ppl = rough
        ppl = _filled_ppl(ppl, _parts(store, key))
    else:
        return None
    rows = _parts(store, bias_key(config, model_id, "exact"))
    rows |= _parts(store, bias_key(config, model_id, "refined"))
    ablated, exact = toxicity.ablated.copy(), np.zeros(len(toxicity.ablated), dtype=bool)
    for flat, values in rows.items():
        if flat >= 0 and values.size == ablated[flat].size:
            ablated[flat], exact[flat] = values.reshape(ablated.shape[2], -1).T, True
    toxicity = replace(toxicity, ablated=ablated, exact=exact)
    return ImpactTable(model, n_layers, n_heads, ppl, toxicity, stored_task(model_id, store))


def _filled_ppl(preview: PplImpacts, rows: dict[int, np.ndarray]) -> PplImpacts:
    z, removed = preview.z_nats.copy(), np.zeros(len(preview.sums), dtype=bool)
    if -1 in rows:  # blocks of a window are full but for its last
        targets = np.round(rows[-1].size * preview.base.counts.mean())
        for flat, sums in rows.items():
            if flat >= 0:
                z[flat], removed[flat] = (sums - rows[-1]).sum() / targets, True
    return replace(preview, preview=z, removed=removed)


def _parts(store: Store, key: dict[str, Any]) -> dict[int, np.ndarray]:
    """Values of the finished heads of unfinished work; -1 is the whole model."""
    parts = store.parts(KIND, key)
    found = {}
    for name in parts.names():
        if name.startswith(("base", "head-")) and (part := parts.load(name)) is not None:
            found[-1 if name == "base" else int(name.removeprefix("head-"))] = part["values"]
    return found


def read_ppl(entry: Entry) -> PplImpacts:
    """The stored form back into numbers."""
    a = entry.arrays
    base = Nll(a["base_sums"], a["counts"].astype(np.int64))
    made = entry.meta["provenance"]
    text = entry.meta.get("text", BOLD), entry.config.get("tokens", 0), entry.config.get("window", 0)
    return PplImpacts(base, a["sums"], a["magnitude"], a["gradient"], made, a.get("preview"), text=text)


def _shaped_ppl(entry: Entry) -> tuple[int, int, PplImpacts]:
    """Layers, heads in a layer, and the numbers."""
    return entry.meta["n_layers"], entry.meta["n_heads"], read_ppl(entry)


def read_bias(entry: Entry) -> BiasImpacts:
    """The stored form back into numbers."""
    a, c, m = entry.arrays, entry.config, entry.meta
    codes, ablated = a["codes"].astype(np.int64), a["ablated"].astype(np.float64)
    first = checked = None
    if "checked" in a:
        first, checked = ablated, a["checked"].astype(np.int64)
        ablated = corrected(first, a["errors"].astype(np.float64), a["exact"].astype(bool), checked, codes)
    return BiasImpacts(
        c["measure"],
        c["axis"],
        c["split"],
        c["scorer"],
        tuple(m["readings"]),
        a["base"].astype(np.float64),
        ablated,
        codes,
        tuple(m["groups"]),
        m["provenance"],
        blocks=a["blocks"].astype(np.int64) if "blocks" in a else None,
        exact=a["exact"].astype(bool),
        estimator=c["estimator"],
        first=first,
        checked=checked,
    )


def corrected(
    first: np.ndarray, errors: np.ndarray, exact: np.ndarray, checked: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """[N, R, n] rows of two-phase scores: exact where there are any, else first-order plus their group's mean error.

    Parameters
    ----------
    first : [N, R, n] first-order rows.
    errors : [E, R, m] exact minus first-order, of the E heads that were removed (`exact` [N] bool).
    checked : [m] the prompts on which they were.
    """
    move = np.stack([errors[..., codes[checked] == g].mean(-1) for g in range(int(codes.max()) + 1)], -1)  # [E, R, G]
    out = first.copy()
    out[exact] += move[..., codes]
    out[np.ix_(exact, np.arange(first.shape[1]), checked)] = first[exact][..., checked] + errors
    return out


def read_task(entry: Entry) -> TaskImpacts:
    """The stored form back into numbers."""
    a = entry.arrays
    base, ablated, ids = a["base"].astype(np.float64), a["ablated"].astype(np.float64), a["rows"]
    if ablated.shape[1:] != base.shape or base.shape != ids.shape:
        raise DamagedEntry(entry.path, "its values are of other passages")
    return TaskImpacts(base, ablated, ids, entry.config["estimator"], entry.meta["provenance"])


def stored_task(model_id: ModelId, store: Store) -> TaskImpacts | None:
    """The best of what is stored: two-phase, else exact, else first-order, each of the most passages."""
    wanted = {**model_id.wanted(), **TASK_SCORE}
    best: dict[str, TaskImpacts] = {}
    for header in sorted(store.find(KIND, wanted), key=lambda entry: -entry.config["items"]):
        if header.config["estimator"] not in best and (found := store.read(KIND, header.config, read_task)) is not None:
            best[found.estimator] = found
    exact, first = best.get("exact"), best.get("first-order")
    if exact is None or first is None:
        return exact or first
    return two_phase(first, exact) or exact


def two_phase(first: TaskImpacts, exact: TaskImpacts) -> TaskImpacts | None:
    """First order on many passages, corrected by its errors on the exact ones among them; None if not all are."""
    at = {int(row): i for i, row in enumerate(first.rows)}
    places = [at.get(int(row)) for row in exact.rows]
    if None in places or len(places) == len(first.rows):
        return None
    errors = exact.ablated - first.ablated[:, np.array(places, dtype=int)]
    return replace(first, estimator="two-phase", errors=errors)


# --- rows that are known ---


def row_ids(rows: Iterable[Sequence[int]], *more: int) -> np.ndarray:
    """[n] int64, a hash of each row of token ids (and of whatever else shapes all of them)."""
    digests = (hashlib.sha256(repr((list(map(int, row)), more)).encode()).digest()[:8] for row in rows)
    return np.frombuffer(b"".join(digests), dtype=np.int64)


class KnownRows:
    """Rows of earlier runs by head and row hash; of several the first stays.

    Values of a row are an array of any one shape, such as [R] readings or [blocks] sums.
    """

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, np.ndarray]] = {}

    def add(self, flat: int, ids: Iterable[int], values: Iterable[np.ndarray]) -> None:
        """Take over rows of one head (-1: of the whole model)."""
        kept = self._rows.setdefault(flat, {})
        for row, value in zip(ids, values, strict=True):
            kept.setdefault(int(row), value)

    def get(self, flat: int, ids: Iterable[int]) -> list[np.ndarray | None]:
        """For each row its values, None where they are not known."""
        kept = self._rows.get(flat, {})
        return [kept.get(int(row)) for row in ids]


def known_toxicity(store: Store, key: dict[str, Any]) -> KnownRows:
    """Rows of all stored scores that differ from `key` in prompts and estimator only; first-order rows left out."""
    known = KnownRows()
    free = {"estimator", "prompts", "rows", "axis", "split"}
    for arrays in _like(store, key, free, {"rows", "base", "exact", "ablated"}):
        known.add(-1, arrays["rows"], arrays["base"].T)
        for flat in np.flatnonzero(arrays["exact"]):
            known.add(int(flat), arrays["rows"], arrays["ablated"][flat].T)
    return known


def known_nll(store: Store, key: dict[str, Any]) -> KnownRows:
    """Rows of all stored exact scores of the same model on any text."""
    known = KnownRows()
    free = {"text", "tokens", "skip", "window", "stride"}
    for arrays in _like(store, key, free, {"rows", "row_blocks", "base_sums", "sums"}):
        cuts = np.cumsum(arrays["row_blocks"])[:-1]
        known.add(-1, arrays["rows"], np.split(arrays["base_sums"], cuts))
        for flat, sums in enumerate(arrays["sums"]):
            known.add(flat, arrays["rows"], np.split(sums, cuts))
    return known


def _like(store: Store, key: dict[str, Any], free: set[str], needed: set[str]) -> Iterator[dict[str, np.ndarray]]:
    """Arrays of the entries that differ from `key` in free settings only, where all that is needed is there."""
    wanted = {name: value for name, value in key.items() if name not in free}
    for entry in store.entries(KIND):
        if {name: value for name, value in entry.config.items() if name not in free} == wanted:
            try:
                arrays = entry.arrays
            except (InputError, OSError):  # damaged or gone: done without
                continue
            if needed <= arrays.keys():
                yield arrays
