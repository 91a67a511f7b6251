"""What a prune set takes from what a model is able to do: both models on the same items of common tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import provenance
from fasp_core.storage.entry import DamagedEntry
from fasp_core.storage.store import Entry, Store
from fasp_core.tasks.files import Items
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods
from fasp_core.tasks.paired import INTERVALS, Paired, mean_change, paired
from fasp_core.typing import Floats, Report

KIND = "tasks"


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


@dataclass(frozen=True, eq=False)
class TaskChange:
    """One task before and after."""

    items: Items
    base: Answers
    pruned: Answers

    @property
    def accuracy(self) -> Paired:
        return paired(self.base.right, self.pruned.right, self.items.chance)

    @property
    def by_bytes(self) -> Paired | None:
        """None for last words, which are not compared with others."""
        if self.items.last_word:
            return None
        return paired(self.base.right_by_bytes, self.pruned.right_by_bytes, self.items.chance)

    @property
    def likelihood(self) -> dict[str, Any]:
        """Mean log-likelihood of the right answer and its change, see `mean_change`."""
        return mean_change(self.base.likelihood, self.pruned.likelihood)

    @property
    def sentence(self) -> str:
        """What may be said: of accuracy, and of the right answer's likelihood, which often shows a loss first."""
        found, nats = self.accuracy, self.likelihood
        if not found.tells:
            low, chance = 100 * found.base_interval[0], 100 * self.items.chance
            return (
                f"tells nothing: the unpruned model's interval begins at {low:.1f}%, not above chance ({chance:.1f}%)"
            )
        least, most = sorted(map(abs, found.interval))
        said = f"{'lost' if found.points < 0 else 'gained'} {least:.1f} to {most:.1f} points"
        if found.interval[0] <= 0 <= found.interval[1]:
            said = "no change of accuracy can be told"
        ends = nats["change_interval"]
        if ends is None or ends[0] <= 0 <= ends[1]:
            return said
        return (
            f"{said}; the right answer became {'less' if ends[1] < 0 else 'more'} likely ({nats['change']:+.2f} nats)"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        by_bytes = self.by_bytes
        return {
            "items": len(self.items.items),
            "available": self.items.available,
            "chance": self.items.chance,
            **self.accuracy.as_dict(),
            "by_bytes": None if by_bytes is None else by_bytes.as_dict(),
            "likelihood": self.likelihood,
            "cut": self.base.cut,
            "said": self.sentence,
        }


@dataclass(frozen=True, eq=False)
class Utility:
    """A prune set and what it does to each task."""

    prune_set: PruneSet
    seed: int
    asked: int
    tasks: dict[str, TaskChange]
    provenance: dict[str, Any]

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the items, one sentence each."""
        found = []
        for name, task in self.tasks.items():
            if len(task.items.items) < self.asked:
                found.append(f"{name} holds {task.items.available:,} items: all of them were taken.")
            if task.base.cut:
                found.append(f"{name}: {task.base.cut:,} items are too long for the model and lost their beginning.")
        return found

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "heads": [list(head) for head in self.prune_set],
            "prune_set": self.prune_set.format(),
            "heads_removed": len(self.prune_set.heads),
            "neurons_removed": len(self.prune_set.neurons),
            "heads_scaled": len(self.prune_set.gains),
            "seed": self.seed,
            "items": self.asked,
            "intervals": INTERVALS,
            "tasks": {name: task.as_dict() for name, task in self.tasks.items()},
            "notes": self.notes,
            "provenance": self.provenance,
        }


def utility(
    lm: LanguageModel,
    prune_set: PruneSet,
    samples: Sequence[Items],
    seed: int,
    asked: int,
    store: Store,
    progress: Report | None = None,
) -> Utility:
    """Measure the unpruned and the pruned model on samples of tasks; what is stored is not measured again.

    Parameters
    ----------
    seed, asked : with which the samples were drawn, and how many items of each were asked for.

    Raises
    ------
    InputError
        A head or neuron is not in the model, or an answer cannot be scored by it.
    """
    prune_set.gates(lm.n_layers, lm.n_heads)  # says so before anything is run
    prune_set.neuron_gates(lm.n_layers, lm.n_neurons)
    steps = [(items, side) for items in samples for side in (PruneSet(), prune_set)]
    found: list[Answers] = []
    for i, (items, side) in enumerate(steps):

        def inner(done: float, total: float, text: str, i: int = i, task: str = items.task) -> None:
            if progress is not None:
                progress(i + done / max(total, 1), len(steps), f"{task}: {text}")

        found.append(answers_of(lm, side, items, seed, store, inner))
    if progress is not None:
        progress(len(steps), len(steps), "done")
    tasks = {items.task: TaskChange(items, *found[2 * i : 2 * i + 2]) for i, items in enumerate(samples)}
    seconds = sum(answers.provenance["seconds"] for answers in found)
    return Utility(prune_set, seed, asked, tasks, {**found[-1].provenance, "seconds": round(seconds, 1)})


def answers_of(
    lm: LanguageModel, prune_set: PruneSet, items: Items, seed: int, store: Store, progress: Report | None = None
) -> Answers:
    """What a model makes of a sample of a task with a set pruned; stored."""
    key = {
        **lm.id.key(),
        "task": items.task,
        "items": len(items.items),
        "seed": seed,
        "data": items.digest,
        "heads": prune_set.format(),
    }

    def work() -> Any:
        started = time.monotonic()
        pairs = [
            encode_pair(lm, context, continuation)
            for item in items.items
            for context, continuation in zip(item.contexts, item.continuations, strict=True)
        ]
        with masked(lm, prune_set):
            got = log_likelihoods(lm, pairs, progress)
        arrays = {"values": got.values, "greedy": got.greedy, "cut": got.cut}
        return {"arrays": arrays, "meta": {"provenance": provenance(lm, time.monotonic() - started)}}

    def read(entry: Entry) -> Answers:
        values, greedy, cut = (entry.arrays[name] for name in ("values", "greedy", "cut"))
        if any(array.shape != (sum(len(i.continuations) for i in items.items),) for array in (values, greedy, cut)):
            raise DamagedEntry(entry.path, "its values are of other answers")
        return Answers.of(items, values, greedy, cut, entry.meta["provenance"])

    return store.made(KIND, key, work, read, label=f"{lm.name.rsplit('/', 1)[-1]}--{items.task}")
