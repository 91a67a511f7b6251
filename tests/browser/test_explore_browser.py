"""The page "Explore heads" in real Chromium: clicks, boxes, arrows of whole layers, keys, links, and tried sets."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import SMALL, Reader

pytestmark = pytest.mark.browser


def address(reader: Reader, part: str, there: bool = True) -> str:
    """The address once a part is in it, or no more."""
    reader.until("([part, there]) => location.search.includes(part) === there", [part, there])
    return str(reader.page.url)


def at(reader: Reader, layer: float, head: float, grid: int = 0) -> tuple[float, float]:
    plot = reader.page.locator(".js-plotly-plot").nth(grid)
    plot.scroll_into_view_if_needed()
    x, y = plot.evaluate(
        """(p, [l, h]) => { const f = p._fullLayout, b = p.getBoundingClientRect();
            return [b.left + f.xaxis._offset + f.xaxis.d2p(h), b.top + f.yaxis._offset + f.yaxis.d2p(l)]; }""",
        [layer, head],
    )
    return float(x), float(y)


def means(reader: Reader, what: str) -> None:
    """Choose what a click or box means."""
    reader.wait_said("A click or box on the grids means")
    choice = reader.page.get_by_role("radio", name=what, exact=True)
    choice.click()
    reader.until("e => e.ariaChecked === 'true'", choice.element_handle())
    reader.page.wait_for_timeout(300)  # until the page has begun to answer
    reader.settled()


def test_a_person_explores_heads(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.wait_points(270)
    before = reader.removed()
    first = reader.measured()
    assert re.fullmatch(r"\d+\.\d\d → \d+\.\d\d", first[0])

    # a click turns one head over, the method chooses around it, and the pruned model is measured again
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
    reader.until("() => location.search.includes('alpha=0.065')")
    reader.wait_removed(17)  # floor(.065 * 270)
    reader.wait_said("By hand: 1 pruned.")
    page.get_by_role("button", name="Back to the method's choice").click()
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
    plot = page.locator(".js-plotly-plot").first
    plot.hover()
    plot.locator('[data-title="Box Select"]').click()
    reader.until("() => document.querySelector('.js-plotly-plot')._fullLayout.dragmode === 'select'")
    (x0, y0), (x1, y1) = at(reader, 23.4, -0.4), at(reader, 20.6, 2.4)
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move(x1, y1, steps=8)
    page.mouse.up()
    reader.wait_said("By hand: 9 kept.")
    address(reader, "keep=L21H0-2%2CL22H0-2%2CL23H0-2")
    assert reader.removed() == before, "the method fills the places"

    # an arrow at the edge stands for its whole layer
    means(reader, "prune")
    reader.click_head(5, -1, grid=1)
    reader.wait_said("By hand: 9 pruned, 9 kept.")
    address(reader, "prune=L5H0-8")

    # keys go back and forth
    page.keyboard.press("Control+z")
    reader.wait_said("By hand: 9 kept.")
    page.keyboard.press("Control+z")
    reader.wait_said("No hand-made changes.")
    address(reader, "keep", there=False)
    page.keyboard.press("Control+y")
    reader.wait_said("By hand: 9 kept.")
    assert not reader.errors, reader.errors


def test_a_copied_link_opens_the_same_set_and_numbers(app: str, browser: Any) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}")
    reader.wait_points(270)
    reader.measured()
    reader.click_head(24, 6)
    reader.wait_said("By hand: 1 pruned.")
    address(reader, "prune=L24H6")
    reader.page.get_by_role("button", name=re.compile("^.*Link")).last.click()
    shown = reader.page.locator('[data-testid="stPopoverBody"] code').first
    shown.wait_for()
    link = shown.inner_text().strip()
    assert "prune=L24H6&" in link
    numbers = reader.measured()

    other = Reader(browser, link)
    other.wait_said("By hand: 1 pruned.")
    assert other.measured() == numbers
    # another page and back: the set is still there, and the address of each page says so
    other.page.get_by_role("link", name="Compare methods").click()
    other.wait_said("Which method lowers the gap")
    address(other, "prune=L24H6")
    other.page.get_by_role("link", name="Explore heads").click()
    other.wait_said("By hand: 1 pruned.")
    address(other, "prune=L24H6")
    assert other.measured() == numbers
    # what one does to the set is not another's
    other.click_head(29, 8)
    other.wait_said("By hand: 2 pruned.")
    reader.page.keyboard.press("Escape")
    reader.click_head(24, 6)
    reader.wait_said("No hand-made changes.")
    assert len({numbers, other.measured(), reader.measured()}) == 3
    assert not reader.errors + other.errors, reader.errors + other.errors


def test_sorted_grids_and_the_way_back(app: str, browser: Any) -> None:
    """A click on a sorted grid turns over the head that stands there; a tried set is returned to by its point."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.wait_points(270)
    count = reader.removed()
    page.get_by_role("button", name=re.compile("Grids")).last.click()
    page.get_by_text("Sort each layer by impact on bias").click()
    reader.until(
        "() => document.querySelector('.js-plotly-plot')?._fullLayout.xaxis.title.text === 'rank in its layer'"
    )
    page.keyboard.press("Escape")
    wanted = page.evaluate(
        """() => { const t = document.querySelector('.js-plotly-plot').data.find(t => t.name === 'heads');
            return [0, 1, 2, 3, 4, 5, 6, 7, 8].find(h => t.x[28 * 9 + h] === 4); }"""
    )
    reader.wait_removed(count)
    reader.click_head(28, 4)
    address(reader, f"prune=L28H{wanted}")
    reader.wait_said("By hand: 1 pruned.")

    page.get_by_text("Sets tried so far").click()
    chart = page.locator(".js-plotly-plot", has_text="Perplexity against the gap")
    chart.wait_for(timeout=30_000)
    reader.measured()  # after which the chart stays as it is
    reader.wait_removed(count)
    x, y = chart.evaluate("p => [p.data[0].x[0], p.data[0].y[0]]")
    reader.click_point("Perplexity against the gap", chart.evaluate("p => p.data[0].name"), x, y)
    reader.wait_said("No hand-made changes.")
    address(reader, "prune", there=False)
    assert not reader.errors, reader.errors


