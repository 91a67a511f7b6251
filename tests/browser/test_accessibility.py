"""axe-core finds nothing serious or critical on any page, in either theme (WCAG 2 A and AA)."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser
GRIDS = ".js-plotly-plot .main-svg"
PAGES = {
    "": GRIDS,
    "compare": "text=Which method lowers the gap",
    "transfer": GRIDS,
    "assumptions": "text=Are the scores what we think they are",
    "contexts": "text=Does it carry over to other contexts",
    "take_home": GRIDS,
    "released": "text=Open a file of released scores",
}
# Inside other people's widgets, and out of reach of labels, alternative texts and theme: selector, rule, reason.
NOT_OURS: dict[str, tuple[str, str]] = {}
SETTLED = "() => document.querySelector('[data-testid=\"stApp\"]')?.dataset.testScriptState === 'notRunning'"


def violations(page: Any) -> list[str]:
    """Serious and critical ones, a line for each element."""
    options = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
    found = Axe().run(page, options=options).response["violations"]
    lines = []
    for one in found:
        if one["impact"] not in ("serious", "critical"):
            continue
        for node in one["nodes"]:
            where = " ".join(map(str, node["target"]))
            if any(rule == one["id"] and part in where + node["html"] for part, (rule, _) in NOT_OURS.items()):
                continue
            lines.append(
                f"{one['id']} ({one['impact']}) {where}\n    {node['html'][:300]}\n    {node['failureSummary'][:300]}"
            )
    return lines


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe(app: str, browser: object, path: str, scheme: str) -> None:
    reader = Reader(browser, f"{app}/{path}", scheme=scheme, shown=PAGES[path])
    reader.page.wait_for_function(SETTLED, timeout=120_000)
    reader.page.wait_for_timeout(500)  # until what fades in has its colours
    found = violations(reader.page)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_on_what_opens(app: str, browser: object, scheme: str) -> None:
    """Popovers, the dialog of stored results, and the tour of a first visit."""
    reader = Reader(browser, app, scheme=scheme, first_visit=True)
    page = reader.page
    reader.measured()
    found = [f"tour: {line}" for line in violations(page)]
    page.get_by_role("button", name="Skip the tour").click()
    for name in ("Many heads", "Grids", "Link", "Help", "Runs"):
        page.wait_for_function(SETTLED, timeout=120_000)
        opener = page.locator('[data-testid="stPopover"]').get_by_role("button", name=name).first
        opener.click()
        page.wait_for_selector('[data-testid="stPopoverBody"]')
        page.wait_for_function(SETTLED, timeout=120_000)
        page.wait_for_timeout(500)
        found += [f"{name}: {line}" for line in violations(page)]
        if name != "Runs":
            page.keyboard.press("Escape")
            page.wait_for_selector('[data-testid="stPopoverBody"]', state="detached")
    page.get_by_role("button", name="Stored results").click()
    page.wait_for_selector('[role="dialog"]')
    page.wait_for_function(SETTLED, timeout=120_000)
    page.wait_for_timeout(500)
    found += [f"stored results: {line}" for line in violations(page)]
    assert not found, "\n".join(found)
