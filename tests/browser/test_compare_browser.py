"""The page "Compare methods" in real Chromium, on made-up comparisons of the built-in model's heads."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from fasp_core.heads.prune_set import PruneSet
from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser


def opened(app: str, browser: object, query: str, **window: int | str) -> Reader:
    """The page once its charts are there."""
    reader = Reader(browser, f"{app}/compare?{query}", shown="text=About these numbers", **window)  # type: ignore[arg-type]
    reader.page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6")
    return reader


def test_a_person_reads_the_claim_and_opens_the_set(app: str, browser: object, tmp_path: Path) -> None:
    reader = opened(app, browser, "axis=nationality", width=1280)
    page = reader.page
    sentence = page.locator('[data-testid="stAlert"]').first.inner_text()
    assert re.search(r"Gap reduced by \d+% \[\d+%, \d+%\] on \d+ test prompts at \+\d+\.\d% perplexity", sentence)
    assert "Not a success" not in page.inner_text("body")
    reader.keep("compare.png")

    # the curves: a line for each method, the unpruned model, and the choice
    names = page.evaluate("() => document.querySelector('.js-plotly-plot').data.map(t => t.name)")
    assert {"FASP", "smallest weights", "bias only", "random, 5 seeds", "chosen"} <= set(names)
    assert any(name.startswith("unpruned") for name in names)

    # pointing at a candidate names it
    scatter = page.locator(".js-plotly-plot").nth(2)
    scatter.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    x, y = scatter.evaluate(
        """p => { const f = p._fullLayout, b = p.getBoundingClientRect(), t = p.data.find(t => t.name === 'chosen');
            return [b.left + f.xaxis._offset + f.xaxis.d2p(t.x[0]), b.top + f.yaxis._offset + f.yaxis.d2p(t.y[0])]; }"""
    )
    page.mouse.move(x, y)
    page.wait_for_function("() => /gap counted/.test(document.querySelectorAll('.hoverlayer')[2].textContent)")
    told = page.evaluate("() => document.querySelectorAll('.hoverlayer')[2].textContent")
    assert "perplexity" in told
    assert "heads" in told
    reader.keep_here("compare-tradeoff.png")

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


def test_an_artefact_looks_like_none(app: str, browser: object) -> None:
    reader = opened(app, browser, "axis=nationality&reading=identity+words+counted", width=1920, scheme="dark")
    body = reader.page.inner_text("body")
    assert "No reduction was shown on" in body
    assert "Not a success" in body
    assert "The sampled measure disagrees" in body
    green = reader.page.locator('[data-testid="stAlertContentSuccess"]')
    assert green.count() == 0
    overflow = reader.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    reader.keep("compare-artefact-1920-dark.png")
    assert not reader.errors, reader.errors


def test_a_comparison_is_offered(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/compare?axis=age", shown="text=Compare the methods", width=900)
    body = reader.page.inner_text("body")
    assert "No comparison yet for age" in body
    assert "different sets" in body
    reader.keep("compare-offer.png")
    assert not reader.errors, reader.errors
