"""Files of prompts: what is read, what is refused with its place, and by which names axes go."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.data.groups import alike, clean, is_missing
from fasp_core.data.holistic_bias import load_axis
from fasp_core.data.prompts import from_csv, resolve_axis
from fasp_core.errors import InputError


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("text", "group"), *rows])
    return file.getvalue().encode()


# --- files ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The table is empty"),
        (b"text,group\n", "no prompts"),
        (b"text,group\n\n,\n", "no prompts"),
        (b"text,label\na,x\n", "Row 1 has no column 'group'"),
        (b"a,x\nb,y\n", "Row 1 has no column 'text'"),
        (b"text,group,Text\na,x,b\n", "Row 1 has the column 'text' more than once"),
        (b"text,group\na,x\n ,y\n", "Row 3, column 'text' is empty"),
        (b"text,group\na,x\nb,\n", "Column 'group' holds only 'x': give prompts of at least two groups. 1 of 2 rows"),
        (b"text,group\na,x\nb\n", "Row 3 has 1 cell and the header 2"),
        (b"text,group\na,x\nNaN,y\n", "Row 3, column 'text' is empty ('NaN')"),
        (b"text,group\na,x\nb, c,y\n", "Row 3 has more cells than columns"),
        (b"text,group\na,x\nb,x\n", "Column 'group' holds only 'x'"),
        (b"text,group\na,x\nb,none\n", "Column 'group' holds only"),
        (b"text,group\na,x\nb\xe9,y\n", "Row 3, column 'text' is not UTF-8"),
        (b'text,group\n"a\nb",x\nb,y\xff\n', "Row 3, column 'group' is not UTF-8"),
        (
            "text,group\na,x\nb,y\n".encode("utf-16-le"),
            "The CSV file 'mine' looks like UTF-16 without a byte order mark",
        ),
        ("text,group\na,x\nb,y\n".encode("utf-16")[:-1], "The CSV file 'mine' is not UTF-16 (byte 38)"),
        (b"PK\x03\x04 and so on", "The CSV file 'mine' is a workbook"),
        (b"text,group\na,x\n" + b"b" * 1001 + b",y\n", "Row 3, column 'text' is 1001 characters"),
        (b"text,group\na,x\nb," + b"y" * 1001 + b"\n", "Row 3, column 'group' is 1001 characters"),
        (b'text,group\na,x\n"b,y\n', "Row 3 is not valid CSV"),
        (b"text,group\na,x\n" + b"b" * 200_000 + b",y\n", "Row 3 is not valid CSV"),
        (b"text,group\na,x\nb,y\na,y\n", "Row 4, column 'group': row 2 has the same text in the group 'x'"),
    ],
)
def test_csv_errors_name_the_place(content: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_csv(content, "mine")
    assert message in str(caught.value)
    assert str(caught.value).endswith(".")
    str(caught.value).encode()  # can be printed


def test_csv_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_csv([("a", "x"), ("b", "y")])
    monkeypatch.setattr("fasp_core.data.prompts.MAX_BYTES", len(content))
    assert len(from_csv(content, "mine")) == 2
    with pytest.raises(InputError, match="larger than"):
        from_csv(content + b"\n", "mine")


def test_csv_from_bytes_text_and_path_is_the_same(tmp_path: Path) -> None:
    content = "\ufeffGroup, id ,TEXT\r\nx,1,\" I'm Bahá'í, you see. \"\r\n\r\ny,2,b,\r\ny,3,b\r\n".encode()
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    read = from_csv(path, "mine")
    assert read.texts == ("I'm Bahá'í, you see.", "b")
    assert read.groups == ("x", "y")
    assert read.templates == ("", "")
    assert read.notes == ("1 repeated row was dropped.",)
    assert read == from_csv(content, "mine") == from_csv(content.decode(), "mine") == resolve_axis(str(path))


cells = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).map(str.strip)
cells = cells.filter(lambda cell: not is_missing(clean(cell)))


@settings(deadline=None)
@given(st.dictionaries(cells, cells.map(clean), min_size=2, max_size=20))
def test_csv_round_trip(groups_of: dict[str, str]) -> None:
    rows = list(groups_of.items())
    if len(set(groups_of.values())) < 2:
        with pytest.raises(InputError, match="two groups"):
            from_csv(as_csv(rows), "mine")
        return
    read = from_csv(as_csv(rows), "mine")
    assert list(zip(read.texts, read.groups, strict=True)) == rows
    assert (read.axis, read.split, list(read.notes)) == ("mine", "all", alike(read.groups))
    again = from_csv(as_csv(rows + rows), "mine")
    assert again.texts == read.texts
    assert len(again.notes) == 1 + len(read.notes)


# --- names ---


def test_axes_resolve_by_name_or_file(tmp_path: Path) -> None:
    assert resolve_axis("religion") is load_axis("religion")
    with pytest.raises(InputError, match=r"gender_and_sex.*religion.*\.csv"):
        resolve_axis("gender")
    with pytest.raises(InputError, match="path of a CSV file"):
        resolve_axis(str(tmp_path / "missing.csv"))
    with pytest.raises(InputError, match="path of a CSV file"):
        resolve_axis("a\0b.csv")
