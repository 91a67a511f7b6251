"""From `streamlit run` to the first map of heads in a real browser: fresh cache, running server, started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, Unavailable, machine, say

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
MADE_HERE = ("built-in--csv-", "built-in--ppl-preview--")  # entries that do not come with the program
WAIT = 300  # seconds for a page
DRAWN = "() => [...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('.instrument [aria-label]'))"
MEASURED = """() => [...document.querySelectorAll('[data-testid="stMetricValue"]')]
    .filter(e => e.innerText.includes('→')).length >= 2"""


def run(app: Path = ROOT / "app.py", shipped: Path = ROOT / "cache", settle: float = 300) -> dict[str, Any]:
    """Seconds to the first map of heads. The browser itself is started before.

    cold_s: from the start of a server on a cache that holds only what comes with the program, scores and word values,
    to the head grid in the browser. warm_busy_s: the same page for a second reader at once, while the first one's
    measurement is under way. warm_s: for another reader when that is done, or after `settle` seconds. restart_s: a new
    server on the cache that the first one left. The system's own file cache is left as it is.

    Raises
    ------
    Unavailable
        There is no Chromium or no Playwright.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise Unavailable("no Chromium was found: install chromium and run this again.")
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise Unavailable("Playwright is missing: pip install -r requirements-dev.txt.") from None
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        cache = Path(folder)
        for entry in [*shipped.glob("scores/built-in--*"), *shipped.glob("words/built-in--*")]:
            if not entry.name.startswith(MADE_HERE):
                shutil.copytree(entry, cache / entry.relative_to(shipped))
        browser = p.chromium.launch(executable_path=path, args=list(FLAGS))
        times: dict[str, float] = {}

        def read(url: str, start: float) -> tuple[Any, float]:
            page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
            page.goto(url, timeout=1000 * WAIT)
            page.wait_for_function(DRAWN, timeout=1000 * WAIT, polling=50)
            return page, time.perf_counter() - start

        try:
            start = time.perf_counter()
            with _server(app, cache) as url:
                times["server_s"] = time.perf_counter() - start
                page, times["cold_s"] = read(url, start)
                say(f"start: cold {times['cold_s']:.1f} s")
                _, times["warm_busy_s"] = read(url, time.perf_counter())
                settled = True
                try:
                    page.wait_for_function(MEASURED, timeout=1000 * settle)
                except Error:
                    settled = False
                _, times["warm_s"] = read(url, time.perf_counter())
            start = time.perf_counter()
            with _server(app, cache) as url:
                _, times["restart_s"] = read(url, start)
        finally:
            browser.close()
    return {
        "cold_s": times.pop("cold_s"),
        "warm_s": times.pop("warm_s"),
        **times,
        "measured_before_warm": settled,
        "model": "built-in",
        "browser": path,
        **machine(),
    }


@contextlib.contextmanager
def _server(app: Path, cache: Path) -> Iterator[str]:
    """Address of a new server that is up; ended at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(app)]
    command += ["--server.port", str(port), "--server.headless", "true"]
    with (cache / "app.log").open("wb") as log:
        env = {**os.environ, "FASP_CACHE": str(cache)}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
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
