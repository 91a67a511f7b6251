"""The page "Explore heads" in real Chromium: a drag, clicks, boxes, whole layers, keys, links, and tried sets."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fasp_core.scoring.impact_table import ImpactTable
from tests.browser.conftest import SMALL, Reader

pytestmark = pytest.mark.browser
AXIS = "race_ethnicity"


def means(reader: Reader, what: str) -> None:
    """Choose what a click or box means."""
    reader.settled()
    choice = reader.page.get_by_role("radio", name=what, exact=True)
    choice.click()
    reader.until("e => e.ariaChecked === 'true'", choice.element_handle())
    reader.page.wait_for_timeout(300)  # until the page has begun to answer
    reader.settled()


def test_a_person_explores_heads(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.wait_heads()
    before = reader.removed()
    first = reader.measured()
    assert re.fullmatch(r"\d+\.\d\d → \d+\.\d\d", first[0])

    # a click turns one head over, the method chooses around it, and the pruned model is measured again
    reader.click_head(24, 6)
    assert reader.state(24, 6) == "pruned by hand, although critical"  # before the page has answered
    reader.wait_said("By hand: 1 pruned.")
    assert reader.removed() == before
    second = reader.measured()
    assert second[0].split(" → ")[0] == first[0].split(" → ")[0], "the unpruned model is the same"
    assert second[0] != first[0]

    # the same head again, by the other map: back to where it was
    reader.click_head(24, 6, grid=1)
    reader.wait_said("No hand-made changes.")
    assert reader.measured() == first

    # a hand-made change survives a slider, and one button undoes it
    reader.click_head(25, 1)
    reader.wait_said("By hand: 1 pruned.")
    page.locator(".instrument #alpha").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    reader.address("alpha=0.065")
    reader.wait_removed(17)  # floor(.065 * 270)
    reader.wait_said("By hand: 1 pruned.")
    page.get_by_role("button", name="Reset").click()
    reader.wait_said("No hand-made changes.")
    assert reader.removed() == 17
    assert reader.measured() != first
    assert not reader.errors, reader.errors


def test_boxes_layers_and_keys(app: str, browser: Any) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.measured()
    before = reader.removed()

    # a box keeps what it is told to keep
    means(reader, "keep")
    page.mouse.move(*reader.head_at(21, 0))
    page.mouse.down()
    page.mouse.move(*reader.head_at(23, 2), steps=8)
    page.mouse.up()
    reader.wait_said("By hand: 9 kept.")
    reader.address("keep=L21H0-2%2CL22H0-2%2CL23H0-2")
    assert reader.removed() == before, "the method fills the places"

    # a number at the edge stands for its whole layer
    means(reader, "prune")
    page.locator('.instrument [data-line="layer"]').nth(1).get_by_text("5", exact=True).click()
    reader.wait_said("By hand: 9 pruned, 9 kept.")
    reader.address("prune=L5H0-8")

    # keys go back and forth
    page.keyboard.press("Control+z")
    reader.wait_said("By hand: 9 kept.")
    page.keyboard.press("Control+z")
    reader.wait_said("No hand-made changes.")
    reader.address("keep", there=False)
    page.keyboard.press("Control+y")
    reader.wait_said("By hand: 9 kept.")
    assert not reader.errors, reader.errors


def test_a_step_back_and_the_same_choice_again(app: str, browser: Any) -> None:
    """What is chosen on a page that shows the step counts, however soon."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    reader.measured()
    slider = reader.page.locator('[data-testid="stSidebar"]').get_by_role("slider").nth(1)
    slider.press("ArrowRight")
    reader.address("alpha=0.055")
    reader.settled()
    reader.page.keyboard.press("Control+z")
    reader.address("alpha", there=False)
    reader.page.wait_for_timeout(1200)
    reader.until("e => Number(e.value) === 0.05", slider.element_handle())
    slider.press("ArrowRight")
    reader.address("alpha=0.055")
    reader.page.wait_for_timeout(1500)
    reader.settled()
    reader.address("alpha=0.055")
    assert not reader.errors, reader.errors


def test_a_copied_link_opens_the_same_set_and_numbers(app: str, browser: Any) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}")
    reader.wait_heads()
    reader.measured()
    reader.click_head(24, 6)
    reader.wait_said("By hand: 1 pruned.")
    reader.address("prune=L24H6")
    reader.page.get_by_role("button", name=re.compile("^.*Link")).last.click()
    copied = reader.page.locator('[data-testid="stPopoverBody"] code').first
    copied.wait_for()
    link = copied.inner_text().strip()
    assert "prune=L24H6&" in link
    numbers = reader.measured()

    other = Reader(browser, link)
    other.wait_said("By hand: 1 pruned.")
    assert other.measured() == numbers
    # another page and back: the set is still there, and the address of each page says so
    other.page.get_by_role("link", name="Compare methods").click()
    other.wait_said("Which method lowers the gap")
    other.address("prune=L24H6")
    other.page.get_by_role("link", name="Explore heads").click()
    other.wait_said("By hand: 1 pruned.")
    other.address("prune=L24H6")
    assert other.measured() == numbers
    # what one does to the set is not another's
    other.click_head(29, 8)
    other.wait_said("By hand: 2 pruned.")
    reader.page.keyboard.press("Escape")
    reader.click_head(24, 6)
    reader.wait_said("No hand-made changes.")
    assert len({numbers, other.measured(), reader.measured()}) == 3
    assert not reader.errors + other.errors, reader.errors + other.errors


