"""Figures that leave the page: interactive in one HTML file, or as SVG and PNG that the reader's own browser makes.

No program draws on the server: Plotly's library in the page makes both kinds of picture. What is made here fetches
nothing, and says so to the browser (Content-Security-Policy): scripts run only if their hash is named.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import html
from functools import lru_cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fasp_core.figures.theme import theme_of

FORMATS = ("svg", "png")
SCALE = 3  # pixels of a PNG for one of the screen

# Draws every element of class "chart" from the JSON block that follows it, with a button for each format.
DRAW = """
for (const place of document.querySelectorAll(".chart")) {
  const figure = JSON.parse(place.nextElementSibling.textContent);
  const button = (format, scale) => ({
    name: format,
    title: "Download as " + format.toUpperCase(),
    icon: {
      width: 30, height: 24,
      svg: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 30 24"><text x="15" y="17" font-size="14"
        font-weight="700" font-family="sans-serif" text-anchor="middle">${format.toUpperCase()}</text></svg>`,
    },
    click: (chart) => Plotly.downloadImage(chart, {
      format, scale, filename: place.dataset.file, width: chart._fullLayout.width, height: chart._fullLayout.height,
    }),
  });
  Plotly.newPlot(place, figure.data, figure.layout, {
    displaylogo: false,
    responsive: place.dataset.responsive === "yes",
    modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"],
    modeBarButtonsToAdd: [button("svg", 1), button("png", $SCALE)],
  });
}
document.documentElement.dataset.drawn = "yes";
""".replace("$SCALE", str(SCALE))


@lru_cache(maxsize=1)
def plotly_js() -> str:
    """Plotly's library as it stands in a page."""
    library = str(get_plotlyjs())
    if "</script" in library.lower():
        raise ValueError("this release of plotly.js cannot stand inside a page")
    return library


@lru_cache(maxsize=1)
def policy() -> str:
    """What a page with these scripts allows: them, styles and pictures of its own, and nothing from anywhere else."""
    hashes = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (plotly_js(), DRAW))
    scripts = " ".join(f"'sha256-{h}'" for h in hashes)
    return f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:"


def camera(name: str, kind: str) -> dict[str, Any]:
    """Settings of a chart in the app whose camera button saves it in one of `FORMATS`, under this name."""
    options = {"format": kind, "filename": name, "scale": SCALE if kind == "png" else 1}
    others = ["zoom", "pan", "zoomIn", "zoomOut", "autoScale", "resetScale", "select", "lasso"]
    return {
        "displaylogo": False,
        "scrollZoom": False,
        "displayModeBar": True,
        "modeBarButtonsToRemove": [f"{name}2d" for name in others],
        "toImageButtonOptions": options,
    }


def opaque(fig: go.Figure, dark: bool = False) -> go.Figure:
    """A copy on the page's color: what leaves the page must be legible wherever it is put."""
    out = copy.deepcopy(fig)
    out.update_layout(paper_bgcolor=theme_of(dark).page)
    return out


def block(fig: go.Figure, name: str, *, responsive: bool = False) -> str:
    """The markup of one chart: its place, and its data. Plain text for `name`, the file that its buttons save."""
    data = str(fig.to_json())  # which escapes <, > and /
    if "<" in data:
        raise ValueError("a figure's JSON holds markup")
    wide = ' data-responsive="yes"' if responsive else ""
    return (
        f'<div class="chart" data-file="{html.escape(name)}"{wide}></div>'
        f'<script type="application/json">{data}</script>'
    )


def standalone(fig: go.Figure, title: str, name: str, dark: bool = False) -> str:
    """One interactive figure as an HTML file that needs nothing else.

    Parameters
    ----------
    title, name : plain texts, for the window and for the pictures that its buttons save.
    """
    theme = theme_of(dark)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{html.escape(title)}</title>\n'
        f"<style>body {{ margin: 16px; background: {theme.page}; }}</style>\n</head>\n<body>\n"
        f"{block(opaque(fig, dark), name, responsive=True)}\n"
        f"<script>{plotly_js()}</script>\n<script>{DRAW}</script>\n</body>\n</html>\n"
    )


def file_name(*words: object) -> str:
    """A name of plain letters for a file, such as `race_ethnicity-heads`."""
    text = "-".join(str(Path(str(w)).name) for w in words if str(w))
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text)
    return kept.strip("._-")[:80] or "figure"