def test_quick_clicks_all_count_and_no_others(app: str, browser: Any) -> None:
    """Somebody who knows what to prune does not wait for the page between two clicks, and the grids stay in place."""
    reader = Reader(browser, f"{app}/?{SMALL}", height=2200)
    reader.measured()
    reader.wait_said("No hand-made changes.")
    first = at(reader, 20, 0)
    reader.click_quickly([(20, head) for head in (0, 2, 4, 6, 8)])
    reader.wait_said("By hand: 5 pruned.")
    address(reader, "prune=L20H0%2CL20H2%2CL20H4%2CL20H6%2CL20H8")
    assert at(reader, 20, 0) == first
    reader.page.keyboard.press("Control+z")
    reader.wait_said("By hand: 4 pruned.")  # each click is a step of its own

    # a head that was pointed at before is left alone by a click on the groups' chart, and by one beside the cells
    reader.measured()
    groups = reader.page.locator(".js-plotly-plot", has_text="Expected toxicity of each group")
    groups.wait_for()
    reader.settled()
    reader.page.mouse.move(*at(reader, 20, 4, grid=1))
    reader.until("() => document.querySelector('.fasp-ring')")
    groups.click()
    reader.page.locator(".js-plotly-plot").first.click(position={"x": 150, "y": 20})  # its title
    reader.click_head(20, 8, grid=1)  # so that the page has answered
    reader.wait_said("By hand: 5 pruned.")
    address(reader, "prune=L20H0%2CL20H2%2CL20H4%2CL20H6%2CL20H8")
    assert not reader.errors, reader.errors


def test_shift_pointing_and_typing(app: str, browser: Any) -> None:
    """Shift takes what lies between two clicks; the head pointed at is ringed elsewhere; Ctrl+Z is the text's."""
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
    address(reader, "L22H5-7%2CL23H5-7")

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
    box.press("Control+z")
    reader.until("box => box.value === ''", box.element_handle())
    reader.settled()
    assert page.url == before
    page.keyboard.press("Escape")

    # the head under the pointer is ringed in the other grid, and nowhere where nobody can see it
    reader.measured()
    rings = """() => { const p = document.querySelectorAll('.js-plotly-plot')[1], f = p._fullLayout,
                b = p.getBoundingClientRect();
            return [...document.querySelectorAll('.fasp-ring')].map(ring => { const r = ring.getBoundingClientRect();
                return Math.hypot(r.left + r.width / 2 - b.left - f.xaxis._offset - f.xaxis.d2p(4),
                    r.top + r.height / 2 - b.top - f.yaxis._offset - f.yaxis.d2p(12)); }); }"""
    for _ in range(20):  # the page may still grow, and move the head away from the hand
        page.mouse.move(*at(reader, 12, 4))
        page.wait_for_timeout(500)
        if away := page.evaluate(rings):
            assert len(away) == 1
            if away[0] < 1.5:
                break
    else:
        raise AssertionError(away)
    page.mouse.move(5, 5)
    reader.until("() => !document.querySelector('.fasp-ring')")
    assert not reader.errors, reader.errors
