"""The page "Explore heads" in a browser: its server and cache, and from a hand's rest to measured numbers."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._browser import chromium
from benchmarks._common import ROOT, Clock, say

MADE_HERE = ("built-in--csv-", "built-in--ppl-preview--")  # entries that do not come with the program
WAIT = 300  # seconds for a page
STUDIO = ("-m", "fasp_studio", "--port")
DRAWN = "() => [...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('.instrument [aria-label]'))"
MEASURED = """() => [...document.querySelectorAll('[data-testid="stMetricValue"]')]
    .filter(e => e.innerText.includes('→')).length >= 2 && !document.body.innerText.includes('so far ')"""
# The hand rests when the button is let go: a click is told at once. A set is the newest where the card of what is
# removed counts the click that was made last, and it is measured, or measured so far, with an interval, where both
# cards say so. Looked for whenever the page changes, in the frame in which it is drawn.
WATCH = """([clicks, patience]) => new Promise((done, fail) => {
    setTimeout(() => fail('a click was not answered'), patience);
    const card = name => [...document.querySelectorAll('.st-key-above [data-testid="stColumn"]')]
        .find(column => column.innerText.startsWith(name))?.innerText ?? '';
    let rest = null;
    const look = () => {
        const hand = card('Removed').match(/By hand: (?:(\\d+) pruned)?(?:, )?(?:(\\d+) kept)?/);
        if (rest === null || Number(hand?.[1] ?? 0) + Number(hand?.[2] ?? 0) !== clicks) return;
        const told = ['Perplexity', 'Toxicity gap'].map(card);
        const shown = text => text.includes('→') && /so far|measured/.test(text) && /\\[[^a-z]*\\]/.test(text);
        if (!told.every(shown)) return;
        watching.disconnect();
        requestAnimationFrame(() => done(performance.now() - rest));
    };
    const watching = new MutationObserver(look);
    watching.observe(document.body, {subtree: true, childList: true, characterData: true});
    window.addEventListener('pointerup', event => { rest = event.timeStamp; }, {capture: true, once: true});
})"""
PLACE = """name => {
    const root = [...document.querySelectorAll('*')].find(e => e.shadowRoot?.querySelector('.instrument')).shadowRoot;
    const {left, top, width, height} = root.querySelector(`[data-head="${name}"]`).getBoundingClientRect();
    return [left + width / 2, top + height / 2];
}"""


def run(clicks: int = 20, seed: int = 0, folder: Path = ROOT) -> dict[str, Any]:
    """Seconds from a click on a cell until both cards show a number of the new set that was measured, or is so far.

    A server of its own on a cache that holds only what comes with the program. Heads are drawn at random from the
    built-in model's, each clicked once, and each when the set before it is measured whole. `folder` is where the
    program lies.

    Raises as `chromium`; Playwright's Error where a click is not answered within `WAIT` seconds.
    """
    heads = np.random.default_rng(seed).choice(30 * 9, clicks, replace=False)
    clock = Clock()
    with tempfile.TemporaryDirectory() as place, chromium() as (browser, path):
        fresh(cache := Path(place) / "cache")
        with serving(STUDIO, cache, folder) as url:
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.context.add_cookies([{"name": "fasp_tour", "value": "seen", "url": url}])
            page.set_default_timeout(1000 * WAIT)
            page.goto(url)
            page.wait_for_function(DRAWN)
            page.wait_for_function(MEASURED, polling=200)
            say("live: the first set of the page is measured")
            for i, flat in enumerate(heads.tolist(), start=1):
                page.evaluate(f"given => {{ window.seen = ({WATCH})(given); }}", [i, 1000 * WAIT])
                page.mouse.click(*page.evaluate(PLACE, "L{}H{}".format(*divmod(flat, 9))))
                clock.laps.append(page.evaluate("() => window.seen") / 1000)
                page.wait_for_function(MEASURED, polling=200)
            cards = page.inner_text(".st-key-above")
    return {
        "page_first_measured_p50_s": clock.percentile(50),
        "page_first_measured_p95_s": clock.percentile(95),
        "page_clicks": clicks,
        "page_measured_on": " and ".join(re.findall(r"measured on (.*?)[,;]? (?:pruned|change)", cards)),
        "browser": path,
    }


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
