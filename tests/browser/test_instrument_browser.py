"""The instrument of "Explore heads" in real Chromium: a drag, the keyboard, gates, and one screen."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fasp_core.heads.selection import select
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.taught import Taught
from tests.browser.conftest import CELLS, SMALL, Reader

pytestmark = pytest.mark.browser
READ = """host => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    let view = host;
    while (!view.instrument) view = view.parentNode;
    const all = selector => [...host.querySelectorAll(selector)];
    const text = name => host.querySelector(`[data-estimate=${name}]`).textContent;
    const of = start => all('[role=gridcell]').filter(c => c.dataset.state.startsWith(start)).map(c => c.dataset.head);
    done({gamma: Number(host.querySelector('#gamma').value), alpha: Number(host.querySelector('#alpha').value),
        pruned: of('pruned').sort(), critical: of('kept: critical').sort(), perplexity: text('perplexity'),
        gap: text('gap'), taught: view.instrument.data.taught,
        counts: all('.count').filter(c => c.checkVisibility()).map(c => c.textContent)}); })))"""


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
    ppl, gap = table.estimate(wanted.pruned, "neutral", Taught(tuple(found["taught"])))
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
        reader.address(f"{name}={seen[-1][name]:g}")
        first = seen[-1]
    reader.wait_removed(len(first["pruned"]))
    same = ("gamma", "alpha", "pruned", "critical", "counts")  # what is measured teaches the estimates
    now = shown(reader)
    assert [now[name] for name in same] == [first[name] for name in same], "the page's answer changes nothing"
    # the sidebar's slider drives the same value
    sidebar = page.locator('[data-testid="stSidebar"]').get_by_role("slider").nth(1)
    sidebar.focus()
    page.keyboard.press("ArrowLeft")
    reader.address(f"alpha={round(first['alpha'] - 0.005, 6):g}")
    for _ in range(100):  # the page says it to the instrument a frame after it is in the address
        if shown(reader)["alpha"] == pytest.approx(first["alpha"] - 0.005):
            break
        page.wait_for_timeout(100)
    assert shown(reader)["alpha"] == pytest.approx(first["alpha"] - 0.005)
    reader.settled()
    right(shown(reader), table)
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
    reader.address("L27H5")
    page.keyboard.press("Control+z")
    reader.wait_said("By hand: 1 pruned.")
    page.locator(f"{CELLS}[data-head='L3H2']").focus()
    press("l")
    reader.address("L3H")
    assert len({reader.state(3, head) for head in range(9)} - {"pruned by hand", "kept by hand"}) <= 1
    assert not reader.errors, reader.errors


def test_gates_by_key_and_by_dragging_with_alt(app: str, browser: Any, table: ImpactTable) -> None:
    """A gate is seen at once, the page hears of it, and it snaps to 1, as the head is, and to 0, which is pruned."""
    reader = Reader(browser, f"{app}/?{SMALL}")
    page = reader.page
    reader.measured()
    page.locator(f"{CELLS}[data-head='L28H6']").focus()
    for _ in range(4):
        page.keyboard.press("-")
    assert reader.state(28, 6) == "kept, scaled by 0.6"
    guess = page.locator("[data-estimate=gap]")
    taught = Taught(tuple(shown(reader)["taught"]))
    was = shown(reader)
    pruned = {9 * int(name[1 : name.index("H")]) + int(name[name.index("H") + 1 :]): 1.0 for name in was["pruned"]}
    _, gap = table.estimate(pruned | {28 * 9 + 6: 0.4}, "neutral", taught)
    assert float(was["gap"]) == pytest.approx(1000 * gap, abs=0.006)
    reader.address("neurons=L28H6%2A0.6")
    reader.wait_said("And 1 scaled head")
    for _ in range(4):
        page.keyboard.press("+")
    reader.address("neurons", there=False)
    assert float(guess.inner_text()) > 0

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
    reader.address("prune=L28H6")
    reader.wait_said("By hand: 1 pruned.")
    assert not reader.errors, reader.errors
