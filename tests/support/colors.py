"""Figures as a browser gets them, and how light colors are and how far apart, by WCAG's formulas."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest


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
