"""Script tags of others travel through the whole app, in real Chromium: nothing runs, nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fasp_core.figures import export
from fasp_core.heads.selection import select
from fasp_core.report import charts
from fasp_core.report.page import html
from fasp_core.storage.store import Store
from tests.browser.conftest import Reader
from tests.support.made.report import asked, facts, small_table

pytestmark = pytest.mark.browser
HOSTILE = (
    '<script>window.ran=1</script><img src="http://a.example/i.png" onerror="window.ran=1">'
    "[x](javascript:window.ran=1)![p](http://a.example/p.png)$$x^2$$"
)
# A bare address becomes a link that leads where it says it does, as everywhere in Streamlit; it waits for a click.
OFFENDING = """() => [...document.querySelectorAll('a[href], img, script, iframe')]
    .map(e => [e.tagName, e.getAttribute('href') || e.getAttribute('src') || e.textContent])
    .filter(([tag, s]) => /^javascript:/.test(s) || s === 'window.ran=1' || (tag !== 'A' && /a\\.example/.test(s)))"""


class Watched:
    """A tab that writes down what it is asked to fetch from elsewhere, and every dialog."""

    def __init__(self, page: Any) -> None:
        self.page, self.asked = page, list[str]()
        page.on("request", lambda r: self.asked.append(r.url) if "a.example" in r.url.split("?")[0] else None)
        page.on("dialog", lambda d: (self.asked.append(f"dialog {d.message}"), d.dismiss()))

    def nothing_ran(self) -> None:
        assert self.page.evaluate("() => window.ran") is None
        assert self.page.evaluate(OFFENDING) == []
        assert self.asked == []


def test_the_app(app: str, browser: object) -> None:
    """A link, a released file whose model, axis and name are markup, and a file that is refused."""
    shown = "text=Open a file of released scores"
    reader = Reader(browser, f"{app}/released?gamma={quote('a' + chr(10) * 2 + HOSTILE)}", shown=shown)
    tab, page = Watched(reader.page), reader.page
    scores = {"cont_to_ppl": [1.0, 2, 2, 3], f"cont_to_{HOSTILE[:120]}_bias": [3.0, 1, 1, 2]}
    chooser = page.locator('[data-testid="stFileUploaderDropzoneInput"]')
    raw = json.dumps({HOSTILE: scores}).encode()
    chooser.set_input_files({"name": "<img src=x onerror=window.ran=1>.json", "mimeType": "text/plain", "buffer": raw})
    alert = page.locator('[data-testid="stMain"] [data-testid="stAlert"]', has_text="is not known to this app")
    alert.wait_for()
    assert HOSTILE in alert.inner_text()  # letter by letter
    tab.nothing_ran()
    page.locator('[data-testid="stSelectbox"]', has_text="Heads in a layer").locator("input").click()
    page.get_by_role("option", name="2 (2 layers)").click()
    page.wait_for_selector(".js-plotly-plot .main-svg", state="attached")
    reader.settled()
    page.locator(".js-plotly-plot").first.hover()
    reader.until("() => document.querySelector('.hoverlayer')")
    tab.nothing_ran()
    raw = json.dumps({HOSTILE: {"x": HOSTILE}}).encode()
    page.get_by_role("button", name="Remove").first.click()
    chooser.set_input_files({"name": "b.json", "mimeType": "text/plain", "buffer": raw})
    alert = page.locator('[data-testid="stMain"] [data-testid="stAlert"]', has_text="expected a list of numbers")
    alert.wait_for()
    assert "<script>window.ran=1</script>" in alert.inner_text()
    tab.nothing_ran()


def test_what_is_taken_home(browser: Any, tmp_path: Path) -> None:
    """The report and a figure of its own, as a reader opens them."""
    groups = (HOSTILE, f"{HOSTILE}2", "<b>c</b>")
    table = small_table(groups)
    made = facts(Store(tmp_path / "cache"), asked(), table)
    (tmp_path / "report.html").write_text(html(made))
    selection = select(table.head_scores("neutral"), "fasp", 0.3, 0.25)
    figs = charts.grids(table, "neutral", selection, made.by_hand)
    (tmp_path / "figure.html").write_text(export.standalone(figs[0], HOSTILE, HOSTILE))
    for name in ("report", "figure"):
        context = browser.new_context()
        Reader.opened.append(context)
        tab = Watched(context.new_page())
        tab.page.goto((tmp_path / f"{name}.html").as_uri())
        tab.page.wait_for_selector("html[data-drawn=yes]", state="attached", timeout=30_000)
        tab.nothing_ran()
        said = tab.page.title() + tab.page.inner_text("body")
        assert "<script>window.ran=1</script>" in said, name
    # the report itself would refuse what slipped through
    worse = (tmp_path / "report.html").read_text().replace("<h2>Summary</h2>", "<script>window.ran=1</script>")
    (tmp_path / "worse.html").write_text(worse)
    with tab.page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        tab.page.goto((tmp_path / "worse.html").as_uri())
    assert tab.page.evaluate("() => window.ran") is None
