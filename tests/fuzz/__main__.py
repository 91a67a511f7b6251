"""Feed hostile inputs to every reader and count: `python -m tests.fuzz --inputs 100000`.

Each input is looked at on its own: no error but an InputError of one sentence, no hang, nothing written outside the
folder that it was given, no other program, no connection. The process may take only so much more memory than at its
start. Prints JSON; status 1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from fasp_core.console import prints_aside
from fasp_core.errors import InputError
from tests.fuzz.readers import READERS, Reader

LIMIT = 5.0  # seconds of computing an input
MEMORY = 2_000_000_000  # bytes beside those at the start
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Hang(BaseException):
    """An input took longer than `LIMIT`; no reader's `except Exception` catches it."""


class Watch:
    """Notes what is written outside a folder, by an audit hook, which cannot be taken off again."""

    def __init__(self) -> None:
        self.allowed: Path | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & WRITING):
                return
            paths = [path]
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"):
            paths = [args[0]]
        elif event in ("os.rename", "os.link", "os.symlink"):
            paths = list(args[:2])
        elif event in ("subprocess.Popen", "os.system", "os.exec", "socket.connect"):
            self.outside.append(f"{event} {args!r:.200}")
            return
        else:
            return
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                real = os.path.realpath(os.fsdecode(path))
                if real != os.devnull and not real.startswith(str(self.allowed)):
                    self.outside.append(f"{event} {real}")


_watch: Watch | None = None


def one(reader: Reader, given: Any, folder: Path, limit: float = LIMIT) -> str:
    """What is wrong with how a reader takes an input; "" if nothing is."""
    global _watch
    _watch = _watch or Watch()

    def stop(*_: object) -> None:
        raise Hang

    before = {kind: signal.signal(kind, stop) for kind in (signal.SIGPROF, signal.SIGALRM)}
    _watch.outside.clear()
    _watch.allowed = folder.resolve()
    try:
        try:
            signal.setitimer(signal.ITIMER_PROF, limit)  # of computing, as a busy machine makes everything slow
            signal.setitimer(signal.ITIMER_REAL, 6 * limit)  # of waiting for what never comes
            reader.read(given)
        finally:
            _quiet()
    except InputError as error:
        return sentence(str(error))
    except Hang:
        return f"longer than {limit:g} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    finally:
        _watch.allowed = None
        _quiet()
        for kind, handler in before.items():
            signal.signal(kind, handler)
    return f"written outside: {_watch.outside[0]}" if _watch.outside else ""


def _quiet() -> None:
    for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        signal.setitimer(timer, 0)


def sentence(message: str) -> str:
    """What keeps a message from being one sentence that a screen can show; "" if nothing does."""
    if not message.endswith((".", ")", "?")):
        return f"no sentence: {message[-60:]!r}"
    if len(message) > 2000:
        return "a message of more than 2,000 characters"
    return "" if message.isprintable() else "a message that no screen shows"


@contextmanager
def room() -> Iterator[Path]:
    """An empty folder, which is the working folder and the cache meanwhile."""
    here, cache = os.getcwd(), os.environ.get("FASP_CACHE")
    folder = Path(tempfile.mkdtemp(prefix="fasp-fuzz-")).resolve()
    os.environ["FASP_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(here)
        os.environ.pop("FASP_CACHE") if cache is None else os.environ.update(FASP_CACHE=cache)
        shutil.rmtree(folder, ignore_errors=True)


def many(name: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Feed `count` inputs to one reader.

    Returns
    -------
    inputs, seconds, slowest (seconds of computing one input), found {what is wrong: seed and number of the input}.
    """
    reader, found, slowest = READERS[name], dict[str, str](), 0.0
    start = time.perf_counter()
    with room() as folder:
        for i in range(count):
            work = folder / f"{i}"  # its own: what a store could not write, it writes once that folder is there again
            work.mkdir()
            given = reader.make(Random(f"{name} {seed} {i}"), work)
            began = time.process_time()
            wrong = one(reader, given, folder)
            slowest = max(slowest, time.process_time() - began)
            shutil.rmtree(work, ignore_errors=True)
            if wrong:
                found.setdefault(wrong, f"{seed} {i}")
    seconds = time.perf_counter() - start
    return {"inputs": count, "seconds": round(seconds, 2), "slowest": round(slowest, 3), "found": found}


def shares(total: int) -> dict[str, int]:
    """Inputs by reader, at least `total` in all."""
    weights = sum(reader.weight for reader in READERS.values())
    return {name: -(-total * reader.weight // weights) for name, reader in READERS.items()}


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(READERS))
    options = parser.parse_args()
    wanted = {options.only: options.inputs} if options.only else shares(options.inputs)
    for name in wanted:  # imports and caches of their own are not the inputs' memory
        many(name, 20, seed=-1)
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with prints_aside():  # libraries print there what they think of a file
        readers = {name: many(name, count, options.seed) for name, count in wanted.items()}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = {
        "inputs": sum(one["inputs"] for one in readers.values()),
        "seconds": round(sum(one["seconds"] for one in readers.values()), 1),
        "megabytes": round((after - before) / 1024),
        "readers": readers,
    }
    print(json.dumps(out, indent=1))
    return int(any(one["found"] for one in readers.values()))


if __name__ == "__main__":
    sys.exit(main())
