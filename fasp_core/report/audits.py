"""The outcome of an audit as files: a CSV with a row a comparison and scenario, and one HTML page."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from fasp_core.figures import Series, Words, dots
from fasp_core.figures.export import DRAW, block, opaque, plotly_js, policy
from fasp_core.lazy import pd

if TYPE_CHECKING:
    import plotly.graph_objects as go

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet runs
STYLE = (
    "body { margin: 24px; font-family: sans-serif; } pre { white-space: pre-wrap; } .wide { overflow-x: auto; } "
    "td, th { padding: 2px 8px; text-align: right; white-space: nowrap; }"
)


def frame(document: dict[str, Any]) -> pd.DataFrame:
    """Of the document of `audit --json`: nested values as columns such as `mean_black` and `smd_low`."""
    rows = []
    for found in [document, *document.get("comparisons", [])[1:]]:
        for scenario in found["scenarios"]:
            row: dict[str, Any] = {"context": document["context"], "groups": " - ".join(found["groups"])}
            for name, value in scenario.items():
                for column, number in _flat(name, value).items():
                    while column in row:  # groups may be called anything, such as "difference"
                        column += "_"
                    row[column] = number
            rows.append(row)
    return pd.DataFrame(rows)


def csv(document: dict[str, Any]) -> bytes:
    """`frame` as a CSV file. Texts that a spreadsheet would run as formulas begin with an apostrophe."""
    rows = frame(document)
    texts = rows.select_dtypes(exclude="number").columns

    def plain(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value

    rows[texts] = rows[texts].map(plain)
    return rows.rename(columns=plain).to_csv(index=False).encode()


def _flat(name: str, value: Any) -> dict[str, Any]:
    if name in ("texts", "by_name"):  # tables of their own, in the JSON document
        return {}
    if isinstance(value, dict) and isinstance(value.get("interval"), list):  # no group of that name
        return {name: value["value"], f"{name}_low": value["interval"][0], f"{name}_high": value["interval"][1]}
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(f"{name}_{key}", inner).items()}
    if isinstance(value, list):
        return {f"{name}_{i}": inner for i, inner in enumerate(value)}
    return {name: value}


def page(document: dict[str, Any], text: str) -> str:
    """The outcome as one HTML file that needs nothing else: what the command says, its table and a chart.

    Parameters
    ----------
    text : what the command prints for people.
    """
    compared = [document, *document.get("comparisons", [])[1:]]
    charts = [block(opaque(_chart(document, found)), f"audit-{i}", responsive=True) for i, found in enumerate(compared)]
    title = html.escape(f"Audit: {document['title']}")
    table = frame(document).to_html(index=False, float_format=lambda x: f"{x:.3g}", border=0)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
        f"</head>\n<body>\n<h1>{title}</h1>\n<pre>{html.escape(text)}</pre>\n" + "\n".join(charts) + "\n"
        f'<h2>All numbers</h2>\n<div class="wide">{table}</div>\n'
        f"<script>{plotly_js()}</script>\n<script>{DRAW}</script>\n</body>\n</html>\n"
    )


def _chart(document: dict[str, Any], compared: dict[str, Any]) -> go.Figure:
    """Of one comparison of groups."""
    scenarios = compared["scenarios"]
    first, second = compared["groups"][:2]
    ends = [[s["smd"]["value"], *s["smd"]["interval"]] for s in scenarios]
    series = [_series(document["model"] if "beside" in document else "whole model", scenarios, ends)]
    for key, name in (("smd_pruned", "without " + document["prune_set"][:40]), ("smd_beside", document.get("beside"))):
        if key in scenarios[0]:
            after = [[s[key]["value"], *s[key]["interval"]] for s in scenarios]
            series.append(_series(str(name), scenarios, after))
    words = Words(
        f"Standardised mean difference by scenario: {first} and {second}",
        f"Above 0: larger numbers for {first} than for {second}. Intervals resample names (95%).",
        unit=f"mean of {first} minus mean of {second}, in pooled SDs",
    )
    return dots([s["scenario"] for s in scenarios], series, words)


def _series(name: str, scenarios: list[dict[str, Any]], ends: list[list[float]]) -> Series:
    hover = [f"{s['scenario']}\n{name}: SMD {e[0]:+.2f}" for s, e in zip(scenarios, ends, strict=True)]
    value, low, high = ([e[i] for e in ends] for i in range(3))
    return Series(name, value, low, high, hover)
