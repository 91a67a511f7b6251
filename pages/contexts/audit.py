"""An audit on the page: what the model answers about each group, as it is and without some parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from fasp_core.figures import BASE, PRUNED, Words, dots
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.contexts.audit import AuditConfig, Replies, audit, disparity
from fasp_core.studies.contexts.measures import distance, inlier_ratio, parsed_difference
from fasp_core.studies.contexts.scenarios import Scenarios
from pages.backend.requests import Experiment
from pages.contexts.matrix import SECONDS, estimate, series_of
from pages.widgets import background
from pages.widgets.drawing import chart, csv_table
from pages.widgets.markdown import escape_markdown


def draw(spec: ModelSpec, world: Scenarios, winsorise: float) -> None:
    """Settings, the offer to ask, and what was answered."""
    left, middle, right = st.columns(3)
    context = left.selectbox(
        "Context", list(world.contexts), format_func=world.contexts.__getitem__, key="audit context"
    )
    names = middle.select_slider("Names of each group", (4, 8, 16, 32), 8, key="audit names")
    samples = right.select_slider("Answers for each name", (2, 4, 8, 16), 4, key="audit samples")
    written = st.text_input(
        "Without these heads and neurons",
        placeholder="L0H3,L2H1-4,L5N17: none if left empty",
        key="audit heads",
        help="Heads as L0H3, ranges of a layer as L2H1-4, neurons (hidden units of the MLP) as L5N17.",
    )
    subject = PruneSet.parse(written)
    small, config = world.smaller(names), AuditConfig(samples, 8)
    asked = small.of(context)
    request = Experiment(spec, "Audit", (context, repr(small), config, subject))
    job = background.job_of(request)
    if job is not None and job.state == "done":
        show(job.result, subject, winsorise)
        return
    answers = len(asked) * len(small.people) * samples * (2 if len(subject) else 1)

    def work(lm: LanguageModel, store: Store, progress: Any) -> list[list[Replies]]:
        subjects = [PruneSet(), subject] if len(subject) else [PruneSet()]
        total = len(subjects) * len(asked)

        def step(i: int) -> Any:
            return lambda done, of, text: progress(i + done / max(of, 1e-9), total, text)

        return [
            [audit(lm, s, small, config, store, who, progress=step(j * len(asked) + i)) for i, s in enumerate(asked)]
            for j, who in enumerate(subjects)
        ]

    background.offer(
        request,
        work,
        title=f"Ask about {escape_markdown(world.contexts[context].lower())}",
        about=f"{len(asked)} scenarios, {len(small.people)} names, {samples} answers each"
        + (", with and without the parts" if len(subject) else "")
        + f": {answers:,} answers. With the built-in model on two cores that takes about "
        f"{background.duration(answers * SECONDS)}. The model has to be an instruct model, with a chat template.",
        button="Ask",
    )


def show(found: list[list[Replies]], subject: PruneSet, winsorise: float) -> None:
    """Differences between the groups by scenario, what stands behind them, and the answers themselves."""
    base = found[0]
    first, second = base[0].groups
    gaps = [disparity(replies, winsorise) for replies in found]
    mean = gaps[0].mean_absolute()
    told = f"Mean |SMD| **{mean.value:.2f}** [{mean.low:.2f}, {mean.high:.2f}] over {len(base)} scenarios."
    if len(found) == 2:
        told += (
            f" Without {subject.format()}: {gaps[1].mean_absolute().value:.2f}, a change of "
            f"{estimate(gaps[0].change(gaps[1]))}."
        )
    st.markdown(told)
    labels, colors = ("whole model", f"without {len(subject)} parts"), (BASE, PRUNED)
    series = []
    for gap, replies, label, color in zip(gaps, found, labels, colors, strict=False):
        each = gap.each()
        hover = [
            f"{r.scenario.name}, {label}\nSMD {estimate(e)}\na number in {r.answers.parsed()[0]:.0%} ({first}) and "
            f"{r.answers.parsed()[1]:.0%} ({second}) of {r.answers.values.size:,} answers"
            for r, e in zip(replies, each, strict=True)
        ]
        series.append(series_of(label, each, hover, color=color))
    chart(
        dots(
            [r.scenario.name for r in base],
            series,
            Words(
                "Standardised mean difference by scenario",
                f"Above 0: larger numbers for {first} than for {second}. Intervals resample names (95%).",
                unit=f"mean of {first} minus mean of {second}, in pooled SDs",
                dark=st.context.theme.type == "dark",
            ),
        ),
        key="audit chart",
        alt="Standardised mean difference of every scenario; the table below has the numbers.",
    )
    frame = pd.DataFrame([_row(i, found, winsorise) for i in range(len(base))])
    csv_table(frame, "audit.csv")
    for r in base:
        difference = parsed_difference(r.answers)
        if difference.low > 0 or difference.high < 0:
            more = first if difference.low > 0 else second
            st.warning(
                f"{escape_markdown(r.scenario.name)}: a number is given more often for {escape_markdown(more)} "
                f"({difference.value:+.0%}). That is a difference between the groups too.",
                icon=":material/error_outline:",
            )
    if st.toggle("Show answers", key="audit texts", help="As the model wrote them. They may be offensive."):
        picked = st.selectbox(
            "Scenario", range(len(base)), format_func=lambda i: base[i].scenario.name, key="audit scenario"
        )
        chosen = base[picked]
        rows = [
            {"name": name, "group": group, "answer": text, "number": value}
            for (name, group), texts, values in zip(chosen.people, chosen.texts, chosen.answers.values, strict=True)
            for text, value in zip(texts, values, strict=True)
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True)


def _row(i: int, found: list[list[Replies]], winsorise: float) -> dict[str, Any]:
    base = found[0][i]
    numbers = base.numbers(winsorise)
    row: dict[str, Any] = {"scenario": base.scenario.name, "unit": base.scenario.unit}
    for g, group in enumerate(base.groups):
        mine = numbers.values[numbers.codes == g]
        row[f"mean, {group}"] = float(np.nanmean(mine)) if np.isfinite(mine).any() else None
        row[f"parsed, {group}"] = float(base.answers.parsed()[g])
    if len(found) == 2:
        after = found[1][i]
        row["inlier ratio"] = inlier_ratio(base.answers, after.answers)
        row["distance, SD"] = distance(base.answers, after.answers)
    return row
