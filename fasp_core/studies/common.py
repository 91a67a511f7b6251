"""What the studies share: resampled effects, Markdown and exit statuses.

Intervals come from resampling prompts in whole blocks, the same resamples for everything that is compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fasp_core import gap
from fasp_core.typing import Floats

RESAMPLES = 1000


def effects(base: Floats, rows: Floats, codes: np.ndarray, blocks: np.ndarray | None) -> Floats:
    """[N, B]: gap(base [n]) - gap(rows [N, n]) in each resample; the same prompts always give the same resamples."""
    return np.asarray(gap.resampled_effects(base, rows, codes, RESAMPLES, blocks=blocks))


def mean_changes(base: Floats, rows: Floats, codes: np.ndarray, blocks: np.ndarray | None) -> Floats:
    """[N, B]: mean(rows [N, n]) - mean(base [n]) in each resample."""
    counts = gap.bootstrap_counts(codes, RESAMPLES, 0, blocks)
    return np.asarray((rows - base) @ counts.T / counts.sum(1))


def rows_as_markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is left-aligned, numbers are right-aligned."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
