"""The page "Explore heads" in real Chromium: a drag, clicks, boxes, whole layers, keys, links, and tried sets."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from fasp_core.heads.selection import select
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from pages.backend.engine import engine
from tests.browser.conftest import CELLS, SMALL, Reader

pytestmark = pytest.mark.browser
AXIS = "race_ethnicity"
READ = """host => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    const all = selector => [...host.querySelectorAll(selector)];
    const text = name => host.querySelector(`[data-estimate=${name}]`).textContent;
    const of = start => all('[role=gridcell]').filter(c => c.dataset.state.startsWith(start)).map(c => c.dataset.head);
    done({gamma: Number(host.querySelector('#gamma').value), alpha: Number(host.querySelector('#alpha').value),
        pruned: of('pruned').sort(), critical: of('kept: critical').sort(), perplexity: text('perplexity'),
        gap: text('gap'), counts: all('.count').map(c => c.textContent)}); })))"""


@pytest.fixture(scope="module")
def table() -> ImpactTable:
    """The committed scores, which the page shows."""
    found = engine().results.scores(ModelSpec(), BiasConfig(AXIS))
    assert found is not None
    return found


def address(reader: Reader, part: str, there: bool = True) -> str:
    """The address once a part is in it, or no more."""
    reader.until("([part, there]) => location.search.includes(part) === there", [part, there])
    return str(reader.page.url)


def means(reader: Reader, what: str) -> None:
    """Choose what a click or box means."""
    reader.settled()
    choice = reader.page.get_by_role("radio", name=what, exact=True)
    choice.click()
    reader.until("e => e.ariaChecked === 'true'", choice.element_handle())
    reader.page.wait_for_timeout(300)  # until the page has begun to answer
    reader.settled()


def shown(reader: Reader) -> dict[str, Any]:
    """What the instrument shows in the next frame."""
    return dict(reader.page.locator(".instrument").evaluate(READ))


def right(found: dict[str, Any], table: ImpactTable) -> None:
    """Marks and estimates are those of Python for these sliders."""
    wanted = select(table.head_scores("neutral"), "fasp", round(found["gamma"], 6), round(found["alpha"], 6))
    names = sorted(f"L{layer}H{head}" for layer, head in wanted.heads)
    assert found["pruned"] == names
    assert len(found["critical"]) == len(set(wanted.critical) - set(wanted.pruned))
    assert found["counts"] == [f"{len(wanted.critical)} critical", f"{len(names)} of 270 pruned"]
    ppl, gap = table.added_up(wanted.pruned, "neutral")
    assert float(found["perplexity"]) == pytest.approx(ppl, abs=0.006)
    assert float(found["gap"]) == pytest.approx(1000 * gap, abs=0.006)


def test_a_drag_moves_heads_and_estimates_before_the_server_hears(
    app: str, browser: object, table: ImpactTable
) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.wait_heads()
    reader.measured()
    first = shown(reader)
    right(first, table)
    for name, steps in (("alpha", (60, 95, 20)), ("gamma", (-30, 60))):
        slider = page.locator(f".instrument #{name}")
        box, end, start = slider.bounding_box(), float(slider.get_attribute("max")), float(slider.input_value())
        x, y = box["x"] + 8 + (box["width"] - 16) * start / end, box["y"] + box["height"] / 2
        before = page.url
        page.mouse.move(x, y)
        page.mouse.down()
        seen = []
        for step in steps:
            x += step
            page.mouse.move(x, y)
            seen.append(shown(reader))
            right(seen[-1], table)  # in mid-drag
        assert len({s[name] for s in [first, *seen]}) == len(steps) + 1
        assert page.url == before or f"{name}=" in page.url
        page.mouse.up()
        address(reader, f"{name}={seen[-1][name]:g}")
        first = seen[-1]
    reader.wait_removed(len(first["pruned"]))
    assert shown(reader) == first, "the page's answer changes nothing"
    # the sidebar's slider drives the same value
    sidebar = page.locator('[data-testid="stSidebar"]').get_by_role("slider").nth(1)
    sidebar.focus()
    page.keyboard.press("ArrowLeft")
    address(reader, f"alpha={round(first['alpha'] - 0.005, 6):g}")
    reader.settled()
    right(shown(reader), table)
    assert shown(reader)["alpha"] == pytest.approx(first["alpha"] - 0.005)
    assert not reader.errors, reader.errors


@pytest.mark.parametrize("width", [1280, 1440])
def test_all_is_on_one_screen(app: str, browser: object, width: int) -> None:
    """Sliders, method, reading, numbers, verdict, both maps, legend, undo and history, without scrolling."""
    height = {1280: 800, 1440: 900}[width]
    reader = Reader(browser, f"{app}/?{SMALL}", width=width, height=height)
    reader.measured()
    reader.settled()
    parts = [
        ".instrument #gamma",
        ".instrument #alpha",
        ".instrument .numbers",
        ".instrument .board >> nth=0",
        ".instrument .board >> nth=1",
        ".instrument .legend",
        ".st-key-method",
        ".st-key-reading",
        ".st-key-above [data-testid=stMetric] >> nth=2",
        ".st-key-above [data-testid=stAlert]",
        ".st-key-undo",
        ".st-key-redo",
        "text=Sets tried so far",
    ]
    for part in parts:
        box = reader.page.locator(part).first.bounding_box()
        assert box, part
        assert box["y"] >= 0, (part, box)
        assert box["y"] + box["height"] <= height, (part, box)
        assert box["x"] + box["width"] <= width, (part, box)
    reader.fits()


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
    address(reader, "alpha=0.065")
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
    address(reader, "keep=L21H0-2%2CL22H0-2%2CL23H0-2")
    assert reader.removed() == before, "the method fills the places"

    # a number at the edge stands for its whole layer
    means(reader, "prune")
    page.locator('.instrument [data-line="layer"]').nth(1).get_by_text("5", exact=True).click()
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


def test_the_maps_by_keyboard_alone(app: str, browser: Any) -> None:
    """One head has the focus; arrows, Home and End move it; Space, Shift, L and C act; its name says all."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.measured()
    assert page.locator(f"{CELLS}[tabindex='0']").count() == 1
    page.locator(f"{CELLS}[tabindex='0']").focus()

    def press(*keys: str) -> str:
        for key in keys:
            page.keyboard.press(key)
        return str(page.locator(f"{CELLS}[tabindex='0']").get_attribute("data-head"))

    assert press("Home") == "L0H0"  # layers run to the right, heads down
    assert press("ArrowRight", "ArrowRight", "ArrowDown") == "L2H1"
    assert press("End") == "L29H1"
    assert press("Control+End") == "L29H8"
    assert press("ArrowLeft", "ArrowUp", "ArrowUp") == "L28H6"
    name = page.locator(f"{CELLS}[tabindex='0']").get_attribute("aria-label")
    assert re.match(r"L28H6, kept; perplexity: .* ± .*; gap falls by .* ± .* thousandths without it", name)
    press("Space")
    reader.wait_said("By hand: 1 pruned.")
    assert reader.state(28, 6) == "pruned by hand"
    assert press("Shift+ArrowLeft", "Shift+ArrowUp", "Space") == "L27H5"
    reader.wait_said("By hand: ")
    address(reader, "L27H5")
    page.keyboard.press("Control+z")
    reader.wait_said("By hand: 1 pruned.")
    page.locator(f"{CELLS}[data-head='L3H2']").focus()
    press("l")
    address(reader, "L3H")
    assert len({reader.state(3, head) for head in range(9)} - {"pruned by hand", "kept by hand"}) <= 1
    assert not reader.errors, reader.errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_instrument_is_accessible(app: str, browser: Any, scheme: str) -> None:
    """axe-core finds nothing at all in it."""
    reader = Reader(browser, f"{app}/?{SMALL}", scheme=scheme)
    reader.measured()
    reader.click_head(24, 6)
    reader.wait_said("By hand: 1 pruned.")
    reader.settled()
    found = Axe().run(reader.page, context='[class*="st-key-instrument"]', options={"resultTypes": ["violations"]})
    told = [f"{one['id']}: {node['html'][:200]}" for one in found.response["violations"] for node in one["nodes"]]
    assert not told, "\n".join(told)
    assert found.response["passes"], "nothing was looked at"


