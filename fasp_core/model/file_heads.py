"""The first bytes of a model's files: JSON, headers of safetensors, and what lies there in place of a file.

A clone without Git LFS leaves small texts that point at the files; a download that was cut leaves part of one. Loaders
stumble over both far from the cause, so the file and the cause are named here.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

from fasp_core.errors import InputError

MAX_JSON = 20_000_000  # bytes of a config or an index
MAX_HEADER = 100_000_000  # bytes of a header of tensors: what safetensors itself allows
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


class Tensor(NamedTuple):
    """A tensor of a safetensors file: its type as the file calls it, and how many numbers it has."""

    dtype: str
    numbers: int


def check_start(path: Path) -> None:
    """That a file can be read and is not empty, no pointer of Git LFS and no web page.

    Raises InputError, which names the file and says how to get it.
    """
    try:
        if not path.is_file():  # also: a pipe, which would never end
            raise InputError(f"'{path}' is no file: give the model's files as they were published.")
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): check who may read it.") from error
    if not start:
        raise InputError(f"'{path}' is empty: download it again.")
    if start.startswith(_POINTER):
        raise InputError(
            f"'{path}' is a pointer of Git LFS and not the file itself: run 'git lfs install' and 'git lfs pull' in "
            "the folder that was cloned, or download the file."
        )
    if start.lstrip().lower().startswith(_PAGES):
        raise InputError(f"'{path}' is a web page and not the file itself: download the file.")


def tensors(path: Path) -> dict[str, Tensor]:
    """What a safetensors file holds, by its header, which must fit the file.

    Raises InputError where it does not, or as `check_start`.
    """
    check_start(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER, size):
                raise ValueError("its header goes on behind its end")
            header = json.loads(file.read(length))
        held = {name: entry for name, entry in header.items() if name != "__metadata__"}
        found = {name: Tensor(str(entry["dtype"]), _count(entry["shape"])) for name, entry in held.items()}
        if sum(tensor.numbers for tensor in found.values()) > 2 * size:  # a number takes half a byte at least
            raise ValueError("it holds fewer numbers than its header says")
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in held.values()), default=0)
        if end > size:
            raise ValueError(f"it ends after {size:,} of {end:,} bytes")
        return found
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): check who may read it.") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, struct.error) as error:
        raise InputError(f"'{path}' is no whole safetensors file: download it again. ({error})") from error


def _count(shape: list[int]) -> int:
    count = 1
    for n in shape:
        if not isinstance(n, int) or n < 0:
            raise ValueError("a tensor without a shape")
        count *= n
        if count > 2**50:
            raise ValueError("a tensor larger than any file")
    return count


def settings(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises InputError where it holds none, or as `check_start`.
    """
    check_start(path)
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"no file of at most {MAX_JSON // 1_000_000} MB")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): check who may read it.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is no JSON that can be read: download it again. ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"'{path}' holds no settings: download it again.")
    return found
