"""What the studies share: resampled effects, Markdown and exit statuses.

Intervals come from resampling prompts in whole blocks, the same resamples for everything that is compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fasp_core import gap
from fasp_core.gap import PromptRows
from fasp_core.typing import Floats

RESAMPLES = 1000


def effects(rows: PromptRows) -> Floats:
    """[N, B]: gap of the first row minus that of each other one in each resample; the same prompts are drawn alike."""
    return np.asarray(gap.resampled_effects(rows, RESAMPLES))


def mean_changes(rows: PromptRows) -> Floats:
    """[N, B]: mean of each other row minus that of the first one in each resample."""
    counts = gap.bootstrap_counts(rows.codes, RESAMPLES, 0, rows.blocks)
    return np.asarray((rows.values[1:] - rows.values[0]) @ counts.T / counts.sum(1))


def rows_as_markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is left-aligned, numbers are right-aligned."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
