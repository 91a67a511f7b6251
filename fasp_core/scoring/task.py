"""What removing each head does to the likelihood of LAMBADA's last word: `z_task`.

A mean over all tokens hardly shows heads that carry words over a distance; these passages are made of them. `z_task(h)`
is the mean rise of the last word's NLL, in nats, when head h is removed: as with `z_ppl`, positive means that the head
helps. Passages are those to choose on.

- *exact*: every head really removed, by the sweep that also makes z_ppl; hours for a large sample on a CPU.
- *first-order*: all heads at once from one backward pass, which fails for heads with large effects.
- *two-phase*: where both are stored and the exact passages are among the others: first order on the many, plus the mean
  error that it makes on the few (a difference estimator, without bias whatever the error).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from fasp_core.compute.shards import StopCheck, Workers
from fasp_core.forward.gate_gradients import log_ratio_gradients
from fasp_core.metrics.work import Endings, swept
from fasp_core.model.devices import sizes
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import two
from fasp_core.model.passes import in_halves
from fasp_core.scoring.entries import KIND, TASK_SCORE, KnownRows, read_task, row_ids, two_phase
from fasp_core.scoring.exact import collect, contents
from fasp_core.scoring.impact_table import TaskImpacts
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Store
from fasp_core.tasks.last_words import TASK, passages, rows
from fasp_core.typing import Report


def task_key(model_id: ModelId, items: int, seed: int = 0, estimator: str = "exact") -> dict[str, Any]:
    """Everything that shapes z_task, for the store."""
    sample = passages("valid", items, seed)
    more = {"items": len(sample.items), "seed": seed, "data": sample.digest}
    return {**model_id.key(), **TASK_SCORE, "estimator": estimator, **more}


def score_task(
    lm: LanguageModel,
    store: Store,
    items: int,
    exact: int = 0,
    progress: Report | None = None,
    workers: Workers | None = None,
) -> TaskImpacts:
    """z_task of all heads on `items` passages, every head being really removed on the first `exact` of them.

    Raises
    ------
    InputError
        No passage, or the data package is missing or damaged.
    """
    removed = exact_task(lm, exact, store, progress, workers=workers) if exact else None
    if removed is not None and removed.passages == len(passages("valid", items).items):
        return removed
    first = first_order_task(lm, items, store, progress)
    return first if removed is None else two_phase(first, removed) or removed


def load_task(model_id: ModelId, store: Store, items: int, exact: int = 0) -> TaskImpacts | None:
    """The same from what is stored, without the model; None if something is missing."""
    removed = store.read(KIND, task_key(model_id, exact), read_task) if exact else None
    first = store.read(KIND, task_key(model_id, items, estimator="first-order"), read_task)
    if exact >= items or not exact:
        return removed if exact else first
    return None if first is None or removed is None else two_phase(first, removed)


def exact_task(
    lm: LanguageModel,
    items: int,
    store: Store,
    progress: Report | None = None,
    seed: int = 0,
    workers: Workers | None = None,
) -> TaskImpacts:
    """z_task with every head really removed; finished heads are kept, and a stopped run goes on."""
    key = task_key(lm.id, items, seed)

    def work() -> Any:
        started = time.monotonic()
        found = rows(lm, passages("valid", items, seed))
        parts = store.parts(KIND, key)

        def compute(heads: list[int], missing: list[int], tell: StopCheck) -> Iterator[tuple[int, list[np.ndarray]]]:
            together = found.by_length(sizes(lm.device).tree)
            order = np.argsort(np.concatenate([members for members, _ in together]))
            batches = [Endings(ids, found.first[members]) for members, ids in together]
            assert len(missing) == len(order)  # a head is whole or not there
            for flat, readings in swept(lm, batches, heads, workers, parts, tell):
                yield flat, list(np.concatenate(readings)[order])

        ids, everything = row_ids(found.ids), list(range(lm.size))
        nats = collect(lm, everything, ids, KnownRows(), compute, parts, progress, "last words")
        table = np.stack([np.array(nats[flat], dtype=np.float64).reshape(-1) for flat in (-1, *everything)])
        return contents(lm, {"base": table[0], "ablated": table[1:], "rows": ids}, started, cut=found.cut)

    return store.made(KIND, key, work, read_task, label=f"{slug(lm.name)}--{TASK}")


def first_order_task(
    lm: LanguageModel, items: int, store: Store, progress: Report | None = None, seed: int = 0
) -> TaskImpacts:
    """z_task to first order, from one backward pass."""

    def work() -> Any:
        started = time.monotonic()
        found = rows(lm, passages("valid", items, seed))
        n, done = len(found.ids), 0
        base, ablated = np.empty(n), np.empty((lm.size, n))
        for members, ids in found.by_length(sizes(lm.device).backward):

            def run(part: np.ndarray, members: np.ndarray = members, ids: Any = ids) -> None:
                log_p, effects = log_ratio_gradients(lm, ids[part], found.first[members[part]])
                base[members[part]], ablated[:, members[part]] = -log_p, -(log_p[:, None] + effects).T

            in_halves(lm, run, np.arange(len(members)), two, "a single passage")
            done += len(members)
            if progress is not None:
                progress(done, n, f"first-order last words: {done} of {n} passages")
        return contents(lm, {"base": base, "ablated": ablated, "rows": row_ids(found.ids)}, started, cut=found.cut)

    key = task_key(lm.id, items, seed, "first-order")
    return store.made(KIND, key, work, read_task, label=f"{slug(lm.name)}--{TASK}-first-order")
