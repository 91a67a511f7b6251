"""Processes that are killed at random moments: forked from one that has imported what they need."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fasp_core.storage.entry import Entry
from fasp_core.storage.store import Store

ROOT = Path(__file__).resolve().parents[2]

COMMANDS = """
import os
os.environ["HF_HUB_OFFLINE"] = "1"
import torch, transformers
torch.set_num_threads(1)
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from fasp_core.cli.main import main
from fasp_core.studies.compare import compare, searching
from fasp_core.export import writing
from fasp_core.scoring import score
compare.Plan.__init__.__defaults__ = ("neutral", (0.3,), (0.1, 0.2), 1, 60, 640)
def work(args):
    return main(args)
"""
WRITES = """
import numpy as np
from fasp_core.storage.store import Store
def work(args):
    root, seed = args
    store, first = Store(root), 1000 * int(seed)
    for i in range(first, first + 1000):
        arrays = {"x": np.full(20_000, i), "i": np.array(i)}
        store.parts("scores", {"i": i}).save(f"part-{i}", arrays)
        store.compute("scores", {"i": i}, lambda: {"arrays": arrays, "meta": {"i": i}})
"""
SERVE = """
import json, os, sys, time
for line in sys.stdin:
    args, kill_after = json.loads(line)
    began, pid = time.monotonic(), os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os._exit(work(args) or 0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, 9)  # a child that nobody has waited for, even if it has ended: the number is its own
    status = os.waitpid(pid, 0)[1]
    print(os.waitstatus_to_exitcode(status), time.monotonic() - began, flush=True)
"""


class Nursery:
    """Runs work in processes of their own, and kills them when asked to."""

    def __init__(self, code: str) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "FASP_CACHE": os.devnull}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code + SERVE],
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.kills = 0

    def run(self, *args: object, kill_after: float | None = None) -> tuple[int, float]:
        """Exit status, negative if killed, and seconds.

        Parameters
        ----------
        kill_after : seconds; None lets it end.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([[str(a) for a in args], kill_after]) + "\n")
        self._process.stdin.flush()
        status, seconds = self._process.stdout.readline().split()
        self.kills += int(status) == -signal.SIGKILL
        return int(status), float(seconds)

    def close(self) -> None:
        """End the process that forks the others."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@contextmanager
def nursery(code: str) -> Iterator[Nursery]:
    """One that is closed at the end."""
    made = Nursery(code)
    try:
        yield made
    finally:
        made.close()


class Reader:
    """Reads every entry of a kind over and over, in a thread of its own, until it is stopped.

    Attributes
    ----------
    reads : entries that were read whole.
    wrong : what was not as it should be.
    """

    def __init__(self, root: Path, kind: str, right: Callable[[Entry], bool]) -> None:
        self.reads, self.wrong = 0, set[str]()
        self._store, self._kind, self._right = Store(root), kind, right
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._over.is_set():
            for header in self._store.entries(self._kind):
                entry = self._store.load(self._kind, header.config)
                if entry is not None and not self._right(entry):
                    self.wrong.add(header.path.name)
                self.reads += entry is not None
            time.sleep(0.005)

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)
