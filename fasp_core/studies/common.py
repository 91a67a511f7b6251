"""What the studies share: how their entries are kept, resampled effects, and Markdown.

Intervals come from resampling prompts in whole blocks, the same resamples for everything that is compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fasp_core import gap
from fasp_core.gap import PromptRows
from fasp_core.gap.estimates import LEVEL, Estimate
from fasp_core.metrics.perplexity import Nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import provenance
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.typing import Floats, Report

T = TypeVar("T")
KIND = "experiments"  # of their entries in the store
RESAMPLES = 1000


def kept(
    store: Store,
    lm: LanguageModel,
    name: str,
    key: Any,
    work: Callable[[], Contents],
    read: Callable[[Entry], T],
    kind: str = KIND,
) -> T:
    """The result of a study, read from its entry, which `work` makes where there is none.

    How long that took, on what and by which command is kept with it, as `provenance`.
    """

    def made() -> Contents:
        started = time.monotonic()
        contents = work()
        contents["meta"] = {**contents["meta"], "provenance": provenance(lm, time.monotonic() - started)}
        return contents

    return store.made(kind, key, made, read, label=f"{slug(lm.name)}--{name}")


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


def table(header: str, rows: Iterable[str]) -> str:
    """A Markdown table, cells parted by " | "; the first column is left-aligned, numbers are right-aligned."""
    lines = [header, " | ".join(["---", *["---:"] * header.count(" | ")]), *rows]
    return "\n".join(f"| {line} |" for line in lines)


def paragraphs(parts: Iterable[str]) -> str:
    """Paragraphs of Markdown, those that are empty left out."""
    return "\n\n".join(filter(None, parts)) + "\n"


def mean_interval(values: Floats) -> Estimate:
    """Mean of [n] numbers with Student's t interval; nan for a single one."""
    from scipy import stats

    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * stats.sem(values)) if len(values) > 1 else float("nan")
    return Estimate(mean, mean - half, mean + half)


class Steps:
    """Progress of equal steps, each of which reports its own."""

    def __init__(self, report: Report | None, total: int) -> None:
        self._report, self._total, self._done = report, total, -1

    def next(self, says: str = "{}") -> Report | None:
        """For the step that begins; `says` is what goes on, in it {} what the step itself says."""
        self._done += 1
        done, total, report = self._done, self._total, self._report
        if report is None:
            return None
        if says != "{}":
            report(done, total, says.replace("{}", ""))  # what is stored reports nothing
        return lambda d, t, text: report(done + d / max(t, 1e-9), total, says.replace("{}", text))
