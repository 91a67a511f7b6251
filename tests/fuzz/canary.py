"""A reader with a fault behind three branches: fuzzing that sees branches finds it, blind changes hardly ever."""

from __future__ import annotations


def read(raw: bytes) -> None:
    if raw[:1] != b"f":
        return
    if raw[1:2] != b"u":
        return
    if raw[2:3] == b"z":
        raise KeyError("found")
