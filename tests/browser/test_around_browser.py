"""What stands around the pages, in a real Chromium: tour and keyboard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pages.shell import tour
from tests.browser.conftest import SMALL, Reader, serving

pytestmark = pytest.mark.browser
STEP = "() => [...document.querySelectorAll('.st-key-tour')].map(e => e.innerText).join('')"


def test_the_tour_comes_once_covers_no_part_and_works_by_keyboard(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}", first_visit=True)
    page = reader.page
    reader.wait_heads()
    page.wait_for_selector(".st-key-tour")
    overlap = page.evaluate(
        """() => {
            const box = e => e.getBoundingClientRect(), tour = box(document.querySelector('.st-key-tour'));
            const others = '.st-key-above, .st-key-instrument, [data-testid="stMetric"], [data-testid="stSidebar"]';
            const meets = b => b.left < tour.right && tour.left < b.right && b.top < tour.bottom && tour.top < b.bottom;
            return [...document.querySelectorAll(others)].map(box).filter(meets).length;
        }"""
    )
    assert overlap == 0
    page.set_viewport_size({"width": 1280, "height": 800})
    for number, (part, _) in enumerate(tour.POINTS, 1):
        reader.until(f"() => ({STEP})().includes('({number} of 4)')")
        reader.until(
            """part => { const {top, bottom} = document.querySelector(`.st-key-${part}`).getBoundingClientRect();
                return top >= 0 && bottom <= window.innerHeight; }""",
            part,
        )
        page.locator(".st-key-tour").get_by_role("button", name="Done" if number == 4 else "Next").press("Enter")
    page.wait_for_selector(".st-key-tour", state="detached")
    reader.until("name => document.cookie.includes(name)", f"{tour.COOKIE}=seen")
    page.reload()
    reader.wait_heads()
    reader.settled()
    assert page.locator(".st-key-tour").count() == 0
    # but can be opened again
    page.locator('[data-testid="stPopover"] button', has_text="Help").click()
    page.get_by_role("button", name="Show the tour").click()
    page.wait_for_selector(".st-key-tour")
    assert not reader.errors, reader.errors


def test_two_people_open_a_program_that_has_just_started(browser: object, tmp_path: Path) -> None:
    """The one's page still imports what the other's needs: neither may see a module that is half there."""
    with serving(tmp_path, command=(sys.executable, "-m", "fasp_studio", "--port")) as url:
        both = [Reader(browser, f"{url}/?{SMALL}", shown="body") for _ in range(2)]
        for reader in both:
            reader.wait_heads()
            assert not reader.errors, reader.errors


def test_keyboard_reaches_everything(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.measured()  # its end draws the page again and drops the focus
    page.get_by_role("tab", name="Groups").click()
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    reader.settled()
    page.evaluate("() => document.activeElement?.blur()")
    wanted = {
        "Compare methods",
        "Help\n",
        "Runs\n",
        "γ  share",
        "α  share",
        "validation",
        "tab  Groups",
        "Download plot",
    }
    reached: list[str] = []
    for _ in range(200):  # more than one round
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                """() => { const e = document.activeElement;
                    return [e.getAttribute('role') ?? e.tagName, e.getAttribute('aria-label') ?? '', e.innerText ?? '']
                        .join(' ').slice(0, 90); }"""
            )
        )
        wanted = {name for name in wanted if name not in reached[-1]}
        if not wanted:
            break
    assert not wanted, f"{wanted} are not reached:\n" + "\n".join(reached)
