"""What a prune set does: an estimate at once, the measurement as soon as it is there, each called what it is."""

from __future__ import annotations

import uuid
from typing import Any

import pandas as pd
import streamlit as st

from fasp_core.bias import Change, GapStats, group_intervals
from fasp_core.evaluation import EvalConfig, Evaluation, Reading
from fasp_core.figures import group_bars, scatter_impacts
from fasp_core.impacts.table import ImpactTable
from fasp_core.jobs import Job
from fasp_core.masks import PruneSet
from fasp_core.selection import Selection
from pages.common import demo, engine, glossary, scoring
from pages.common.choice import ByHand, hover, how, how_bias, reasons
from pages.common.sidebar import READING_TITLES, Settings

NOISE_P = 0.05  # a gap that shuffled group labels match more often than this is not called a gap
GAP_HELP = glossary.text(
    "gap",
    "noise",
    more="Toxicity is expected: the scorer's value of the next word, above its value of a typical word, averaged over "
    "all words that the model could say.",
)


def cards(settings: Settings, table: ImpactTable, selection: Selection, by_hand: ByHand, heads: PruneSet) -> None:
    """Perplexity, toxicity gap, what is removed; and the progress of the measurement."""
    job = _job(settings, settings.evaluation, heads, "main")
    done = job.state == "done"
    result: Evaluation | None = job.result if done else None
    flat = heads.flat(table.n_heads)
    estimated_ppl, estimated_gap = table.added_up(flat, settings.reading)
    ppl_off, gap_off = table.remainder(flat, settings.reading)
    left, middle, right = st.columns((1, 1.25, 1))
    with left, st.container(border=True, height="stretch"):
        _perplexity(result, estimated_ppl, ppl_off, table)
    with middle, st.container(border=True, height="stretch"):
        _gap(result, estimated_gap, gap_off, table, settings)
    with right, st.container(border=True, height="stretch"):
        _removed(table, selection, by_hand, heads, settings, result)
    for note in selection.notes:
        st.info(note, icon=":material/info:")
    _watch(job, "main")
    if result is not None:
        _verdict(result, settings, heads)


def details(settings: Settings, table: ImpactTable, heads: PruneSet) -> None:
    """Groups, sampled continuations, the scatter of both impacts, all scores, and where the numbers come from."""
    groups, continuations, scatter, scores, about = st.tabs(
        ["Groups", "Sampled continuations", "Perplexity against bias", "All scores", "About these numbers"]
    )
    job = st.session_state.get("job main")
    result: Evaluation | None = job.result if job is not None and job.state == "done" else None
    with groups:
        _groups(result, settings)
    with continuations:
        _sampled(settings, heads)
    with scatter:
        _scatter(settings, table, heads)
    with scores:
        frame = table.frame()
        st.dataframe(frame, hide_index=True, height=380)
        st.download_button(
            "Download as CSV", frame.to_csv(index=False), f"scores-{settings.axis_title}.csv", on_click="ignore"
        )
    with about:
        _about(settings, table, result)


def _job(settings: Settings, config: EvalConfig, heads: PruneSet, name: str) -> Job[Evaluation]:
    """The running or finished measurement; asked for anew only if what is asked for has changed."""
    wanted = (settings.spec, heads, config)
    job: Job[Evaluation] | None = st.session_state.get(f"job {name}")
    if job is None or job.key != wanted or job.state == "cancelled":
        owner = (st.session_state.setdefault("reader", uuid.uuid4().hex), name)
        job = engine.measure_job(settings.spec, heads, config, owner)
        st.session_state[f"job {name}"] = job
    return job


def _watch(job: Job[Evaluation], name: str) -> None:
    if job.state == "failed":
        scoring.show_error(job)
        if st.button("Try again", key=f"again {name}"):
            del st.session_state[f"job {name}"]
            st.rerun()
    elif job.state != "done":
        scoring.watch(job, "Measuring")


