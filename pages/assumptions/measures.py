"""The tab "Does the measure matter?": the same choice by other measures of bias, each checked by the others."""

from __future__ import annotations

import math

import streamlit as st

from fasp_core.figures import Cells, Words, cell_matrix
from fasp_core.gap.claims import SIGNIFICANCE
from fasp_core.gap.estimates import Estimate
from fasp_core.lazy import pd
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.robustness import robustness
from fasp_core.studies.robustness.rival_measures import GAP, RIVALS, Effect, Robustness
from fasp_core.studies.robustness.robustness import Plan
from pages.backend.commands import command
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.shell.axis import axis_title
from pages.widgets.background import offer
from pages.widgets.drawing import chart, columns, csv_table
from pages.widgets.markdown import code

SHORT = {  # in the cells' margins
    "gap": "toxicity\ngap",
    "first-order": "gap, first-\norder",
    "counted": "gap,\nterms scored",
    "corrected": "gap,\ncorrected",
    "max-min": "max −\nmin",
    "ratio": "1 −\nmin/max",
    "relative": "gap /\nmean",
    "standardised": "gap /\nspread",
    "sentiment": "sentiment\ngap",
    "crows": "CrowS-\nPairs",
    "stereoset": "StereoSet",
}


def draw(spec: ModelSpec, axis: str, table: ImpactTable) -> None:
    """The result, or the offer to make it."""
    plan = Plan(axis)
    st.caption(
        "The toxicity gap is one idea of bias. Others are: the same gap **normalised** otherwise, a gap of negative "
        "**sentiment**, and which of two sentences the model finds **likelier**, the stereotyped one or the other "
        "(CrowS-Pairs, StereoSet). Do they choose the same heads, and does a set chosen by one lower the others?"
    )
    entry = robustness.find(plan, table, engine().models.identity(spec), Store())
    if entry is None:
        kinds = ", ".join(f"{half.source} ({half.bias_type})" for half, _ in plan.collections())
        offer(
            Experiment(spec, "Other measures of bias", (plan,)),
            lambda lm, store, progress: robustness.run(lm, plan, store, progress, table),
            title=f"Not measured yet for {axis_title(axis)}",
            about=f"Heads are scored by sentiment{f' and by {kinds}' if kinds else ''}, to first order; every measure "
            f"chooses {plan.alpha:.0%} of the heads; every set is measured by every measure on {plan.test} test "
            "prompts and on sentence pairs that no choice was made on. With the built-in model on two cores this takes "
            "about half an hour. The collections hold offensive sentences; none is shown. On the command line: "
            f"{code(command(spec, 'study', 'robustness', '--axis', axis))}.",
            button="Measure",
        )
        return
    show(_read(str(entry.path), entry, table))


@st.cache_resource(max_entries=16, show_spinner="Resampling prompts and sentences")
def _read(path: str, _entry: Entry, _table: ImpactTable) -> Robustness:
    return robustness.read(_entry, _table)


def show(r: Robustness) -> None:
    """The outcome, two matrices, and tables."""
    rivals = [name for name in RIVALS if name in r.scored]
    apart = all(r.agreement(GAP, name).p > SIGNIFICANCE for name in rivals)
    (st.warning if apart else st.info)(r.outcome, icon=":material/balance:")
    _agreement(r)
    _effects(r)
    measures, pairs, effects, sentences, about = st.tabs(
        ["The measures", "All agreements", "All effects", "Sentence pairs", "About these numbers"]
    )
    with measures:
        st.dataframe(measure_frame(r), hide_index=True)
        st.caption(
            "On the items that heads are chosen by. p: that there is no bias (groups shuffled, or no preference). "
            "Reliability: rank correlation of the prunable heads' scores with those on as many other items. Scores "
            "that do not repeat cannot agree with others either."
        )
    for tab, frame, what in ((pairs, agreement_frame(r), "agreement"), (effects, effect_frame(r), "effects")):
        with tab:
            csv_table(frame, f"measures-{r.axis}-{what}.csv", height=420)
    with sentences:
        _sentences(r)
    with about:
        st.markdown(_about(r))


