"""The pictures of the steps, as SVG: large marks, few words, the colors of all other figures.

They stand in the page and in the hand-out. Every text in them is escaped.
"""

from __future__ import annotations

import base64
import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from fasp_core.figures.cells import cell_colors
from fasp_core.figures.theme import BASE, FONT, Theme
from fasp_core.typing import Floats

Ends = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """A line of `changes`.

    Attributes
    ----------
    where : what it was measured on; rows of the same stand together below it.
    label, note : what was measured, and on how much.
    value, ends : relative change of the gap, and its interval if it is known.
    shown : whether it is a fall or a rise beyond doubt.
    strong : of what the choice never saw.
    """

    where: str
    label: str
    note: str
    value: float
    ends: Ends | None
    shown: bool
    strong: bool = False


@dataclass(frozen=True)
class Point:
    """A set of `prices`: relative change of perplexity and of the gap, each with its interval, and how many heads."""

    cost: float
    cost_ends: Ends
    gap: float
    gap_ends: Ends | None
    heads: int


def tag(name: str, inside: str = "", /, **attributes: object) -> str:
    """An element around finished markup; `stroke_width` is written `stroke-width`, values are escaped."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(v))}"' for key, v in attributes.items())
    return f"<{name}{said}>{inside}</{name}>"


def text(x: float, y: float, words: str, theme: Theme, size: float = 15, faint: bool = False, **more: object) -> str:
    """Words at a place."""
    color = theme.faint if faint else theme.text
    return tag("text", html.escape(words), x=f"{x:.1f}", y=f"{y:.1f}", fill=color, font_size=size, **more)


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1.5, **more: object) -> str:
    at = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return tag("line", stroke=color, stroke_width=width, **at, **more)


def _dot(x: float, y: float, r: float, fill: str, stroke: str, width: float = 2) -> str:
    return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=r, fill=fill, stroke=stroke, stroke_width=width)


def svg(width: float, height: float, about: str, parts: Iterable[str]) -> str:
    """A picture that stands by itself, so that nothing in it can act, and says what it shows to who cannot see it."""
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}", "viewBox": f"0 0 {width:.0f} {height:.0f}"}
    drawn = tag("svg", "".join(parts), xmlns="http://www.w3.org/2000/svg", font_family=FONT, **size)
    data = base64.b64encode(drawn.encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{html.escape(about)}">'


def attention(labels: Sequence[str], weights: Sequence[float], name: str, theme: Theme) -> str:
    """Where a head looks from the last word: arcs to all words before it, as thick as what it takes from them."""
    words = [label.replace("␣", "").strip() or "·" for label in labels]
    widths = [max(26.0, 10.2 * len(word) + 16) for word in words]
    ends = np.cumsum(widths)
    at = [float(end - width / 2) for end, width in zip(ends, widths, strict=True)]
    wide, base, last = float(ends[-1]), 190.0, at[-1]
    parts = []
    for x, weight in zip(at[:-1], weights[:-1], strict=True):
        rise = base - 26 - 150 * (last - x) / max(last - at[0], 1)
        path = f"M{last:.1f},{base - 24:.1f} C{last:.1f},{rise:.1f} {x:.1f},{rise:.1f} {x:.1f},{base - 24:.1f}"
        parts.append(
            tag("path", d=path, fill="none", stroke=theme.series[0], stroke_width=f"{1 + 16 * weight:.1f}",
                stroke_opacity=f"{0.25 + 0.75 * min(1, 2 * weight):.2f}")
        )  # fmt: skip
    for i, (x, word, weight) in enumerate(zip(at, words, weights, strict=True)):
        heavy = 700 if i == len(at) - 1 else 400
        parts.append(text(x, base, word, theme, 18, text_anchor="middle", font_weight=heavy))
        if weight >= 0.05:
            parts.append(text(x, base + 24, f"{weight:.0%}", theme, 14, True, text_anchor="middle"))
    told = ", ".join(f"{word} {weight:.0%}" for word, weight in zip(words, weights, strict=True) if weight >= 0.05)
    return svg(wide, base + 34, f"Where head {name} looks when it reads the last word: {told}.", parts)


def heads(
    values: Floats | None, errors: Floats | None, shape: tuple[int, int], theme: Theme, about: str,
    pruned: Iterable[int] = (), ringed: int | None = None, critical: Iterable[int] = (),
) -> str:  # fmt: skip
    """All heads of (layers, heads a layer), layers to the right where there are many.

    Colored by impact, crossed out where they are cut.
    """
    layers, per_layer = shape
    across = layers > 2 * per_layer
    columns, rows = (layers, per_layer) if across else (per_layer, layers)
    size = layers * per_layer
    colors = None if values is None or errors is None else cell_colors(values, errors, theme).colors
    cell, left, foot = 30.0, 34.0, 26.0
    gone, spared, crosses, squares = set(pruned), set(critical), [], defaultdict[tuple[str, bool], list[str]](list)
    for flat in range(size):
        layer, head = divmod(flat, per_layer)
        column, row = (layer, head) if across else (head, layers - 1 - layer)
        x, y = left + cell * column, cell * row
        fill = f"#{colors[6 * flat : 6 * flat + 6]}" if colors else theme.line
        inset = 2.5 if flat in spared else 1
        wide = cell - 2 * inset
        squares[fill, flat in spared].append(f"M{x + inset:g},{y + inset:g}h{wide:g}v{wide:g}h{-wide:g}z")
        if flat in gone:
            crosses.append(f"M{x + 9:g},{y + 9:g}l12,12M{x + 9:g},{y + 21:g}l12,-12")
    parts = []
    for (fill, edged), found in squares.items():  # one path a color, not an element a head
        edge: dict[str, object] = {"stroke": theme.ink, "stroke_width": 1} if edged else {}
        parts.append(tag("path", d="".join(found), fill=fill, **edge))
    for color, width in ((theme.halo, 6), (theme.ink, 3)) if crosses else ():
        cross = {"stroke": color, "stroke_width": width, "stroke_linecap": "round"}
        parts.append(tag("path", d="".join(crosses), fill="none", **cross))
    if ringed is not None:  # above all others
        layer, head = divmod(ringed, per_layer)
        x, y = (left + cell * layer, cell * head) if across else (left + cell * head, cell * (layers - 1 - layer))
        ring = {"fill": theme.series[0], "stroke": theme.ink, "stroke_width": 4}
        parts.append(tag("rect", x=x - 1, y=y - 1, width=cell + 2, height=cell + 2, rx=5, **ring))
    for i in range(0, columns, max(1, columns // 6)):
        parts.append(text(left + cell * (i + 0.5), rows * cell + 18, str(i), theme, 15, True, text_anchor="middle"))
    for i in range(0, rows, max(1, rows // 4)):
        label = i if across else rows - 1 - i
        parts.append(text(left - 8, cell * (i + 0.5) + 5, str(label), theme, 15, True, text_anchor="end"))
    right, down = ("layer", "head") if across else ("head", "layer")
    parts.append(text(left + cell * columns, rows * cell + 18, f"{right} →", theme, 14, True, text_anchor="end"))
    turned = f"rotate(-90 11 {rows * cell / 2})"
    parts.append(text(11, rows * cell / 2, down, theme, 14, True, text_anchor="middle", transform=turned))
    return svg(left + cell * columns + 4, rows * cell + foot, about, parts)


def groups(names: Sequence[str], means: Floats, ends: Sequence[Ends], middle: float, theme: Theme, about: str) -> str:
    """Mean toxicity of each group in thousandths, from the highest, and the mean of all as a line."""
    order = np.argsort(-means)
    known = [e for pair in ends for e in pair if isfinite(e)]
    low, high = min([*known, *means.tolist()]), max([*known, *means.tolist()])
    pad = 0.06 * (high - low or 1)
    left, wide, step = 190.0, 330.0, 34.0
    place = lambda v: left + wide * (v - low + pad) / (high - low + 2 * pad or 1)  # noqa: E731
    tall = step * len(names) + 8
    parts = [_line(place(middle), 0, place(middle), tall, theme.faint, 1.5, stroke_dasharray="5 4")]
    for row, i in enumerate(order):
        y, value, (a, b) = step * (row + 0.5), float(means[i]), ends[i]
        parts.append(text(left - 16, y + 5, _short(names[i].replace("_", " "), 22), theme, 16, text_anchor="end"))
        parts.append(_line(place(middle), y, place(value), y, theme.series[0], 5, stroke_opacity=0.35))
        if isfinite(a) and isfinite(b):
            parts.append(_line(place(a), y, place(b), y, theme.text, 1.5))
        parts.append(_dot(place(value), y, 6.5, theme.series[0], theme.page))
    words = f"mean of all: {middle:.1f}"
    side = "end" if place(middle) > left + 0.6 * wide else "start"
    parts.append(text(place(middle), tall + 17, words, theme, 14, True, text_anchor=side))
    return svg(left + wide + 10, tall + 24, about, parts)


def changes(rows: Sequence[Row], theme: Theme, about: str) -> str:
    """Relative changes with intervals, a line each, below what they were measured on; hollow where nothing is shown."""
    low = max(min([-1.0, *(r.ends[0] for r in rows if r.ends)]), -1.2)
    high = min(max([0.1, *(r.ends[1] for r in rows if r.ends)]), 1.0)
    left, wide, step, over, right = 330.0, 410.0, 44.0, 36.0, 200.0
    place = lambda v: left + wide * (min(max(v, low), high) - low) / (high - low)  # noqa: E731
    tall = step * len(rows) + over * len({r.where for r in rows})
    parts = []
    for mark in (-1.0, -0.75, -0.5, -0.25, 0.0):
        parts.append(_line(place(mark), 0, place(mark), tall, theme.line if mark else theme.faint, 1 if mark else 2))
        words = _signed(mark) if mark else "no change"
        parts.append(text(place(mark), tall + 20, words, theme, 14, True, text_anchor="middle"))
    y, where = 0.0, ""
    for row in rows:
        if row.where != where:
            where, y = row.where, y + over
            ground = {"x": 0, "y": f"{y - over + 8:.1f}", "width": left + wide + right, "height": over - 10}
            parts.append(tag("rect", fill=theme.page, **ground))
            parts.append(text(0, y - 9, where, theme, 16, font_weight=700))
        color = theme.series[0] if row.strong else BASE
        middle = y + step / 2
        parts.append(text(0, middle - 2, row.label, theme, 16))
        parts.append(text(0, middle + 15, row.note, theme, 13, True))
        if row.ends:
            ends = [place(end) for end in row.ends]
            parts.append(_line(ends[0], middle, ends[1], middle, color, 4, stroke_linecap="round"))
        parts.append(_dot(place(row.value), middle, 8, color if row.shown else theme.page, color, 3))
        told = _signed(row.value) + ("" if row.ends is None else f" [{', '.join(map(_signed, row.ends))}]")
        parts.append(text(left + wide + 16, middle + 5, told, theme, 15, font_weight=600 if row.shown else 400))
        y += step
    return svg(left + wide + right, tall + 28, about, parts)


def prices(points: Sequence[Point], mine: Point | None, theme: Theme, about: str) -> str:
    """Change of the gap against change of perplexity; points in the order of the number of heads are joined."""
    every = [*points, *([mine] if mine else [])]
    right_end = max(0.02, *(p.cost_ends[1] for p in every)) * 1.04
    left_end = min(0.0, *(p.cost_ends[0] for p in every))
    top = max(0.08, *((p.gap_ends or (p.gap, p.gap))[1] for p in every))
    left, wide, tall, foot = 86.0, 640.0, 410.0, 52.0
    across = lambda v: left + wide * (v - left_end) / (right_end - left_end)  # noqa: E731
    down = lambda v: 8 + (tall - 8) * (top - max(v, -1.0)) / (top + 1)  # noqa: E731
    parts = []
    for mark in (0.0, -0.25, -0.5, -0.75, -1.0):
        parts.append(_line(left, down(mark), left + wide, down(mark), theme.line if mark else theme.faint, 1))
        words = _signed(mark) if mark else "0"
        parts.append(text(left - 10, down(mark) + 5, words, theme, 14, True, text_anchor="end"))
    unit = next(u for u in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 1e9) if u * 8 >= right_end - left_end)
    for k in range(int(right_end / unit) + 1):
        parts.append(
            text(across(k * unit), tall + 20, _signed(k * unit) if k else "0", theme, 14, True, text_anchor="middle")
        )
    parts.append(
        text(left + wide, tall + 42, "rise of perplexity: language that is lost →", theme, 15, text_anchor="end")
    )
    turned = f"rotate(-90 20 {tall / 2})"
    parts.append(text(20, tall / 2, "change of the gap", theme, 15, text_anchor="middle", transform=turned))
    joined = " ".join(f"{across(p.cost):.1f},{down(p.gap):.1f}" for p in points)
    parts.append(tag("polyline", points=joined, fill="none", stroke=BASE, stroke_width=1.5, stroke_opacity=0.6))
    for p in points:
        parts += _crossed(p, across, down, BASE)
        parts.append(_dot(across(p.cost), down(p.gap), 7, BASE, theme.page))
        parts.append(text(across(p.cost) + 9, down(p.gap) - 9, str(p.heads), theme, 14, True))
    if mine:
        parts += _crossed(mine, across, down, theme.series[0], 3)
        parts.append(_dot(across(mine.cost), down(mine.gap), 10, theme.series[0], theme.page, 3))
        clear: dict[str, Any] = {
            "stroke": theme.page,
            "stroke_width": 5,
            "paint_order": "stroke",
            "stroke_linejoin": "round",
        }
        words = f"this set: {mine.heads}"
        parts.append(text(across(mine.cost) + 12, down(mine.gap) + 28, words, theme, 16, font_weight=600, **clear))
    return svg(left + wide + 10, tall + foot, about, parts)


def _crossed(p: Point, across: object, down: object, color: str, width: float = 1.5) -> list[str]:
    a, d = across, down
    assert callable(a)
    assert callable(d)
    found = [_line(a(p.cost_ends[0]), d(p.gap), a(p.cost_ends[1]), d(p.gap), color, width)]
    if p.gap_ends:
        found.append(_line(a(p.cost), d(p.gap_ends[0]), a(p.cost), d(p.gap_ends[1]), color, width))
    return found


def _signed(x: float) -> str:
    return f"{x:+.0%}".replace("-", "−")


def _short(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
