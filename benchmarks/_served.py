"""A running server for the benchmarks that read a page in a browser, on a cache of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks._common import ROOT

MADE_HERE = ("built-in--csv-", "built-in--ppl-preview--")  # entries that do not come with the program
WAIT = 300  # seconds for a page
STUDIO = ("-m", "fasp_studio", "--port")
DRAWN = "() => [...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('.instrument [aria-label]'))"
MEASURED = """() => [...document.querySelectorAll('[data-testid="stMetricValue"]')]
    .filter(e => e.innerText.includes('→')).length >= 2 && !document.body.innerText.includes('so far ')"""


def fresh(cache: Path, shipped: Path = ROOT / "cache") -> None:
    """Make a cache that holds only what comes with the program: scores and word values."""
    cache.mkdir()
    for entry in [*shipped.glob("scores/built-in--*"), *shipped.glob("words/built-in--*")]:
        if not entry.name.startswith(MADE_HERE):
            shutil.copytree(entry, cache / entry.relative_to(shipped))


@contextlib.contextmanager
def serving(command: Sequence[str], cache: Path, folder: Path = ROOT) -> Iterator[str]:
    """Address of a new server that is up; ended at the end. Python keeps what it compiles, as it does by default."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (cache / "app.log").open("wb") as log:
        env = {**os.environ, "FASP_CACHE": str(cache), "STREAMLIT_SERVER_HEADLESS": "true"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        process = subprocess.Popen(
            [sys.executable, *command, str(port)], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _up(f"http://localhost:{port}/_stcore/health", process, cache / "app.log")
            yield f"http://localhost:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _up(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(20 * WAIT):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=1).close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
