"""Sizes by a time: as many items as fit by the speed that was seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fasp_core.errors import InputError
from fasp_core.tasks import budget
from fasp_core.tasks.likelihood import log_likelihoods
from tests.support.made import tiny_questions, write_task
from tests.support.made.tasks import use_tasks
from tests.support.tiny import tiny_lm


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock by which an answer takes so many seconds."""
    use_tasks(tmp_path, monkeypatch, 400)
    write_task(tmp_path, "sciq", tiny_questions(30, 2))
    now = [0.0]
    monkeypatch.setattr(budget, "perf_counter", lambda: now[0])

    def an_answer_takes(seconds: float) -> None:
        def timed(lm: object, pairs: list[object]) -> object:
            now[0] += seconds * len(pairs)
            return log_likelihoods(lm, pairs)  # type: ignore[arg-type]

        monkeypatch.setattr(budget, "log_likelihoods", timed)

    return an_answer_takes


@pytest.mark.parametrize(
    ("minutes", "items"),
    [(0.001, 1), (1, 10), (2.05, 20), (7, 50), (9, 75), (30, 300), (1000, 400)],
)
def test_the_most_items_that_fit(clock: Callable[[float], None], minutes: float, items: int) -> None:
    clock(1.0)  # a second an answer, and two models: of lambada and piqa, 2 x (1 + 2) a number of items
    found = budget.within(tiny_lm("llama"), ("lambada", "piqa"), minutes)
    assert found.items == items
    assert found.seconds_per_item == pytest.approx({"lambada": 1, "piqa": 2})
    assert found.estimated_minutes == pytest.approx(6 * items / 60)
    assert found.estimated_minutes <= minutes or items == 1
    assert f"--items {items}" in found.said


def test_a_small_task_leaves_its_time_to_others(clock: Callable[[float], None]) -> None:
    clock(1.0)
    found = budget.within(tiny_lm("llama"), ("lambada", "sciq"), 4)
    assert found.items == 50  # 2 x (60 + 2 x 30) seconds hold 60: a multiple of 25
    assert found.estimated_minutes == pytest.approx(2 * (50 + 60) / 60)


@pytest.mark.parametrize("minutes", [0, -1, math.nan, math.inf])
def test_no_time_holds_nothing(clock: Callable[[float], None], minutes: float) -> None:
    with pytest.raises(InputError, match="a number above 0"):
        budget.within(tiny_lm("llama"), ("piqa",), minutes)
