"""Many readers on one server: its memory meanwhile, and what somebody alone would have got."""

from __future__ import annotations

import shutil
import threading
import time
from functools import lru_cache
from pathlib import Path

import psutil

from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.verdict import number

ROOT = Path(__file__).resolve().parents[2]
AXIS, READING = "race_ethnicity", "neutral"


class Memory:
    """Memory of the server at an address, looked at every second in a thread of its own.

    Attributes
    ----------
    seen : (seconds since the beginning, MiB of resident memory, both at each look)
    """

    def __init__(self, url: str) -> None:
        port = url.rsplit(":", 1)[1]
        (self._server,) = (p for p in psutil.Process().children() if port in p.cmdline())
        self.seen: list[tuple[float, float]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._began = time.monotonic()
        self._look_once()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def between(self, low: float, high: float) -> list[float]:
        """MiB, of the looks in a part of the time so far (shares of it)."""
        whole = self.seen[-1][0] or 1.0
        return [mib for at, mib in self.seen if low <= at / whole <= high]

    def _look(self) -> None:
        while not self._end.wait(1.0):
            self._look_once()

    def _look_once(self) -> None:
        self.seen.append((time.monotonic() - self._began, self._server.memory_info().rss / 2**20))


@lru_cache(maxsize=1)
def _model() -> LanguageModel:
    return load(ModelSpec())


def alone(heads: str, prompts: int, tokens: int, folder: Path) -> tuple[str, str]:
    """Perplexity and gap of a set as the page writes them, measured here with nobody else at work; kept in a folder.

    The values of words are the committed ones, as the server's are: to make them takes minutes.
    """
    if not (folder / "words").is_dir():
        shutil.copytree(ROOT / "cache" / "words", folder / "words")
    config = EvalConfig(BiasConfig(AXIS, n_prompts=prompts), TextConfig(tokens=tokens))
    found = evaluate(_model(), PruneSet.parse(heads), config, Store(folder))
    gap = found.readings[READING]
    return (
        f"{found.perplexity.base:.2f} → {number(found.perplexity.pruned)}",
        f"{1000 * gap.base.gap:.2f} → {1000 * gap.pruned.gap:.2f}",
    )
