"""Answers in parts: a larger sample takes over a smaller one's, and what is stored is found without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core import defaults
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.storage.store import Store
from fasp_core.tasks import answers, files, utility
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods
from tests.support.made.tasks import add_answers, use_tasks
from tests.support.tiny import tiny_lm

HEADS = PruneSet.parse("L0H1,L1H2")
ITEM = files.Item(("a",), (" b",), 0)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    use_tasks(tmp_path / "tasks", monkeypatch, 260)
    return Store(tmp_path / "cache")


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_parts_of_a_larger_sample_are_those_of_a_smaller_one(few: int, many: int) -> None:
    few, many = sorted((few, many))
    ends = []
    for n in (few, many):
        found = answers.parts(files.Items("piqa", (ITEM,) * n, 9999))
        assert sum(len(part.items) for part in found) == n
        ends.append([len(part.items) for part in found])
    assert ends[0][:-1] == ends[1][: len(ends[0]) - 1]
    assert ends[0][-1] <= ends[1][len(ends[0]) - 1]
    assert max(ends[1]) <= answers.LONGEST
    assert len(ends[1]) <= 20


def test_more_items_measure_only_what_is_new(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, asked = tiny_lm("llama"), []

    def counted(lm: Any, pairs: Any, progress: Any) -> Any:
        asked.append(len(pairs))
        return log_likelihoods(lm, pairs, progress)

    monkeypatch.setattr(answers, "log_likelihoods", counted)
    said: list[tuple[float, float]] = []
    sizes, found = (25, 100, 200, 260), []
    for n in sizes:
        found.append(
            answers.answers_of(lm, HEADS, files.sample("piqa", n), 0, store, lambda a, b, _: said.append((a, b)))
        )
    assert sum(asked) == 2 * 260
    for n, one in zip(sizes, found, strict=True):
        np.testing.assert_array_equal(one.right, found[-1].right[:n])
        np.testing.assert_array_equal(one.likelihood, found[-1].likelihood[:n])
    assert all(0 <= done <= total for done, total in said)
    assert said[-1] == (260, 260)
    # and they are what one call for all of them gives
    whole = files.sample("piqa", 260)
    with answers.masked(lm, HEADS):
        values = log_likelihoods(lm, [encode_pair(lm, *pair) for item in whole.items for pair in item.pairs]).values
    own = values.reshape(-1, 2)
    assert found[-1].likelihood == pytest.approx(
        [row[i.right] for row, i in zip(own, whole.items, strict=True)], abs=1e-4
    )


def test_a_stopped_measurement_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, sample, asked = tiny_lm("llama"), files.sample("lambada", 100), []

    def stops(lm: Any, pairs: Any, progress: Any) -> Any:
        asked.append(len(pairs))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return log_likelihoods(lm, pairs, progress)

    monkeypatch.setattr(answers, "log_likelihoods", stops)
    with pytest.raises(KeyboardInterrupt):
        answers.answers_of(lm, HEADS, sample, 0, store)
    assert len(answers.answers_of(lm, HEADS, sample, 0, store).right) == 100
    assert asked == [25] * 5


@pytest.mark.parametrize("n", [1, 25, 40, 100, 175, 260])
def test_what_both_models_have_answered_is_found(store: Store, n: int) -> None:
    lm = tiny_lm("llama")
    assert utility.stored(lm.id, HEADS, store) is None
    add_answers(store, lm.id, HEADS, "piqa", n, 3)
    add_answers(store, lm.id, HEADS, "lambada", 25, 0)
    add_answers(store, lm.id, PruneSet.parse("L0H0"), "piqa", 260, 3)  # of another set
    add_answers(store, lm.id, HEADS, "piqa", 260, 3, seed=1)  # of other items
    answers.answers_of(lm, PruneSet(), files.sample("arc_easy", 30), 0, store)  # of one model alone
    found = utility.stored(lm.id, HEADS, store)
    assert found is not None
    assert list(found.tasks) == ["lambada", "piqa"]
    piqa = found.tasks["piqa"]
    assert piqa.items == files.sample("piqa", n)
    assert piqa.base.right.all()
    assert piqa.pruned.right.tolist() == [i % 10 >= 3 for i in range(n)]
    assert found.asked == max(n, 25)
    assert found.holds(["piqa"], n)
    assert found.holds(["piqa"], 9999) == (n == 260)
    assert not found.holds(defaults.TASKS, 1)
    only = utility.stored(lm.id, HEADS, store, ("arc_easy", "piqa"))
    assert only is not None
    assert list(only.tasks) == ["piqa"]


def test_a_damaged_part_ends_what_is_found(store: Store) -> None:
    lm = tiny_lm("llama")
    add_answers(store, lm.id, HEADS, "piqa", 100, 3)
    third = answers.parts(files.sample("piqa", 100))[2]
    path = store.path(answers.KIND, answers.key(lm.id, HEADS, third, 0))
    (path / "arrays.safetensors").write_bytes(b"")
    found = utility.stored(lm.id, HEADS, store)
    assert found is not None
    assert len(found.tasks["piqa"].items.items) == 50


def test_without_the_tasks_files_nothing_is_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_answers(store, tiny_lm("llama").id, HEADS, "piqa", 25, 3)

    def missing() -> Path:
        raise InputError("It is not installed.")

    monkeypatch.setattr(files, "folder", missing)
    files._read.cache_clear()
    assert utility.stored(tiny_lm("llama").id, HEADS, store) is None


def test_what_is_lost_for_sure_is_said(store: Store) -> None:
    lm = tiny_lm("llama")
    add_answers(store, lm.id, HEADS, "lambada", 100, 2)
    add_answers(store, lm.id, HEADS, "piqa", 100, 0)
    found = utility.stored(lm.id, HEADS, store)
    assert found is not None
    (said,) = found.lost
    low, high = found.tasks["lambada"].accuracy.interval
    assert said == f"LAMBADA lost {-high:.1f} to {-low:.1f} points"
