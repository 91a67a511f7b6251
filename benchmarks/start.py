"""From the start of the program to the first map of heads in a browser: fresh cache, running server, started again."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._browser import chromium
from benchmarks._common import ROOT, machine, say
from benchmarks._page import DRAWN, MEASURED, STUDIO, WAIT, fresh, serving

BARE = """import plotly.graph_objects as go
import streamlit as st

st.plotly_chart(go.Figure(go.Heatmap(z=[[head * layer % 7 for head in range(9)] for layer in range(30)])))
"""
BARE_DRAWN = "() => document.querySelector('.js-plotly-plot .main-svg .hm image, .js-plotly-plot .heatmaplayer image')"
AGAIN = 3  # times that a running server is read from


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
        fresh(cache, shipped)
        bare.mkdir()
        (bare / "bare.py").write_text(BARE, encoding="utf-8")
        times: dict[str, float] = {}

        def read(url: str, start: float, drawn: str = DRAWN) -> tuple[Any, float]:
            page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
            page.goto(url, timeout=1000 * WAIT)
            page.wait_for_function(drawn, timeout=1000 * WAIT, polling=50)
            return page, time.perf_counter() - start

        def once(url: str, start: float, drawn: str = DRAWN) -> float:
            page, seconds = read(url, start, drawn)
            page.context.close()  # one whose server has ended looks for it again and again
            return seconds

        def warm(url: str, drawn: str = DRAWN) -> float:
            return statistics.median(once(url, time.perf_counter(), drawn) for _ in range(AGAIN))

        start = time.perf_counter()
        with serving(PAGE, bare, bare) as url:
            times["bare_cold_s"] = once(url, start, BARE_DRAWN)
            times["bare_warm_s"] = warm(url, BARE_DRAWN)
        start = time.perf_counter()
        with serving(STUDIO, cache) as url:
            times["server_s"] = time.perf_counter() - start
            page, times["cold_s"] = read(url, start)
            say(f"start: cold {times['cold_s']:.1f} s, a bare page {times['bare_cold_s']:.1f} s")
            times["warm_busy_s"] = once(url, time.perf_counter())
            settled = True
            try:
                page.wait_for_function(MEASURED, timeout=1000 * settle, polling=200)
            except Error:
                settled = False
            times["warm_s"] = warm(url)
            page.context.close()
        start = time.perf_counter()
        with serving(STUDIO, cache) as url:
            times["restart_s"] = once(url, start)
    return {
        **{name: times[name] for name in ("cold_s", "warm_s")},  # first
        **times,
        **{f"ratio_{how}": times[f"{how}_s"] / times[f"bare_{how}_s"] for how in ("warm", "cold")},
        "measured_before_warm": settled,
        "model": "built-in",
        "browser": path,
        **machine(),
    }
