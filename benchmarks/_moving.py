"""The moving picture at the head of README, anew: `python -m benchmarks._moving` writes `docs/pictures/drag.gif`.

The instrument itself, with the committed scores of the built-in model, in a real browser: both sliders are dragged, and
every frame is a screenshot of what the script shows for them, the pointer drawn into it. It has to stay below 2 MB.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from benchmarks._browser import chromium
from benchmarks.drag import made_up
from fasp_core.figures.cells import cell_colors
from fasp_core.figures.theme import LIGHT
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from pages.backend.engine import engine
from pages.instrument.instrument import HERE, script
from pages.instrument.sent import Map, Rule, Shown, effects

FILE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "drag.gif"
MOST = 2_000_000  # bytes
WIDTH, HEIGHT = 1000, 640
FRAME, REST = 80, 1600  # ms
HAND = (("alpha", 0.1, 16), ("gamma", 0.0, 12), ("gamma", 0.3, 8), ("alpha", 0.0, 8))  # slider, goal, frames
SHOW = """async ([text, style, data, packed]) => {
    const made = await import(URL.createObjectURL(new Blob([text], {type: 'text/javascript'})));
    Object.assign(document.body.style, {margin: '18px 22px', background: '#fff'});
    document.body.style.setProperty('--st-font', 'system-ui, sans-serif');
    const host = document.body.appendChild(document.createElement('div')).attachShadow({mode: 'open'});
    host.append(Object.assign(document.createElement('style'), {textContent: style}));
    const start = await (await fetch(`data:;base64,${packed}`)).arrayBuffer();
    made.default({data: new Uint8Array(start), parentElement: host, setStateValue: () => {}});
    made.default({data: [data], parentElement: host, setStateValue: () => {}});
    window.view = host.instrument;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return [view.part.getBoundingClientRect().bottom, view.maps.length];
}"""
DRAG = """async ([name, value]) => {
    const slider = view.top[name].input, box = slider.getBoundingClientRect();
    slider.value = value;
    slider.dispatchEvent(new Event('input'));
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return [box.left + 8 + (box.width - 16) * slider.value / slider.max, box.top + box.height / 2];
}"""


def real(table: ImpactTable) -> tuple[Shown, bytes]:
    """What the page would send of these scores."""
    name, packed = effects(table, "neutral")
    shown, _ = made_up(table.n_layers, table.n_heads)
    found = (
        ("Impact on perplexity", "orange: the head helps language modelling", table.ppl.z_ppl, table.ppl.se_ppl),
        ("Impact on bias", "orange: the head adds bias", 1000 * table.bias.z_bias("neutral"),
         1000 * table.bias.standard_errors("neutral")),
    )  # fmt: skip
    drawn = [(title, note, cell_colors(z, se, LIGHT)) for title, note, z, se in found]
    units = ("Δ perplexity", "Δ gap, ×10⁻³")
    return replace(
        shown,
        effects=name,
        rule=Rule.of(table.head_scores("neutral"), "fasp", 0),
        alpha=0.0,
        maps=[Map(a, b, "", unit, c.colors, c.ticks) for (a, b, c), unit in zip(drawn, units, strict=True)],
        base=(table.ppl.base.perplexity, 1000 * table.bias.gap("neutral").gap),
    ), packed


def frames(page: Any, bottom: float) -> Iterator[tuple[Image.Image, int]]:
    """Pictures, and for how many milliseconds each is seen."""
    at = {"gamma": 0.3, "alpha": 0.0}
    for name, goal, steps in HAND:
        start = at[name]
        for step in range(1, steps + 1):
            x, y = page.evaluate(DRAG, [name, start + (goal - start) * step / steps])
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": round(bottom) + 14}
            picture = Image.open(BytesIO(page.screenshot(clip=clip))).convert("RGB")
            ImageDraw.Draw(picture).ellipse((x - 12, y - 12, x + 12, y + 12), outline="#D55E00", width=3)
            yield picture, REST if step == steps else FRAME
        at[name] = goal


def main() -> int:
    """Write it; 1 if it is too large. Raises as `chromium`."""
    table = engine().results.scores(ModelSpec(), BiasConfig("race_ethnicity"))
    assert table is not None, "they are committed"
    shown, packed = real(table)
    given = [script(), (HERE / "instrument.css").read_text(encoding="utf-8"), json.loads(json.dumps(shown.sent()))]
    with chromium() as (browser, _):
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto("about:blank")
        bottom, _ = page.evaluate(SHOW, [*given, base64.b64encode(packed).decode()])
        seen = list(frames(page, bottom))
    middle = seen[HAND[0][2] - 1][0]  # with most colors
    colors = middle.quantize(160, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    drawn = [one.quantize(palette=colors, dither=Image.Dither.NONE) for one, _ in seen]
    times = [time for _, time in seen]
    drawn[0].save(FILE, save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=True)
    size = FILE.stat().st_size
    print(f"{FILE.name}: {len(drawn)} frames, {sum(times) / 1000:.1f} s, {size:,} bytes")
    return 0 if size < MOST else 1


if __name__ == "__main__":
    sys.exit(main())
