"""The presentation in real Chromium: one screen a step in either theme, arrow keys, notes, two pages of paper, zoom."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from pages.presentation import deck
from pages.presentation.deck import STEPS
from tests.browser.conftest import CELLS, SMALL, Reader, cached, prepared_cache, serving

pytestmark = pytest.mark.browser
LINK = f"{SMALL}&alpha=0.02&gamma=0.3"
BAR = ".bar ol button"
OUTSIDE = """() => { const main = document.querySelector('[data-testid="stMain"]');
    return [main.scrollHeight - main.clientHeight, main.scrollWidth - main.clientWidth]; }"""


def presented(browser: Any, app: str, step: int = 1, **more: Any) -> Reader:
    reader = Reader(browser, f"{app}/presentation?step={step}&{LINK}", shown=f".fasp-step-{step}", **more)
    whole(reader, step)
    return reader


def whole(reader: Reader, step: int) -> None:
    """Until a step is there with all that it waits for."""
    reader.page.wait_for_selector(f".fasp-step-{step}")
    reader.until(
        """() => !document.querySelector('.st-key-waiting [data-testid="stProgress"]') && document.querySelector(
            '[data-testid="stApp"]')?.dataset.testScriptState === 'notRunning'""",
        timeout=120,
    )


def test_no_key_is_lost_while_the_page_is_behind(browser: Any) -> None:
    """The bar's script alone: an answer to the first of two keys comes before the third is pressed."""
    page = browser.new_page()
    page.goto("about:blank")
    sent = page.evaluate(
        """async text => {
            const url = URL.createObjectURL(new Blob([text], {type: 'text/javascript'}));
            const script = (await import(url)).default;
            const parentElement = document.body.appendChild(document.createElement('div'));
            const sent = [], setStateValue = (_, step) => sent.push(step);
            const hear = step => script({data: {step, steps: [...'abcde'], notes: []}, setStateValue, parentElement});
            const press = () => window.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
            hear(1); press(); press(); hear(2); press(); hear(3); hear(4); hear(2);
            return [sent, parentElement.bar.step]; }""",
        (Path(deck.__file__).parent / "deck.js").read_text(),
    )
    assert sent == [[2, 3, 4], 2]
    page.close()


@pytest.mark.parametrize(
    ("scheme", "looked_at"),
    [("light", (2, 4)), *(pytest.param(scheme, range(1, 6), marks=pytest.mark.slow) for scheme in ("light", "dark"))],
)
def test_each_step_is_one_screen_and_accessible(app: str, browser: Any, scheme: str, looked_at: Sequence[int]) -> None:
    """By default axe looks at a step of text and one of charts; the instrument is looked at on its own page."""
    reader = presented(browser, app, 1, width=1440, height=900, scheme=scheme)
    page = reader.page
    for step in range(1, len(STEPS) + 1):
        if step > 1:
            page.keyboard.press("ArrowRight")
        whole(reader, step)
        reader.address(f"step={step}")
        named = page.locator(f"{BAR}[aria-current=step]").inner_text()
        assert "".join(named.split()) == f"{step}{STEPS[step - 1]}".replace(" ", "")
        for width, height in ((1440, 900), (1280, 800)):
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(300)
            below, beside = page.evaluate(OUTSIDE)
            assert below <= 0, (step, width, below)
            assert beside <= 0, (step, width, beside)
        if step in looked_at:
            options = {"resultTypes": ["violations"]}
            found = Axe().run(page, context='[data-testid="stMain"]', options=options).response["violations"]
            assert not [
                (one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")
            ]
        reader.keep(f"presentation-{step}-{scheme}.png")
    page.keyboard.press("ArrowRight")  # there is no sixth
    page.keyboard.press("ArrowLeft")
    whole(reader, len(STEPS) - 1)
    reader.fits()


def test_a_button_at_an_end_keeps_the_focus(app: str, browser: Any) -> None:
    reader = presented(browser, app, 2)
    back = reader.page.get_by_role("button", name="Previous step")
    back.press("Enter")
    whole(reader, 1)
    assert back.get_attribute("aria-disabled") == "true"
    assert back.evaluate("one => one.getRootNode().activeElement === one")


def test_keys_of_the_instrument_stay_its_own(app: str, browser: Any) -> None:
    reader = presented(browser, app, 3)
    page = reader.page
    before = page.locator(".instrument #alpha").input_value()
    page.locator(".instrument #alpha").focus()
    page.keyboard.press("ArrowRight")
    reader.until(
        "before => document.querySelector('.st-key-instrument, body') && location.search.includes('step=3')", before
    )
    reader.address("alpha=0.025")
    page.locator(f"{CELLS}[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert "step=3" in page.url
    assert not reader.errors, reader.errors


def test_notes_are_shown_on_request_and_the_hand_out_has_two_pages(app: str, browser: Any, tmp_path: Path) -> None:
    reader = presented(browser, app, 4)
    page = reader.page
    notes = page.get_by_role("region", name="Speaker's notes")
    assert notes.count() == 0
    page.get_by_role("button", name="Notes").click()
    notes.wait_for()
    assert "decision of the house" in notes.inner_text()
    page.emulate_media(media="print")
    assert not notes.is_visible()
    assert page.locator(".fasp-handout").is_visible()
    assert not page.locator(".fasp-step-4").is_visible()
    made = page.pdf(path=tmp_path / "hand-out.pdf", format="A4", print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", made)) == 2


@pytest.mark.parametrize("step", [0, 3, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 4, 5))])
def test_at_twice_the_size(app: str, browser: Any, step: int) -> None:
    """1440 px at 200% are 720: nothing is cut, and lists of tabs alone scroll sideways; 0 is "Explore heads"."""
    if step:
        reader = presented(browser, app, step, width=720, height=450)
    else:
        reader = Reader(browser, f"{app}/?{LINK}", width=720, height=450)
        reader.measured()
    page = reader.page
    reader.settled()
    assert page.evaluate(OUTSIDE)[1] <= 0
    wide = page.evaluate(
        """() => { const out = []; const look = root => { for (const one of root.querySelectorAll('*')) {
            if (one.shadowRoot) look(one.shadowRoot);
            const box = one.getBoundingClientRect();
            if (box.width && box.height && box.right > innerWidth + 1 && getComputedStyle(one).visibility === 'visible'
                && one.checkVisibility() && !one.closest(
                    '[data-testid=stSidebar], [data-testid=stHeader], [role=tablist]'))
                out.push(one.outerHTML.slice(0, 120)); } };
            look(document.querySelector('[data-testid=stMain]')); return out; }"""
    )
    assert not wide
    reader.fits()


@pytest.mark.slow
def test_the_first_link_of_a_new_server_leads_to_its_page(browser: Any, tmp_path: Path) -> None:
    """And a demo begins with the presentation; neither is covered by a note that the page was not found."""
    cache = prepared_cache(tmp_path / "cache")
    command = (sys.executable, "-m", "fasp_studio", "--demo", "--port")
    with serving(tmp_path, cached(cache), command) as url:
        reader = Reader(browser, f"{url}/presentation?step=2&{LINK}", shown=".fasp-step-2")
        whole(reader, 2)
        assert reader.page.locator('[role="dialog"]').count() == 0
        reader.close()
        reader = Reader(browser, url, shown=".fasp-step-1")
        reader.page.wait_for_url("**/presentation**")
        assert reader.page.locator('[role="dialog"]').count() == 0
