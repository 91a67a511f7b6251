"""The page "Contexts" in real Chromium, on the committed matrix of the built-in model."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser


def test_a_person_opens_the_answers_behind_a_cell(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/contexts")
    reader.until("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 9")
    reader.wait_said("beat heads")
    reader.wait_said("Click a cell for the answers behind it")
    reader.click_head(3, 1, grid=1)  # chosen on services, tested on services: there is no such set
    reader.wait_said("There is nothing of this kind")
    reader.click_quickly([(0, 0), (2, 1)], grid=1)  # the second is chosen on purchases
    reader.wait_said("chosen on purchases, tested on services")
    reader.wait_said("Answers in dollars, by group")
    reader.until("() => document.querySelectorAll('.js-plotly-plot').length === 4")
    reader.page.get_by_role("tab", name="Audit").click()
    reader.wait_said("Ask about purchases")
    reader.fits()
