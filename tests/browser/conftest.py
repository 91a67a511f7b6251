"""One running app and one browser for all browser tests, and a reader's tab in it.

Tests wait for what is to be seen (`Reader.until` and the like), never for some seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from playwright.sync_api import TimeoutError as TimeLimit
from playwright.sync_api import sync_playwright

from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.loading import built_in_converted, known_id, load
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.learned import gains
from fasp_core.storage.store import Store, cache_root
from pages.backend.engine import engine
from pages.shell import tour
from tests.support.fakes import add_examples
from tests.support.made.report import add_report_example
from tests.support.made.strengths import add_strengths

ROOT = Path(__file__).resolve().parents[2]
SMALL = "prompts=90&tokens=512"  # in a link: sizes of quick measurements
LOOKS = 100  # ms between two looks at a page that is waited for
CELLS = ".instrument [role=gridcell]"  # in the shadow of the page, where locators look too
SCREENSHOTS = os.environ.get("FASP_SCREENSHOTS")  # a folder: keep pictures there


@pytest.fixture(scope="session")
def browser(chromium: str) -> Generator[object]:
    with sync_playwright() as p:
        b = p.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--process-per-site",  # tabs share the scripts that are compiled: a third less work for each
            ],
        )
        yield b
        b.close()


@pytest.fixture(scope="session")
def app(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Address of a running app: committed scores, the converted model, a cache of its own otherwise."""
    cache = prepared_cache(tmp_path_factory.mktemp("cache"))
    with serving(cache) as url:
        # the first request of a new server is a link to a page that is not the first: app.py must run all the same
        shown = '[data-testid="stSidebarNavLink"]:has-text("Explore heads")'
        first = Reader(browser, f"{url}/released", shown=shown)
        first.page.goto(f"{url}/_stcore/health")  # a tab without the app, which keeps the process of the others
        first.opened.remove(first.page)
        yield url


def prepared_cache(cache: Path) -> Path:
    """A cache of its own in that folder: committed scores, examples, and the converted model of the normal cache."""
    if not built_in_converted():
        load(ModelSpec())
    cache.mkdir(exist_ok=True)
    for kind in ("scores", "words", "gains"):
        shutil.copytree(ROOT / "cache" / kind, cache / kind)
    for entry in (ROOT / "cache" / "experiments").glob("built-in--contexts--*"):
        shutil.copytree(entry, cache / "experiments" / entry.name)
    (cache / "models").symlink_to(cache_root() / "models")
    add_examples(Store(cache))
    add_report_example(Store(cache))
    identity, store, bias = known_id(ModelSpec()), Store(cache), BiasConfig("race_ethnicity")
    assert identity is not None
    for found in gains.stored(identity, bias.axis, "neutral", "gains", store):
        add_strengths(store, found, bias, identity)
    return cache


def cached(cache: Path, **more: str) -> dict[str, str]:
    """The environment of a server with this cache."""
    return {**os.environ, "FASP_CACHE": str(cache), **more}


APP = (sys.executable, "-m", "streamlit", "run", "app.py", "--server.port")


