"""The matrix on the page: findings, methods side by side, cells that open."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
import streamlit as st

from fasp_core.figures import Cells, Series, Words, answers_by_group, cell_matrix, dots
from fasp_core.lazy import pd
from fasp_core.studies.answers.distributions import Distributions, points
from fasp_core.studies.answers.measures import Answers, Estimate, more_often, parsed_differences
from fasp_core.studies.contexts.cells import Cell, Matrix
from fasp_core.studies.contexts.choosing import Method, kind_of
from fasp_core.studies.contexts.costing import SetCosts
from fasp_core.studies.contexts.findings import findings
from fasp_core.studies.contexts.generalisation import Carried, Summary, cells_of, grown, rows_of, told
from fasp_core.studies.contexts.settings import TITLES, Kind
from fasp_core.studies.contexts.summary import followed
from fasp_core.typing import Floats
from pages.widgets import clicks
from pages.widgets.drawing import chart, csv_table
from pages.widgets.markdown import escape_markdown

SECONDS = 0.22  # for one answer of a pruned model, with the built-in one on two cores
EXACT_SECONDS = 1.0  # for the distribution of one name in one scenario, likewise
HOW = {"exact": "exact distributions", "sampled": "samples"}
LIMITS = (0.05, 0.1, 0.2, 0.5)  # of the colors of changes
POINTS = 32  # of a name's distribution, in charts
_OPEN = "contexts open"
METHOD_TITLES: dict[Method, str] = {
    "heads-effect": "heads, by effect",
    "heads-attention": "heads, by attention to the name",
    "heads-random": "heads, at random",
    "neurons-effect": "neurons, by effect",
    "neurons-activation": "neurons, by activation",
    "neurons-random": "neurons, at random",
    "weights-wanda": "weights (Wanda)",
    "weights-effect": "weights, by effect",
    "weights-random": "weights, at random",
    "weights-effect-random": "weights, at random, as many as by effect",
}
METHOD_HELP = (
    "By effect: to first order, what removing the part does to the difference between the groups. By attention: from "
    "the place where the answer begins to the name. By activation and Wanda: parts that stand out for the first group "
    "and not for the other. At random: as many as are chosen by effect on the same scenarios (of weights: by Wanda)."
)


def title(found: Matrix) -> str:
    """What tells one run from another."""
    scenarios, names = len(found.scenarios), len(found.people)
    answers = f"{found.config.audit.samples} answers each"
    if (exact := found.config.exact) is not None:
        answers = f"distributions by {exact.nodes} texts and {exact.draws} draws a name"
    most: dict[str, int] = {}
    for cell in found.cells:
        kind = kind_of(cell.method)
        most[kind] = max(most.get(kind, 0), cell.parts)
    sizes = " or ".join(f"{count:,} {kind}" for kind, count in most.items())
    groups = " and ".join(found.groups)
    halvings = f", {found.config.halvings} halvings" if found.config.halvings > 1 else ""
    removed = f", of which {found.config.by_removal} by removal" if found.config.by_removal else ""
    return f"{scenarios} scenarios, {names} names ({groups}{halvings}), {answers}, sets of at most {sizes}{removed}"


@st.cache_resource(max_entries=8, show_spinner="Resampling names")
def _carried(_found: Matrix, _costs: SetCosts | None, name: str, winsorise: float) -> Carried:
    carried = Carried(_found, winsorise, costs=_costs)
    carried.inliers(_found.cells)  # kept, and seconds of many cells: while it is said that there is a wait
    return carried


def draw(found: Matrix, winsorise: float, costs: SetCosts | None = None) -> None:
    """Everything that a run says; clicks rerun only this part."""
    carried = _carried(found, costs, f"{id(found)} {costs is not None}", winsorise)
    said = findings(carried)
    for finding, column in zip(said, st.columns(len(said)), strict=True):
        icon = {True: ":material/check_circle:", False: ":material/error_outline:", None: ":material/help:"}
        column.info(escape_markdown(f"{finding.verdict}."), icon=icon[finding.holds])
    other = "Sets are chosen on other answers than they are tested on."
    if found.config.exact:
        other = "Sets that are tested on their own scenario are chosen on half of the names and tested on the others"
        several = f" ({found.config.halvings} times, their mean; sets at random once)"
        other += f"{several if found.config.halvings > 1 else ''}."
    chart(
        _generality(carried),
        key="contexts generality",
        alt="Change of mean |SMD| by method and by what the sets were chosen on; the tables below have the numbers.",
    )
    for finding in said:
        if finding.details:
            st.caption(escape_markdown(re.sub(r"-(?=\d)", "−", finding.sentence)))
    st.caption(
        f"{escape_markdown(found.model)}: {escape_markdown(title(found))}. |SMD| is the difference of the "
        "groups' mean log answers without its sign, in standard deviations of the whole model's answers, averaged over "
        f"scenarios; noise adds to it{', so parts at random stand beside' if _random(found) else ''}. {other}"
        f"{followed(found)} "
        "Intervals resample names (95%); those for other scenarios names and scenarios."
    )
    methods = list(found.config.methods)
    limit = _limit(carried)
    columns = st.columns(2)
    for i, column in enumerate(columns):
        with column:
            usual = next((k for k, m in enumerate(methods) if m == ("heads-effect", "neurons-effect")[i]), 0)
            method = st.selectbox(
                "Sets of", methods, usual, format_func=METHOD_TITLES.__getitem__, key=f"contexts {i}", help=METHOD_HELP
            )
            _matrix(carried, method, i, limit)
    opened = st.session_state.get(_OPEN)
    if opened is None:
        st.caption("Click a cell for the answers behind it.")
    else:
        _cell(carried, *opened)
    frame = _frame(carried)
    with st.expander("All numbers"):
        csv_table(frame, "contexts.csv")
    with st.expander("What made these numbers"):
        st.json(found.provenance, expanded=False)


def row_title(row: tuple[Kind, str]) -> str:
    """What a row's sets were chosen on."""
    return row[1] or TITLES[row[0]]


