"""Every method that is stored as a point on unseen prompts: docs/methods.png and docs/methods.md. Measures nothing.

`python -m benchmarks._front`, once `compare --axis race_ethnicity --outcome --max-ppl .05 --max-lambada-points 2
--methods all --items 2000 --run` has measured what there is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks._browser import chromium
from benchmarks._common import AXIS, ROOT, Unavailable, say
from fasp_core.figures import Words, method_front
from fasp_core.model.loading import known_id
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare, front
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.methods import Sample

WIDTH = 700  # px of a picture
COSTS = ("ppl", "lambada")  # a picture each, side by side
LIMITS = Limits(0.05, lambada_points=2)


def run(
    axis: str = AXIS,
    reading: str = "neutral",
    limits: Limits = LIMITS,
    store: Store | None = None,
    folder: Path = ROOT / "docs",
) -> dict[str, Any]:
    """Draw what is stored of the built-in model, and write it as a table.

    Raises
    ------
    Unavailable
        Nothing is stored, or there is no Chromium or no Playwright to draw with.
    """
    known, store = known_id(ModelSpec()), store or Store()
    assert known is not None  # of the built-in model
    comparison = compare.stored(known, axis, reading, store, BUILT_IN)
    if comparison is None:
        raise Unavailable(f"no comparison on {axis} is stored.")
    found = front.fullest(comparison, limits, known, store)
    if not front.points(found):
        raise Unavailable(
            f"no method is measured on test prompts: run 'python -m fasp_core compare --axis {axis} --outcome "
            "--max-ppl .05 --max-lambada-points 2 --methods all --run' first."
        )
    sample = found.sample or Sample(axis)
    note = f"{sample.prompts:,} test prompts or more; bars: 95% intervals."
    drawn = []
    for cost in COSTS:
        words = Words(f"{axis}, {reading}", note, front.COSTS[cost][0], "gap less than unpruned, %")
        drawn.append(
            method_front(front.points(found, cost), words, limit=100 * limits.max_ppl if cost == "ppl" else None)
        )
    picture = _picture(drawn, folder / "methods.png")
    said = f"# Methods beside each other\n\n![Gap against cost]({picture.name})\n\n{front.markdown(found)}"
    best = front.sentence(found)
    how = f"On {axis} ({reading}), chosen on validation ({limits.text()}). Drawn by `python -m benchmarks._front`.\n"
    (folder / "methods.md").write_text("\n\n".join(filter(None, (said, best, how))), encoding="utf-8")
    for name in (*found.missing, *found.lacking):
        say(f"front: {name} is not in it, {found.lacking.get(name, 'it was not measured')}")
    return {"methods": found.methods, "missing": list(found.missing), "lacking": found.lacking, "picture": str(picture)}


def _picture(figures: list[Any], path: Path) -> Path:
    parts = [
        figure.update_layout(width=WIDTH).to_html(full_html=False, include_plotlyjs=i == 0, config={"staticPlot": True})
        for i, figure in enumerate(figures)
    ]
    style = "body{margin:16px;display:flex;gap:24px;background:#fff}"
    with chromium() as (browser, _):
        page = browser.new_page(viewport={"width": 32 + (WIDTH + 24) * len(figures), "height": 560})
        page.set_content(f"<style>{style}</style>{''.join(parts)}")
        page.wait_for_function(
            f"document.querySelectorAll('.plotly-graph-div .main-svg .scatterlayer').length >= {len(figures)}"
        )
        page.screenshot(path=str(path))
    return path


if __name__ == "__main__":
    try:
        run()
    except Unavailable as error:
        sys.exit(f"front: {error}")