def test_a_copied_link_opens_the_same_set_and_numbers(app: str, browser: Any) -> None:
    reader = Reader(browser, f"{app}/?{SMALL}")
    reader.wait_heads()
    reader.measured()
    reader.click_head(24, 6)
    reader.wait_said("By hand: 1 pruned.")
    address(reader, "prune=L24H6")
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


def test_quick_clicks_all_count(app: str, browser: Any) -> None:
    """Somebody who knows what to prune does not wait for the page between two clicks, and the maps stay in place."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    reader.measured()
    reader.wait_said("No hand-made changes.")
    first = reader.head_at(20, 0)
    for head in (0, 2, 4, 6, 8):
        reader.page.mouse.click(*reader.head_at(20, head))
        assert reader.state(20, head).startswith("pruned by hand")
    reader.wait_said("By hand: 5 pruned.")
    address(reader, "prune=L20H0%2CL20H2%2CL20H4%2CL20H6%2CL20H8")
    assert reader.head_at(20, 0) == first
    reader.page.keyboard.press("Control+z")
    reader.wait_said("By hand: 4 pruned.")  # each click is a step of its own
    assert not reader.errors, reader.errors


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


def test_gates_by_key_and_by_dragging_with_alt(app: str, browser: Any) -> None:
    """A gate is seen at once, the page hears of it, and it snaps to 1, as the head is, and to 0, which is pruned."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.measured()
    page.locator(f"{CELLS}[data-head='L28H6']").focus()
    for _ in range(4):
        page.keyboard.press("-")
    assert reader.state(28, 6) == "kept, scaled by 0.6"
    address(reader, "neurons=L28H6%2A0.6")
    reader.wait_said("And 1 scaled head")
    for _ in range(4):
        page.keyboard.press("+")
    address(reader, "neurons", there=False)

    x, y = reader.head_at(28, 6)
    page.keyboard.down("Alt")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 30, steps=4)
    assert reader.state(28, 6) == "kept, scaled by 0.5"
    page.mouse.move(x, y + 58, steps=4)
    assert reader.state(28, 6) == "pruned by hand"
    page.mouse.up()
    page.keyboard.up("Alt")
    address(reader, "prune=L28H6")
    reader.wait_said("By hand: 1 pruned.")
    assert not reader.errors, reader.errors
