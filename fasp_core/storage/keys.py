"""Names of results: hashes of everything that shaped them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fasp_core.storage.entry import sha256

FORMAT_VERSION = 1  # part of every digest: entries of another format are simply not found


def digest(config: Any) -> str:
    """First 16 hex characters of the SHA-256 of a config and the format version.

    Parameters
    ----------
    config : Mapping or dataclass
        Strings, booleans, finite numbers, None, and lists, tuples, dataclasses and string-keyed mappings of
        them. Order of keys, tuple or list, NumPy or Python scalar make no difference; `1` and `1.0` do.

    Raises
    ------
    TypeError
        A value of any other type, whose text might change between runs.
    ValueError
        A number that is not finite.
    """
    return sha256(canonical({"format": FORMAT_VERSION, "config": plain(config)}))[:16]


def slug(text: str) -> str:
    """`text` as a part of a file name: lower case, other characters than a-z, 0-9, _ and - made hyphens."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:60].strip("-")


def plain(value: Any) -> Any:
    """`value` in JSON's types, or TypeError."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":  # not dates, nor complex numbers
        return {"b": bool, "f": float}.get(value.dtype.kind, int)(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str(key): plain(item) for key, item in value.items()}
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be part of a config or of meta.")


def canonical(value: Any) -> bytes:
    """The same bytes for the same value: JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def checked(name: str) -> str:
    """A name that can be a file's; ValueError for any other."""
    if not re.fullmatch(r"[a-z0-9_-]{1,80}", name):
        raise ValueError(f"{name!r} cannot name a file: use up to 80 of a-z, 0-9, _ and -.")
    return name
