"""The tab "Do effects add up?": what single heads predict of a set, and what the set does."""

from __future__ import annotations

import streamlit as st

from fasp_core.figures import Words
from fasp_core.figures.assumptions import Ends, growing_sets, interval_list, predicted_against_measured
from fasp_core.gap.estimates import Estimate
from fasp_core.lazy import pd
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.additivity import additivity
from fasp_core.studies.additivity.additivity import Plan
from fasp_core.studies.additivity.interactions import (
    NATS,
    PAIR_KINDS,
    PREDICTIONS,
    RATE,
    SUMMED,
    Additivity,
    Quantity,
    SetPoint,
)
from pages.backend.commands import command
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.shell.axis import axis_title
from pages.widgets.background import offer
from pages.widgets.drawing import chart, columns, csv_table, finding
from pages.widgets.markdown import code

STRONG = PAIR_KINDS[1]
SHOWN = 20  # pairs in the chart
TITLES = {NATS: "perplexity", "neutral": "gap, terms masked", "counted": "gap, terms scored"}
PREDICTION_TITLES = {
    SUMMED: "scores added",
    "prompt by prompt": "added by prompt",
    "multiplied": "multiplied",
}


def draw(spec: ModelSpec, axis: str, table: ImpactTable) -> None:
    """The result, or the offer to make it."""
    plan = Plan(axis)
    st.caption(
        "FASP adds up the scores of single heads: it assumes that heads do not interact. Here whole sets are really "
        "removed, on a part of the validation prompts and text that the scores were made on, so that the **measured** "
        "change stands beside the one that single heads **predict** on the very same prompts."
    )
    entry = additivity.find(plan, table, engine().models.identity(spec), Store())
    if entry is None:
        chosen = additivity.choose(table, plan)
        pairs = sum("pair" in s.name for s in chosen)
        offer(
            Experiment(spec, "Do effects add up?", (plan,)),
            lambda lm, store, progress: additivity.run(lm, plan, store, progress, table),
            title=f"Not measured yet for {axis_title(axis)}",
            about=f"{len(chosen) - pairs} growing sets and {pairs} pairs of heads are removed and measured on "
            f"{plan.prompts} prompts and {plan.tokens:,} tokens. With the built-in model on two cores this takes about "
            f"fifteen minutes. On the command line: {code(command(spec, 'study', 'additivity', '--axis', axis))}.",
            button="Measure",
        )
        return
    show(_read(str(entry.path), entry))


@st.cache_resource(max_entries=16, show_spinner="Resampling prompts")
def _read(path: str, _entry: Entry) -> Additivity:
    return additivity.read(_entry)


def show(found: Additivity) -> None:
    """One quantity at a time: its outcome, charts and tables."""
    left, right = st.columns((1, 1), vertical_alignment="bottom")
    with left:
        name = st.segmented_control(
            "What is predicted",
            list(found.quantities),
            default=list(found.quantities)[-2],
            required=True,
            format_func=lambda q: TITLES.get(q, q),
            key=f"additive quantity {found.axis}",
            help="Mean negative log-likelihood of the text; the toxicity gap with identity terms masked, or counted.",
        )
    quantity = found.quantities[str(name)]
    prediction = SUMMED
    if len(quantity.sets[0].predicted) > 1:
        with right:
            prediction = str(
                st.segmented_control(
                    "Prediction",
                    PREDICTIONS,
                    default=SUMMED,
                    required=True,
                    format_func=PREDICTION_TITLES.__getitem__,
                    key=f"additive prediction {found.axis}",
                    help="A gap is a sum of absolute values, so it need not add up even where toxicities do. *Scores "
                    "added* is what FASP assumes. *Added by prompt* adds the changes of every prompt's toxicity and "
                    "then takes the gap. *Multiplied* lets every head change a prompt's toxicity by a factor; the page "
                    "“Explore heads” does so for its estimate.",
                )
            )
    sets = quantity.fit("sets", prediction)
    holds = sets.slope.low <= 1 <= sets.slope.high and not quantity.beyond_noise
    finding(holds, quantity.outcome)
    _charts(quantity, prediction)
    _interactions(quantity)
    _tables(found, quantity)


