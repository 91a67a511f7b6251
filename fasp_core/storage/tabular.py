"""Text and tables from outside, in the forms in which editors and spreadsheets save them.

A text is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one. A table has commas, semicolons, tabs
or bars between its cells. Which of them, its header says: it is the one that splits off the columns that are needed,
whatever stands in the rows below.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fasp_core.errors import InputError

ENDINGS = (".csv", ".tsv", ".tab", ".txt")  # of names of files that hold tables
MAX_COLUMNS = 1_000
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SEP_LINE = re.compile(r'"?sep=(\\t|[^\r\n"])"?[,;\t| ]*(?:\r\n|\r|\n)', re.IGNORECASE)
_HALF = re.compile("[\ud800-\udfff]")
_MISSING_NUMBERS = frozenset(("", "nan", "+nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "none", "-", "#nv"))


def decode(content: bytes, what: str, errors: str = "strict") -> str:
    """Bytes as text, without byte order marks at the beginning; line ends stay as they are.

    Parameters
    ----------
    what : names the file at the beginning of a message, such as `The text file 'a.txt'`.
    errors : of UTF-8, as in `bytes.decode`: "surrogateescape" lets the reader name the place.

    Raises
    ------
    InputError
        Another encoding, a workbook, or half characters; the message says how to save the file.
    """
    if content.startswith(b"PK\x03\x04"):
        raise InputError(f"{what} is a workbook or an archive, not text: save it as 'CSV UTF-8' or plain text first.")
    mark, encoding = next((pair for pair in _MARKS if content.startswith(pair[0])), (b"", "utf-8"))
    if not mark and b"\0" in content[:2]:
        raise InputError(f"{what} looks like UTF-16 without a byte order mark: save it as UTF-8.")
    try:
        text = content[len(mark) :].decode(encoding, errors if encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} is not {encoding.upper()[:6]} (byte {error.start + len(mark)}): save it as UTF-8."
        ) from error
    return text.lstrip("\ufeff")


def lines_joined(text: str) -> str:
    """With line feeds for all line ends, and without the byte order marks that joined files leave at their seams."""
    return re.sub(r"(?m)^\ufeff+", "", text.replace("\r\n", "\n").replace("\r", "\n"))


@dataclass(frozen=True)
class Row:
    """Cells as they stand, spaces included; `number` as a spreadsheet counts rows, `line` its last in the file."""

    number: int
    line: int
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A table whose header is read and whose rows are still to come.

    Attributes
    ----------
    separator : between its cells.
    header : as it stands, without spaces around the names.
    column : place of each needed or optional column that is there.
    """

    separator: str
    header: tuple[str, ...]
    column: dict[str, int]
    _text: str
    _lines_before: int
    _max_rows: int

    def rows(self) -> Iterator[Row]:
        """The rows below the header; blank ones are left out.

        Raises
        ------
        InputError
            Quotes that do not close, bytes that are not UTF-8, more cells than columns, or too few for a named column.
        """
        last = max(self.column.values())
        seen_header = False
        for number, line, cells in _records(self._text, self.separator, self.header):
            if not any(cell.strip() for cell in cells):
                continue
            if not seen_header:
                seen_header = True
                continue
            if number > self._max_rows + 1 or len(cells) > MAX_COLUMNS:
                raise InputError(f"The table has more than {self._max_rows:,} rows or {MAX_COLUMNS:,} columns: cut it.")
            if any(cell.strip() for cell in cells[len(self.header) :]):
                raise InputError(
                    f"Row {number} has more cells than columns: quote cells that hold a {_named(self.separator)}."
                )
            if len(cells) <= last:
                raise InputError(
                    f"Row {number} has {len(cells)} cell{'s' if len(cells) > 1 else ''} and the header "
                    f"{len(self.header)}: fill it, and quote cells that hold a line break."
                )
            yield Row(number, line + self._lines_before, cells)


