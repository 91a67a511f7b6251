"""Colors, words and layout that all figures share; every color of the figures is named here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from fasp_core.errors import InputError
from fasp_core.typing import Floats

# The pair that tells two models apart everywhere: gray is what was, blue what is after pruning. Each stands at 3:1
# or more against a white and a dark page (WCAG 1.4.11), and they stay apart with every common color blindness.
BASE = "#7F858D"
PRUNED = "#0072B2"
# Plotly's style sheet cuts charts off from the page's font, so it is named again
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TOP = 54  # px above a plot, for title and note
CLEAR = "rgba(0,0,0,0)"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
WASH = 0.67  # opacity of the veil over what is within noise: a third of the color is left


@dataclass(frozen=True)
class Theme:
    """Colors of one kind of page.

    Attributes
    ----------
    page : background that the figures are meant for; they are transparent themselves.
    text, faint : words and side remarks, both at 4.5:1 or more on `page`.
    line : zero lines and grids.
    ink, halo : marks on heads, and what sets them off. Ink stands at 3:1 or more on every color of `scale`, veiled
        or not, and on `missing`, so that no mark drowns.
    missing : a head that has no score yet.
    scale : blue - neutral - orange, ends of like lightness; never red against green. The neutral lies close to the
        page, so that heads that do nothing recede.
    series : of several methods side by side: hues of Okabe and Ito (2008), which stay apart with color blindness, as
        dark or light as 3:1 on `page` asks for; gray is last but one. Each goes with a shape of its own.
    """

    page: str
    text: str
    faint: str
    line: str
    ink: str
    halo: str
    missing: str
    scale: tuple[str, str, str, str, str]
    series: tuple[str, ...]

    @property
    def neutral(self) -> str:
        return self.scale[2]


LIGHT = Theme(
    page="#FFFFFF",
    text="#0F1620",
    faint="#5B6470",
    line="#C3CAD3",
    ink="#10151C",
    halo="#FFFFFF",
    missing="#AEB5BE",
    scale=("#2166AC", "#8DB9DC", "#F3F2F0", "#EFB470", "#B35806"),
    series=("#0072B2", "#008F68", "#CC79A7", "#BE7F00", "#3D94CC", "#7F858D", "#D55E00"),
)
DARK = Theme(
    page="#11161C",
    text="#E4E9EF",
    faint="#98A3B0",
    line="#46515E",
    ink="#FFFFFF",
    halo="#0B0F14",
    missing="#5A626D",
    scale=("#4A90D9", "#37608E", "#262C35", "#8A5526", "#D9771F"),
    series=("#2F8FD0", "#00A97B", "#CC79A7", "#E69F00", "#8CCBF2", "#8E949C", "#E8702A"),
)


def theme_of(dark: bool) -> Theme:
    return DARK if dark else LIGHT


@dataclass(frozen=True)
class Words:
    """Plain texts around a figure, and the page that it is drawn for.

    Attributes
    ----------
    title, note : at the top left. x, y : titles of the axes. unit : of what colors or bars show.
    """

    title: str
    note: str = ""
    x: str = ""
    y: str = ""
    unit: str = ""
    dark: bool = False

    @property
    def theme(self) -> Theme:
        return theme_of(self.dark)


def channels(color: str) -> tuple[int, int, int]:
    """Red, green and blue of `#RRGGBB`, each 0 to 255."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def veil(color: str, opacity: float = WASH) -> str:
    """`color`, see-through."""
    return f"rgba{(*channels(color), opacity)}"


def veiled(color: str, by: str, opacity: float = WASH) -> str:
    """What `color` looks like under `veil(by)`."""
    mixed = (round((1 - opacity) * a + opacity * b) for a, b in zip(channels(color), channels(by), strict=True))
    return "#{:02X}{:02X}{:02X}".format(*mixed)


def escape(text: object) -> str:
    """Plain text for a place where Plotly would read markup; line breaks are kept."""
    return html.escape(str(text), quote=False).replace("\n", "<br>")


def hover_text(text: str) -> str:
    """Plain text for a hover label, its first line in bold."""
    first, *rest = escape(text).split("<br>", 1)
    return "<br>".join([f"<b>{first}</b>", *rest])


def short(x: float, digits: int = 2) -> str:
    """A number in few characters: `0.0021`, `−13`, `2.1×10⁸`; `?` for NaN."""
    if x == 0 or not np.isfinite(x):
        return "0" if x == 0 else "?" if np.isnan(x) else "∞" if x > 0 else "−∞"
    sign = "−" if x < 0 else ""
    mantissa, power = f"{abs(x):.{digits - 1}e}".split("e")
    if -4 <= int(power) <= 4:
        return sign + np.format_float_positional(float(f"{mantissa}e{power}"), trim="-")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    times = "" if mantissa == "1" else f"{mantissa}×"
    return f"{sign}{times}10{str(int(power)).translate(SUPERSCRIPTS)}"