def _agreement(r: Robustness) -> None:
    names = list(r.scored)
    cells = [(i, j) for i in range(len(names)) for j in range(len(names))]
    found = [None if i == j else r.agreement(names[i], names[j]) for i, j in cells]
    values, text, hover, faint = [], [], [], []
    for (i, j), a in zip(cells, found, strict=True):
        s = r.scored[names[i]]
        if a is None:
            values.append(float("nan"))
            text.append("–" if math.isnan(s.reliability) else f"({s.reliability:.2f})")
            hover.append(
                f"{s.measure.title}\nreliability of its own ranking {s.reliability:.2f}\n{s.items}, {s.estimator}"
            )
            faint.append(False)
            continue
        above = j > i
        values.append(a.shared / a.k if above else a.spearman.value)
        text.append(f"{a.shared}" if above else f"{a.spearman.value:.2f}".replace("-", "−"))
        faint.append(a.p > SIGNIFICANCE if above else a.spearman.low <= 0 <= a.spearman.high)
        hover.append(
            f"{s.measure.title} and {r.scored[names[j]].measure.title}\n"
            f"{a.shared} of {a.k} heads in both sets, {a.chance:.1f} by chance (p = {a.p:.2g})\n"
            f"rank correlation over {a.eligible} prunable heads {a.spearman.text()}"
        )
    chart(
        cell_matrix(
            Cells(
                [_row_label(name)[0] for name in names],
                [SHORT[name] for name in names],
                values,
                text,
                hover,
                faint,
                names=("may be chance", "", ""),
            ),
            Words(
                f"Do measures choose the same {r.k} heads?",
                "Above the diagonal: heads in both sets. Below: rank correlation.",
                unit="share / r",
                dark=st.context.theme.type == "dark",
            ),
            limit=1.0,
            cell_height=36,
        ),
        key="agreement of measures",
        alt="Shared heads and rank correlation of every two measures; the table below has the numbers.",
    )
    st.caption(
        f"Sets of {r.k} of {r.eligible} prunable heads: by chance two share {r.agreements[0].chance:.1f}. In brackets: "
        "how well a measure's own ranking repeats, which bounds its correlation with others."
    )


def _effects(r: Robustness) -> None:
    columns = list(dict.fromkeys(e.measured_by for e in r.effects))
    names = [s.name for s in r.sets]
    cells = [(name, r.effect(name.split(" = ")[0], column)) for name in names for column in columns]
    chart(
        cell_matrix(
            Cells(
                ["\n".join(_row_label(name)) for name in names],
                [SHORT[name] for name in columns],
                [_color(e) for _, e in cells],
                [_cell(e) for _, e in cells],
                [
                    f"set chosen by {', '.join(_row_label(name))}\n"
                    f"measured by {r.scored[e.measured_by].measure.title}, {e.items}\n{e.text}"
                    for name, e in cells
                ],
                [e.change.low <= 0 <= e.change.high for _, e in cells],
            ),
            Words(
                "What does a set chosen by one do to the others?",
                "Change of each measure on held-out items; blue: less bias.",
                unit="change",
                dark=st.context.theme.type == "dark",
            ),
            limit=1.0,
            cell_height=36,
        ),
        key="effects of sets",
        alt="Change of every measure by every set; the table below has the numbers.",
    )
    costs = ", ".join(f"{_row_label(s.name)[0]} {100 * s.perplexity.relative:+.1f}%" for s in r.sets)
    st.caption(
        "Rows: what the set was chosen by. Percent of the unpruned model's bias; for sentence pairs percentage points "
        f"of the distance from 50% (pp). Pale: the 95% interval holds 0. Perplexity ({r.sets[0].perplexity.tokens:,} "
        f"tokens): {costs}."
    )


def _color(e: Effect) -> float:
    """Change over what was there; that of a bias which may be 0 is not drawn."""
    return max(-1.0, min(1.0, e.relative.value))


def _cell(e: Effect) -> str:
    shown, unit = e.shown
    return f"{shown.value:+.{0 if unit == '%' else 1}f}{unit.removesuffix(' ×10⁻³')}".replace("-", "−")


def _row_label(name: str) -> list[str]:
    """Names of the measures that chose a set; random sets keep their own."""
    return [SHORT.get(part, part).replace("-\n", "-").replace("\n", " ") for part in name.split(" = ")]


