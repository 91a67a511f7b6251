"""What the benchmarks share: clocks, memory, and what is told of the machine."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fasp_core.data.text import TextConfig
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.entries import KIND, PREVIEW_TEXT, read_ppl
from fasp_core.scoring.estimate import ppl_preview
from fasp_core.storage.store import Store

AXIS = "race_ethnicity"
ROOT = Path(__file__).resolve().parents[1]


class Unavailable(Exception):
    """A benchmark cannot run here; one line says what is missing."""


class Clock:
    """Seconds of several `with` blocks, and their sum."""

    def __init__(self) -> None:
        self.laps: list[float] = []

    @property
    def seconds(self) -> float:
        return sum(self.laps)

    @contextmanager
    def lap(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.laps.append(time.perf_counter() - start)

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of the laps do not exceed."""
        return float(np.percentile(self.laps, percent))


@dataclass
class Gauge:
    """As much of an `ExpectedMeter` as first-order scores need, over any rows of token ids."""

    config: Any
    worth: Any
    rows: Sequence[Sequence[int]]

    def fold(self, columns: np.ndarray) -> np.ndarray:
        """The same: no rows share a prompt."""
        return columns


def say(text: str) -> None:
    """What is going on, for whoever waits; results alone go to standard output."""
    print(text, file=sys.stderr, flush=True)


def about(lm: LanguageModel) -> dict[str, Any]:
    """The model and the machine."""
    return {
        "model": lm.name,
        "layers": lm.n_layers,
        "heads_a_layer": lm.n_heads,
        "dtype": lm.spec.dtype,
        "device": str(lm.device),
        **machine(),
    }


def machine() -> dict[str, Any]:
    """Load is what stands in a row for the processors: far above their number, times say little."""
    return {
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def spread(lm: LanguageModel, count: int) -> list[int]:
    """Flat ids of `count` heads (or all, if there are fewer) at equal distances, from the first to the last."""
    return [int(flat) for flat in np.linspace(0, lm.size - 1, min(count, lm.size)).round()]


def stored_or_preview(lm: LanguageModel, text: TextConfig, store: Store) -> tuple[np.ndarray, str]:
    """z_nats [N] of all heads, exact if such scores are stored, and which of the two they are."""
    entry = store.load(KIND, ppl_key(text, lm.id))
    if entry is not None:
        return read_ppl(entry).z_nats, "stored exact scores"
    brief = text if text.tokens < PREVIEW_TEXT.tokens else PREVIEW_TEXT
    return ppl_preview(lm, brief, store).z_nats, "a preview"


# --- memory ---


def forget_peak() -> None:
    """Let the peak count from now on, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def memory() -> tuple[int, int]:
    """Resident bytes of this process, now and at most.

    `ru_maxrss` alone would not do on Linux: a child inherits the peak of the process that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        rows = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return 1024 * int(rows["VmRSS"].split()[0]), 1024 * int(rows["VmHWM"].split()[0])
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
        return peak, peak
