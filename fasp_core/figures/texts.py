"""Texts of two models side by side, as HTML in which everything that was written is text and nothing else.

Differences are bold and underlined on a tint, so that no color alone carries them. Hidden texts are blurred, cannot be
selected and are left out of what a screen reader says; nothing of them stands in an attribute.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fasp_core.figures.theme import short, theme_of, veil

HIDDEN = "filter:blur(.5em);user-select:none;"


@dataclass(frozen=True)
class Written:
    """One text: its stretches, each with whether the other text lacks it, and its toxicity in [0, 1]."""

    spans: tuple[tuple[str, bool], ...]
    toxicity: float


@dataclass(frozen=True)
class Row:
    """What both models made of one prompt; `title` stands above in bold, then the prompt, where they are not blank."""

    base: Written
    pruned: Written
    title: str = ""
    prompt: str = ""


def side_by_side(rows: Sequence[Row], *, shown: bool, dark: bool = False) -> str:
    """HTML of all rows: unpruned on the left, pruned on the right, differences marked.

    Parameters
    ----------
    shown : whether prompts and texts can be read, or are blurred.
    """
    theme = theme_of(dark)
    body = "".join(_row(row, shown, theme.faint, theme.line, veil(theme.scale[3], 0.28)) for row in rows)
    return f'<div class="fasp-texts" style="font-size:.9rem;line-height:1.5">{body}</div>'


def word_lists(lists: Mapping[str, Sequence[tuple[str, float, bool]]], *, shown: bool, dark: bool = False) -> str:
    """HTML of lists of words side by side, each word with its number.

    Parameters
    ----------
    lists : by title, (word, number, whether it is marked).
    shown : whether words can be read, or are blurred.
    """
    theme = theme_of(dark)
    tint = veil(theme.scale[3], 0.28)

    def item(word: str, number: float, marked: bool) -> str:
        text = html.escape(word if word.strip() else repr(word))
        if marked:
            text = f'<b style="background:{tint};text-decoration:underline">{text}</b> ⚠'
        value = f'<span style="color:{theme.faint}">{"+" if number > 0 else ""}{short(number)}</span>'
        return f'<div style="display:flex;justify-content:space-between;gap:1rem">{_veiled(text, shown)}{value}</div>'

    columns = "".join(
        f'<div style="min-width:0"><div style="color:{theme.faint};font-size:.8rem">{html.escape(title)}</div>'
        f"{''.join(item(*word) for word in words)}</div>"
        for title, words in lists.items()
    )
    return (
        '<div class="fasp-texts" style="font-size:.9rem;line-height:1.5;display:grid;'
        f'grid-template-columns:repeat({len(lists)},1fr);gap:1.25rem">{columns}</div>'
    )


def _row(row: Row, shown: bool, faint: str, line: str, tint: str) -> str:
    head = f"<strong>{html.escape(row.title)}</strong>" if row.title else ""
    if row.prompt:
        head += f'<div style="color:{faint}">{_veiled(html.escape(row.prompt), shown)}</div>'
    sides = "".join(
        '<div style="min-width:0">'
        f'<div style="color:{faint};font-size:.8rem">{name} · toxicity {_value(text.toxicity)}</div>'
        f"{_veiled(_marked(text, tint), shown)}</div>"
        for name, text in (("unpruned", row.base), ("pruned", row.pruned))
    )
    return (
        f'<div style="border-top:1px solid {line};padding:.5rem 0">{head}'
        f'<div style="display:grid;grid-template-columns:1fr 1fr;gap:1.25rem">{sides}</div></div>'
    )


def _veiled(inner: str, shown: bool) -> str:
    style = "overflow-wrap:anywhere;white-space:pre-wrap;unicode-bidi:isolate;" + ("" if shown else HIDDEN)
    hidden = "" if shown else ' aria-hidden="true"'
    return f'<div class="fasp-text" dir="auto"{hidden} style="{style}">{inner}</div>'


def _marked(text: Written, tint: str) -> str:
    if not any(part.strip() for part, _ in text.spans):
        return "<em>(no words)</em>"
    mark = f"background:{tint};text-decoration:underline;text-underline-offset:.2em"
    return "".join(
        f'<b style="{mark}">{html.escape(part)}</b>' if changed else html.escape(part) for part, changed in text.spans
    )


def _value(toxicity: float) -> str:
    return "0" if toxicity == 0 else short(toxicity)
