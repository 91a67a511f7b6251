"""The clock of `benchmarks live` on a page of one's own: it stops at measured numbers of the set that was clicked."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks._page import WATCH

pytestmark = pytest.mark.browser
OLD = ("Perplexity\n20.00 → 21.00\nmeasured on 1,024 tokens; pruned 95% [20.10, 21.90]", "By hand: 1 pruned.")
ESTIMATE = "Perplexity\n≈ 21.30\nestimate, usually off by ±0.10; unpruned 20.00."
PARTIAL = "Perplexity\n20.00 → 22.00\nso far 512 of 1,024 tokens; 95% [+2%, +9%], valid at every look"
UNKNOWN = PARTIAL.replace("[+2%, +9%]", "[not known]")
GAP = "Toxicity gap, ×10⁻³ · neutral\n9.00 → 7.00\nso far 72 of 450 prompts; 95% [-40%, -1%], valid at every look"
HAND = "Removed\n13 of 270 heads\n81 critical heads are protected. By hand: 1 pruned, 1 kept."


@pytest.mark.parametrize(
    "first", [(OLD[0], "Removed\n13 of 270 heads\nBy hand: 1 pruned."), (ESTIMATE, HAND), (UNKNOWN, HAND)]
)
def test_it_stops_at_the_new_set_measured_with_an_interval(browser: Any, first: tuple[str, str]) -> None:
    page = browser.new_page()
    page.set_content('<div class="st-key-above">' + 3 * '<div data-testid="stColumn"></div>' + "</div>")
    page.evaluate(
        """watch => {
            window.say = texts => document.querySelectorAll('[data-testid="stColumn"]').forEach(
                (column, i) => column.innerText = texts[i]);
            window.stopped = null;
            eval(`(${watch})`)([2, 60000]).then(ms => { window.stopped = ms; });
        }""",
        WATCH,
    )
    page.evaluate("texts => say(texts)", [PARTIAL, GAP, HAND])
    page.wait_for_timeout(100)
    assert page.evaluate("() => stopped") is None, "no hand has rested"
    page.mouse.click(5, 5)
    page.evaluate("texts => say(texts)", [first[0], GAP, first[1]])
    page.wait_for_timeout(100)
    assert page.evaluate("() => stopped") is None
    page.evaluate("texts => say(texts)", [PARTIAL, GAP, HAND])
    page.wait_for_function("() => stopped !== null")
    assert page.evaluate("() => stopped") > 100
    page.close()
