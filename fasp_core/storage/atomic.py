"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from fasp_core.errors import InputError


def write_synced(path: Path, raw: bytes) -> None:
    """Write a new file, and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def check_files(paths: Iterable[Path], mend: str = "name another place with --out") -> None:
    """Raises InputError where one of the files that are to be written is a folder; `mend` as in `atomic_write`."""
    for path in paths:
        if not path.name or os.path.isdir(path):  # `.` and `/` have no name
            raise InputError(f"'{path}' is a folder and no file: {mend}.")


def atomic_write(files: Mapping[Path, bytes], mend: str = "name another place with --out") -> None:
    """Write files, each whole or not at all, and replace none before all are written.

    Parameters
    ----------
    mend : what to do where they cannot be written.

    Raises
    ------
    InputError
        One is a folder, a folder cannot be made or written, or the disk is full.
    """
    check_files(files, mend)
    temporary = {path: path.with_name(f".tmp-{uuid.uuid4().hex}") for path in files}
    try:
        for path, raw in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_synced(temporary[path], raw)
        for path in files:
            os.replace(temporary[path], path)
    except OSError as error:
        folder = next(iter(files)).parent
        raise InputError(f"'{folder}' cannot be written ({error.strerror or error}): {mend}.") from error
    finally:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink()  # gone already where all went well
