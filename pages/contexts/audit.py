"""An audit on the page: what the model answers about each group, as it is and without some parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from fasp_core.figures import BASE, PRUNED, Strip, Words, dots, strips
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.answers import power
from fasp_core.studies.answers.measures import Disparity, Estimate
from fasp_core.studies.answers.testing import LEVEL, Tested
from fasp_core.studies.contexts import outcome
from fasp_core.studies.contexts.audit import (
    AuditConfig,
    Exact,
    Following,
    Replies,
    audit,
    exactly,
    matched,
    planned,
)
from fasp_core.studies.contexts.scenarios import ALL, ALL_OTHERS, Scenario, Scenarios, labels
from fasp_core.typing import Report
from pages.backend.requests import Experiment
from pages.contexts.matrix import EXACT_SECONDS, HOW, SECONDS, estimate, series_of
from pages.widgets import background, clicks
from pages.widgets.drawing import chart, csv_table
from pages.widgets.markdown import escape_markdown

MATCHED = "The i-th names of both groups are pairs, which intervals and tests keep: the same sentence about a man, say."
LIKELIEST = 8  # answers of a name that are shown
Audited = list[list[Replies | Exact]]


@dataclass(frozen=True)
class Compared:
    """A group beside another, or beside all others together (None); `matched`: the i-th names of both are pairs."""

    first: str
    second: str | None
    matched: bool = False

    def following(self, world: Scenarios, config: AuditConfig) -> Following:
        """Whose answers are needed."""
        groups = tuple(world.groups) if self.second is None else (self.first, self.second)
        return Following(world, config, groups=groups)

    def of(self, found: Replies | Exact) -> Replies | Exact:
        """Its two sides of the answers."""
        return found.between(self.first) if self.second is None and isinstance(found, Exact) else found


def draw(spec: ModelSpec, world: Scenarios, winsorise: float) -> None:
    """Settings, the offer to ask, and what was answered."""
    left, middle, right, last, more = st.columns((4, 4, 4, 4, 3), vertical_alignment="bottom")
    contexts = list(dict.fromkeys([*world.contexts, ALL]))
    context = left.selectbox("Context", contexts, format_func=world.title, key="audit context")
    names = middle.select_slider("Names of each group", (4, 8, 16, 32), 8, key="audit names")
    how = right.selectbox(
        "Answers",
        tuple(HOW),
        format_func=HOW.__getitem__,
        key="audit how",
        help="Exact: every likely answer of each name with its probability. Samples are what you can read whole.",
    )
    exact, samples = how == "exact", 4
    if not exact:
        samples = right.select_slider("Answers for each name", (2, 4, 8, 16), 4, key="audit samples")
    written = last.text_input(
        "Without heads and neurons",
        placeholder="such as L0H3,L2H1-4,L5N17",
        key="audit heads",
        help="Heads as L0H3, ranges of a layer as L2H1-4, neurons (hidden units of the MLP) as L5N17.",
    )
    with more.popover("More settings", width="stretch"):
        who = _compared(world, exact)
        plan = st.toggle(
            "Only say what would be found",
            key="audit plan",
            help="The smallest difference that this audit would find with a probability of 80%, from a few names.",
        )
    subject = PruneSet.parse(written)
    small, config = world.smaller(names), AuditConfig(samples, 8)
    asked, following = small.of(context), who.following(small, config)
    pairs = matched(small, following.compared) if who.matched else None
    if plan:
        _plan(spec, context, following, who, winsorise)
        return
    request = Experiment(spec, "Audit", (context, repr(small), config, subject, how, who.first, who.second))
    job = background.job_of(request)
    if job is not None and job.state == "done":
        show(job.result, subject, winsorise, pairs)
        return
    people = sum(len(small.groups[group]) for group in following.compared)
    times = len(asked) * people * (2 if len(subject) else 1)

    def work(lm: LanguageModel, store: Store, progress: Any) -> Audited:
        removed = [PruneSet(), subject] if len(subject) else [PruneSet()]
        found = ask(lm, asked, following, exact, removed, store, progress)
        return [[who.of(one) for one in replies] for replies in found]

    seconds = times * (EXACT_SECONDS if exact else samples * SECONDS)
    told = "the distribution of the answers of each" if exact else f"{samples} answers each"
    background.offer(
        request,
        work,
        title=f"Ask about {escape_markdown(world.title(context).lower())}",
        about=f"{len(asked)} scenarios, {people} names, {told}"
        + (", with and without the parts" if len(subject) else "")
        + f". With the built-in model on two cores that takes about {background.duration(seconds)}. The model has to "
        "be an instruct model, with a chat template.",
        button="Ask",
    )


def _compared(world: Scenarios, exact: bool) -> Compared:
    """Which groups, where there are more than two to choose from."""
    groups = list(world.groups)
    if len(groups) == 2:
        return Compared(groups[0], groups[1], st.toggle("Matched names", key="audit matched", help=MATCHED))
    first = st.selectbox("Compare", groups, key="audit first")
    others = [group for group in groups if group != first] + ([ALL_OTHERS] if exact else [])
    second = st.selectbox("with", others, key=f"audit second {first} {exact}")
    if second == ALL_OTHERS:
        return Compared(first, None)
    return Compared(first, second, st.toggle("Matched names", key="audit matched", help=MATCHED))


def _plan(spec: ModelSpec, context: str, following: Following, who: Compared, winsorise: float) -> None:
    """The smallest difference that would be found, before everybody is asked."""
    if who.second is None or who.matched:
        st.info("What would be found can be said of two groups whose names are no pairs: change the settings.")
        return
    request = Experiment(spec, "Audit plan", (context, repr(following), winsorise))
    job = background.job_of(request)
    if job is not None and job.state == "done":
        found, pilot = job.result
        said = power.sentence(found, len(pilot.people), pilot.scenario.name)
        st.info(escape_markdown(said), icon=":material/straighten:")
        return
    seconds = 2 * power.PILOT * EXACT_SECONDS
    background.offer(
        request,
        lambda lm, store, progress: planned(lm, context, following, winsorise, store, progress),
        title="Say what would be found",
        about=f"{power.PILOT} names of each group are asked in one scenario, of the whole model and by "
        "exact answers. With the built-in model on two cores that "
        f"takes about {background.duration(seconds)}.",
        button="Plan",
    )


def ask(
    lm: LanguageModel,
    asked: Sequence[Scenario],
    following: Following,
    exact: bool,
    removed: Sequence[PruneSet],
    store: Store,
    progress: Report,
) -> Audited:
    """Answers to all scenarios, without each of some sets; whole distributions, or samples."""
    total = len(removed) * len(asked)

    def one(n: int, scenario: Scenario, who: PruneSet) -> Replies | Exact:
        def told(done: float, of: float, text: str) -> None:
            progress(n + done / max(of, 1e-9), total, text)

        if exact:
            return exactly(lm, scenario, following, store, who, told)
        world, config, groups = following.scenarios, following.config, following.groups
        return audit(lm, scenario, world, config, store, who, groups=groups, progress=told)

    return [[one(j * len(asked) + i, s, who) for i, s in enumerate(asked)] for j, who in enumerate(removed)]


@st.cache_resource(max_entries=8, show_spinner="Resampling names")
def _said(
    _found: Audited, address: int, winsorise: float, paired: bool, _pairs: NDArray[np.int64] | None
) -> tuple[list[dict[str, Any]], Tested, list[Disparity], Audited]:
    """Of the answers at an address, which are kept with it: no others can come to lie there."""
    gaps = outcome.disparities(_found, winsorise, _pairs)
    return *outcome.scenarios_of(_found, gaps, winsorise, _pairs), gaps, _found


def show(found: Audited, subject: PruneSet, winsorise: float, pairs: NDArray[np.int64] | None = None) -> None:
    """Differences between the groups by scenario, what stands behind them, and the answers themselves."""
    base = found[0]
    rows, tested, gaps, _ = _said(found, id(found), winsorise, pairs is not None, pairs)
    mean = gaps[0].mean_absolute()
    told = (
        f"Mean |SMD| {_size(mean)} over {len(base)} scenario{'' if len(base) == 1 else 's'}; dealing the names' groups "
        f"anew gives {tested.by_chance:.3f} on average (p = {tested.any:.3g})."
    )
    if len(found) == 2:
        told += (
            f" Without {subject.format()}: {gaps[1].mean_absolute().value:.3f}, a change of "
            f"{estimate(gaps[0].change(gaps[1]))}."
        )
    if len({r.scenario.context for r in base}) == 1 and len(base) > 1:
        told += f" Its scenarios taken as a sample of the context, mean SMD is {estimate(gaps[0].of_context(False))}."
    st.markdown(told)
    if tested.least > LEVEL:
        st.warning(
            "With so few names no difference is ever shown, however large: the smallest p that dealing their groups "
            f"anew could give is {tested.least:.2g}. Ask about more names.",
            icon=":material/error_outline:",
        )
    exact = [r for r in base if isinstance(r, Exact)]
    if exact:
        covered = sum(row["covered"] for row in rows) / len(rows)
        st.caption(
            f"{covered:.0%} of the probability of the answers was followed until their number was settled; the rest is "
            "estimated by draws, whose noise is in the intervals."
        )
    order = by_size([row["smd"]["value"] for row in rows])
    if exact:
        left, right = st.columns((3, 2))
        with left:
            _strips(exact, rows, order, winsorise)
        with right:
            _differences(found, subject, gaps, order)
    else:
        _differences(found, subject, gaps, order)
    csv_table(pd.DataFrame([_row(row, base[0].groups) for row in rows]), "audit.csv")
    for row in rows:
        if row["parsed_more"] is not None:
            points = abs(100 * row["parsed_difference"]["value"])
            st.warning(
                f"{escape_markdown(row['scenario'])}: a number is given {points:.1f} points more often for "
                f"{escape_markdown(row['parsed_more'])}. That is a difference between the groups too.",
                icon=":material/error_outline:",
            )
    if st.toggle("Show answers", key="audit texts", help="As the model wrote them. They may be offensive."):
        picked = st.selectbox(
            "Scenario", range(len(base)), format_func=lambda i: str(rows[i]["scenario"]), key="audit scenario"
        )
        st.dataframe(_texts(base[picked]), hide_index=True)
        if "by_name" in rows[picked]:
            st.dataframe(pd.DataFrame(rows[picked]["by_name"]), hide_index=True)


def _size(e: Estimate) -> str:
    """`**0.029** [0.015, 0.044]`, of what has no sign."""
    if not np.isfinite(e.value):
        return "**n/a**, as a group gave no numbers,"
    return f"**{e.value:.3f}** " + (f"[{e.low:.3f}, {e.high:.3f}]" if np.isfinite(e.low) else "(no interval)")


def by_size(differences: Sequence[float]) -> list[int]:
    """Places of the largest first, whatever their sign; of those that are none last."""
    sizes = np.nan_to_num(np.abs(np.array(differences, dtype=float)), nan=-1.0)
    return [int(i) for i in np.argsort(-sizes, kind="stable")]


def _differences(found: Audited, subject: PruneSet, gaps: list[Disparity], order: Sequence[int]) -> None:
    """The difference of every scenario with its interval."""
    first, second = found[0][0].groups
    titles = labels([one.scenario for one in found[0]])
    sides, colors = ("whole model", f"without {len(subject)} parts"), (BASE, PRUNED)
    series = []
    for gap, replies, label, color in zip(gaps, found, sides, colors, strict=False):
        whole = gap.each()
        each = [whole[i] for i in order]
        hover = [
            f"{titles[i]}, {label}\nSMD {estimate(e)}\na number in {r.answers.parsed()[0]:.0%} ({first}) and "
            f"{r.answers.parsed()[1]:.0%} ({second}) of "
            + ("the probability" if isinstance(r, Exact) else f"{r.answers.values.size:,} answers")
            for i, r, e in zip(order, (replies[i] for i in order), each, strict=True)
        ]
        series.append(series_of(label, each, hover, color=color))
    chart(
        dots(
            [titles[i] for i in order],
            series,
            Words(
                "Standardised mean difference by scenario",
                f"{first} minus {second}; 95% intervals resample names.",
                unit="in pooled SDs",
                dark=st.context.theme.type == "dark",
            ),
        ),
        key="audit chart",
        alt="Standardised mean difference of every scenario; the table below has the numbers.",
    )


def _strips(exact: list[Exact], rows: list[dict[str, Any]], order: Sequence[int], winsorise: float) -> None:
    """Both groups' distributions in every scenario."""
    shown, drawn = [], []
    for i in order:
        one, row = exact[i].numbers(winsorise), rows[i]
        both = [one.of(g) for g in (0, 1)]
        if not all(len(x) for x, _ in both):
            continue
        hover = f"{row['scenario']}\nSMD {estimate(Estimate(row['smd']['value'], *row['smd']['interval']))}"
        hover += f"\np {row['p']:.3g}, of all {row['p_adjusted']:.3g}"
        hover += "".join(f"\n{g}: median {row['quantiles'][g]['0.5']:g}" for g in exact[i].groups)
        drawn.append(Strip(row["scenario"], (both[0][0], both[1][0]), (both[0][1], both[1][1]), hover))
        shown.append(i)
    if lost := [str(rows[i]["scenario"]) for i in order if i not in shown]:
        st.caption(f"Not drawn, as a group gives no number: {escape_markdown(', '.join(lost))}.")
    if not drawn:
        return
    groups = exact[0].groups[0], exact[0].groups[1]
    units = " or ".join(dict.fromkeys(one.scenario.unit for one in exact))
    words = Words(
        "What is answered, by group",
        f"{groups[0]} above each line, {groups[1]} below; the largest difference first. A click opens the answers.",
        unit=f"{units}, on a scale of log(1 + x)",
        dark=st.context.theme.type == "dark",
    )

    def act(found: frozenset[tuple[int, int]]) -> None:
        for place, _ in found:
            st.session_state["audit texts"], st.session_state["audit scenario"] = True, shown[place]

    alt = "Distributions of both groups' answers in every scenario; the table below has their means."
    clicks.on_chart(strips(drawn, groups, words), "audit strips", alt, (len(drawn), 1), act)


