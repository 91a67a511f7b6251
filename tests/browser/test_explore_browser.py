"""The real app in real Chromium: what a person does on the page "Explore heads", on the committed scores."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser


def test_a_person_explores_heads(app: str, browser: object) -> None:
    reader = Reader(browser, app)
    page = reader.page
    reader.wait_points(270)
    before = reader.removed()
    first = reader.measured()
    assert re.fullmatch(r"\d+\.\d\d → \d+\.\d\d", first[0])

    # a click turns one head over, the method chooses around it, and the pruned model is measured anew
    reader.click_head(24, 6)
    reader.wait_said("By hand: 1 pruned.")
    assert reader.removed() == before
    second = reader.measured()
    assert second[0].split(" → ")[0] == first[0].split(" → ")[0], "the unpruned model is the same"
    assert second[0] != first[0]

    # the same head again, by the other grid: back to where it was
    reader.click_head(24, 6, grid=1)
    reader.wait_said("No hand-made changes.")
    assert reader.measured() == first

    # a hand-made change survives a slider, and one button undoes it
    reader.click_head(25, 1)
    reader.wait_said("By hand: 1 pruned.")
    slider = page.get_by_role("slider").nth(1)
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.search.includes('alpha=0.065')")
    reader.wait_removed(17)  # floor(.065 * 270)
    reader.wait_said("By hand: 1 pruned.")
    page.get_by_role("button", name="Back to the method's choice").click()
    reader.wait_said("No hand-made changes.")
    assert reader.removed() == 17
    assert reader.measured() != first
    assert not reader.errors, reader.errors