def test_sorted_maps_and_the_way_back(app: str, browser: Any, table: ImpactTable) -> None:
    """A click on a sorted map turns over the head that stands there; a tried set is returned to by its point."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.wait_heads()
    count = reader.removed()
    bias = table.bias.z_bias("neutral").reshape(30, 9)[28]
    wanted = int((-bias).argsort(kind="stable")[4])
    place = reader.head_at(28, 4)
    page.get_by_role("button", name=re.compile("Maps")).last.click()
    page.get_by_text("Sort each layer by impact on bias").click()
    page.locator(".instrument em", has_text="rank").first.wait_for(state="attached")
    page.keyboard.press("Escape")
    reader.measured()
    reader.settled()
    assert abs(reader.head_at(28, wanted)[1] - place[1]) < 3
    page.mouse.click(*reader.head_at(28, wanted))
    reader.address(f"prune=L28H{wanted}")
    reader.wait_said("By hand: 1 pruned.")

    page.get_by_text("Sets tried so far").click()
    chart = page.locator(".js-plotly-plot", has_text="Perplexity against the gap")
    chart.wait_for(timeout=30_000)
    reader.measured()  # after which the chart stays as it is
    reader.wait_removed(count)
    x, y = chart.evaluate("p => [p.data[0].x[0], p.data[0].y[0]]")
    reader.click_point("Perplexity against the gap", chart.evaluate("p => p.data[0].name"), x, y)
    reader.wait_said("No hand-made changes.")
    reader.address("prune", there=False)
    assert not reader.errors, reader.errors


def test_quick_clicks_all_count(app: str, browser: Any) -> None:
    """Somebody who knows what to prune does not wait for the page between two clicks, and the maps stay in place."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    reader.measured()
    reader.wait_said("No hand-made changes.")
    first = reader.head_at(20, 0)
    reader.page.evaluate(
        """() => { window.tops = new Set(); const look = () => { requestAnimationFrame(look);
            tops.add(Math.round(document.querySelector('[class*=st-key-instrument]').getBoundingClientRect().top)); };
            look(); }"""
    )
    for head in (0, 2, 4, 6, 8):
        reader.page.mouse.click(*reader.head_at(20, head))
        assert reader.state(20, head).startswith("pruned by hand")
    reader.wait_said("By hand: 5 pruned.")
    reader.address("prune=L20H0%2CL20H2%2CL20H4%2CL20H6%2CL20H8")
    assert reader.head_at(20, 0) == first
    for key in "zzzy":  # each click is a step of its own, and each key one back or forth
        reader.page.keyboard.press(f"Control+{key}")
    reader.wait_said("By hand: 3 pruned.")
    reader.measured()
    assert reader.page.evaluate("() => tops.size") == 1, "the maps stood still, in every frame"
    assert not reader.errors, reader.errors


def test_a_press_counts_once_though_timers_ask_before_it_is_sent(app: str, browser: Any) -> None:
    """A browser that is late with what a button has set: while a set is measured, the page asks for news meanwhile."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.measured()
    for head, said in ((1, 1), (3, 2)):
        reader.click_head(20, head)
        reader.wait_said(f"By hand: {said} pruned.")
    page.evaluate(
        """() => { window.wait = setTimeout;
            window.setTimeout = (call, ms, ...more) => wait(call, ms || 800, ...more); }"""
    )
    page.get_by_role("button", name="Undo").click()
    reader.until("() => location.search.includes('L20H1') && !location.search.includes('L20H3')")
    page.evaluate("() => { window.setTimeout = wait; }")
    reader.wait_said("By hand: 1 pruned.")


def test_shift_pointing_and_typing(app: str, browser: Any) -> None:
    """Shift takes what lies between two clicks; the head pointed at is ringed on both maps; Ctrl+Z is the text's."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.measured()
    page.get_by_role("tab", name="What a head does").click()  # it takes up the clicked head, and leaves it for Shift
    page.wait_for_selector("text=All heads of layer")
    reader.click_head(22, 5)
    reader.wait_said("By hand: 1 ")
    state = "pruned" if "By hand: 1 pruned." in page.inner_text("body") else "kept"
    page.keyboard.down("Shift")
    reader.click_head(23, 7, grid=1)
    page.keyboard.up("Shift")
    reader.wait_said(f"By hand: 6 {state}.")
    reader.address("L22H5-7%2CL23H5-7")

    # without Shift the next click is one head again
    reader.click_head(20, 0)
    reader.until("() => /By hand: (7 |6 \\w+, 1 )/.test(document.body.innerText)")

    # while somebody types, the keys are the text's
    reader.until("() => location.search.includes('L20H0')")  # the address comes after the page
    before = page.url
    page.get_by_role("button", name="Many heads").click()
    box = page.get_by_placeholder("L0H3,L2H1-4")
    box.click()
    box.press_sequentially("L1H")
    while box.input_value():  # one stroke, or all that were quick enough
        typed = len(box.input_value())
        box.press("Control+z")
        reader.until("([box, n]) => box.value.length < n", [box.element_handle(), typed])
    reader.settled()
    assert page.url == before
    page.keyboard.press("Escape")

    # the head under the pointer is ringed on both maps, and what is known of it is said
    reader.measured()
    for grid in (0, 1):
        page.mouse.move(*reader.head_at(12, 4, grid))
        page.locator(".instrument .tip", has_text="L12H4").wait_for()
        for one in (0, 1):
            ring = page.locator(".instrument .ring").nth(one).bounding_box()
            x, y = reader.head_at(12, 4, one)
            assert abs(ring["x"] + ring["width"] / 2 - x) < 1.5
            assert abs(ring["y"] + ring["height"] / 2 - y) < 1.5
    page.mouse.move(5, 5)
    page.locator(".instrument .tip").wait_for(state="hidden")
    assert not reader.errors, reader.errors