def table(text: str, needed: Sequence[str], optional: Sequence[str] = (), max_rows: int = 10**9) -> Table:
    """The table in a text: its separator and its columns, from the header.

    A first line `sep=;`, which Excel reads and writes, is no row. Names of columns count in any case and with any
    spaces around them; columns that nobody asked for are ignored.

    Parameters
    ----------
    needed, optional : names of the columns that are read.

    Raises
    ------
    InputError
        A needed column is not there, or one is there twice.
    """
    told = _SEP_LINE.match(text)
    if told is not None:
        text = text[told.end() :]
    given = [told[1].replace("\\t", "\t")] if told is not None else []
    best: tuple[int, int, str, tuple[str, ...]] | None = None
    for separator in dict.fromkeys([*given, *SEPARATORS]):
        try:
            cells = _header(text, separator)
        except csv.Error:
            continue
        found = sum(name.casefold() in {_key(cell) for cell in cells} for name in needed)
        if best is None or (found, len(cells)) > best[:2]:  # of equals the first: comma before semicolon
            best = found, len(cells), separator, cells
        if found == len(needed):
            break
    if best is None:
        raise InputError("Row 1 is not valid CSV: mend its quotes.")
    _, _, separator, header = best
    if not any(header):
        raise InputError(f"The table is empty: begin it with the header '{','.join(needed)}'.")
    names = [_key(cell) for cell in header]
    if lacking := [name for name in needed if name.casefold() not in names]:
        raise InputError(
            f"Row 1 has no column '{lacking[0]}', read with a {_named(separator)} between cells: begin the file with "
            f"the header '{separator.join(needed)}'."
        )
    if twice := [name for name in (*needed, *optional) if names.count(name.casefold()) > 1]:
        raise InputError(f"Row 1 has the column '{twice[0]}' more than once: keep one of them.")
    places = {name: names.index(name.casefold()) for name in (*needed, *optional) if name.casefold() in names}
    return Table(separator, header, places, text, 1 if told is not None else 0, max_rows)


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _named(separator: str) -> str:
    return SEPARATORS.get(separator, f"'{separator}'")


def _header(text: str, separator: str) -> tuple[str, ...]:
    """The first row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for cells in itertools.islice(reader, 100):
        if any(cell.strip() for cell in cells):
            return tuple(cell.strip() for cell in cells)
    return ()


def _records(text: str, separator: str, header: Sequence[str]) -> Iterator[tuple[int, int, list[str]]]:
    """(number, last line, cells) of every record; of Python's reader the errors are put into words."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            for place, cell in enumerate(cells):
                if _HALF.search(cell):
                    name = f"'{header[place]}'" if number > 1 and place < len(header) else place + 1
                    raise InputError(f"Row {number}, column {name} is not UTF-8: save the file as UTF-8.")
            yield number, reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"Row {number + 1} is not valid CSV ({error}): mend its quotes.") from None


# --- numbers ---


def decimal_mark(cells: Iterable[str]) -> str:
    """Whether numbers of a table have a decimal point or a decimal comma: all of them have the same.

    `1.234` alone is 1.234, as everywhere in this program; `1,234` alone may be either and is refused.

    Raises
    ------
    InputError
        Some numbers can only have a point and some only a comma, or nothing tells which it is.
    """
    examples: dict[str, str] = {}
    for cell in cells:
        mark = _mark(cell)
        if mark:
            examples.setdefault(mark, cell.strip()[:40])
    if "." in examples and "," in examples:
        raise InputError(
            f"'{examples['.']}' has a decimal point and '{examples[',']}' a decimal comma: write all in one way."
        )
    if "?" in examples and len(examples) == 1:
        raise InputError(f"'{examples['?']}' may be a decimal comma or thousands: write numbers with a decimal point.")
    return "," if "," in examples else "."


def _mark(cell: str) -> str:
    """Of a number: ".", ",", "?" if its comma may stand before decimals or thousands, "" if there is neither."""
    text = _closed(cell)
    points, commas = text.count("."), text.count(",")
    if points and commas:
        return max(".,", key=text.rfind)
    mark = "," if commas else "."
    if points + commas == 1:
        thousands = re.fullmatch(r"[+-]?[1-9]\d{0,2}[.,]\d{3}", text)
        return mark if not thousands else "?" if commas else ""
    return "" if not points + commas else "." if commas else ","


def number(cell: str, mark: str = ".") -> float:
    """A number in the form of a table, NaN for an empty cell and for the usual words for a missing number.

    Parameters
    ----------
    mark : decimal mark, from `decimal_mark`; the other one of point and comma may separate thousands.

    Raises
    ------
    ValueError
        The cell holds something else.
    """
    text = _closed(cell)
    if text.casefold() in _MISSING_NUMBERS:
        return float("nan")
    other = "," if mark == "." else "."
    if other in text:
        if not re.fullmatch(rf"[+-]?\d{{1,3}}(?:\{other}\d{{3}})+(?:\{mark}\d*)?(?:[eE][+-]?\d+)?", text):
            raise ValueError(f"no number: {cell:.40}")
        text = text.replace(other, "")
    return float(text.replace(mark, "."))


def _closed(cell: str) -> str:
    """Without spaces and apostrophes between digits, and with a plain minus sign."""
    return re.sub(r"(?<=\d)[\s'’](?=\d)", "", cell.strip().replace("\N{MINUS SIGN}", "-"))
