"""Learned gains on "Explore heads" in real Chromium: one slider, which gates and estimates follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fasp_core.model.loading import known_id
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gains import Gains
from fasp_core.storage.store import Store
from tests.browser.conftest import ROOT, SMALL, Reader
from tests.browser.test_accessibility import violations
from tests.support.made.strengths import GAP, NATS

pytestmark = pytest.mark.browser
READ = """host => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    const text = name => Number(host.querySelector(`[data-estimate=${name}]`).textContent);
    let view = host;
    while (!view.instrument) view = view.parentNode;
    const gates = [...view.instrument.gates].map((gate, i) => [`L${Math.floor(i / 9)}H${i % 9}`, gate]);
    done({strength: Number(host.querySelector('#strength').value), perplexity: text('perplexity'), gap: text('gap'),
        gates: gates.filter(([, gate]) => gate !== 0 && gate !== 1),
        sliders: [...host.querySelectorAll('.slider')].filter(s => !s.hidden).length}); })))"""


@pytest.fixture(scope="module")
def learned() -> Gains:
    """The committed gains, which the page shows."""
    identity = known_id(ModelSpec())
    assert identity is not None
    found = gains.furthest(gains.stored(identity, "race_ethnicity", "neutral", "gains", Store(ROOT / "cache")))
    assert found is not None
    return found


def shown(reader: Reader) -> dict[str, Any]:
    """What the instrument shows in the next frame."""
    return dict(reader.page.locator(".instrument").evaluate(READ))


def right(found: dict[str, Any], learned: Gains, table: ImpactTable) -> None:
    """Gates are those of Python at this strength, and estimates lie on the lines."""
    s = found["strength"]
    wanted = {f"L{layer}H{head}": gain for layer, head, gain in learned.at(s).gains}
    told = dict(found["gates"])
    assert told == pytest.approx(wanted, abs=1.01e-4)  # another rounding of halves
    assert found["perplexity"] == pytest.approx(table.ppl.base.perplexity * np.exp(NATS * s), abs=0.006)
    assert found["gap"] == pytest.approx(1000 * table.bias.gap("neutral").gap * (1 + GAP * s), abs=0.006)
    assert found["sliders"] == 1


def test_a_drag_of_the_strength_moves_gates_and_estimates_before_the_server_hears(
    app: str, browser: object, table: ImpactTable, learned: Gains
) -> None:
    reader = Reader(browser, f"{app}/?method=gains&strength=0.5&{SMALL}", height=900)
    page = reader.page
    reader.wait_heads()
    reader.settled()
    right(shown(reader), learned, table)
    assert page.locator('[data-testid="stSidebar"]').get_by_text("Strength of the gains").count() == 0
    reader.keep("gains.png")
    slider = page.locator(".instrument #strength")
    box = slider.bounding_box()
    x, y = box["x"] + 8 + (box["width"] - 16) * 0.5, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    seen = []
    for step in (40, 30, -90):
        x += step
        page.mouse.move(x, y)
        seen.append(shown(reader))
        right(seen[-1], learned, table)  # in mid-drag
    assert len({s["strength"] for s in seen} | {0.5}) == 4
    page.mouse.up()
    reader.address(f"strength={seen[-1]['strength']:g}")
    reader.settled()
    right(shown(reader), learned, table)
    layer, head, gain = min(learned.at(seen[-1]["strength"]).gains, key=lambda one: one[2])
    assert reader.state(layer, head) == f"kept, scaled by {round(gain, 2):g}"
    assert "estimate" in page.inner_text("body") or "so far" in page.inner_text("body")
    # what a hand does stays whatever the strength, and both are steps
    reader.click_head(28, 6)
    reader.wait_said("By hand: 1 pruned.")
    slider.focus()
    page.keyboard.press("End")
    reader.address("strength", there=False)  # 1 is as at first
    assert reader.state(28, 6) == "pruned by hand"
    page.keyboard.press("Control+z")
    reader.address(f"strength={seen[-1]['strength']:g}")
    page.keyboard.press("Control+z")
    reader.wait_said("No hand-made changes.")
    found = violations(reader, "learned gains", "light")
    assert not found, "\n".join(found)
    reader.fits()


def test_one_slider_fits_a_narrow_window(app: str, browser: Any) -> None:
    reader = Reader(browser, f"{app}/?method=gains&strength=0.5&{SMALL}", width=900)
    reader.wait_heads()
    reader.settled()
    box = reader.page.locator(".instrument #strength").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 900
    reader.keep("gains-900.png")
    reader.fits()
