"""What stands around the pages, in a real Chromium: tour, runs, demo, keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Generator

import pytest

from fasp_core.storage.store import cache_root
from pages.shell import tour
from tests.browser.conftest import ROOT, Reader, serving

pytestmark = pytest.mark.browser
STEP = "() => [...document.querySelectorAll('.st-key-tour')].map(e => e.innerText).join('')"
PATHS = ("", "compare", "transfer", "assumptions", "contexts", "released")
SETTLED = "() => document.querySelector('[data-testid=\"stApp\"]')?.dataset.testScriptState === 'notRunning'"


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
    reader.keep("tour.png")
    for number in (1, 2, 3, 4):
        page.wait_for_function(f"() => ({STEP})().includes('({number} of 4)')")
        page.locator(".st-key-tour").get_by_role("button", name="Done" if number == 4 else "Next").press("Enter")
    page.wait_for_selector(".st-key-tour", state="detached")
    page.wait_for_function("name => document.cookie.includes(name)", arg=f"{tour.COOKIE}=seen")
    page.reload()
    reader.wait_points(270)
    page.wait_for_function(SETTLED, timeout=60_000)
    assert page.locator(".st-key-tour").count() == 0
    # but can be opened again
    page.locator('[data-testid="stPopover"] button', has_text="Help").click()
    page.get_by_role("button", name="Show the tour").click()
    page.wait_for_selector(".st-key-tour")
    page.get_by_role("button", name="Skip the tour").click()
    page.wait_for_selector(".st-key-tour", state="detached")
    assert not reader.errors, reader.errors


def test_runs_show_what_was_measured(app: str, browser: object) -> None:
    reader = Reader(browser, app)
    page = reader.page
    reader.wait_points(270)
    slider = page.get_by_role("slider").nth(1)
    slider.focus()
    page.keyboard.press("ArrowLeft")  # another set: something runs
    page.wait_for_function("() => document.body.innerText.includes('1 running')", timeout=20_000)
    page.locator('[data-testid="stPopover"] button').first.click()
    page.wait_for_selector("text=Stored results")
    page.wait_for_function(  # the latter if it has ended meanwhile
        "() => ['Measuring a set', 'Nothing runs'].some(said => document.body.innerText.includes(said))", timeout=20_000
    )
    reader.keep_here("runs.png")
    assert not reader.errors, reader.errors


def test_keyboard_reaches_everything(app: str, browser: object) -> None:
    reader = Reader(browser, app)
    page = reader.page
    reader.wait_points(270)
    page.wait_for_function(SETTLED, timeout=60_000)
    page.evaluate("() => document.activeElement?.blur()")
    wanted = {"Compare methods", "Help\n", "γ  share", "α  share", "validation", "tab  Groups", "Download plot"}
    reached: list[str] = []
    for _ in range(200):  # more than one round: the end of a measurement draws the page anew and drops the focus
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
    said = "\n".join(reached)
    assert not wanted, f"{wanted} are not reached:\n{said}"
    assert "Runs" in said or "running" in said


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Address of a demo."""
    cache = tmp_path_factory.mktemp("demo")
    for kind in ("scores", "words"):
        shutil.copytree(ROOT / "cache" / kind, cache / kind)
    (cache / "models").symlink_to(cache_root() / "models")
    with serving(cache, FASP_DEMO="1") as url:
        yield url


@pytest.mark.parametrize("path", PATHS)
def test_a_demo_has_no_uploads_and_opens_no_paths(demo: str, browser: object, path: str) -> None:
    reader = Reader(browser, f"{demo}/{path}?model=/etc/passwd", shown="text=Demo: read-only")
    page = reader.page
    page.wait_for_function(
        "() => document.body.innerText.includes('a model that this demo does not have')", timeout=60_000
    )
    page.wait_for_function(SETTLED, timeout=60_000)
    assert "passwd" not in page.inner_text("body")
    assert "passwd" not in page.url
    assert page.locator('[data-testid="stFileUploader"], input[type="file"]').count() == 0
    boxes = page.locator("input[type=text]:visible").evaluate_all(
        "all => all.map(e => `${e.placeholder} ${e.getAttribute('aria-label')}`)"
    )
    assert not any("path" in box.lower() or "csv" in box.lower() for box in boxes), boxes
    reader.keep(f"demo-{path or 'explore'}.png")