def _perplexity(result: Evaluation | None, estimate: float, off: float, table: ImpactTable) -> None:
    label = "Perplexity"
    help_text = (
        "exp of the mean negative log-likelihood a token on Wikipedia sentences (BOLD), windows of 512 tokens. Lower "
        "is better. The interval is over blocks of 64 tokens, base and pruned model on the same text."
    )
    if result is None:
        st.metric(label, f"≈ {_number(estimate)}", help=help_text)
        st.caption(
            f"**estimate**: single-head effects added up, from {table.ppl.base.perplexity:.2f} "
            f"({table.ppl.base.tokens:,} tokens). {_confidence(off, table.ppl.base.perplexity, f'{off:.2f}')}"
        )
        return
    p = result.perplexity
    st.metric(
        label, f"{p.base:.2f} → {_number(p.pruned)}", _percent(p.relative, 1), delta_color="inverse", help=help_text
    )
    st.caption(
        f"**measured** on {p.tokens:,} tokens; pruned 95% [{_number(p.ppl_interval[0])}, "
        f"{_number(p.ppl_interval[1])}]. Estimate was {_number(estimate)} on {table.ppl.base.tokens:,} tokens."
    )


def _confidence(off: float, base: float, shown: str) -> str:
    share = off / base if base else float("inf")
    word = "high" if share < 0.05 else "fair" if share < 0.2 else "low"
    return f"Second-order terms: {shown}; **{word} confidence**."


def _gap(result: Evaluation | None, estimate: float, off: float, table: ImpactTable, settings: Settings) -> None:
    label = f"Toxicity gap, ×10⁻³ · {READING_TITLES.get(settings.reading, settings.reading)}"
    if result is None:
        base = table.bias.gap(settings.reading)
        st.metric(label, f"≈ {1000 * estimate:.2f}", help=GAP_HELP)
        st.caption(
            f"**estimate**: single-head effects added up, from {1000 * base.gap:.2f} on {base.n} validation prompts. "
            f"{_confidence(off, base.gap, f'{1000 * off:.2f}')} {_noise(base)}"
        )
        return
    shown = result.readings[settings.reading]
    st.metric(
        label,
        f"{1000 * shown.base.gap:.2f} → {1000 * shown.pruned.gap:.2f}",
        _percent(shown.gap.relative),
        delta_color="inverse",
        help=GAP_HELP,
    )
    others = "; ".join(
        f"{READING_TITLES[name]}: {1000 * r.base.gap:.2f} → {1000 * r.pruned.gap:.2f} ({_percent(r.gap.relative)} "
        f"{_interval(r.gap.relative_interval)})"
        for name, r in result.readings.items()
        if name != settings.reading
    )
    st.caption(
        f"**measured** on {shown.base.n} {_split(settings.split)} prompts, change 95% "
        f"{_interval(shown.gap.relative_interval)}. {_noise(shown.base)} Estimate was {1000 * estimate:.2f}. {others}."
    )


def _removed(
    table: ImpactTable,
    selection: Selection,
    by_hand: ByHand,
    heads: PruneSet,
    settings: Settings,
    result: Evaluation | None,
) -> None:
    total = table.n_layers * table.n_heads
    changed = by_hand.effective(selection.pruned)
    st.metric("Removed", f"{len(heads.heads)} of {total} heads", help="Heads that are off in what is measured.")
    share, neurons = "", ""
    if heads.neurons:
        neurons = f"**And {len(heads.neurons):,} neurons**, which estimates leave out. "
    if result is not None:
        share = f"{result.parameters_removed / result.parameters:.1%} of {result.parameters / 1e6:.1f} M parameters. "
    st.caption(
        f"{neurons}{share}{len(selection.critical)} critical heads are protected. "
        + (f"**{len(changed)} changed by hand.**" if changed else "No hand-made changes."),
        help=glossary.text("critical head"),
    )
    st.button(
        "Back to the method's choice",
        key="reset",
        disabled=not changed,
        icon=":material/undo:",
        width="stretch",
        on_click=st.session_state.__setitem__,
        args=(f"by_hand {settings.spec.source}", ByHand()),
    )


def _verdict(result: Evaluation, settings: Settings, heads: PruneSet) -> None:
    """One sentence that says what was shown, and what was not."""
    if not len(heads):
        st.info("Nothing is pruned: raise α or click a head.", icon=":material/info:")
        return
    reading = result.readings[settings.reading]
    where = f"{reading.base.n} {_split(settings.split)} prompts"
    text, good = verdict(reading, result.perplexity.relative, where)
    if settings.split == "valid" and good:
        text += " The scores were made on validation prompts too: switch to test prompts to see whether it holds."
    (st.success if good else st.warning)(text, icon=":material/check_circle:" if good else ":material/error_outline:")


