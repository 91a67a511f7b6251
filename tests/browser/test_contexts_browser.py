"""The page "Contexts" in real Chromium, on the committed matrix of the built-in model."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser


def test_a_person_opens_the_answers_behind_a_cell(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/contexts", width=1440)
    page = reader.page
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 9")
    body = page.inner_text("body")
    assert "beat heads" in body
    assert "Click a cell for the answers behind it" in body
    reader.keep("contexts.png")
    reader.click_head(3, 1, grid=1)  # chosen on services, tested on services: there is no such set
    reader.wait_said("There is nothing of this kind")
    reader.click_quickly([(0, 0), (2, 1)], grid=1)  # the second is chosen on purchases
    page.wait_for_selector("h3:has-text('chosen on purchases, tested on services')")
    page.wait_for_selector("text=Answers in dollars, by group")
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot').length === 4")
    reader.keep_here("contexts-cell.png")
    overflow = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    assert not reader.errors, reader.errors


def test_a_narrow_dark_window(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/contexts", width=900, scheme="dark")
    reader.page.get_by_role("tab", name="Audit").click()
    reader.page.wait_for_selector("text=Ask about purchases")
    assert reader.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert not reader.errors, reader.errors
