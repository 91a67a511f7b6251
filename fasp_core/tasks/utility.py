"""What a prune set takes from what a model is able to do: both models on the same items of common tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.tasks import answers, files
from fasp_core.tasks.answers import Answers, answers_of
from fasp_core.tasks.files import Items
from fasp_core.tasks.paired import INTERVALS, Paired, mean_change, paired
from fasp_core.typing import Report


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
    def lost(self) -> str:
        """By how many points accuracy fell, as a clause; "" where no fall is shown."""
        found = self.accuracy
        if not found.tells or found.interval[1] >= 0:
            return ""
        return f"lost {-found.interval[1]:.1f} to {-found.interval[0]:.1f} points"

    @property
    def sentence(self) -> str:
        """What may be said: of accuracy, and of the right answer's likelihood, which often shows a loss first."""
        found, nats = self.accuracy, self.likelihood
        if not found.tells:
            low, chance = 100 * found.base_interval[0], 100 * self.items.chance
            return (
                f"tells nothing: the unpruned model's interval begins at {low:.1f}%, not above chance ({chance:.1f}%)"
            )
        said = self.lost or "no change of accuracy can be told"
        if found.interval[0] > 0:
            said = f"gained {found.interval[0]:.1f} to {found.interval[1]:.1f} points"
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

    def holds(self, tasks: Sequence[str], items: int) -> bool:
        """Whether these tasks were asked, so many items of each or all that there are."""
        known = {name: task.items for name, task in self.tasks.items()}
        return all(name in known and len(known[name].items) >= min(items, known[name].available) for name in tasks)

    @property
    def lost(self) -> tuple[str, ...]:
        """What accuracy was lost for sure, a clause each."""
        return tuple(f"{files.TITLES.get(name, name)} {task.lost}" for name, task in self.tasks.items() if task.lost)

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the items, one sentence each."""
        found = []
        for name, task in self.tasks.items():
            if len(task.items.items) == task.items.available < self.asked:
                found.append(f"{name} holds {task.items.available:,} items: all of them were taken.")
            if task.items.seen:
                found.append(f"{name}: {task.items.seen:,} items are of the half that choices may have been made on.")
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
    return Utility(prune_set, seed, asked, tasks, _made(tasks))


def stored(
    model_id: ModelId, prune_set: PruneSet, store: Store, tasks: Sequence[str] | None = None, seed: int = 0
) -> Utility | None:
    """All that is stored of what a set does to tasks, as many items of each as both models have answered.

    None where nothing is, or where the tasks' files are not installed any more. Never loads a model.

    Parameters
    ----------
    tasks : those to look for, in this order; None: all, as `files.TASKS` has them.
    """
    known = answers.known(model_id, prune_set, seed, store)
    if tasks is None:
        tasks = sorted(known, key=lambda task: (task not in files.TASKS, (*files.TASKS, task).index(task), task))
    found: dict[str, TaskChange] = {}
    for task in tasks:
        if task not in known:
            continue
        try:
            sample = files.sample(task, files.ALL, seed)
        except InputError:
            return None
        some = answers.stored(model_id, (PruneSet(), prune_set), sample, seed, known[task], store)
        if some is not None:
            found[task] = TaskChange(some[0], *some[1])
    if not found:
        return None
    return Utility(prune_set, seed, max(len(t.items.items) for t in found.values()), found, _made(found))


def _made(tasks: dict[str, TaskChange]) -> dict[str, Any]:
    """How the numbers were made, and the seconds of all of them, whenever that was."""
    made = [side.provenance for task in tasks.values() for side in (task.base, task.pruned)]
    return {**made[-1], "seconds": round(sum(one["seconds"] for one in made), 1)}