def _random(found: Matrix) -> bool:
    """Whether sets at random stand beside the others."""
    return any(method.endswith("random") for method in found.config.methods)


def _generality(carried: Carried) -> Any:
    """Methods side by side, by how general the choice is."""
    m = carried.matrix
    kinds: list[Kind] = list(dict.fromkeys(c.setting.kind for c in m.cells))
    kinds.sort(key=list(TITLES).index)
    series = []
    for method in m.config.methods:
        sums = [carried.summary(m.of(method, kind)) for kind in kinds]
        ends = [(s.change if s else Estimate(np.nan, np.nan, np.nan)) for s in sums]
        hover = [
            f"{METHOD_TITLES[method]}\nchosen on {TITLES[kind]}\n" + ("not run" if s is None else _lines(s))
            for kind, s in zip(kinds, sums, strict=True)
        ]
        series.append(series_of(METHOD_TITLES[method], ends, hover, faint=method.endswith("random")))
    words = Words(
        "Change of mean |SMD|, by what the sets were chosen on",
        "Below 0: the groups come closer." + (" Hollow: parts at random." if _random(m) else ""),
        unit="change of mean |SMD|, 95% interval",
        dark=st.context.theme.type == "dark",
    )
    return dots([TITLES[kind].replace(", ", ",\n") for kind in kinds], series, words)


def series_of(label: str, found: list[Estimate], hover: list[str], **more: Any) -> Series:
    """Estimates as a figure takes them."""
    return Series(label, [e.value for e in found], [e.low for e in found], [e.high for e in found], hover, **more)


