"""From the start of the program to the first map of heads in a browser: fresh cache, running server, started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks._browser import chromium
from benchmarks._common import ROOT, machine, say

MADE_HERE = ("built-in--csv-", "built-in--ppl-preview--")  # entries that do not come with the program
WAIT = 300  # seconds for a page
DRAWN = "() => [...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('.instrument [aria-label]'))"
MEASURED = """() => [...document.querySelectorAll('[data-testid="stMetricValue"]')]
    .filter(e => e.innerText.includes('→')).length >= 2 && !document.body.innerText.includes('so far')"""


BARE = """import plotly.graph_objects as go
import streamlit as st

st.plotly_chart(go.Figure(go.Heatmap(z=[[head * layer % 7 for head in range(9)] for layer in range(30)])))
"""
BARE_DRAWN = "() => document.querySelector('.js-plotly-plot .main-svg .hm image, .js-plotly-plot .heatmaplayer image')"
AGAIN = 3  # times that a running server is read from


STUDIO = ("-m", "fasp_studio", "--port")
PAGE = ("-m", "streamlit", "run", "bare.py", "--server.port")


def run(shipped: Path = ROOT / "cache", settle: float = 300) -> dict[str, Any]:
    """Seconds to the first map of heads. The browser itself is started before.

    cold_s: from the start of a server on a cache that holds only what comes with the program, scores and word values,
    to the head grid in the browser. warm_busy_s: the same page for a second reader at once, while the first one's
    measurement is under way. warm_s: for other readers when that is done, or after `settle` seconds, the median of
    `AGAIN`. restart_s: a new server on the cache that the first one left. bare_cold_s, bare_warm_s: the same of a page
    of Streamlit that draws one chart of Plotly and nothing else; ratio_cold, ratio_warm: how many times as long this
    program takes. The system's own file cache is left as it is, by the bare page before.

    Raises as `chromium`.
    """
    with tempfile.TemporaryDirectory() as folder, chromium() as (browser, path):
        from playwright.sync_api import Error

        cache, bare = Path(folder) / "cache", Path(folder) / "bare"
        cache.mkdir()
        bare.mkdir()
        (bare / "bare.py").write_text(BARE, encoding="utf-8")
        for entry in [*shipped.glob("scores/built-in--*"), *shipped.glob("words/built-in--*")]:
            if not entry.name.startswith(MADE_HERE):
                shutil.copytree(entry, cache / entry.relative_to(shipped))
        times: dict[str, float] = {}

        def read(url: str, start: float, drawn: str = DRAWN) -> tuple[Any, float]:
            page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
            page.goto(url, timeout=1000 * WAIT)
            page.wait_for_function(drawn, timeout=1000 * WAIT, polling=50)
            return page, time.perf_counter() - start

        def warm(url: str, drawn: str = DRAWN) -> float:
            return statistics.median(read(url, time.perf_counter(), drawn)[1] for _ in range(AGAIN))

        start = time.perf_counter()
        with _server(PAGE, bare, bare) as url:
            _, times["bare_cold_s"] = read(url, start, BARE_DRAWN)
            times["bare_warm_s"] = warm(url, BARE_DRAWN)
        start = time.perf_counter()
        with _server(STUDIO, cache) as url:
            times["server_s"] = time.perf_counter() - start
            page, times["cold_s"] = read(url, start)
            say(f"start: cold {times['cold_s']:.1f} s, a bare page {times['bare_cold_s']:.1f} s")
            _, times["warm_busy_s"] = read(url, time.perf_counter())
            settled = True
            try:
                page.wait_for_function(MEASURED, timeout=1000 * settle)
            except Error:
                settled = False
            times["warm_s"] = warm(url)
        start = time.perf_counter()
        with _server(STUDIO, cache) as url:
            _, times["restart_s"] = read(url, start)
    return {
        **{name: times[name] for name in ("cold_s", "warm_s")},  # first
        **times,
        **{f"ratio_{how}": times[f"{how}_s"] / times[f"bare_{how}_s"] for how in ("warm", "cold")},
        "measured_before_warm": settled,
        "model": "built-in",
        "browser": path,
        **machine(),
    }


@contextlib.contextmanager
def _server(command: Sequence[str], cache: Path, folder: Path = ROOT) -> Iterator[str]:
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
            _wait(f"http://localhost:{port}/_stcore/health", process, cache / "app.log")
            yield f"http://localhost:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(20 * WAIT):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=1).close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
