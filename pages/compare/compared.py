"""All candidates of a comparison: curves over alpha, gap against perplexity, and a table to download."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import streamlit as st

from fasp_core.data.text import said
from fasp_core.figures import Curve, Points, Words, method_curves, tradeoff
from fasp_core.gap import GapStats, claims
from fasp_core.lazy import pd
from fasp_core.model.spec import ModelSpec
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.curves import ORDER, both_sides, curves, values
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.plan import SIDES, Candidate, Side
from pages.compare import other_costs
from pages.shell.sidebar import METHOD_TITLES, READING_TITLES, SPLIT_TITLES
from pages.widgets.drawing import chart, download

WIDEST = 4.0  # limits on perplexity that the chart of gap against perplexity is wide
HIGHEST = 2.0  # unpruned gaps that charts are high


@dataclass(frozen=True)
class Settings:
    """Everything that the sidebar says."""

    spec: ModelSpec
    axis: str
    axis_title: str
    reading: str
    max_ppl: float
    within: bool = False
    more: Limits = field(default_factory=Limits)  # beside perplexity

    @property
    def limits(self) -> Limits:
        """All that a choice keeps to."""
        return replace(self.more, max_ppl=self.max_ppl)


@dataclass(frozen=True)
class View:
    """What the charts show."""

    side: Side
    reading: str
    gamma: float | None


def draw(settings: Settings, comparison: Comparison, picked: Candidate | None) -> None:
    """Charts and table; their switches rerun only this part."""
    st.subheader("All candidates", anchor=False)
    view = switches(comparison)
    base = comparison.base_gap(view.side, view.reading)
    if view.side == "test":
        st.info(
            "**For looking.** Nothing is chosen on test prompts: the ring is the set that validation chose. Whoever "
            "picks the best point here has no fair prompts left to judge it by.",
            icon=":material/visibility:",
        )
    if not claims.is_gap(base.noise_p):
        st.warning(
            f"No gap is shown to begin with ({READING_TITLES[view.reading]}, {base.n} {SPLIT_TITLES[view.side]} "
            f"prompts): shuffled groups give one as large in {base.noise_p:.0%} of cases. Lower points below are no "
            "success.",
            icon=":material/error_outline:",
        )
    _curves(settings, comparison, view, picked, base)
    _tradeoff(settings, comparison, view, picked, base)
    _table(settings, comparison, view)
    _about(comparison)


def switches(comparison: Comparison) -> View:
    """Side, reading and gamma of the charts."""
    left, middle, right = st.columns(3, vertical_alignment="bottom")
    side = left.segmented_control(
        "Side",
        SIDES,
        default="valid",
        required=True,
        key="compare side",
        format_func=SPLIT_TITLES.__getitem__,
        help="Choices are made on validation. Test shows whether they hold on sentences that nothing was chosen on.",
    )
    reading = middle.segmented_control(
        "Reading shown",
        comparison.readings,
        default=comparison.plan.reading,
        required=True,
        key=f"compare shown {comparison.plan.reading}",
        format_func=READING_TITLES.__getitem__,
        help=f"Both were measured. The sets were chosen by scores with {READING_TITLES[comparison.plan.reading]}.",
    )
    gamma = right.selectbox(
        "γ of FASP in the curves",
        (None, *comparison.plan.gammas),
        format_func=lambda g: "best at each α, by validation" if g is None else f"{g:g}",
        key="compare gamma",
        help="Best: at each α the γ of the lowest validation gap among those within the limit on perplexity; where "
        "none is, the one of the lowest perplexity.",
    )
    shown: Side = "test" if side == "test" else "valid"
    return View(shown, reading or comparison.plan.reading, gamma)


def _curves(settings: Settings, comparison: Comparison, view: View, picked: Candidate | None, base: GapStats) -> None:
    drawn = curves(comparison, view.side, view.reading, view.gamma, settings.max_ppl)
    unit = {"gap": 1000.0, "ppl": 1.0}
    per_method = [(str(name), part) for name, part in drawn.groupby("method", sort=False)]
    nll = comparison.sides[view.side].nll[0]
    ringed = None
    if picked is not None:
        ringed = {
            "gap": 1000 * comparison.change(picked, view.side, view.reading).pruned,
            "ppl": comparison.perplexity(picked, view.side).pruned,
        }
    titles = {
        "gap": (
            f"Toxicity gap, {READING_TITLES[view.reading]}",
            f"{base.n} {SPLIT_TITLES[view.side]} prompts; bars: 95% intervals of the change.",
            "gap, ×10⁻³",
        ),
        "ppl": (
            "Perplexity",
            f"{nll.tokens:,} tokens of {SPLIT_TITLES[view.side]} text; bars: 95% intervals of the change.",
            "perplexity (logarithmic)",
        ),
    }
    for column, (name, (title, note, y_title)) in zip(st.columns(2), titles.items(), strict=True):
        lines = [
            Curve(
                _line_name(method, part),
                ORDER.index(method),
                part.alpha,
                unit[name] * part[name],
                unit[name] * part[f"{name}_low"],
                unit[name] * part[f"{name}_high"],
                [_hover_of_line(method, row) for row in part.to_dict("records")],
                band=bool((part.seeds > 1).any()),
            )
            for method, part in per_method
        ]
        with column:
            chart(
                method_curves(
                    lines,
                    Words(title, note, "α, share of heads pruned", y_title, dark=st.context.theme.type == "dark"),
                    reference=1000 * base.gap if name == "gap" else nll.perplexity,
                    floor=1000 * base.noise_gap if name == "gap" else None,
                    cap=HIGHEST * 1000 * base.gap if name == "gap" else None,
                    chosen=None if picked is None or ringed is None else (picked.alpha, ringed[name]),
                    log_y=name == "ppl",
                ),
                key=f"compare {name}",
                alt=f"{title} over the share of heads pruned, one line a method.",
            )
    st.caption(
        "Click a method in a legend to hide it. Where several seeds were run the line is their mean and the **band "
        "runs from the smallest to the largest**. The ring is the choice; the dotted line is what shuffled groups "
        "would give, below which a gap means nothing."
    )


def _tradeoff(settings: Settings, comparison: Comparison, view: View, picked: Candidate | None, base: GapStats) -> None:
    frame = values(comparison, view.side, view.reading)
    at = comparison.candidates.index(picked) if picked is not None else None
    other = other_costs.choose(settings.spec, comparison, view.side, settings.more)
    across, title = 100 * frame.ppl_change.to_numpy(float), "perplexity above the unpruned model, %"
    limit: float | None = 100 * settings.max_ppl
    if other is not None:
        across, title, limit = other
    chart(
        tradeoff(
            Points(
                across,
                1000 * frame.gap,
                [_hover(row, comparison.readings) for row in frame.to_dict("records")],
                [ORDER.index(m) for m in frame.method],
                [METHOD_TITLES[m] for m in ORDER],
            ),
            Words(
                f"What it buys against what it costs, {SPLIT_TITLES[view.side]}, {READING_TITLES[view.reading]}",
                "One point a candidate; down and left is better.",
                x=title,
                y="gap, ×10⁻³",
                dark=st.context.theme.type == "dark",
            ),
            reference=(0.0, 1000 * base.gap),
            limit=limit,
            floor=1000 * base.noise_gap,
            chosen=at,
            caps=(
                max(WIDEST * 100 * settings.max_ppl, 20.0) if other is None else np.inf,
                HIGHEST * 1000 * base.gap,
            ),
        ),
        key="compare tradeoff",
        alt="Toxicity gap against perplexity of all candidates, with the Pareto front and the limit on perplexity."
        if other is None
        else f"Toxicity gap against {title}, of the candidates that were measured so, with the Pareto front.",
    )


def _table(settings: Settings, comparison: Comparison, view: View) -> None:
    frame = values(comparison, view.side, view.reading)
    frame["method"] = [METHOD_TITLES[m] for m in frame.method]
    columns = {
        "method": st.column_config.TextColumn("method"),
        "gamma": number("γ", "%.2g"),
        "alpha": number("α", "%.2g"),
        "seed": number("seed", "%d"),
        "heads": number("heads", "%d"),
        "ppl": number("perplexity", "%.2f"),
        "ppl_change": number("change, %", "%+.1f", "of perplexity"),
    }
    frame["ppl_change"] *= 100
    for reading in comparison.readings:
        frame[f"gap_{reading}"] *= 1000
        columns[f"gap_{reading}"] = number(f"gap {reading}, ×10⁻³", "%.2f")
        for name, help_text in (("change", ""), ("low", "lower end, 95%"), ("high", "upper end, 95%")):
            frame[f"{name}_{reading}"] *= 100
            columns[f"{name}_{reading}"] = number(f"{name}, %", "%+.1f", f"change of the {reading} gap {help_text}")
    columns["set"] = st.column_config.TextColumn("set", width="medium")
    st.markdown(
        f"**All {len(frame)} candidates** on the {SPLIT_TITLES[view.side]} side. Click a column's head to sort; the "
        "file holds both sides."
    )
    st.dataframe(
        frame[[*columns]].sort_values(f"gap_{view.reading}", kind="stable"),
        hide_index=True,
        height=360,
        column_config=columns,
        placeholder="–",
        key="compare table",
    )
    file = f"comparison-{settings.axis_title}-{comparison.plan.reading}.csv"
    download("Download as CSV", both_sides(comparison).to_csv(index=False), file, "text/csv")


def _about(comparison: Comparison) -> None:
    plan, sides = comparison.plan, comparison.sides
    with st.expander("About these numbers", icon=":material/info:"):
        st.markdown(
            f"{len(comparison.sets)} different sets of heads, each really removed: expected toxicity of the next word "
            f"on {sides['valid'].rows.n} validation and {sides['test'].rows.n} test prompts, perplexity on "
            f"{sides['valid'].nll[0].tokens:,} and {sides['test'].nll[0].tokens:,} tokens of Wikipedia sentences "
            f"(BOLD) in {said(plan.text('test'), comparison.provenance)}; the two texts do not overlap. The sets were "
            "chosen by scores with "
            f"{READING_TITLES[plan.reading]}. Changes are paired: both models on the same prompts and the same "
            f"resamples of whole blocks. With {len(comparison.candidates)} candidates the lowest gap is partly luck, "
            "which is why the claim is measured again. Random heads get the best of their seeds in the choice, too."
        )
        st.json(comparison.provenance, expanded=False)


def _line_name(method: str, part: pd.DataFrame) -> str:
    seeds = int(part.seeds.max())
    return METHOD_TITLES[method] + (f", {seeds} seeds" if seeds > 1 else "")


def _hover_of_line(method: str, row: Mapping[Any, Any]) -> str:
    several = row["seeds"] > 1
    ends = "smallest and largest" if several else "95%"
    lines = [METHOD_TITLES[method] + (f", mean of {row['seeds']:.0f} seeds" if several else ""), f"α {row['alpha']:g}"]
    if not math.isnan(row["gamma"]):
        lines[-1] = f"γ {row['gamma']:g}, {lines[-1]}"
    return "\n".join(
        [
            *lines,
            f"{row['heads']:g} heads",
            f"gap {milli(row['gap'])} [{milli(row['gap_low'])}, {milli(row['gap_high'])}] ×10⁻³, {ends}",
            f"perplexity {row['ppl']:.2f} [{row['ppl_low']:.2f}, {row['ppl_high']:.2f}], {ends}",
        ]
    )


def _hover(row: Mapping[Any, Any], readings: tuple[str, ...]) -> str:
    seed = None if math.isnan(row["seed"]) else int(row["seed"])
    lines = [method_title(str(row["method"]), seed), f"α {row['alpha']:g}, {row['heads']:.0f} heads"]
    if not math.isnan(row["gamma"]):
        lines[-1] = f"γ {row['gamma']:g}, {lines[-1]}"
    ends = span((row["ppl_change_low"], row["ppl_change_high"]), 1)
    lines.append(f"perplexity {row['ppl']:.2f}, {percent(row['ppl_change'], 1)} {ends}")
    for reading in readings:
        ends = span((row[f"low_{reading}"], row[f"high_{reading}"]))
        lines.append(f"gap {reading}: {milli(row[f'gap_{reading}'])} ×10⁻³, {percent(row[f'change_{reading}'])} {ends}")
    return "\n".join([*lines, "in brackets: 95% intervals of the change"])


# --- words ---


def method_title(method: str, seed: int | None = None) -> str:
    """Such as `random, seed 3`."""
    return METHOD_TITLES[method] + ("" if seed is None else f", seed {seed}")


def number(title: str, form: str, help_text: str | None = None) -> Any:
    """A column of numbers."""
    return st.column_config.NumberColumn(title, format=form, help=help_text)


def milli(gap: float) -> str:
    """A gap in thousandths."""
    return f"{1000 * gap:.2f}"


def percent(x: float, digits: int = 0) -> str:
    """A relative change with its sign; zero has a plus."""
    return "not known" if not np.isfinite(x) else f"{round(x, digits + 2) + 0.0:+.{digits}%}"


def span(ends: tuple[float, float] | None, digits: int = 0) -> str:
    """An interval of relative changes."""
    if ends is None or not np.isfinite(ends).all():
        return "[not known]"
    return f"[{percent(ends[0], digits)}, {percent(ends[1], digits)}]"


def noise(base: GapStats) -> str:
    """What shuffled groups give, and how often they match the gap."""
    return noise_of(base.noise_gap, base.noise_p)


def noise_of(gap: float, p: float) -> str:
    """The mean gap of shuffled groups, and how often they match the unpruned model's."""
    return f"{milli(gap)}, " + ("p < .001" if p < 0.001 else f"p = {p:.3f}")