def _charts(q: Quantity, prediction: str) -> None:
    dark = st.context.theme.type == "dark"
    left, right = st.columns(2)
    kinds: dict[str, list[SetPoint]] = {}
    for point in q.sets:
        kinds.setdefault(point.kind, []).append(point)
    with left:
        chart(
            growing_sets(
                [[p.size for p in points] for points in kinds.values()],
                [[q.scale * p.predicted[prediction].value for p in points] for points in kinds.values()],
                [ends([p.measured for p in points], q.scale) for points in kinds.values()],
                Words("Growing sets", "Bars: 95% intervals of the measurement.", unit=q.unit, dark=dark),
                names=list(kinds),
            ),
            key=f"growing {q.name}",
            alt="Measured and predicted change over the number of heads pruned; the table below has the numbers.",
        )
    with right:
        fit = q.fit("sets", prediction)
        chart(
            predicted_against_measured(
                ends([p.predicted[prediction] for p in q.sets], q.scale),
                ends([p.measured for p in q.sets], q.scale),
                Words(
                    "Sets: predicted against measured",
                    f"Slope {fit.slope.text()}, correlation {fit.pearson.text()}, {fit.n} sets.",
                    unit=q.unit,
                    dark=dark,
                ),
                kinds=["FASP" if p.kind == "FASP" else "random" for p in q.sets],
                hover=[
                    f"{p.kind}, {p.size} heads\nmeasured {text(p.measured, q)}\n"
                    f"predicted {text(p.predicted[prediction], q)}\n{p.heads if p.size < 9 else ''}".strip()
                    for p in q.sets
                ],
            ),
            key=f"sets {q.name}",
            alt="Every set of heads: predicted change against measured change.",
        )


def _interactions(q: Quantity) -> None:
    dark = st.context.theme.type == "dark"
    left, right = st.columns(2)
    shown = q.pairs[:SHOWN]
    with left:
        chart(
            interval_list(
                ends([p.interaction for p in shown], q.scale),
                Words(
                    f"Strongest {len(shown)} of {len(q.pairs)} interactions",
                    "Right of 0: more than the sum. Bars: 95% intervals.",
                    unit=f"interaction, {q.unit}",
                    dark=dark,
                ),
                labels=[f"{p.first} + {p.second}" for p in shown],
                hover=[
                    f"{p.first} + {p.second} ({p.kind})\ninteraction {text(p.interaction, q)}\n"
                    f"alone {q.scale * p.alone[0]:.3g} and {q.scale * p.alone[1]:.3g}, together {text(p.measured, q)}\n"
                    f"p = {p.p:.2g}, corrected for {len(q.pairs)} pairs q = {p.q:.2g}"
                    for p in shown
                ],
                strong=[p.q <= RATE for p in shown],
            ),
            key=f"interactions {q.name}",
            alt="The strongest interactions between two heads, with intervals.",
        )
    with right:
        fit = q.fit("pairs")
        pairs = sorted(q.pairs, key=lambda p: p.kind != STRONG)  # drawn first, and in blue
        chart(
            predicted_against_measured(
                ends([p.predicted for p in pairs], q.scale),
                ends([p.measured for p in pairs], q.scale),
                Words(
                    "Pairs: predicted against measured",
                    f"Slope {fit.slope.text()}, correlation {fit.pearson.text()}, {fit.n} pairs.",
                    unit=q.unit,
                    dark=dark,
                ),
                kinds=[p.kind for p in pairs],
                hover=[
                    f"{p.first} + {p.second} ({p.kind})\ntogether {text(p.measured, q)}\n"
                    f"predicted {text(p.predicted, q)}"
                    for p in pairs
                ],
                solid=[p.q <= RATE for p in pairs],
                solid_name="interact",
            ),
            key=f"pairs {q.name}",
            alt="Every pair of heads: predicted change against measured change.",
        )


