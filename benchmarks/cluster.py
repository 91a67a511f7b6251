"""A Dask cluster on this machine: one worker and two side by side, and two of which one is killed half-way.

Scheduler and workers are processes of their own, started by the commands of docs/cluster.md. Each run scores every head
of the model into an empty store; the same scores by this process alone are what the bytes are compared with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import AXIS, ROOT, Unavailable, about, say
from fasp_core.compute.cluster import Cluster
from fasp_core.data.text import TextConfig
from fasp_core.metrics.meters import BiasConfig, scorer_for, stored_word_values
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import score
from fasp_core.scoring.entries import KIND, bias_key
from fasp_core.storage.store import Store

TEXT = TextConfig(tokens=64, window=16, stride=16)
PROMPTS = 12


def run(lm: LanguageModel | None = None, text: TextConfig = TEXT, config: BiasConfig | None = None) -> dict[str, Any]:
    """Seconds of exact scores here, by one worker and by two, and whether all of them are the same bytes.

    Parameters
    ----------
    lm : that workers can load by its name, too; default: the built-in model.
    config : default: 12 prompts.
    """
    lm, config = lm or load(ModelSpec()), config or BiasConfig(AXIS, n_prompts=PROMPTS)
    torch.set_num_threads(1)  # as each worker has: they are to be compared
    with tempfile.TemporaryDirectory() as folder:
        usual = Store()
        stored_word_values(lm, scorer_for(config.scorer, config.label), usual)  # no part of what is timed

        def fresh(name: str) -> Store:
            store = Store(Path(folder) / name)
            shutil.copytree(usual.root / "words", store.root / "words")
            return store

        found: dict[str, Any] = {}
        here = fresh("here")
        began = time.perf_counter()
        score.score(lm, text, config, here)
        found["local_seconds"] = time.perf_counter() - began
        say(f"cluster: this process alone: {found['local_seconds']:.1f} s")
        same: dict[str, bool] = {}
        for name, count, kill in (("one_worker", 1, False), ("two_workers", 2, False), ("one_killed", 2, True)):
            store = fresh(name)
            with started(Path(folder) / f"{name}-cluster", count) as (address, processes):
                seconds, killed = _scored(lm, text, config, store, address, processes, kill)
            found[f"{name}_seconds"] = seconds
            found["workers_killed"] = killed
            same[name] = digests(here, lm, text, config) == digests(store, lm, text, config)
            say(f"cluster: {name}: {found[f'{name}_seconds']:.1f} s, same bytes: {same[name]}")
        return {
            **found,
            "speed_up_of_two": found["one_worker_seconds"] / found["two_workers_seconds"],
            "same_bytes": same,
            "heads": lm.size,
            "tokens": text.tokens,
            "prompts": len(config.prompts()),
            **about(lm),
        }


def _scored(
    lm: LanguageModel,
    text: TextConfig,
    config: BiasConfig,
    store: Store,
    address: str,
    processes: Sequence[subprocess.Popen[bytes]],
    kill: bool,
) -> tuple[float, int]:
    """Seconds of scoring by a cluster, and how many workers were killed when half of the heads were done."""
    killed: list[int] = []

    def half_way(done: float, total: float, what: str) -> None:
        if kill and not killed and what.startswith("perplexity") and done >= total / 2:
            killed.append(processes[0].pid)
            processes[0].kill()

    there = Cluster(address, wait=120.0)
    while there.width() < len(processes):
        time.sleep(0.1)
    workers = there.workers(lm)
    list(workers.run([Nothing()] * (4 * len(processes)), lambda: None))  # models are loaded before the clock starts
    began = time.perf_counter()
    score.score(lm, text, config, store, half_way, workers=workers)
    seconds = time.perf_counter() - began
    there.close()
    return seconds, len(killed)


class Nothing:
    """A shard that makes a worker load the model, and gives nothing."""

    def run(self, _lm: LanguageModel) -> Iterator[Any]:
        time.sleep(0.5)  # so that every worker gets one
        return iter(())


def digests(
    store: Store, lm: LanguageModel, text: TextConfig, config: BiasConfig
) -> list[tuple[str, dict[str, bytes]]]:
    """Names and arrays of both entries of scores."""
    entries = [store.load(KIND, key) for key in (ppl_key(text, lm.id), bias_key(config, lm.id))]
    return [(e.path.name, {k: a.tobytes() for k, a in e.arrays.items()}) for e in entries if e is not None]


@contextmanager
def started(folder: Path, count: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Address of a scheduler on the loopback, and its worker processes, of one thread each."""
    folder.mkdir(parents=True)
    written = folder / "scheduler.json"
    common = ["--scheduler-file", str(written), "--no-dashboard"]
    scheduler = _process(folder, ["scheduler", "--host", "127.0.0.1", "--port", "0", *common])
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(600):
            if written.is_file() and written.stat().st_size:
                break
            if scheduler.poll() is not None:
                raise Unavailable("the scheduler did not start: pip install -r requirements-cluster.txt")
            time.sleep(0.1)
        address = json.loads(written.read_text())["address"]
        plain = ["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        for i in range(count):
            workers.append(_process(folder, [*plain, "--local-directory", str(folder / f"worker-{i}")]))
        yield address, workers
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def _process(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