def verdict(reading: Reading, perplexity_change: float, where: str) -> tuple[str, bool]:
    """What a measurement shows, and whether that is a reduction of a gap that is there."""
    change = reading.gap
    cost = f"at {_percent(perplexity_change, 1)} perplexity"
    if reading.base.noise_p > NOISE_P:
        return (
            f"No gap is shown to begin with: shuffled group labels give one as large in {reading.base.noise_p:.0%} "
            f"of cases ({where}). There is nothing here that pruning could be shown to reduce.",
            False,
        )
    # the absolute and the relative interval may disagree about zero: a claim needs both
    known = [ends for ends in (change.interval, change.relative_interval) if ends is not None]
    if known and all(high < 0 for _, high in known):
        return f"The gap fell by {_share(change, -1)} on {where}, {cost}.", True
    if known and all(low > 0 for low, _ in known):
        return f"The gap rose by {_share(change, 1)} on {where}, {cost}: this set adds bias.", False
    return f"No reduction was shown: the change of the gap, {_share(change)}, may be zero ({where}, {cost}).", False


def _share(change: Change, sign: int = 0) -> str:
    """The relative change with its interval; where no sign is claimed, an interval that holds zero."""
    ends = change.relative_interval
    if not sign and ends is not None and not ends[0] <= 0 <= ends[1] and change.interval is not None:
        ends = (change.interval[0] / change.base, change.interval[1] / change.base)
    sign = sign or 1
    if ends is None:
        return f"{sign * change.relative:.0%}"
    low, high = sorted(sign * x for x in ends)
    return f"{sign * change.relative:.0%} [{low:.0%}, {high:.0%}]"


def _groups(result: Evaluation | None, settings: Settings) -> None:
    if result is None:
        st.caption("The groups are shown as soon as the measurement is there.")
        return
    reading = result.readings[settings.reading]
    names = list(reading.base.group_means)
    ends = [
        [[1000 * x for x in group_intervals(side.row(reading.name), side.groups)[g]] for g in names]
        for side in (result.base, result.pruned)
    ]
    st.plotly_chart(
        group_bars(
            names,
            [1000 * reading.base.group_means[g] for g in names],
            [1000 * reading.pruned.group_means[g] for g in names],
            *ends,
            overall_base=1000 * reading.base.overall,
            overall_pruned=1000 * reading.pruned.overall,
            title=f"Expected toxicity of each group, {reading.base.n} prompts, 95% intervals",
            unit="×10⁻³",
            dark=st.context.theme.type == "dark",
        ),
        theme=None,
        key=f"groups {settings.reading} {result.prune_set.format()} {settings.split}",
    )
    rows = {
        "toxicity gap": (reading.base.gap, reading.pruned.gap),
        "mean gap a group": (reading.base.mean_gap, reading.pruned.mean_gap),
        "largest minus smallest group": (reading.base.max_min, reading.pruned.max_min),
        "mean toxicity": (reading.base.overall, reading.pruned.overall),
    }
    frame = pd.DataFrame(
        [(k, f"{1000 * a:.3f}", f"{1000 * b:.3f}") for k, (a, b) in rows.items()]
        + [("smallest / largest group", f"{reading.base.min_max_ratio:.2f}", f"{reading.pruned.min_max_ratio:.2f}")],
        columns=["×10⁻³ (the ratio has no unit)", "unpruned", "pruned"],
    )
    st.dataframe(frame, hide_index=True)


def _sampled(settings: Settings, heads: PruneSet) -> None:
    st.markdown(
        "The papers measure toxicity on sampled continuations. That is slower and noisier than the expected measure, "
        "and it is the only one that reads whole texts. Both models get the same noise."
    )
    left, middle, right = st.columns((1, 1, 1), vertical_alignment="bottom")
    prompts = left.select_slider("Prompts", demo.upto((36, 90, 210, 450), "sampled_prompts"), 36, key="sampled prompts")
    length = middle.select_slider("Tokens a continuation", (10, 20, 40), 20, key="sampled length")
    config = settings.sampled(int(prompts), int(length))
    wanted = (settings.spec, heads, config)
    if right.button("Sample and score", key="sample", width="stretch"):
        st.session_state["sampled for"] = wanted
    if st.session_state.get("sampled for") != wanted:
        st.caption("Nothing was sampled for this prune set and these settings yet.")
        return
    job = _job(settings, config, heads, "sampled")
    _watch(job, "sampled")
    if job.state != "done":
        return
    result = job.result
    reading = result.readings["sampled"]
    text, good = verdict(reading, result.perplexity.relative, f"{reading.base.n} {_split(settings.split)} prompts")
    st.markdown(
        f"Sampled toxicity gap **{reading.base.gap:.4f} → {reading.pruned.gap:.4f}** "
        f"({_percent(reading.gap.relative)}), identity words counted, continuation alone scored, one continuation a "
        f"prompt. {_noise(reading.base)}"
    )
    (st.success if good else st.warning)(text)
    if st.toggle("Show continuations (they may be offensive)", key="offensive"):
        st.dataframe(result.side_by_side(), hide_index=True, height=420)


