"""Tables from outside, in every form in which spreadsheets and editors save them."""

from __future__ import annotations

import codecs
import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fasp_core import released
from fasp_core.data.prompts import from_csv
from fasp_core.data.text import load_text
from fasp_core.errors import InputError
from fasp_core.scoring import score_files
from fasp_core.storage import tabular

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
rows = st.lists(st.tuples(cells, cells, cells).filter(lambda row: any(c.strip() for c in row)), min_size=1, max_size=8)


def read(text: str, *needed: str) -> list[list[str]]:
    return [row.cells for row in tabular.table(text, needed or ("text", "group")).rows()]


@settings(deadline=None)
@given(
    rows,
    st.permutations(["text", " Group ", "note"]),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(
        [("\n", csv.QUOTE_ALL), ("\r", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL)]
    ),
    st.sampled_from(ENCODINGS),
    st.booleans(),
)
def test_what_csv_writes_is_read_back(
    body: list[tuple[str, str, str]],
    header: list[str],
    separator: str,
    form: tuple[str, int],
    encoding: str,
    told: bool,
) -> None:
    line_end, quoting = form
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator=line_end, quoting=quoting)
    writer.writerows([header, *body])
    written = (f"sep={separator}{line_end}" if told else "") + out.getvalue()
    assume(encoding != "utf-8" or not written.startswith("\ufeff"))
    text = tabular.decode(written.encode(encoding), "It")
    found = tabular.table(text, ("text", "group"))
    assert found.separator == separator
    assert [tuple(row.cells) for row in found.rows()] == body
    assert found.column == {"text": header.index("text"), "group": header.index(" Group ")}


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_infinity=False) | st.integers(-(10**6), 10**6), min_size=1, max_size=10),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([".", ","]),
    st.sampled_from(ENCODINGS),
)
def test_numbers_that_pandas_writes_are_read_back(
    values: list[float], separator: str, decimal: str, encoding: str
) -> None:
    frame = pd.DataFrame({"name": "x", "value": np.array(values, dtype=float)})
    written = frame.to_csv(index=False, sep=separator, decimal=decimal)
    table = tabular.table(tabular.decode(written.encode(encoding), "It"), ("name", "value"))
    listed = [row.cells[table.column["value"]] for row in table.rows()]
    try:
        mark = tabular.decimal_mark(listed)
    except InputError as error:
        assert "may be a decimal comma or thousands" in str(error)  # noqa: PT017
        assert decimal == ","
        return
    assert [tabular.number(cell, mark) for cell in listed] == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ('text,group\n"a; b; c",x\n', ","),
        ("text;group\na, b, c;x\n", ";"),
        ("text\tgroup\na; b, c\tx\n", "\t"),
        ('"text, or so";text;group\na;b;c\n', ";"),
        ("text,group;old\na,b\n", None),
        ("sep=;\ntext;group\na;x\n", ";"),
        ('"sep=;"\r\ntext;group\r\na;x\r\n', ";"),
        ("SEP=,\ntext;group\na;x\n", ";"),  # what the header says counts
        ("\n\n  ,  \nText , GROUP\na,x\n", ","),
        ("text|group\na|x\n", "|"),
        ("sep=:\ntext:group\na:x\n", ":"),
    ],
)
def test_the_header_tells_the_separator(text: str, separator: str | None) -> None:
    if separator is None:
        with pytest.raises(InputError, match="no column 'group', read with a comma between cells"):
            tabular.table(text, ("text", "group"))
        return
    table = tabular.table(text, ("text", "group"))
    assert table.separator == separator
    assert len(list(table.rows())) == 1


@pytest.mark.parametrize(("mark", "encoding"), tabular._MARKS)
def test_a_mark_says_the_encoding(mark: bytes, encoding: str) -> None:
    assert tabular.decode(mark + "téxt,group\n".encode(encoding), "It") == "téxt,group\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("text\n".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        (b"PK\x03\x04...", "a workbook or an archive"),
        (b"caf\xe9", r"not UTF-8 \(byte 3\): save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", r"not UTF-16 \(byte 2\)"),
        (codecs.BOM_UTF32_LE + b"aaaa", r"not UTF-32 \(byte 4\)"),
    ],
)
def test_what_is_no_text(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tabular.decode(content, "The file 'x'")


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["1.5", "2"], "."),
        (["1,5", "2"], ","),
        (["0,123"], ","),
        (["1.234,5"], ","),
        (["1,234.5", "1,234"], "."),
        (["1.234"], "."),
        (["1.234.567"], ","),
        (["1,5e-05", "-0,2"], ","),
        (["", "nan", "7"], "."),
    ],
)
def test_the_decimal_mark(cells: list[str], mark: str) -> None:
    assert tabular.decimal_mark(cells) == mark


