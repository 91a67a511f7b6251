"""What stands around the pages, in a real Chromium: tour, keyboard, demo."""

from __future__ import annotations

import shutil
from collections.abc import Generator

import pytest

from fasp_core.store import cache_root
from pages.common import tour
from tests.browser.conftest import ROOT, Reader, serving

pytestmark = pytest.mark.browser
STEP = "() => [...document.querySelectorAll('.st-key-tour')].map(e => e.innerText).join('')"
PATHS = ("", "compare", "transfer", "assumptions", "contexts", "released")


def test_the_tour_comes_once_covers_nothing_and_works_by_keyboard(app: str, browser: object) -> None:
    reader = Reader(browser, app, first_visit=True)
    page = reader.page
    reader.wait_points(270)
    page.wait_for_selector(".st-key-tour")
    overlap = page.evaluate(
        """() => {
            const box = e => e.getBoundingClientRect(), tour = box(document.querySelector('.st-key-tour'));
            const others = '.js-plotly-plot, [data-testid="stMetric"], [data-testid="stSidebar"]';
            const meets = b => b.left < tour.right && tour.left < b.right && b.top < tour.bottom && tour.top < b.bottom;
            return [...document.querySelectorAll(others)].map(box).filter(meets).length;
        }"""
    )
    assert overlap == 0
    for number in (1, 2, 3, 4):
        reader.until(f"() => ({STEP})().includes('({number} of 4)')")
        page.locator(".st-key-tour").get_by_role("button", name="Done" if number == 4 else "Next").press("Enter")
    page.wait_for_selector(".st-key-tour", state="detached")
    reader.until("name => document.cookie.includes(name)", f"{tour.COOKIE}=seen")
    page.reload()
    reader.wait_points(270)
    reader.settled()
    assert page.locator(".st-key-tour").count() == 0
    # but can be opened again
    page.locator('[data-testid="stPopover"] button', has_text="Help").click()
    page.get_by_role("button", name="Show the tour").click()
    page.wait_for_selector(".st-key-tour")
    assert not reader.errors, reader.errors


def test_keyboard_reaches_everything(app: str, browser: object) -> None:
    reader = Reader(browser, app)
    page = reader.page
    reader.measured()  # its end draws the page anew and drops the focus
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


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Address of a demo."""
    cache = tmp_path_factory.mktemp("demo")
    for kind in ("scores", "words"):
        shutil.copytree(ROOT / "cache" / kind, cache / kind)
    (cache / "models").symlink_to(cache_root() / "models")
    with serving(cache, FASP_DEMO="1") as url:
        yield url


def test_a_demo_has_no_uploads_and_opens_no_paths(demo: str, browser: object) -> None:
    for path in PATHS:
        reader = Reader(browser, f"{demo}/{path}?model=/etc/passwd", shown="text=Demo: read-only")
        page = reader.page
        reader.wait_said("a model that this demo does not have")
        assert "passwd" not in page.inner_text("body")
        assert "passwd" not in page.url
        assert page.locator('[data-testid="stFileUploader"], input[type="file"]').count() == 0
        boxes = page.locator("input[type=text]:visible").evaluate_all(
            "all => all.map(e => `${e.placeholder} ${e.getAttribute('aria-label')}`)"
        )
        assert not any("path" in box.lower() or "csv" in box.lower() for box in boxes), boxes
        reader.close()
