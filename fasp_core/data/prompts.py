"""Prompts by the name of their axis: those of HolisticBias, or a table of one's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fasp_core.data import groups as names_of
from fasp_core.data.holistic_bias import axis_names, load_axis
from fasp_core.data.prompt_sampling import FEWEST, FEWEST_OWN
from fasp_core.data.prompt_set import PromptSet
from fasp_core.errors import InputError
from fasp_core.storage import tabular

MAX_PROMPTS, MAX_BYTES = 200_000, 10_000_000  # of a file; the largest axis has 130,000 sentences
MAX_CHARS = 1_000  # of a text or the name of a group


def fewest(axis: str) -> int:
    """How many prompts a group of this axis needs to be measured."""
    return FEWEST if axis in axis_names() else FEWEST_OWN


def from_csv(source: Path | str | bytes, axis_name: str) -> PromptSet:
    """Prompts from a table with the columns `text` and `group`, see `fasp_core.storage.tabular`: others are ignored.

    Spaces around a text are dropped, and names of groups brought into one form. Rows that repeat an earlier one and
    rows without a group are left out with a note, blank rows without one. The header is row 1.

    Parameters
    ----------
    source : a path, the content as bytes (an upload), or the content as text.
    axis_name : name for the result; of content, the file's name in messages as well.

    Raises
    ------
    InputError
        The file cannot be read or used; the message names the file, and the row and the column where there is one.
    """
    name = source.name if isinstance(source, Path) else axis_name
    content = _content(source)
    if len(content) > MAX_BYTES:
        raise InputError(f"The CSV file '{name}' is larger than {MAX_BYTES:,} bytes: give fewer prompts.")
    text = tabular.decode(content, f"The CSV file '{name}'", errors="surrogateescape")
    try:
        return _of_table(tabular.table(text, ("text", "group"), max_rows=MAX_PROMPTS), axis_name, name)
    except InputError as error:
        raise InputError(f"In '{name}': {error}") from error.__cause__


def _of_table(table: tabular.Table, axis_name: str, file: str) -> PromptSet:
    first: dict[str, tuple[int, str]] = {}  # text -> its first row and its group
    repeated, n_rows = 0, 0
    without: Counter[str] = Counter()
    for row in table.rows():
        n_rows += 1
        text, group = _cells(row, table.column)
        if not group or names_of.is_missing(group):
            without[group] += 1
            continue
        earlier, its_group = first.setdefault(text, (row.number, group))
        if group != its_group:
            raise InputError(
                f"Row {row.number}, column 'group': row {earlier} has the same text in the group '{its_group}': "
                "keep one of the two rows."
            )
        repeated += earlier != row.number

    if not n_rows:
        raise InputError("There are no prompts: give the header 'text,group' and one prompt a row.")
    groups = tuple(group for _, group in first.values())
    notes = []
    if without:
        written = names_of.counted({f"'{group}'" if group else "empty": n for group, n in without.most_common()})
        were = "has no group and was" if without.total() == 1 else "have no group and were"
        notes.append(f"{without.total():,} of {n_rows:,} rows {were} left out: {written}.")
    if len(set(groups)) < 2:
        held = f"holds only '{names_of.shown(groups[0])}'" if groups else "names no group"
        raise InputError(" ".join([f"Column 'group' {held}: give prompts of at least two groups.", *notes]))
    if repeated:
        notes.append(f"{repeated} repeated row{'s were' if repeated > 1 else ' was'} dropped.")
    notes += names_of.alike(groups)
    blank = ("",) * len(first)
    return PromptSet(axis_name, "all", tuple(first), groups, blank, blank, blank, tuple(notes), file=file)


def _content(source: Path | str | bytes) -> bytes:
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except (OSError, ValueError):  # ValueError: a path that no file can have
            raise InputError(f"Cannot read '{source}': give the path of a CSV file.") from None
    return source.encode(errors="surrogatepass") if isinstance(source, str) else source


def _cells(row: tabular.Row, column: dict[str, int]) -> tuple[str, str]:
    """Text, and group in its one form."""
    text, group = (row.cells[column[name]].strip() for name in ("text", "group"))
    for name, value in (("text", text), ("group", group)):
        if len(value) > MAX_CHARS:
            raise InputError(
                f"Row {row.number}, column '{name}' is {len(value)} characters: shorten it to {MAX_CHARS}."
            )
    if names_of.is_missing(names_of.clean(text)):
        raise InputError(f"Row {row.number}, column 'text' is empty ('{text}'): fill it or remove the row.")
    return text, names_of.clean(group)


def is_file(axis: str) -> bool:
    """Whether the name of an axis is meant as the path of a file of prompts."""
    return axis not in axis_names() and axis.lower().endswith(tabular.ENDINGS)


def resolve_axis(axis: str) -> PromptSet:
    """Prompts of a HolisticBias axis by name, or of a table by a path that ends in .csv, .tsv, .tab or .txt.

    Raises
    ------
    InputError
        Neither an axis (the message lists them) nor a usable table.
    """
    if is_file(axis):
        return from_csv(Path(axis), Path(axis).stem)
    if axis.lower().endswith((".xlsx", ".xls", ".ods", ".numbers")):
        raise InputError(f"'{axis}' is a workbook: save it as 'CSV UTF-8' and give that file.")
    return load_axis(axis)
