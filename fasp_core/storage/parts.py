"""Finished parts of unfinished work."""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy as st
from safetensors import SafetensorError

from fasp_core.storage.atomic import write_synced
from fasp_core.storage.entry import NotWritable, sha256
from fasp_core.storage.fallback import Shelf
from fasp_core.storage.keys import canonical, checked

Arrays = Mapping[str, npt.NDArray[Any]]
logger = logging.getLogger(__name__)


class Parts:
    """Named sets of arrays, one file each, every one whole: the process may be killed at any moment."""

    def __init__(self, folder: Path, shelf: Shelf, root: Path) -> None:
        self.folder, self._shelf, self._root = folder, shelf, root

    def save(self, name: str, arrays: Arrays) -> None:
        """Write one part, in place of any of that name. Where that cannot be done, `Store.trouble` says so."""
        target = self._file(name)
        raw = safetensors_of(arrays)
        raw = safetensors_of(arrays, {"sha256": _part_checksum(raw)[1]})
        temporary = self.folder / f".tmp-{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_synced(temporary, raw)
            os.replace(temporary, target)
        except OSError as error:  # the work goes on, and would only have to begin again if it were stopped
            with suppress(OSError):
                temporary.unlink()
            self._shelf.note(NotWritable(self._root, error))

    def load(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """One part, or None if it is not there or cannot be read. A damaged one is removed."""
        path = self._file(name)
        try:
            raw = path.read_bytes()
            given, computed = _part_checksum(raw)
            if given == computed:
                return st.load(raw)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:  # a passing trouble of the disk is no reason to remove it
            logger.warning("The part %s cannot be read (%s) and will be computed again.", path, error)
            return None
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError, SafetensorError):
            pass
        logger.warning("The part %s is damaged and will be computed again.", path)
        with suppress(OSError):
            path.unlink()
        return None

    def names(self) -> set[str]:
        """Names of all parts that were saved."""
        return {path.stem for path in self.folder.glob("[!.]*.safetensors")}

    def clear(self) -> None:
        """Remove all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{checked(name)}.safetensors"


def safetensors_of(arrays: Arrays, metadata: dict[str, str] | None = None) -> bytes:
    """The arrays as the bytes of a safetensors file."""
    # safetensors copies memory as it lies, whatever the strides: a transposed array would come back scrambled
    return st.save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata)


def _part_checksum(raw: bytes) -> tuple[str, str]:
    """Checksum in a safetensors file's metadata, and that of its tensors' names, types, shapes and bytes."""
    start = 8 + int.from_bytes(raw[:8], "little")  # 8 bytes of length, a JSON header, the tensors' bytes
    header = json.loads(raw[8:start])
    if not isinstance(header, dict):
        raise ValueError("no safetensors header")
    given = header.pop("__metadata__", None) or {}
    return str(given.get("sha256", "")), sha256(canonical(header) + raw[start:])