def _scatter(settings: Settings, table: ImpactTable, heads: PruneSet) -> None:
    selection: Selection = st.session_state["selection"]
    by_hand: ByHand = st.session_state.get(f"by_hand {settings.spec.source}", ByHand())
    texts = hover(table, settings.reading, reasons(selection, by_hand), table.bias.standard_errors(settings.reading))
    st.plotly_chart(
        scatter_impacts(
            table.ppl.z_ppl,
            1000 * table.bias.z_bias(settings.reading),
            title="Both impacts of every head",
            pruned=set(heads.flat(table.n_heads)),
            by_hand=set(by_hand.effective(selection.pruned)),
            critical=set(selection.critical),
            hover=texts,
            x_title="impact on perplexity (right: the head helps)",
            y_title="impact on bias, ×10⁻³ (up: removing it lowers the gap)",
            dark=st.context.theme.type == "dark",
        ),
        theme=None,
        key=f"scatter {settings.reading} {heads.format()} {settings.gamma}",
    )


def _about(settings: Settings, table: ImpactTable, result: Evaluation | None) -> None:
    prunable = sorted(set(range(table.n_layers * table.n_heads)) - set(st.session_state["selection"].critical))
    whole = table.bias.reliability(settings.reading)
    part = ""
    if len(prunable) > 2:
        found = table.bias.reliability(settings.reading, prunable)
        part = f", **{found.whole:.2f}** over the {found.heads} that may be pruned"
    base = table.bias.gap(settings.reading)
    st.markdown(
        f"**The scores.** Perplexity: {table.ppl.base.tokens:,} tokens, "
        f"{how(table.ppl.exact, 'preview from gradients')}. Bias: {base.n} validation prompts balanced over "
        f"{len(table.bias.groups)} groups, {how_bias(table.bias)} (exact: the head was really "
        f"removed); scorer {table.bias.scorer}, expected toxicity of the next word. {_noise(base)} "
        f"Split-half reliability of the ranking by bias (Spearman, corrected to all prompts): "
        f"**{whole.whole:.2f}** over all heads{part}.\n\n"
        "**Reliable is not valid.** A repeatable ranking can still pick a set that does not lower the gap, since "
        "heads interact. The measurement above decides, and the test prompts have the last word.",
        help=glossary.text("reliability"),
    )
    opinions = engine.scorer_opinions(settings.scoring)
    if len(opinions):
        st.markdown(
            f"**What the scorer thinks of the words themselves**: its toxicity of “My friend is a … person.” The "
            f"sentence is harmless, so every difference is the scorer's own bias ({table.bias.scorer})."
        )
        st.dataframe(opinions, hide_index=True, height=212, column_config={"toxicity": _bar_column()})
    st.json(
        {
            "perplexity scores": table.ppl.provenance,
            "bias scores": table.bias.provenance,
            "measurement": None if result is None else result.provenance,
        },
        expanded=False,
    )


def _bar_column() -> Any:
    return st.column_config.ProgressColumn("toxicity, 0 to 1", min_value=0.0, max_value=1.0, format="%.2f")


def _noise(stats: GapStats) -> str:
    return f"Noise alone would give {1000 * stats.noise_gap:.2f} ({_p(stats.noise_p)})."


def _p(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def _percent(x: float, digits: int = 0) -> str:
    return "no gap to compare" if x != x else f"{x:+.{digits}%}".replace("-0.0%", "+0.0%").replace("-0%", "+0%")


def _interval(ends: tuple[float, float] | None) -> str:
    return "[not known]" if ends is None else f"[{ends[0]:+.0%}, {ends[1]:+.0%}]"


def _number(x: float) -> str:
    return f"{x:.2f}" if x < 1e4 else f"{x:.1e}"


def _split(name: str) -> str:
    return {"valid": "validation"}.get(name, name)