def test_decimal_marks_that_cannot_be_told() -> None:
    with pytest.raises(InputError, match=r"'1\.5' has a decimal point and '2,5' a decimal comma"):
        tabular.decimal_mark(["1.5", "2,5"])
    with pytest.raises(InputError, match="'1,234' may be a decimal comma or thousands"):
        tabular.decimal_mark(["1,234", "7"])


@pytest.mark.parametrize(
    ("cell", "mark", "value"),
    [
        ("1,234.5", ".", 1234.5),
        ("1.234,5", ",", 1234.5),
        ("1\u202f234,5", ",", 1234.5),
        ("1'234.5", ".", 1234.5),
        ("\N{MINUS SIGN}3", ".", -3.0),
        ("1,5E-05", ",", 1.5e-5),
        (" 7 ", ",", 7.0),
    ],
)
def test_a_number(cell: str, mark: str, value: float) -> None:
    assert tabular.number(cell, mark) == value


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "NA", "n/a", "#N/A", "NULL", "None", "-", "<NA>"])
def test_a_missing_number(cell: str) -> None:
    assert math.isnan(tabular.number(cell))


@pytest.mark.parametrize("cell", ["x", "1,2,3", "12,34.5", "1;2", "#DIV/0!"])
def test_no_number(cell: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of float or our own
        tabular.number(cell)


# --- every reader


def dialects(rows: list[list[str]]) -> dict[str, bytes]:
    """The same table as spreadsheets of several countries and systems save it."""

    def of(
        separator: str, decimal: str = ".", line_end: str = "\r\n", first: str = "", encoding: str = "utf-8"
    ) -> bytes:
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter=separator, lineterminator=line_end)
        writer.writerows([[c.replace(".", decimal) if c[:1].isdigit() else c for c in row] for row in rows])
        return (first + out.getvalue()).encode(encoding)

    return {
        "comma": of(","),
        "comma, Unix": of(",", line_end="\n"),
        "comma, old Mac": of(",", line_end="\r"),
        "CSV UTF-8": of(",", encoding="utf-8-sig"),
        "semicolon": of(";", ",", encoding="utf-8-sig"),
        "quoted decimal commas": of(",", ","),
        "tab": of("\t"),
        "Unicode text": of("\t", ",", encoding="utf-16"),
        "sep line": of(";", ",", first="sep=;\r\n"),
    }


PROMPTS = [["text", "group"], *([f'I said; yes, {i}\nor "no".', "abc"[i % 3]] for i in range(30))]
RELEASED = [["Group", "Bias", "Model", "Head id", "Seed", "Split", "PPL"]] + [
    ["age", f"0.{head}17", "tiny", str(head), "1", "valid", f"1{head}.25"] for head in range(1, 5)
]
OURS = [["layer", "head", "z_ppl", "z_bias_neutral"]] + [
    [str(i // 2), str(i % 2), f"{i}.25", f"0.00{i + 1}5"] for i in range(4)
]


@pytest.mark.parametrize("form", dialects(PROMPTS))
def test_prompts_in_every_form(form: str) -> None:
    assert from_csv(dialects(PROMPTS)[form], "mine.csv").digest == from_csv(dialects(PROMPTS)["comma"], "x").digest


@pytest.mark.parametrize("form", dialects(RELEASED))
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt"])
def test_released_scores_in_every_form(form: str, ending: str) -> None:
    found = released.read_bytes(dialects(RELEASED)[form], f"scores{ending}").tables["tiny"]
    assert found["cont_to_age_bias"].tolist() == [0.117, 0.217, 0.317, 0.417]
    assert found["cont_to_ppl"].tolist() == [11.25, 12.25, 13.25, 14.25]


@pytest.mark.parametrize("form", dialects(OURS))
def test_own_scores_in_every_form(form: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    path.write_bytes(dialects(OURS)[form])
    found = score_files.open_scores(path, "fasp").scores
    assert found.z_ppl is not None
    assert found.z_bias is not None
    assert found.z_ppl.tolist() == [0.25, 1.25, 2.25, 3.25]
    assert found.z_bias.tolist() == [0.0015, 0.0025, 0.0035, 0.0045]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_text_in_every_form(encoding: str, line_end: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = "The café opened.\nNobody came.\n"
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_bytes(text.replace("\n", line_end).encode(encoding))
    assert load_text(str(path)) == text


def test_marks_at_the_seams_of_joined_texts(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_bytes("\ufeffOne.\n\ufeffTwo \ufeffthree.\n".encode())
    assert load_text(str(path)) == "One.\nTwo \ufeffthree.\n"
