"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fasp_core.errors import InputError


def write_synced(path: Path, raw: bytes) -> None:
    """Write a new file, and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def atomic_write(files: Mapping[Path, bytes], mend: str = "name another place with --out") -> None:
    """Write files, each whole or not at all, and replace none before all are written.

    Parameters
    ----------
    mend : what to do where they cannot be written.

    Raises
    ------
    InputError
        A folder cannot be made or written, or the disk is full.
    """
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
