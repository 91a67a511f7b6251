"""The real app in real Chromium: texts that are blurred until asked for, and where a head looks."""

from __future__ import annotations

import pytest

from tests.browser.conftest import SMALL, Reader

pytestmark = pytest.mark.browser
MARKUP = "<script>document.title = 'gone'</script> My friend is"
BLUR = """wanted => { const texts = [...document.querySelectorAll('.fasp-texts .fasp-text')];
    return texts.length > 0 && texts.every(t => getComputedStyle(t).filter.includes('blur') === wanted); }"""


def test_a_person_looks_at_texts_and_at_a_head(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}", width=900, scheme="dark")
    page = reader.page
    reader.wait_heads()
    reader.measured()  # what arrives above would move what is clicked
    page.get_by_role("tab", name="Sampled continuations").click()
    page.get_by_text("my own text").click()
    page.wait_for_selector("textarea")
    page.locator("textarea").fill(MARKUP)
    page.locator("textarea").press("Control+Enter")
    reader.until("() => ![...document.querySelectorAll('button')].find(b => b.innerText === 'Write').disabled")
    page.get_by_role("slider", name="Continuations").press("ArrowLeft")
    page.get_by_role("button", name="Write", exact=True).click()
    reader.until(BLUR, True, timeout=120)

    # by keyboard alone
    toggle = page.get_by_role("switch", name="Show texts")
    toggle.focus()
    page.keyboard.press("Space")
    reader.until(BLUR, False)
    marks = page.locator(".fasp-texts b").first.evaluate(
        "b => [getComputedStyle(b).textDecorationLine, Number(getComputedStyle(b).fontWeight)]"
    )
    assert marks[0] == "underline"
    assert marks[1] >= 600
    assert page.title() == "FASP Studio"
    assert "friend" not in page.url

    # the same prompt, and the head that was clicked last
    page.get_by_role("tab", name="What a head does").click()
    page.wait_for_selector(".st-key-attention-map .main-svg", timeout=120_000)
    assert page.locator("textarea").input_value() == MARKUP
    reader.measured()
    reader.click_head(24, 6)
    reader.until(
        "() => document.querySelector('.st-key-attention-map .gtitle')?.textContent.includes('Where L24H6 looks')",
        timeout=120,
    )
    sums = page.evaluate(
        """() => { const z = document.querySelector('.st-key-attention-map .js-plotly-plot')._fullData[0].z;
            return [...z].map(row => [...row].reduce((a, x) => a + (x === null || isNaN(x) ? 0 : x), 0)); }"""
    )
    assert len(sums) > 8
    assert sums == pytest.approx([1.0] * len(sums), abs=1e-3)
    ticks = page.locator(".st-key-attention-map .ytick text").all_text_contents()
    assert "script" in "".join(ticks), "markup is a token like any other"
    page.get_by_text("All heads of layer 24").click()
    reader.until("() => document.querySelector('.st-key-attention-layer .js-plotly-plot')?.data?.length === 9")
    assert page.title() == "FASP Studio"
    reader.fits()
