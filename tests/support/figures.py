"""Figures in tests: options by name, what a browser gets, and how light colors are and how far apart, by WCAG."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

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


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def linear(color: np.ndarray) -> np.ndarray:
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def luminance(color: np.ndarray) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """WCAG 2.2: from 1 (none) to 21 (black on white)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def sent(figure: go.Figure) -> dict[str, Any]:
    """The figure as a browser gets it; strict JSON, so that NaN would be an error."""
    found: dict[str, Any] = json.loads(figure.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return found


def named(figure: go.Figure, name: str) -> Any:
    """The one trace of this name."""
    (found,) = (t for t in figure.data if t.name == name)
    return found
