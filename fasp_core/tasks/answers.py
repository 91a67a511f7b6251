"""What one model makes of a sample of a task: measured and stored in parts, so that more items take over fewer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import provenance
from fasp_core.storage.entry import DamagedEntry
from fasp_core.storage.store import Entry, Store
from fasp_core.tasks.files import Items
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods
from fasp_core.typing import Floats, Report

KIND = "tasks"
STEPS = ((100, 25), (1000, 100))  # below so many items, parts of so many
LONGEST = 500  # items of a part beyond
Known = dict[str, dict[str, int]]  # task -> digest of a part's items -> how many they are


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model makes of n items.

    Attributes
    ----------
    right : [n] bool, whether the right answer is the likeliest (of equals the first); of a last word, whether the
        model would write it.
    right_by_bytes : [n] bool, the same by log-likelihood a byte of the answer.
    likelihood : [n] log-likelihood of the right answer, in nats.
    cut : items whose context lost its beginning, the model taking no more.
    """

    right: np.ndarray
    right_by_bytes: np.ndarray
    likelihood: Floats
    cut: int
    provenance: dict[str, Any]

    @classmethod
    def of(cls, items: Items, values: Floats, greedy: np.ndarray, cut: np.ndarray, made: dict[str, Any]) -> Answers:
        """From what was measured of all answers, [sum of answers] each."""
        starts = np.cumsum([0, *(len(item.continuations) for item in items.items)])
        right, by_bytes, likelihood, short = [], [], [], 0
        for item, start, end in zip(items.items, starts, starts[1:], strict=False):
            own = values[start:end]
            likelihood.append(own[item.right])
            short += bool(cut[start:end].any())
            if len(own) == 1:
                right.append(bool(greedy[start]))
                by_bytes.append(bool(greedy[start]))
            else:
                right.append(int(own.argmax()) == item.right)
                by_bytes.append(int((own / item.sizes).argmax()) == item.right)
        return cls(np.array(right), np.array(by_bytes), np.array(likelihood), short, made)


def parts(items: Items) -> list[Items]:
    """A sample as it is stored: short parts first, at the same places whatever its size, but for the last end."""
    found, at = [], 0
    while at < len(items.items):
        size = next((size for below, size in STEPS if at < below), LONGEST)
        found.append(replace(items, items=items.items[at : at + size]))
        at += size
    return found


def answers_of(
    lm: LanguageModel, prune_set: PruneSet, items: Items, seed: int, store: Store, progress: Report | None = None
) -> Answers:
    """What a model makes of a sample of a task with a set pruned; stored.

    A stopped measurement goes on where it was, and a larger sample of the same seed takes over the items of a smaller.
    """
    entries, done = [], 0
    for part in parts(items):

        def inner(ready: float, total: float, _text: str, at: int = done, n: int = len(part.items)) -> None:
            if progress is not None:
                now = at + n * ready / max(total, 1)
                progress(now, len(items.items), f"{now:.0f} of {len(items.items)} items")

        entries.append(_measured(lm, prune_set, part, seed, store, inner))
        done += len(part.items)
    return _together(items, entries)


def read_answers(model_id: ModelId, prune_set: PruneSet, items: Items, seed: int, store: Store) -> Answers | None:
    """The stored answers to all of a sample; None where one part is missing. Never loads a model."""
    entries = []
    for part in parts(items):
        if (entry := _read(model_id, prune_set, part, seed, store)) is None:
            return None
        entries.append(entry)
    return _together(items, entries)


def known(model_id: ModelId, prune_set: PruneSet, seed: int, store: Store) -> Known:
    """Which parts of which tasks are stored of a model both unpruned and with a set pruned; headers alone are read."""
    found: list[Known] = []
    for side in (PruneSet(), prune_set):
        mine: Known = {}
        which = model_id if len(side) else model_id.whole
        for entry in store.find(KIND, {**which.wanted(), "seed": seed, "heads": side.format()}):
            mine.setdefault(entry.config["task"], {})[entry.config["data"]] = entry.config["items"]
        found.append(mine)
    base, pruned = found
    return {
        task: {data: n for data, n in those.items() if data in pruned[task]}
        for task, those in base.items()
        if task in pruned
    }


def stored(
    model_id: ModelId, sides: Sequence[PruneSet], items: Items, seed: int, parts_known: dict[str, int], store: Store
) -> tuple[Items, list[Answers]] | None:
    """The answers of all sides to the longest beginning of a sample that is stored; None if it has no item.

    Parameters
    ----------
    items : as many as may be taken.
    parts_known : of the task, see `known`.
    """
    taken: list[Items] = []
    entries: list[list[Entry]] = [[] for _ in sides]
    for part in parts(items):
        sizes = sorted({n for n in parts_known.values() if n <= len(part.items)}, reverse=True)
        shorter = (replace(part, items=part.items[:n]) for n in sizes)
        fit = next((some for some in shorter if some.digest in parts_known), None)
        if fit is None:
            break
        both = [_read(model_id, side, fit, seed, store) for side in sides]
        if any(entry is None for entry in both):  # damaged
            break
        taken.append(fit)
        for of_side, entry in zip(entries, both, strict=True):
            of_side += [entry] if entry is not None else []
        if len(fit.items) < len(part.items):
            break
    if not taken:
        return None
    whole = replace(items, items=tuple(item for some in taken for item in some.items))
    return whole, [_together(whole, of_side) for of_side in entries]


def _measured(
    lm: LanguageModel, prune_set: PruneSet, part: Items, seed: int, store: Store, progress: Report | None
) -> Entry:
    def work() -> Any:
        started = time.monotonic()
        pairs = [encode_pair(lm, *pair) for item in part.items for pair in item.pairs]
        with masked(lm, prune_set):
            got = log_likelihoods(lm, pairs, progress)
        arrays = {"values": got.values, "greedy": got.greedy, "cut": got.cut}
        return {"arrays": arrays, "meta": {"provenance": provenance(lm, time.monotonic() - started)}}

    label = f"{lm.name.rsplit('/', 1)[-1]}--{part.task}"
    named = key(lm.id, prune_set, part, seed)
    return store.made(KIND, named, work, lambda entry: _checked(part, entry), label=label)


def _read(model_id: ModelId, prune_set: PruneSet, part: Items, seed: int, store: Store) -> Entry | None:
    return store.read(KIND, key(model_id, prune_set, part, seed), lambda entry: _checked(part, entry))


def key(model_id: ModelId, prune_set: PruneSet, part: Items, seed: int) -> dict[str, Any]:
    """Everything that shapes the answers to a part, for the store."""
    return {
        **(model_id if len(prune_set) else model_id.whole).key(),
        "task": part.task,
        "items": len(part.items),
        "seed": seed,
        "data": part.digest,
        "heads": prune_set.format(),
    }


def _checked(part: Items, entry: Entry) -> Entry:
    """The entry; it is damaged if it holds values of other answers."""
    if any(entry.arrays[name].shape != (part.answers,) for name in ("values", "greedy", "cut")):
        raise DamagedEntry(entry.path, "its values are of other answers")
    return entry


def _together(items: Items, entries: Sequence[Entry]) -> Answers:
    values, greedy, cut = (np.concatenate([e.arrays[name] for e in entries]) for name in ("values", "greedy", "cut"))
    made = [entry.meta["provenance"] for entry in entries]
    seconds = round(sum(one["seconds"] for one in made), 1)
    return Answers.of(items, values, greedy, cut, {**made[-1], "seconds": seconds})