def _lines(s: Summary) -> str:
    low, high = s.parts
    return (
        f"mean |SMD| {_plain(s.before)} → {_plain(s.after)}: {estimate(s.change)}\n"
        f"{s.inliers:.0%} of answers within the usual range\n{_nothing(s.usual_inliers, '(', '), ')}shifted by "
        f"{s.distance:.2f} SD\n"
        f"a number in {s.parsed_before[0]:.0%} and {s.parsed_before[1]:.0%},\nthen in {s.parsed_after[0]:.0%} and "
        f"{s.parsed_after[1]:.0%} of answers\n"
        f"{low:,}{'' if low == high else f' to {high:,}'} parts removed,\nperplexity {grown(s.perplexity)}; "
        f"{s.cells} test{'' if s.cells == 1 else 's'}{s.without}"
        + ("" if s.costs is None else f"\n{s.costs.said}".replace("-", "−").replace("), LAMBADA", "),\nLAMBADA"))
    )


def _matrix(carried: Carried, method: Method, at: int, limit: float) -> None:
    """One method's matrix; a click opens a cell. Colors end at `limit`."""
    m = carried.matrix
    rows, contexts = rows_of(m), list(m.contexts)
    opened = st.session_state.get(_OPEN)
    sums = [carried.summary(cells_of(m, method, row, context)) for row in rows for context in contexts]
    drawn = Cells(
        [row_title(row).replace(", ", ",\n") for row in rows],
        contexts,
        [np.nan if s is None else s.change.value for s in sums],
        text=["–" if s is None else f"{_first(s.change)}\n{s.inliers:.0%}" for s in sums],
        hover=[
            f"chosen on {row_title(row)}, tested on {context}\n" + ("nothing of this kind" if s is None else _lines(s))
            for (row, context), s in zip([(r, c) for r in rows for c in contexts], sums, strict=True)
        ],
        faint=[s is not None and not (s.change.low > 0 or s.change.high < 0) for s in sums],
        outlined=[(method, i, j) == opened for i in range(len(rows)) for j in range(len(contexts))],
        names=("no change shown: the interval holds 0", "", "opened"),
    )
    words = Words(
        f"{METHOD_TITLES[method]}: change of mean |SMD|",
        f"Below it: answers within the usual range{_nothing(_usual(carried), '; ')}. Full color: ±{limit:g}.",
        x="tested on",
        y="chosen on",
        dark=st.context.theme.type == "dark",
    )
    fig = cell_matrix(drawn, words, limit=limit, colorbar=False, cell_height=52)

    def act(found: frozenset[tuple[int, int]]) -> None:
        for place in found:
            st.session_state[_OPEN] = (method, *place)

    alt = f"Change of mean |SMD| by context, {METHOD_TITLES[method]}; “All numbers” below has the figures."
    clicks.on_chart(fig, f"contexts matrix {at}", alt, (len(rows), len(contexts)), act)


def _limit(carried: Carried) -> float:
    """Where colors end: the same in all of a run's matrices."""
    m = carried.matrix
    found = [carried.summary(cells_of(m, method, row, c)) for method, row, c in _places(m)]
    most = max((abs(s.change.value) for s in found if s is not None and np.isfinite(s.change.value)), default=0.0)
    return next((limit for limit in LIMITS if most <= limit), LIMITS[-1])


def _places(m: Matrix) -> product[tuple[Method, tuple[Kind, str], str]]:
    """Every method, row and column of its matrices."""
    return product(m.config.methods, rows_of(m), m.contexts)


def _nothing(share: float, before: str, after: str = "") -> str:
    """The same with nothing removed."""
    return "" if np.isnan(share) else f"{before}{share:.0%} with nothing removed{after}"


def _usual(carried: Carried) -> float:
    """Share of the whole model's answers within its usual range, over all scenarios."""
    m = carried.matrix
    found = carried.summary([c for c in m.cells if c.setting.kind == "same" and c.method == m.config.methods[0]])
    return float("nan") if found is None else found.usual_inliers