@contextmanager
def serving(
    folder: Path, environment: Mapping[str, str] | None = None, command: Sequence[str | Path] = APP, cwd: Path = ROOT
) -> Generator[str]:
    """A server with its log in this folder, until the end of the block; its address.

    By default the folder is its cache as well; another environment is taken as it is. A port is added to the command.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "app.log").open("wb")
    process = subprocess.Popen(
        [*command, str(port)],
        cwd=cwd,
        env={**(environment or cached(folder)), "PYTHONFAULTHANDLER": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://localhost:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.25)
        else:
            raise AssertionError((folder / "app.log").read_text())
        yield url
        try:
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=60)
        except OSError as error:
            process.send_signal(signal.SIGABRT)  # writes what every thread was doing to the log
            process.wait(20)
            raise AssertionError((folder / "app.log").read_text()[-20_000:]) from error
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # it waits for a measurement that nobody looks at any more
            process.kill()
            process.wait(20)
        log.close()


@pytest.fixture(scope="module")
def table() -> ImpactTable:
    """The committed scores, which the page shows."""
    found = engine().results.scores(ModelSpec(), BiasConfig("race_ethnicity"))
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _tabs_closed() -> Generator[None]:
    """A tab that a test leaves open would go on asking the app for news while the next test waits."""
    yield
    while Reader.opened:
        Reader.opened.pop().close()  # a page, or a context of one's own


class Reader:
    """One person's tab.

    It is there once `shown` is on the page: at first heads or a chart; where there are none, something else. Tabs
    share what the browser has loaded of the app; only on a first visit nothing is there.
    """

    opened: ClassVar[list[Any]] = []
    _known: ClassVar[dict[Any, Any]] = {}  # the context of each browser

    def __init__(
        self,
        browser: Any,
        url: str,
        width: int = 1440,
        height: int = 1000,
        scheme: str = "light",
        shown: str = f"{CELLS}, .js-plotly-plot .main-svg",
        first_visit: bool = False,
    ) -> None:
        if first_visit:
            context = browser.new_context()
            self.opened.append(context)
        else:
            if browser not in self._known:
                self._known[browser] = browser.new_context()
            context = self._known[browser]
            context.add_cookies([{"name": tour.COOKIE, "value": "seen", "url": url}])
        self.page = context.new_page()
        self.opened.append(self.page)
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.page.set_default_timeout(60_000)
        self.errors: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.goto(url, timeout=120_000)
        self.page.wait_for_selector(shown, state="attached", timeout=120_000)

    def close(self) -> None:
        """Leave the app."""
        self.opened.remove(self.page)
        self.page.close()

    def fits(self) -> None:
        """Nothing is wider than the window, and the console has told of no error."""
        self.until("() => document.documentElement.scrollWidth <= window.innerWidth", timeout=10)
        assert not self.errors, self.errors

    def _heard(self, message: Any) -> None:
        """An error on the console.

        Left out is what Streamlit's client says of itself: below the root it asks for its server under the page's path
        first (a 404), and it looks for the file of a download button that a rerun has just replaced.
        """
        source = message.location.get("url", "")
        own = "/_stcore/" in source or "/media/" in source or "Download Button source error" in message.text
        if message.type == "error" and not own:
            self.errors.append(f"{message.text} {source}")

    def metric(self, label: str) -> str:
        box = self.page.locator('[data-testid="stMetric"]', has_text=label).first
        return str(box.locator('[data-testid="stMetricValue"]').inner_text())

    def measured(self, timeout: float = 120) -> tuple[str, str]:
        """Perplexity and gap once both are measured ("a → b"), within so many seconds."""
        self.until(
            """() => [...document.querySelectorAll('[data-testid="stMetricValue"]')]
                .filter(e => e.innerText.includes('→')).length >= 2 && !document.body.innerText.includes('so far ')""",
            timeout=timeout,
        )
        return self.metric("Perplexity"), self.metric("Toxicity gap")

    def removed(self) -> int:
        match = re.match(r"(\d+) of 270 heads", self.metric("Removed"))
        assert match is not None
        return int(match[1])

    def until(self, holds: str, arg: Any = None, timeout: float = 60) -> None:
        """Until a JavaScript function of `arg` is true, at most so many seconds; else what stands on the page."""
        try:
            self.page.wait_for_function(holds, arg=arg, timeout=1000 * timeout, polling=LOOKS)
        except TimeLimit as error:
            state, focus, body = self.page.evaluate(
                """() => [document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState,
                    document.activeElement?.outerHTML.slice(0, 300), document.body.innerText]"""
            )
            said = f"never: {holds} {arg!r}\n{self.page.url}\nerrors: {self.errors}\nscript: {state}, focus: {focus}"
            raise AssertionError(f"{said}\n{body}") from error

    def address(self, part: str, there: bool = True) -> str:
        """The address once a part is in it, or no more, and the page is whole: it changes before what stands below."""
        self.until(
            """([part, there]) => location.search.includes(part) === there && document.querySelector(
                '[data-testid="stApp"]')?.dataset.testScriptState === 'notRunning'""",
            [part, there],
        )
        return str(self.page.url)

    def settled(self) -> None:
        """Until the script has ended: what stands on the page while it runs may be from before."""
        self.wait_said("")

    def wait_said(self, text: str) -> None:
        """Until the page that says so is whole."""
        self.until(
            """text => document.body.innerText.includes(text) && document.querySelector(
                '[data-testid="stApp"]')?.dataset.testScriptState === 'notRunning'""",
            text,
        )

    def wait_removed(self, count: int) -> None:
        """Until a whole page says so."""
        self.wait_said(f"{count} of 270 heads")

    def wait_points(self, count: int, name: str = "heads") -> None:
        """Until a trace of the first chart has so many points; by name: the one that takes clicks."""
        self.until(
            """([n, name]) => (document.querySelector('.js-plotly-plot')?.data ?? []).find(t => t.name === name)
                ?.x.filter(x => x !== null).length === n""",
            [count, name],
        )

    def wait_heads(self, count: int = 270) -> None:
        """Until the instrument has so many heads."""
        self.page.locator(CELLS).nth(count - 1).wait_for(state="attached")
        assert self.page.locator(CELLS).count() == count

    def state(self, layer: int, head: int) -> str:
        """What the instrument says of a head."""
        return self.page.locator(f'{CELLS}[data-head="L{layer}H{head}"]').get_attribute("data-state") or ""

    def head_at(self, layer: int, head: int, grid: int = 0) -> tuple[float, float]:
        """The middle of a head on a map, on the screen."""
        boards = self.page.locator(".instrument .board")
        one, first = boards.nth(grid).bounding_box(), boards.first.bounding_box()
        cell = self.page.locator(f'{CELLS}[data-head="L{layer}H{head}"]').bounding_box()
        x, y = cell["x"] + cell["width"] / 2, cell["y"] + cell["height"] / 2
        return float(x + one["x"] - first["x"]), float(y + one["y"] - first["y"])

    def click_head(self, layer: int, head: int, grid: int = 0) -> None:
        """A real click in the middle of a cell."""
        self.page.locator(".instrument .board").nth(grid).scroll_into_view_if_needed()
        self.page.mouse.click(*self.head_at(layer, head, grid))

    def click_cell(self, row: int, column: int, chart: int = 0) -> None:
        """A real click on a cell of a matrix."""
        self.click_point(chart, "heads", column, row)

    def click_point(self, chart: int | str, name: str, x: float, y: float) -> None:
        """A real click on a chart, the n-th or the one with a text on it, given in the units of its axes.

        `name` is a trace that must be drawn by then.
        """
        self.settled()
        plots = self.page.locator(".js-plotly-plot").locator("visible=true")  # not those of closed tabs
        plot = plots.nth(chart) if isinstance(chart, int) else plots.filter(has_text=chart).last
        for _ in range(10):
            plot.wait_for()
            plot.evaluate("p => p.scrollIntoView({block: 'nearest'})")
            if (at := self._steady(plot, name, x, y)) is not None:
                self.page.mouse.move(*at)
                self.page.wait_for_timeout(200)  # Plotly looks for the point under the pointer
                self.page.mouse.click(*at)
                return
        raise AssertionError(f"the chart {chart} does not stand still")

    def _steady(self, plot: Any, name: str, x: float, y: float) -> tuple[float, float] | None:
        """Where a point of a chart is on the screen, once it has stayed there for a moment."""
        seen = []
        for _ in range(2):
            seen.append(
                plot.evaluate(
                    """(p, [name, x, y]) => { const f = p._fullLayout, b = p.getBoundingClientRect();
                        return (p.data ?? []).some(t => t.name === name) ? [b.left + f.xaxis._offset + f.xaxis.d2p(x),
                            b.top + f.yaxis._offset + f.yaxis.d2p(y)] : null; }""",
                    [name, x, y],
                )
            )
            self.page.wait_for_timeout(200)
        return (float(seen[0][0]), float(seen[0][1])) if seen[0] is not None and seen[0] == seen[1] else None

    def keep(self, name: str) -> None:
        """A picture of the page's beginning."""
        if SCREENSHOTS:
            size = self.page.viewport_size
            self.page.set_viewport_size({"width": size["width"], "height": 1180})
            self.page.mouse.move(5, 5)
            self.page.evaluate("() => document.querySelector('[data-testid=\"stMain\"]').scrollTo(0, 0)")
            self.page.wait_for_timeout(1500)
            self.page.screenshot(path=str(Path(SCREENSHOTS) / name))
            self.page.set_viewport_size(size)
