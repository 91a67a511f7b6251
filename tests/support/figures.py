"""Figures in tests: options by name, as a figure takes them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fasp_core.figures import GridLook, Marks, Words


def parted(given: dict[str, Any]) -> dict[str, Any]:
    """Options of a test as a figure takes them: words, marks and looks together."""
    kinds = {"words": (Words, {"title": ""}), "marked": (Marks, {}), "look": (GridLook, {})}
    out: dict[str, Any] = {"words": Words("")}
    for name, (kind, plain) in kinds.items():
        own = {f.name: given[f.name] for f in fields(kind) if f.name in given}
        out |= {name: kind(**plain | own)} if own else {}
    known = {f.name for kind, _ in kinds.values() for f in fields(kind)}
    return out | {key: value for key, value in given.items() if key not in known}