def _tables(found: Additivity, q: Quantity) -> None:
    fits, pairs, heads, sets, about = st.tabs(
        ["How well it fits", "All pairs", "Heads that interact", "All sets", "About these numbers"]
    )
    with fits:
        st.dataframe(fit_frame(q), hide_index=True)
        st.caption(
            "Slope of measured on predicted (1: effects add up), correlation, mean error (measured minus predicted) "
            f"and mean size of the error, in {q.unit}; 95% intervals over {q.units} blocks."
        )
    for tab, frame, what in (
        (pairs, pair_frame(q), "pairs"),
        (heads, pd.DataFrame([vars(h) for h in q.heads]), "heads"),
        (sets, set_frame(q), "sets"),
    ):
        with tab:
            csv_table(frame, f"additivity-{found.axis}-{q.name}-{what}.csv", height=min(420, 38 + 35 * len(frame)))
    with heads:
        st.caption(
            "Over all pairs that a head was measured in: pairs whose interaction is beyond noise, the mean size of the "
            "interaction, the largest one and with whom. Random pairs hold most heads once or twice; only the "
            "strongest heads were paired with one another."
        )
    with about:
        st.markdown(_about(found, q))


def fit_frame(q: Quantity) -> pd.DataFrame:
    """Slopes, correlations and errors as text."""
    digits = 4 if q.name == NATS else 2
    return pd.DataFrame(
        {
            "over": f.over,
            "prediction": PREDICTION_TITLES[f.prediction],
            "n": f.n,
            "slope": f.slope.text(),
            "correlation": f.pearson.text(),
            f"mean error, {q.unit}": f.error.text(digits, q.scale),
            f"size of error, {q.unit}": f.size_of_error.text(digits, q.scale),
        }
        for f in q.fits
    )


def pair_frame(q: Quantity) -> pd.DataFrame:
    """One row a pair, in the quantity's own unit."""
    return pd.DataFrame(
        {
            "first": p.first,
            "second": p.second,
            "kind": p.kind,
            "first_alone": p.alone[0],
            "second_alone": p.alone[1],
            **columns("predicted", p.predicted),
            **columns("measured", p.measured),
            **columns("interaction", p.interaction),
            "p": p.p,
            "q": p.q,
        }
        for p in q.pairs
    )


def set_frame(q: Quantity) -> pd.DataFrame:
    """One row a set, in the quantity's own unit."""
    return pd.DataFrame(
        {"kind": p.kind, "size": p.size, **columns("measured", p.measured)}
        | {key: value for name, e in p.predicted.items() for key, value in columns(f"predicted_{name}", e).items()}
        | {"heads": p.heads}
        for p in q.sets
    )


def ends(found: list[Estimate], scale: float) -> Ends:
    """Estimates as a figure takes them, in the unit that is shown."""
    return Ends(*([scale * getattr(e, end) for e in found] for end in ("value", "low", "high")))


def text(e: Estimate, q: Quantity) -> str:
    """`0.91 [0.88, 0.93] ×10⁻³`."""
    return f"{e.text(4 if q.name == NATS else 2, q.scale)} {q.unit}"


def _about(found: Additivity, q: Quantity) -> str:
    made = found.provenance
    what = "blocks of 64 tokens" if q.name == NATS else "blocks of prompts (one of every group in the same sentence)"
    return (
        f"{found.prompts} validation prompts of {found.groups} groups and {found.tokens:,} tokens, the first of those "
        "that the scores were made on, so predictions and measurements are of the same prompts. "
        f"{' '.join(found.notes)} "
        "Strong are the heads of the largest effect on the gap and on perplexity, by turns, whatever its sign.\n\n"
        f"Changes are after minus before; tables are in {'nats a token' if q.name == NATS else 'units of the scorer'}. "
        f"Intervals come from 1,000 resamples of {q.units} {what}, the same for sets and single heads. The p of a pair "
        "is two-sided, from its interaction over its standard error (Student's t); q is corrected for the number of "
        "pairs by the false discovery rate of Benjamini and Yekutieli, which holds however pairs hang together. The "
        "strongest of many interactions are partly strong by chance: on other prompts expect them smaller.\n\n"
        f"Made {str(made.get('created', ''))[:16].replace('T', ' ')} UTC by `{made.get('command', '')}`."
    )
