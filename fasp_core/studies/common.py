"""What the studies share: how their entries are kept, resampled effects, and Markdown.

Intervals come from resampling prompts in whole blocks, the same resamples for everything that is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasp_core import gap
from fasp_core.gap import PromptRows
from fasp_core.metrics.perplexity import Nll
from fasp_core.typing import Floats

KIND = "experiments"  # of their entries in the store
RESAMPLES = 1000


def as_text(heads: Iterable[int]) -> str:
    """Flat ids in a cell of a stored table, such as `3 17 40`."""
    return " ".join(map(str, heads))


def as_heads(text: str) -> tuple[int, ...]:
    """The flat ids of such a cell."""
    return tuple(map(int, text.split()))


def read_nll(sums: NDArray[Any], counts: NDArray[Any]) -> tuple[Nll, ...]:
    """Perplexities of M models on one text, from stored sums [M, T] and counts [T]."""
    whole = counts.astype(np.int64)
    return tuple(Nll(row, whole) for row in sums)


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