def _cell(carried: Carried, method: Method, row: int, column: int) -> None:
    """The answers behind a cell, scenario by scenario."""
    m = carried.matrix
    rows, contexts = rows_of(m), list(m.contexts)
    if method not in m.config.methods or row >= len(rows) or column >= len(contexts):
        return  # clicked in another run
    cells = cells_of(m, method, rows[row], contexts[column])
    with st.container(border=True):
        chosen, tested = escape_markdown(row_title(rows[row])), escape_markdown(contexts[column])
        st.subheader(f"{METHOD_TITLES[method]}: chosen on {chosen}, tested on {tested}", anchor=False)
        if not cells:
            st.caption("There is nothing of this kind: a set that was chosen on a context is tested on the others.")
            return
        picked = st.radio(
            "Scenario",
            range(len(cells)),
            format_func=lambda i: escape_markdown(m.scenarios[cells[i].setting.tested].name),
            horizontal=True,
            key=f"contexts scenario {method} {row} {column}",
        )
        cell = cells[picked]
        scenario = m.scenarios[cell.setting.tested]
        base, after = m.base[cell.setting.tested], cell.answers
        st.markdown(f"“{escape_markdown(scenario.ask('…'))}” {escape_markdown(scenario.opening)}")
        chart(
            answers_by_group(
                drawable(base.winsorised(carried.winsorise)),
                drawable(after.winsorised(carried.winsorise)),
                m.codes,
                m.groups,
                Words(
                    f"Answers in {scenario.unit}, by group",
                    "Each point is an answer; the box holds the middle half.",
                    unit=f"{scenario.unit}, on a scale of log(1 + x)",
                    dark=st.context.theme.type == "dark",
                ),
            ),
            key=f"contexts answers {method} {row} {column} {cell.setting.tested}",
            alt="Numbers that the whole and the pruned model answered about each group.",
        )
        found = carried.summary([cell])
        assert found is not None
        whole, pruned = carried.signed(cell)
        st.markdown(
            f"SMD ({escape_markdown(m.groups[0])} minus {escape_markdown(m.groups[1])}): "
            f"{estimate(whole)} → {estimate(pruned)}."
        )
        st.caption(f"{_lines(found)}. {parsing(m, cell)}".replace(",\n", ", ").replace("\n(", " (").replace("\n", "; "))
        if listed := "; ".join(one or "no part" for one in cell.sets or ()) if cell.parts else "":
            st.code(listed, language=None, wrap_lines=True)
        elif not cell.parts:
            st.caption("No part stood out in every scenario, so nothing was removed.")


def parsing(m: Matrix, cell: Cell) -> str:
    """A difference in how often a number is given is a finding too."""
    more = more_often(parsed_differences(m.base)[cell.setting.tested])
    if more is None:
        return "That the whole model gives numbers more often for one of the groups is not shown."
    return f"The whole model gives a number more often for {escape_markdown(m.groups[more])}."


def drawable(answers: Answers | Distributions) -> Floats:
    """[names, answers] that a chart shows: what was sampled, or points of distributions."""
    return answers.values if isinstance(answers, Answers) else points(answers, POINTS)


def _frame(carried: Carried) -> pd.DataFrame:
    m = carried.matrix
    return pd.DataFrame(
        {
            "sets of": METHOD_TITLES[method],
            "chosen on": row_title(row),
            "tested on": context,
            "parts": s.parts[0],
            "tests": s.cells,
            "|SMD| before": s.before.value,
            "after": s.after.value,
            "change": s.change.value,
            "low": s.change.low,
            "high": s.change.high,
            "inlier ratio": s.inliers,
            "nothing removed": s.usual_inliers,
            "distance, SD": s.distance,
            "parsed before": np.mean(s.parsed_before),
            "parsed after": np.mean(s.parsed_after),
            "perplexity change": s.perplexity,
            "paragraphs": None if s.costs is None else s.costs.paragraphs.relative,
            "LAMBADA, points": None if s.costs is None else s.costs.points.value,
        }
        for method, row, context in _places(m)
        if (s := carried.summary(cells_of(m, method, row, context))) is not None
    )


def estimate(e: Estimate) -> str:
    """`+0.12 [−0.03, +0.30]`; a set without which a group gets no numbers has no change."""
    return "no numbers" if e.value != e.value else told(e).replace("-", "−")


def _first(e: Estimate) -> str:
    """Without its interval."""
    return estimate(e).partition(" [")[0].partition(" (")[0]


def _plain(e: Estimate) -> str:
    """That, of what has no sign."""
    return _first(e).lstrip("+")
