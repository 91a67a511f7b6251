"""The moving picture at the head of README, anew: `python -m tests.browser.moving`.

A real drag of both sliders on the page "Explore heads": every frame is a screenshot in mid-drag, with the pointer drawn
into it. When the hand rests, the next frame waits until the whole set was measured. It is written to `docs/drag.gif`,
and has to stay below 2 MB.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

from benchmarks.start import BROWSERS, FLAGS
from tests.browser.conftest import ROOT, SMALL, Reader, cached, prepared_cache, serving

FILE = ROOT / "docs" / "drag.gif"
MOST = 2_000_000  # bytes
WIDTH = 960  # px of the picture
FRAME, REST = 70, 2000  # ms
# a slider, where it is dragged to, in how many frames, and whether the hand rests there until the set is measured
HAND = (("alpha", 0.1, 22, True), ("gamma", 0.0, 16, True), ("gamma", 0.3, 9, False), ("alpha", 0.01, 12, False))


def frames(reader: Reader) -> Iterator[tuple[Image.Image, int]]:
    """Pictures, and how long each is seen."""
    page = reader.page
    yield shot(page, None), REST // 2
    for name, goal, steps, rests in HAND:
        slider = page.locator(f".instrument #{name}")
        box, end, start = slider.bounding_box(), float(slider.get_attribute("max")), float(slider.input_value())
        y = box["y"] + box["height"] / 2

        def place(value: float, box: Any = box, end: float = end) -> float:
            return float(box["x"] + 8 + (box["width"] - 16) * value / end)

        page.mouse.move(place(start), y)
        page.mouse.down()
        for step in range(1, steps + 1):
            at = place(start + (goal - start) * step / steps)
            page.mouse.move(at, y)
            yield shot(page, (at, y)), FRAME
        page.mouse.up()
        if rests:
            reader.address(f"{name}={goal:g}")
            reader.settled()
            reader.measured()
            yield shot(page, (at, y)), REST


def shot(page: Any, hand: tuple[float, float] | None) -> Image.Image:
    """The window as it is now, with the pointer."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    if hand is not None:
        x, y = hand
        ImageDraw.Draw(picture).ellipse((x - 11, y - 11, x + 11, y + 11), outline="#D55E00", width=3)
    return picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)


def main() -> int:
    """Write it; 1 if it is too large."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        print("No Chromium was found: install chromium and run this again.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        cache = prepared_cache(Path(folder) / "cache")
        browser = p.chromium.launch(executable_path=path, args=list(FLAGS))
        with serving(Path(folder), cached(cache)) as url:
            reader = Reader(browser, f"{url}/?alpha=0.01&gamma=0.3&{SMALL}", width=1200, height=720)
            reader.page.locator('[data-testid="stSidebarCollapseButton"] button').click()
            reader.measured()
            reader.settled()
            seen = list(frames(reader))
        browser.close()
    first = seen[0][0].quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    drawn = [one.quantize(palette=first, dither=Image.Dither.NONE) for one, _ in seen]
    times = [time for _, time in seen]
    drawn[0].save(FILE, save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=True)
    size = FILE.stat().st_size
    print(f"{FILE.relative_to(ROOT)}: {len(drawn)} frames, {sum(times) / 1000:.1f} s, {size:,} bytes")
    return 0 if size < MOST else 1


if __name__ == "__main__":
    sys.exit(main())
