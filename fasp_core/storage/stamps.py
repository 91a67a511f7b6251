"""What tells, without reading them, whether the files that a model is read from are those that they were."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fasp_core.errors import InputError

READ = (".safetensors", ".gguf", ".json", ".txt", ".model")  # ends of the names of files that loaders read


def stamp(source: str | Path) -> str:
    """Names, times of change, sizes and places on the disk of a file, or of a folder's files that loaders read.

    "" where nothing of that kind is there, such as for a name of a hub.
    """
    path = os.path.expanduser(source)
    try:
        if os.path.isdir(path):
            paths = sorted(entry.path for entry in os.scandir(path) if entry.name.endswith(READ))
        else:
            paths = [path] if path.lower().endswith(READ) else []
        found = [(os.path.basename(one), os.stat(one)) for one in paths]
    except (OSError, ValueError):
        return ""
    told = [f"{name}\0{at.st_mtime_ns}\0{at.st_size}\0{at.st_ino}" for name, at in found]
    return hashlib.sha256("\n".join(told).encode("utf-8", "surrogateescape")).hexdigest()[:16] if told else ""


@contextmanager
def unchanged(source: str | Path, since: str = "") -> Iterator[None]:
    """What is read in the `with` block is of one state of the files.

    Parameters
    ----------
    since : their `stamp` before; "": as they are at the beginning.

    Raises
    ------
    InputError
        They were changed meanwhile.
    """
    before = since or stamp(source)
    for at_the_end in (False, True):
        if stamp(source) != before:
            raise InputError(f"The files of '{source}' were changed meanwhile: load it again once they are whole.")
        if not at_the_end:
            yield