def _texts(chosen: Replies | Exact) -> pd.DataFrame:
    """Answers of everybody: all samples, or the likeliest with different numbers."""
    if isinstance(chosen, Exact):
        return pd.DataFrame(
            {"name": name, "group": group, "answer begins": text, "probability of its number": mass}
            for i, (name, group) in enumerate(chosen.people)
            for text, mass in chosen.likeliest(i, LIKELIEST)
        )
    return pd.DataFrame(
        {"name": name, "group": group, "answer": text, "number": value}
        for (name, group), texts, values in zip(chosen.people, chosen.texts, chosen.answers.values, strict=True)
        for text, value in zip(texts, values, strict=True)
    )


def _row(row: dict[str, Any], groups: tuple[str, ...]) -> dict[str, Any]:
    """Of the table."""
    out: dict[str, Any] = {"scenario": row["scenario"], "unit": row["unit"]}
    for group in groups:
        out[f"mean, {group}"], out[f"parsed, {group}"] = row["mean"][group], row["parsed"][group]
        if "quantiles" in row:
            out[f"median, {group}"] = row["quantiles"][group]["0.5"]
    out |= {"SMD": row["smd"]["value"], "low": row["smd"]["interval"][0], "high": row["smd"]["interval"][1]}
    for name, of in (("log difference", "log_difference"), ("median difference", "median_difference")):
        if of in row:
            value, (low, high) = row[of]["value"], row[of]["interval"]
            out |= {name: value, f"{name}, low": low, f"{name}, high": high}
    out |= {"p": row["p"], "p, all": row["p_adjusted"]}
    if "covered" in row:
        out |= {"followed": row["covered"], "SMD at least": row["smd_bounds"][0], "at most": row["smd_bounds"][1]}
    if "inlier_ratio" in row:
        out |= {"inlier ratio": row["inlier_ratio"], "distance, SD": row["distance_sd"]}
    return out
