"""The page "Compare methods" in real Chromium, on made-up comparisons of the built-in model's heads."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from fasp_core.masks import PruneSet
from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser


def test_a_person_reads_the_claim_and_opens_the_set(app: str, browser: object, tmp_path: Path) -> None:
    reader = Reader(browser, f"{app}/compare?axis=nationality", width=1280, shown="text=About these numbers")
    reader.until("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6")
    reader.settled()
    page = reader.page
    sentence = page.locator('[data-testid="stAlert"]').first.inner_text()
    assert re.search(r"Gap reduced by \d+% \[\d+%, \d+%\] on \d+ test prompts at \+\d+\.\d% perplexity", sentence)
    assert "Not a success" not in page.inner_text("body")

    # the curves: a line for each method, the unpruned model, and the choice
    names = page.evaluate("() => document.querySelector('.js-plotly-plot').data.map(t => t.name)")
    assert {"FASP", "smallest weights", "bias only", "random, 5 seeds", "chosen"} <= set(names)
    assert any(name.startswith("unpruned") for name in names)

    # pointing at a candidate names it
    scatter = page.locator(".js-plotly-plot").nth(2)
    scatter.scroll_into_view_if_needed()
    reader.settled()
    x, y = scatter.evaluate(
        """p => { const f = p._fullLayout, b = p.getBoundingClientRect(), t = p.data.find(t => t.name === 'chosen');
            return [b.left + f.xaxis._offset + f.xaxis.d2p(t.x[0]), b.top + f.yaxis._offset + f.yaxis.d2p(t.y[0])]; }"""
    )
    page.mouse.move(x, y)
    page.wait_for_function("() => /gap counted/.test(document.querySelectorAll('.hoverlayer')[2].textContent)")
    told = page.evaluate("() => document.querySelectorAll('.hoverlayer')[2].textContent")
    assert "perplexity" in told
    assert "heads" in told

    # test is for looking
    page.get_by_role("radio", name="test", exact=True).or_(page.get_by_text("test", exact=True)).first.click()
    page.wait_for_selector("text=For looking.")

    with page.expect_download() as download:
        page.locator('[data-testid="stDownloadButton"]', has_text="Download as CSV").get_by_role("button").click()
    download.value.save_as(tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert len(rows) == 150
    assert {"method", "gamma", "alpha", "set", "change_neutral_valid", "ppl_change_test"} <= rows[0].keys()

    # the same set on the other page
    text = page.locator('[data-testid="stCode"]').first.inner_text().strip()
    count = len(PruneSet.parse(text))
    page.get_by_role("button", name="Open this set on Explore heads").click()
    page.wait_for_selector("text=Which heads carry bias?")  # this page, too, says how many of 270 heads
    page.wait_for_url(re.compile(r"/\?.*axis=nationality"))
    reader.wait_removed(count)
    assert not reader.errors, reader.errors
