"""Released score files: what becomes of their numbers, and what is refused with file and place."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core import released as published
from fasp_core.errors import InputError
from fasp_core.heads.selection import HeadScores, select


def listed(scores: HeadScores, name: str) -> list[float]:
    return getattr(scores, name).tolist()


# --- released files


def write_json(folder: Path, content: Any) -> Path:
    path = folder / "head_contributions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


HEADER = ("Group", "Bias", "Model", "Head id", "Seed", "Split", "PPL")


def write_csv(folder: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] = HEADER) -> Path:
    path = folder / "head_scores.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_json_becomes_scores_in_our_signs(tmp_path: Path) -> None:
    scores = {
        "cont_to_ppl": [9, 8, 7, 6],
        "cont_to_age_bias": [0.1, 0.2, 0.3, 0.4],
        "magnitude_l2_structured": [1, 2, 3, 4],
        "mask_gradient_l2_structured": [5, 6, 7, 8],
    }
    file = published.read(write_json(tmp_path, {"tiny": scores, "bare": {"cont_to_ppl": [1]}}))
    assert (file.models, file.axes("tiny"), file.axes("bare")) == (("tiny", "bare"), ("age",), ())
    read = file.head_scores("tiny", "age", n_heads=2)
    assert (read.n_layers, read.n_heads) == (2, 2)
    assert listed(read, "z_ppl") == [9, 8, 7, 6]
    assert listed(read, "z_bias") == [-0.1, -0.2, -0.3, -0.4]
    assert listed(read, "magnitude") == [1, 2, 3, 4]
    assert listed(read, "gradient") == [5, 6, 7, 8]
    assert select(read, "fasp", 0.25, 0.25).pruned == (1,)
    bare = file.head_scores("bare", n_heads=1)
    assert bare.z_bias is bare.magnitude is bare.gradient is None


def test_missing_numbers_are_kept_and_refused_by_name_on_selection(tmp_path: Path) -> None:
    path = write_json(tmp_path, '{"m": {"cont_to_ppl": [1, NaN, null, 4], "cont_to_age_bias": [1, 2, 3, 4]}}')
    path.write_text(path.read_text(), encoding="utf-8-sig")  # with a byte order mark
    scores = published.read(path).head_scores("m", "age", n_heads=2)
    assert listed(scores, "z_ppl") == pytest.approx([1, np.nan, np.nan, 4], nan_ok=True)
    with pytest.raises(InputError, match="z_ppl is not a finite number for L0H1, L1H0:"):
        select(scores)
    assert select(scores, "bias-only", alpha=0.25).pruned == (0,)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "the file"),
        ("{}", "the file"),
        ('{"m": []}', "'m'"),
        ('{"m": {}}', "'m'"),
        ('{"m": {"cont_to_ppl": 3}}', "'m', 'cont_to_ppl'"),
        ('{"m": {"cont_to_ppl": []}}', "'m', 'cont_to_ppl'"),
        ('{"m": {"cont_to_ppl": {"0": 1}}}', "'m', 'cont_to_ppl'"),
        ('{"m": {"cont_to_ppl": [1, "2"]}}', "'m', 'cont_to_ppl', item 1"),
        ('{"m": {"cont_to_ppl": [1, [2]]}}', "'m', 'cont_to_ppl', item 1"),
        ('{"m": {"cont_to_ppl": [true, 2]}}', "'m', 'cont_to_ppl', item 0"),
        ('{"m": {"cont_to_ppl": [1%s]}}' % ("0" * 400), "'m', 'cont_to_ppl', item 0"),
        (
            '{"m": {"cont_to_ppl": [1, 2], "cont_to_age_bias": [1]}}',
            "'cont_to_age_bias' has 1 .* 'cont_to_ppl' 2",
        ),
    ],
)
def test_bad_json_is_refused_with_file_and_place(tmp_path: Path, content: str, place: str) -> None:
    path = write_json(tmp_path, content)
    with pytest.raises(InputError, match=place) as caught:
        published.read(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_opened_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="no file"):
            published.read(path)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        published.read(binary)
    monkeypatch.setattr(published.files, "MAX_BYTES", 2)
    with pytest.raises(InputError, match="larger than"):
        published.read(binary)


def test_models_axes_and_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    table = {"cont_to_ppl": [0.0] * 72, "cont_to_age_bias": [0.0] * 72}
    file = published.read(write_json(tmp_path, {name: table for name in ("gpt2", "distilgpt2", "other")}))
    assert file.head_scores("distilgpt2", "age").n_layers == 6
    assert file.head_scores("other", "age", n_heads=8).n_layers == 9
    for model, axis, n_heads, message in [
        ("gpt3", "age", None, "no model 'gpt3': it has gpt2, distilgpt2, other"),
        ("other", "religion", 12, "no axis 'religion' for other: it has age"),
        ("other", "age", None, "shape of 'other' is not known: give"),
        ("gpt2", "age", None, "not 12 layers of 12"),
        ("other", "age", 7, "not 10 layers of 7"),
        ("other", "age", 0, "layers of 0"),
        ("other", "age", 73, "not 0 layers of 73"),
    ]:
        with pytest.raises(InputError, match=message):
            file.head_scores(model, axis, n_heads)


def test_csv_averages_seeds_of_the_validation_rows(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [
        ("age", 0.2, "tiny", 1, 1, "valid", 20),
        ("age", 0.4, "tiny", 1, 2, "valid", 20),
        ("age", 9.9, "tiny", 1, 3, "test", 99),
        ("age", 0.5, "tiny", "2.0", 1, "valid", 30),
        ("age", "", "tiny", 2, 2, "valid", 30),
        ("age", 0.7, "tiny", 4, 1, "valid", 50),
        ("age", 0.1, "tiny", "", 1, "valid", 10),  # no head was removed
        ("religion", 0.6, "tiny", 4, 1, "valid", 58),
        ("religion", 0.6, "tiny", 4, 2, "valid", 50),
    ]
    file = published.read(write_csv(tmp_path, rows))
    assert (file.models, file.axes("tiny")) == (("tiny",), ("age", "religion"))
    scores = file.head_scores("tiny", "age", n_heads=2)
    assert scores.z_bias == pytest.approx([-0.3, -0.5, np.nan, -0.7], nan_ok=True)
    assert scores.z_ppl == pytest.approx([20, 30, np.nan, 50], nan_ok=True)  # head 4: median over both axes
    with pytest.raises(InputError, match="for L1H0:"):
        select(scores)


def test_csv_of_a_known_model_has_its_size_and_its_name_on_the_hub(tmp_path: Path) -> None:
    row = ("age", 0.2, "meta-llama_Llama-2-7b-chat-hf", 1, 1, "valid", 20)
    scores = published.read(write_csv(tmp_path, [row])).head_scores("meta-llama/Llama-2-7b-chat-hf", "age")
    assert (scores.n_layers, scores.n_heads) == (32, 32)
    assert scores.z_bias == pytest.approx([-0.2] + [np.nan] * 1023, nan_ok=True)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (("age", "low", "gpt2", 1, 1, "valid", 20), "line 3: .* column 'Bias', not 'low'"),
        (("age", 0.2, "gpt2", 1, 1, "valid", "x"), "line 3: .* column 'PPL', not 'x'"),
        (("age", 0.2, "gpt2", 0, 1, "valid", 20), "line 3: .* from 1 to 144 in column 'Head id', not '0'"),
        (("age", 0.2, "gpt2", 145, 1, "valid", 20), "line 3: .* from 1 to 144"),
        (("age", 0.2, "gpt2", 1.5, 1, "valid", 20), "line 3: .* 'Head id', not '1.5'"),
        (("age", 0.2, "gpt2", "nan", 1, "valid", 20), "line 3: .* 'Head id', not 'nan'"),
        (("age", 0.2, "tiny", 1e15, 1, "valid", 20), "line 3: .* 'Head id'"),
        (("age", 0.2, "gpt2", 1, 1, "valid"), "Row 3 has 6 cells and the header 7"),
        (("age", 0.2, "gpt2", 1, 1, "valid", 20, 1), "Row 3 has more cells than columns"),
        (("age", 0.2, "gpt2", 1, 1, "valid", "9" * 200_000), "Row 3 is not valid CSV"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(tmp_path: Path, row: tuple[Any, ...], place: str) -> None:
    path = write_csv(tmp_path, [("age", 0.2, "gpt2", 1, 1, "valid", 20), row])
    with pytest.raises(InputError, match=place) as caught:
        published.read(path)
    assert str(path) in str(caught.value)


def test_csv_without_what_is_needed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'Bias'"):
        published.read(write_csv(tmp_path, [], tuple(name for name in HEADER if name != "Bias")))
    with pytest.raises(InputError, match="no row of a head with Split 'valid'"):
        published.read(write_csv(tmp_path, [("age", 0.2, "gpt2", 1, 1, "test", 20)]))
