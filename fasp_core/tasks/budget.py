"""How many items of each task a time holds: the same number of all, by the speed on the first few of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from fasp_core.errors import InputError
from fasp_core.model.language_model import LanguageModel
from fasp_core.tasks import files
from fasp_core.tasks.answers import STEPS
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods
from fasp_core.typing import Report

TRIAL = 10  # items of each task that speed is measured on
EVEN = STEPS[0][1]  # sizes above it are whole multiples of it


@dataclass(frozen=True)
class Budget:
    """What a time holds.

    Attributes
    ----------
    minutes : that were asked for, for both models and all tasks.
    items : of each task, or all of a task that holds fewer.
    seconds_per_item : of one model, by task.
    estimated_minutes : that so many items take by that speed, if none of them is stored.
    """

    minutes: float
    items: int
    seconds_per_item: dict[str, float]
    estimated_minutes: float

    @property
    def said(self) -> str:
        """In a sentence, with what asks for the same again."""
        return (
            f"Items of each task in {self.minutes:g} minutes: {self.items:,}, for which both models take an estimated "
            f"{self.estimated_minutes:.2g} minutes by the speed on the first {TRIAL}; --items {self.items} asks for "
            "the same."
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "minutes": self.minutes,
            "items": self.items,
            "seconds_per_item": self.seconds_per_item,
            "estimated_minutes": self.estimated_minutes,
        }


def within(
    lm: LanguageModel, tasks: Sequence[str], minutes: float, seed: int = 0, progress: Report | None = None
) -> Budget:
    """How many items of each task both models answer in a time, at least one.

    All tasks have the same number, so that it says all that has to be repeated, and their intervals can be compared.

    Raises
    ------
    InputError
        No time, or a task that cannot be read.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"{minutes:g} minutes hold no item: give a number above 0.")
    speed, available = {}, {}
    for i, task in enumerate(tasks):
        if progress is not None:
            progress(i, len(tasks), f"{task}: how fast it goes")
        some = files.sample(task, TRIAL, seed)
        pairs = [encode_pair(lm, *pair) for item in some.items for pair in item.pairs]
        log_likelihoods(lm, pairs[:1])  # what is done once is not timed
        began = perf_counter()
        log_likelihoods(lm, pairs)
        speed[task] = (perf_counter() - began) / len(some.items)
        available[task] = some.available

    def seconds(items: int) -> float:
        return sum(2 * speed[task] * min(items, available[task]) for task in tasks)

    low, high = 1, max(available.values())
    while low < high:  # the most items that fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if seconds(middle) <= 60 * minutes else (low, middle - 1)
    if EVEN < low < max(available.values()):
        low -= low % EVEN
    return Budget(minutes, low, speed, seconds(low) / 60)
