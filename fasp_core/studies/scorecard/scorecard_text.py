"""A scorecard as a table, as Markdown, and as a page to print."""

from __future__ import annotations

from html import escape

from fasp_core.lazy import pd
from fasp_core.studies.common import paragraphs, table
from fasp_core.studies.scorecard.lines import OUTCOMES, Ends, Line
from fasp_core.studies.scorecard.scorecard import Scorecard

SIGNS = {name: name for name in OUTCOMES} | {"better": "▲ better", "worse": "▼ worse"}
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#1a1a1a;background:#fff}"
    "table{border-collapse:collapse;width:100%;font-size:13px}"
    "th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ccc;vertical-align:top}"
    "code{word-break:break-all}@media print{body{margin:0}tr{break-inside:avoid}}"
)


def frame(card: Scorecard) -> pd.DataFrame:
    """One row a measure, all cells as text for people."""
    return pd.DataFrame(
        {
            "measure": line.name,
            "unpruned": _value(line.base, line.unit) + _span(line.base_interval),
            "pruned": _value(line.pruned, line.unit) + _span(line.pruned_interval),
            "change": f"{_signed(line.change)} {line.change_unit}{_span(line.interval, signed=True)}",
            "fairer or better is": line.better,
            "measured on": line.sample,
            "what it shows": SIGNS[line.outcome] + (f": {line.said}" if line.said else ""),
        }
        for line in card.lines
    )


def data(card: Scorecard) -> pd.DataFrame:
    """One row a measure, with numbers."""
    return pd.DataFrame([_flat(line) for line in card.lines])


def markdown(card: Scorecard) -> str:
    """The sentence, the table, and what is not there."""
    rows = frame(card)
    return paragraphs(
        [
            f"Removed: {len(card.heads.heads)} heads{f' and {card.heads.others_told()}' * bool(card.heads.others)}: "
            f"{card.heads.format()}",
            card.sentence,
            table(" | ".join(map(str, rows.columns)), [" | ".join(row) for row in rows.itertuples(index=False)])
            if len(rows)
            else "",
            *_missing(card),
        ]
    )


def _table(rows: pd.DataFrame) -> str:
    return table(" | ".join(map(str, rows.columns)), (" | ".join(row) for row in rows.itertuples(index=False)))


def html(card: Scorecard, model: str) -> str:
    """A page of its own, to print or to send; it loads nothing."""
    body = frame(card).to_html(index=False, border=0) if card.lines else ""
    missing = "".join(f"<p>{escape(text)}</p>" for text in _missing(card))
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Scorecard of {escape(model)}</title>"
        f"<style>{_STYLE}</style></head><body><h1>Scorecard of {escape(model)}</h1>"
        f"<p><strong>{escape(card.sentence)}</strong></p><p>Removed: <code>{escape(card.heads.format())}</code></p>"
        f"{body}{missing}<p>Intervals are 95%, of the unpruned and the pruned model on the same data; "
        "of speed, the smallest and largest ratio.</p></body></html>"
    )


def _missing(card: Scorecard) -> list[str]:
    left = [f"Not measured yet: {', '.join(card.left)}."] if card.left else []
    return [*left, *(f"Cannot be measured here: {what}: {said}" for what, said in card.impossible.items())]


def _flat(line: Line) -> dict[str, object]:
    found = line.as_dict()
    for name in ("interval", "base_interval", "pruned_interval"):
        ends = found.pop(name) or (None, None)
        found |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return found


def _value(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}".strip()


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{_number(value)}"


def _span(ends: Ends | None, signed: bool = False) -> str:
    if ends is None:
        return ""
    low, high = map(_signed if signed else _number, ends)
    return f" [{low}, {high}]"


def _number(value: float) -> str:
    return f"{value + 0.0:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2}f}"
