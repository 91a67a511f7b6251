"""Pages in either theme: axe-core finds nothing serious or critical (WCAG 2 A and AA), and all fits its window.

By default one page of each kind is looked at, and all of them in the slow tier.
"""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import SMALL, Reader

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
PAGES = {  # what is there once the page is, and the charts on it
    "Explore heads": ("Which heads carry bias?", 0),
    "Compare methods": ("Which method lowers the gap", 3),
    "Scorecard": ("What does this set make better", 0),
    "Transfer between biases": ("Does a set chosen on one axis help the others?", 2),
    "Check the assumptions": ("Are the scores what we think they are", 0),
    "Contexts": ("Does it carry over to other contexts", 3),
    "Take home": ("Both impacts of every head", 3),
    "Released scores": ("Open a file of released scores", 0),
    "Presentation": ("attention heads, and each looks back", 0),  # the last: there the sidebar is closed
}
SOME = ("Explore heads", "Compare methods", "Contexts", "Presentation")  # cards and maps, charts, tables, slides
SHOWN = "() => document.getAnimations().every(a => a.playState !== 'running' || a.effect.getTiming().iterations > 1)"


FADED = """() => {
    const part = document.querySelector('.st-key-instrument'), style = document.createElement('style');
    style.textContent = '.faded { opacity: 0.33; }';
    document.head.append(style);
    part.classList.add('faded');
    const before = part.dataset.stale;
    part.dataset.stale = true;
    const found = getComputedStyle(part).opacity;
    part.dataset.stale = before;
    part.classList.remove('faded');
    style.remove();
    return found; }"""
RULES = {  # in the dark theme nothing but colours is another
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
    "dark": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
}


def violations(reader: Reader, where: str, scheme: str, inside: str | None = None) -> list[str]:
    """Serious and critical ones, a line for each element, once what fades in has its colours.

    `inside` is a selector of what has opened; what lies around it was looked at by itself.
    """
    reader.settled()
    reader.until(SHOWN, timeout=10)
    options = {"runOnly": RULES[scheme], "resultTypes": ["violations"]}
    found = Axe().run(reader.page, context=inside, options=options).response["violations"]
    lines = []
    for one in found:
        if one["impact"] not in ("serious", "critical"):
            continue
        for node in one["nodes"]:
            target = " ".join(map(str, node["target"]))
            lines.append(
                f"{where}: {one['id']} ({one['impact']}) {target}\n    {node['html'][:300]}\n"
                f"    {node['failureSummary'][:300]}"
            )
    return lines


def test_the_first_page_in_the_dark(app: str, browser: Any) -> None:
    """Of the dark theme, with nothing at all in the instrument; the slow tier looks at all pages in it."""
    reader = Reader(browser, f"{app}/?axis=nationality&alpha=0.02&{SMALL}", scheme="dark")
    reader.measured()
    reader.click_head(24, 6)
    reader.wait_said("By hand: 1 pruned.")
    reader.settled()
    assert not in_the_instrument(reader)
    found = violations(reader, "Explore heads", "dark")
    assert not found, "\n".join(found)


def in_the_instrument(reader: Reader) -> list[str]:
    """Violations of any weight and of all rules, a line for each element; it does not fade while the page is made."""
    assert reader.page.evaluate(FADED) == "1"
    found = Axe().run(reader.page, context='[class*="st-key-instrument"]', options={"resultTypes": ["violations"]})
    assert found.response["passes"], "nothing was looked at"
    return [f"{one['id']}: {node['html'][:200]}" for one in found.response["violations"] for node in one["nodes"]]


def test_what_opens_and_a_page_of_each_kind(app: str, browser: Any) -> None:
    """One visit, the first: the tour, popovers, the dialog of stored results, then pages."""
    visited(app, browser, "light", SOME)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page(app: str, browser: Any, scheme: str) -> None:
    visited(app, browser, scheme, tuple(PAGES))


def visited(app: str, browser: Any, scheme: str, pages: tuple[str, ...]) -> None:
    """Nothing is found on a first visit."""
    link = f"{app}/?axis=nationality&alpha=0.02&{SMALL}"
    reader = Reader(browser, link, scheme=scheme, first_visit=True)
    reader.measured()
    found = violations(reader, "tour", scheme, ".st-key-tour")
    reader.page.get_by_role("button", name="Skip the tour").click()
    reader.page.wait_for_selector(".st-key-tour", state="detached")
    found += _what_opens(reader, scheme)
    for title in pages:
        said, charts = PAGES[title]
        reader.page.get_by_role("link", name=title).click()
        reader.wait_said(said)
        reader.until("n => document.querySelectorAll('.js-plotly-plot .main-svg').length >= n", charts)
        if title == "Explore heads":
            reader.measured()
            found += in_the_instrument(reader)
        found += violations(reader, title, scheme)
        reader.keep(f"{title.lower().replace(' ', '-')}-{scheme}.png")
        for width in (900, 1920) if scheme == "light" else ():
            reader.page.set_viewport_size({"width": width, "height": 1000})
            reader.fits()
    assert not found, "\n".join(found)


def _what_opens(reader: Reader, scheme: str) -> list[str]:
    """Violations in popovers and in the dialog, which is closed again."""
    page, found = reader.page, []
    for name in ("Many heads", "Maps", "Link", "Help", "Runs"):
        reader.settled()
        page.locator('[data-testid="stPopover"]').get_by_role("button", name=name).first.click()
        page.wait_for_selector('[data-testid="stPopoverBody"]')
        found += violations(reader, name, scheme, '[data-testid="stPopoverBody"]')
        if name != "Runs":
            page.keyboard.press("Escape")
            page.wait_for_selector('[data-testid="stPopoverBody"]', state="detached")
    page.get_by_role("button", name="Stored results").click()
    page.wait_for_selector('[role="dialog"]')
    reader.settled()  # a dialog that is closed while its script still runs is opened again by what that sends
    found += violations(reader, "stored results", scheme, '[role="dialog"]')
    page.keyboard.press("Escape")
    page.wait_for_selector('[role="dialog"]', state="detached")
    return found