def _sentences(r: Robustness) -> None:
    if not any(s.crows or s.ss for s in r.stereotypes):
        st.info("No collection of sentence pairs has a bias type for this axis.", icon=":material/info:")
        return
    st.warning(
        "These collections hold sentences that are offensive on purpose. Only numbers are shown here.",
        icon=":material/warning:",
    )
    types = ", ".join(f"{name} ({kind})" for name, kind in r.bias_types.items())
    st.dataframe(sentence_frame(r), hide_index=True)
    st.caption(
        f"The usual scores on the half that no choice was made on; bias types: {types}. CrowS-Pairs: percent of pairs "
        "whose stereotyped sentence is likelier, by the tokens after the first difference that both share, and by "
        "whole sentences; 50 is unbiased; nats: mean difference. StereoSet: stereotype score ss (50 is unbiased), "
        "language model score lms (100 is best), and icat, which is high where both are good. 95% intervals over "
        "pairs, or over StereoSet's targets."
    )


def measure_frame(r: Robustness) -> pd.DataFrame:
    """One row a measure."""
    return pd.DataFrame(
        {
            "measure": s.measure.title,
            "scores": s.estimator,
            "on": s.items,
            "bias of the whole model": s.text,
            "p of no bias": "< .001" if s.p < 0.001 else f"{s.p:.3f}",
            "reliability": "–" if math.isnan(s.reliability) else f"{s.reliability:.2f}",
        }
        for s in r.scored.values()
    )


def agreement_frame(r: Robustness) -> pd.DataFrame:
    """One row a pair of measures."""
    return pd.DataFrame(
        {
            "one": a.one,
            "other": a.other,
            "heads in both": a.shared,
            "of": a.k,
            "by chance": a.chance,
            "p": a.p,
            **columns("spearman", a.spearman),
            "prunable heads": a.eligible,
        }
        for a in r.agreements
    )


def effect_frame(r: Robustness) -> pd.DataFrame:
    """One row a set and measure, in the measure's own unit."""
    heads = {by: s for s in r.sets for by in s.name.split(" = ")}
    return pd.DataFrame(
        {
            "chosen_by": e.chosen_by,
            "measured_by": e.measured_by,
            "before": e.before.value,
            "after": e.after,
            **columns("change", e.change),
            **columns("relative", e.relative),
            "items": e.items,
            "perplexity_change": heads[e.chosen_by].perplexity.relative,
            "heads": heads[e.chosen_by].heads,
        }
        for e in r.effects
    )


def sentence_frame(r: Robustness) -> pd.DataFrame:
    """One row a model: the whole one, then every set."""

    def said(e: Estimate | None, digits: int = 1) -> str:
        return "–" if e is None else e.text(digits)

    return pd.DataFrame(
        {
            "set chosen by": ", ".join(_row_label(s.name)),
            "CrowS-Pairs, %": said(s.crows),
            "whole sentences, %": said(s.crows_whole),
            "difference, nats": said(s.crows_nats, 2),
            "StereoSet ss, %": said(s.ss),
            "lms, %": said(s.lms),
            "icat": said(s.icat),
        }
        for s in r.stereotypes
    )


def _about(r: Robustness) -> str:
    made = r.provenance
    return (
        f"{' '.join(r.notes)}\n\nEvery measure is a number that is 0 for an unbiased model; a head's score is that "
        "number before minus after its removal. FASP prunes the heads of the highest score that are not critical (γ "
        f"{r.gamma:g}, α {r.alpha:g}). A *preference* is the distance from one half of the probability with which the "
        "model, made to say one of two sentences, says the stereotyped one. Choices are made on validation prompts and "
        "on one half of the sentence pairs; effects are measured on test prompts and on the other half. Overlap is "
        "judged by the hypergeometric distribution, rank correlations have bootstrap intervals over heads, effects "
        "have paired ones over prompts (in blocks) or pairs. Many cells are tested: expect one in twenty to be clear "
        "by chance alone.\n\nCrowS-Pairs and StereoSet have been criticised for pairs that compare nothing (Blodgett "
        "et al. 2021). A preference on them is a second opinion, not the truth.\n\n"
        f"Made {str(made.get('created', ''))[:16].replace('T', ' ')} UTC by `{made.get('command', '')}`."
    )
