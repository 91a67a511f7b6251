"""One result as it is read: tables, arrays and whatever else was saved, by name, and what can be wrong with it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt
import safetensors.numpy as st
from pyarrow import parquet
from safetensors import SafetensorError

from fasp_core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
ARRAYS = "arrays.safetensors"


class DamagedEntry(InputError):
    """An entry whose files are not what was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"The cache entry {path} is damaged ({why}): delete that folder and run again.")
        self.path, self.why = path, why


class LackingEntry(DamagedEntry):
    """An entry without a field that is asked for: another version of this program wrote it."""

    def __init__(self, path: Path, field: str) -> None:
        super().__init__(path, f"it lacks '{field}', so another version of this program wrote it")


class NotWritable(InputError):
    """A cache folder that cannot be written, or whose disk is full."""

    def __init__(self, root: Path, error: OSError) -> None:
        super().__init__(
            f"The cache folder {root} cannot be written ({error.strerror or error}): "
            "make room there, or name another folder with FASP_CACHE."
        )


class Fields(dict[str, Any]):
    """What the entry at `path` holds, by name; a name that is not there raises LackingEntry.

    A copy made from pairs is of no entry, as `dataclasses.asdict` makes it: a name that is not there is a KeyError.
    """

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), path: Path | None = None) -> None:
        found = dict(values)
        super().__init__({k: Fields(v, path) if isinstance(v, Mapping) else v for k, v in found.items()})
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise KeyError(name) if self._path is None else LackingEntry(self._path, name)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A whole result on disk: its header; tables and arrays are read, and checked, when asked for.

    Attributes
    ----------
    path : folder of the entry
    kind : what the entry is, e.g. "scores"
    config, meta : as saved, with tuples as lists and dataclasses as mappings; see `Fields` for absent names
    files : file name -> (SHA-256, size in bytes)
    held : file name -> bytes that were read and checked, or written: they are there whatever becomes of the folder
    """

    path: Path
    kind: str
    config: dict[str, Any]
    meta: dict[str, Any]
    files: dict[str, tuple[str, int]]
    held: dict[str, bytes] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def table(self, name: str) -> pd.DataFrame:
        """The table saved under `name`; LackingEntry if there is none, DamagedEntry if its file has changed."""
        found: pd.DataFrame = self._parquet(name, lambda read: read.to_pandas())
        return found

    def columns(self, name: str) -> dict[str, list[Any]]:
        """The columns of that table, without pandas."""
        return self._parquet(
            name, lambda read: {n: c.to_pylist() for n, c in zip(read.column_names, read.columns, strict=True)}
        )

    def _parquet(self, name: str, form: Callable[[Any], T]) -> T:
        raw = self.read(f"{name}.parquet")
        try:
            return form(parquet.ParquetFile(io.BytesIO(raw)).read())  # `read_table` imports pandas
        except (ValueError, OSError, TypeError) as error:  # a seal that fits says only that it is what was written
            raise DamagedEntry(self.path, f"{name}.parquet is no table") from error

    @cached_property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name, empty if none were saved; see `Fields` for absent names."""
        if ARRAYS not in self.files:
            return Fields({}, self.path)
        raw = self.read(ARRAYS)
        try:
            return Fields(st.load(raw), self.path)
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise DamagedEntry(self.path, f"{ARRAYS} holds no arrays") from error

    def read(self, name: str) -> bytes:
        """Bytes of one file, checked against the header."""
        if name in self.held:
            return self.held[name]
        if name not in self.files:
            raise LackingEntry(self.path, name.removesuffix(".parquet"))
        checksum, size = self.files[name]
        try:
            raw = (self.path / name).read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DamagedEntry(self.path, f"{name} is missing") from error
        if len(raw) != size or sha256(raw) != checksum:
            raise DamagedEntry(self.path, f"{name} has changed")
        return raw


def read_header(path: Path, header: Mapping[str, Any], held: dict[str, bytes] | None = None) -> Entry:
    """The entry that a header tells of."""
    config = header["config"]
    files = {name: (str(file["sha256"]), int(file["bytes"])) for name, file in header["files"].items()}
    fields = Fields(config, path) if isinstance(config, Mapping) else config
    return Entry(path, header["kind"], fields, Fields(header["meta"], path), files, held or {})


def sha256(raw: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(raw).hexdigest()