def vector(name: str, values: ArrayLike, n: int) -> Floats:
    """`values` as [n] floats.

    Raises
    ------
    InputError
        They are not numbers, or not n of them.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers ({error}).") from error
    if array.shape != (n,):
        raise InputError(f"{name} has shape {array.shape}: it needs ({n},), one number each, in order.")
    return array


def check_texts(name: str, texts: Sequence[str], n: int) -> None:
    if isinstance(texts, str) or len(texts) != n:
        raise InputError(f"{name} holds {len(texts)} texts: it needs {n}, one each, in order.")


def hovering(texts: Iterable[str], at: str = "text") -> dict[str, Any]:
    """Labels under the pointer; `at` is the property of the trace that holds them (`hovertext` where text is drawn)."""
    return {at: [hover_text(text) for text in texts], "hovertemplate": f"%{{{at}}}<extra></extra>"}


def error_bars(
    value: Floats, low: Floats, high: Floats, *, color: str, thickness: float = 1.0, width: int = 0
) -> dict[str, Any]:
    """Bars from `low` to `high`, none to an end that is not known; `width` px of the strokes at their ends.

    An interval of resamples may miss the value it belongs to: that side has no bar then.
    """
    return {
        "type": "data",
        "symmetric": False,
        "array": np.maximum(high - value, 0),
        "arrayminus": np.maximum(value - low, 0),
        "color": color,
        "thickness": thickness,
        "width": width,
    }


def colorbar(unit: str, at: Sequence[float], labels: Sequence[str] | None = None) -> dict[str, Any]:
    """The bar beside a figure that says what its colors stand for, with `labels` (or numbers) at these values."""
    return {
        # a blank second line keeps it clear of the top label; only inside a span is it not dropped
        "title": {"text": f"{escape(unit)}<br><span>\u00a0</span>", "side": "top", "font": {"size": 12}},
        "tickvals": list(at),
        "ticktext": labels,
        "thickness": 11,
        "outlinewidth": 0,
        "len": 1,
        "xpad": 8,
    }


def figure(
    traces: Any,
    words: Words,
    height: int,
    bottom: int,
    right: int = 12,
    *,
    entry: int = 0,
    also: str = "",
    title_at: str = "paper",
    **more: Any,
) -> go.Figure:
    """Transparent, in the page's font; title and note at the top left, the legend at the foot.

    Parameters
    ----------
    height, bottom, right, entry : px: of the whole, of margins, and of an entry of the legend (0: as needed).
    also : what the note says too. title_at : `container` where labels of rows may be long.
    more : of the layout, such as `xaxis` and `yaxis`.
    """
    theme = words.theme
    note = escape("  ".join(filter(None, [words.note, also])))
    made = go.Figure(traces)
    made.layout = go.Layout(
        template=go.layout.Template(),  # or the process-wide default would be written into every figure
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": FONT, "size": 12, "color": theme.text},
        title={
            "text": f'{escape(words.title)}<br><span style="font-size:12px;color:{theme.faint}">{note}</span>',
            "font": {"size": 15},
            "x": 0,
            "xref": title_at,
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 22},  # Plotly lifts a title of two lines by the second
        },
        height=height,
        margin={"l": 46, "r": right, "t": TOP, "b": bottom},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "entrywidth": entry,
            "itemclick": False,
            "itemdoubleclick": False,
            "bgcolor": CLEAR,
            "font": {"size": 12, "color": theme.text},
        },
        hovermode="closest",
        hoverlabel={
            "bgcolor": theme.page,
            "bordercolor": theme.faint,
            "font": {"family": FONT, "size": 12, "color": theme.text},
            "align": "left",
            "namelength": -1,
        },
        modebar={"bgcolor": CLEAR, "color": theme.faint, "activecolor": theme.text},
        uirevision="fasp",
        **more,
    )
    return made


def axis(theme: Theme, title: str, **more: Any) -> dict[str, Any]:
    """Settings of one axis, quiet unless `more` says otherwise."""
    return {
        "title": {"text": escape(title), "standoff": 6, "font": {"size": 12}},
        "tickfont": {"size": 11, "color": theme.faint},
        "gridcolor": theme.line,
        "zeroline": False,
        "showgrid": False,
        "ticks": "",
        "automargin": True,
        **more,
    }


def zero_axis(theme: Theme, title: str, **more: Any) -> dict[str, Any]:
    """An axis with a line at 0 alone."""
    return axis(theme, title, zeroline=True, zerolinecolor=theme.line, zerolinewidth=1.5, **more)


def row_axis(theme: Theme, labels: Sequence[str], longest: int = 400) -> dict[str, Any]:
    """A vertical axis with a row for each label, the first on top; of longer ones the pointer's label has the rest."""
    shown = (text if len(text) <= longest else text[: longest - 1] + "…" for text in labels)
    return axis(
        theme,
        "",
        range=[len(labels) - 0.5, -0.5],
        fixedrange=True,
        tickvals=list(range(len(labels))),
        ticktext=[escape(text) for text in shown],
        ticklabelstandoff=6,
    )
