"""Reports and the page "Take home" in real Chromium: no network, charts, print, downloads, and a set brought back."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from fasp_core.figures import export
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.report import charts, gather
from fasp_core.report.page import html
from fasp_core.storage.store import Store
from tests.browser.conftest import SMALL, Reader
from tests.support.made.report import Read, asked, facts, small_table

pytestmark = pytest.mark.browser
DRAWN = "html[data-drawn=yes]"
A4 = (794, 1123)  # px


class Alone:
    """A tab without a network: every request but for the file itself fails, and is written down."""

    def __init__(self, browser: Any, path: Path, **more: Any) -> None:
        context = browser.new_context(viewport={"width": 1000, "height": 900}, accept_downloads=True, **more)
        Reader.opened.append(context)
        context.set_offline(True)
        self.page, self.errors, self.asked = context.new_page(), list[str](), list[str]()

        def refuse(route: Any) -> None:
            self.asked.append(route.request.url)
            route.abort()

        self.page.route(re.compile("^(https?|wss?):"), refuse)
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("dialog", lambda d: (self.errors.append(f"dialog {d.message}"), d.dismiss()))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(DRAWN, state="attached", timeout=30_000)

    def save(self, chart: int, title: str) -> bytes:
        """What a button above a chart saves."""
        plot = self.page.locator(".js-plotly-plot").nth(chart)
        plot.hover()
        with self.page.expect_download() as download:
            plot.locator(f'.modebar-btn[data-title="{title}"]').click()
        assert download.value.suggested_filename.endswith(title[-3:].lower())
        return Path(download.value.path()).read_bytes()


def is_svg(content: bytes) -> bool:
    root = ElementTree.fromstring(content)
    return root.tag == "{http://www.w3.org/2000/svg}svg" and len(list(root.iter())) > 100


def is_png(content: bytes) -> bool:
    return content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 10_000


def test_a_report_needs_no_network_and_prints(browser: object, tmp_path: Path) -> None:
    made = facts(Store(tmp_path / "cache"), asked(), small_table())
    (tmp_path / "report.html").write_text(html(made))
    tab = Alone(browser, tmp_path / "report.html", color_scheme="dark")
    page = tab.page
    assert page.locator(".js-plotly-plot .main-svg").count() >= 8  # two layers a chart
    drawn = page.evaluate("() => [...document.querySelectorAll('.js-plotly-plot')].map(p => p.data.length)")
    assert len(drawn) == 4
    assert min(drawn) > 0
    assert page.locator("#verdict").inner_text().startswith("The gap fell by")
    assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    # in the light scheme of paper, whatever the screen has; nothing wider or taller than a sheet
    page.emulate_media(media="print")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('figure, table, pre')].map(e => [e.scrollWidth, e.tagName, "
        "e.getBoundingClientRect().height])"
    )
    assert all(width <= A4[0] - 2 * 55 for width, *_ in sizes)
    assert all(height <= A4[1] - 2 * 53 for _, tag, height in sizes if tag == "FIGURE")
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page[^s]", pdf)) <= 14
    assert not tab.errors, tab.errors
    assert not tab.asked, tab.asked


def test_an_interactive_figure_stands_alone(browser: object, tmp_path: Path) -> None:
    table = small_table()
    selection = select(table.head_scores("neutral"), "fasp", 0.3, 0.25)
    fig = charts.grids(table, "neutral", selection, gather.by_hand_to(selection, PruneSet()))[0]
    (tmp_path / "figure.html").write_text(export.standalone(fig, "<b>Title</b>", "name"))
    tab = Alone(browser, tmp_path / "figure.html")
    assert tab.page.title() == "<b>Title</b>"
    assert is_svg(tab.save(0, "Download as SVG"))
    assert is_png(tab.save(0, "Download as PNG"))
    x, y = tab.page.evaluate(
        "() => { const p = document.querySelector('.js-plotly-plot'), f = p._fullLayout, b = "
        "p.getBoundingClientRect(); return [b.left + f.xaxis._offset + f.xaxis.d2p(1), b.top + f.yaxis._offset + "
        "f.yaxis.d2p(2)]; }"
    )
    tab.page.mouse.move(x, y)
    tab.page.wait_for_function("() => /L2H1/.test(document.querySelector('.hoverlayer').textContent)")
    assert not tab.errors, tab.errors
    assert not tab.asked, tab.asked


def opened(app: str, browser: object, query: str) -> Reader:
    """The page once its figures are there."""
    reader = Reader(browser, f"{app}/take_home?{query}&{SMALL}", shown="text=Both impacts of every head")
    reader.until("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6")
    reader.settled()
    return reader


def saved(reader: Reader, label: str) -> bytes:
    """The file of a download button."""
    with reader.page.expect_download(timeout=30_000) as download:
        reader.page.locator('[data-testid="stDownloadButton"]').get_by_role("button", name=label).first.click()
    return Path(download.value.path()).read_bytes()


def test_a_person_takes_report_data_and_figures_home(app: str, browser: object, tmp_path: Path) -> None:
    reader = opened(app, browser, "axis=nationality&alpha=0.02")
    page = reader.page
    page.get_by_role("button", name="Measure and write the report").click()
    page.wait_for_selector("text=Download the report", timeout=120_000)
    reader.until("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 8")  # the groups
    reader.settled()
    content = saved(reader, "Download the report")
    read = Read(content.decode())
    assert read.said["verdict"] in page.inner_text("body")
    shown = page.locator('[data-testid="stCode"]').first.inner_text().strip()
    assert read.said["set"] == shown
    (tmp_path / "r.html").write_bytes(content)
    tab = Alone(browser, tmp_path / "r.html")
    assert tab.page.locator(".js-plotly-plot").count() == 4
    assert not tab.errors + tab.asked, tab.errors + tab.asked

    frame = pd.read_csv(io.BytesIO(saved(reader, "CSV")))
    assert len(frame) == 270
    assert frame.removed.sum() == 5
    pd.testing.assert_frame_equal(frame, pd.read_parquet(io.BytesIO(saved(reader, "Parquet"))), check_exact=False)
    about = json.loads(saved(reader, "JSON"))
    assert len(about["scores"]) == 270
    assert about["set"]["prune_set"] == shown
    assert PruneSet.parse(saved(reader, "Set (text)").decode()).format() == shown

    for kind, good in (("PNG", is_png), ("SVG", is_svg)):
        page.locator('[data-testid="stButtonGroup"]').get_by_text(kind, exact=True).click()
        plot = page.locator(".js-plotly-plot").first
        reader.until(
            "kind => document.querySelector('.js-plotly-plot')._context.toImageButtonOptions.format === kind",
            kind.lower(),
        )
        reader.settled()
        plot.hover()
        with page.expect_download() as download:
            plot.locator(".modebar-btn").first.click()
        assert download.value.suggested_filename == f"nationality-impact-on-perplexity.{kind.lower()}"
        assert good(Path(download.value.path()).read_bytes())
    assert not reader.errors, reader.errors


def test_a_set_is_brought_back(app: str, browser: object) -> None:
    """With the sidebar as it was, exactly the set of the file is off on the other page."""
    reader = opened(app, browser, "axis=nationality&alpha=0.02&gamma=0.5")
    page = reader.page
    text = b'{"heads": [[0, 1], [5, 5], [18, 8]], "neurons": [[3, 7]], "model": "<img src=x onerror=alert(1)>"}'
    file = {"name": "mine.json", "mimeType": "application/json", "buffer": text}
    page.locator("input[type=file]").set_input_files(file)
    reader.wait_said("3 of 270 heads and 1 neuron")
    reader.wait_said("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Use this set on Explore heads").click()
    page.wait_for_url(re.compile(r"/\?(?=.*axis=nationality)(?=.*alpha=0.02)(?=.*gamma=0.5)(?=.*neurons=L3N7)"))
    reader.wait_removed(3)
    reader.wait_said("And 1 neuron")
    page.get_by_role("link", name="Take home").click()
    reader.wait_said("L0H1,L5H5,L18H8,L3N7")
    assert not reader.errors, reader.errors
