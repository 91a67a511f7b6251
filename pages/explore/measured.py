"""What a prune set does: an estimate at once, the measurement as soon as it is there, each called what it is."""

from __future__ import annotations

from functools import lru_cache

import streamlit as st

from fasp_core.compute.jobs import Job
from fasp_core.data.text import SCORE_TEXT, said
from fasp_core.evaluation import EvalConfig, Evaluation, Reading
from fasp_core.figures import Words, group_bars
from fasp_core.gap import group_intervals
from fasp_core.gap.anytime import Partial
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.looks import SoFar
from fasp_core.metrics.measurements import Toxicity
from fasp_core.report import charts
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import how, how_bias
from fasp_core.studies.verdict import interval, noise, number, p_value, percent, verdict
from pages.backend.engine import engine
from pages.backend.requests import Measure
from pages.explore import able, attention, estimates, grids, looking, texts, why, writes
from pages.explore.estimates import Estimated
from pages.session import shared
from pages.shell.current import Current
from pages.shell.sidebar import READING_TITLES, SPLIT_TITLES, Settings
from pages.widgets import background, glossary
from pages.widgets.drawing import finding
from pages.widgets.markdown import code, escape_markdown

GAP_HELP = glossary.text(
    "gap",
    "noise",
    "second-order",
    more="Toxicity is expected: the scorer's value of the next word, above its value of a typical word, averaged over "
    "all words that the model could say.",
)
SO_FAR_HELP = (
    "Measured on a part of the sample: blocks of prompts, and windows of text, in random order, against the unpruned "
    "model on the same ones. The interval holds at all looks at once, so it may be read at any time, and is wider than "
    "that of the whole sample, which takes its place."
)
ABOUT = "About these numbers"
LOOK = 0.5  # seconds between looks at a measurement: each costs a browser a quarter of a second
WAIT = 0.45  # of these, for news: below half a second, when Streamlit begins to fade what is not drawn anew
LARGE = 0.2  # second-order terms from this share of the unpruned perplexity are a reason for doubt


def cards(settings: Settings, table: ImpactTable, now: Current) -> Job[Evaluation]:
    """Perplexity, toxicity gap, what is removed; and how far its measurement is, which narrows in place."""
    heads = now.heads
    job = job_of(settings, settings.evaluation, heads, "main")
    result: Evaluation | None = job.result if job.state == "done" else None
    flat = heads.flat(table.n_heads)
    guess = estimates.of(settings, table, now)
    ppl_off, gap_off = table.remainder(flat, settings.reading)

    drawn: list[SoFar | None] = []  # what the job had shown when the row was drawn last

    def row() -> None:
        if drawn and under_way:
            looking.wait_for_news(job, drawn[-1], WAIT, _pair)
        shared.keep()
        if under_way and job.state not in looking.UNDER_WAY:
            st.rerun(scope="app")
        so_far: SoFar | None = job.so_far
        drawn[:] = [so_far]
        left, middle, right, last = st.columns((1, 1.3, 1, 1.55))
        with left:
            if result is None and so_far is not None and so_far.perplexity is not None:
                _partial("Perplexity", so_far.perplexity, "tokens", 1)
            else:
                _perplexity(result, guess, ppl_off, table, settings)
        with middle:
            if result is None and so_far is not None and (part := so_far.gaps.get(settings.reading)) is not None:
                _partial(_gap_label(settings), part, "prompts", 1000)
            else:
                whole = so_far is not None and so_far.perplexity is not None  # the first prompts come before the text
                _gap(result, guess, table, settings, whole)
        with right:
            _removed(table, now, settings)
        with last:
            if under_way:
                background.bar(job, "Measuring")
            elif looking.ready(job, "main", "Measuring") and result is not None:
                _verdict(result, settings, heads)

    under_way = result is None and job.state != "failed"
    # A fragment in either case: what it draws lies a floor deeper on the page, and the maps would jump meanwhile.
    st.fragment(run_every=LOOK if under_way else None)(row)()
    if under_way and job.state not in looking.UNDER_WAY:  # it has ended while estimates were drawn
        st.rerun()
    for note in now.selection.notes:
        st.info(escape_markdown(note), icon=":material/info:")
    st.session_state["estimated"] = guess, ppl_off, gap_off
    return job


def _pair(so_far: SoFar) -> bool:
    """Whether both numbers are told, of which perplexity is the later one: a run for each would delay the pair."""
    return so_far.perplexity is not None


def details(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Groups, continuations, tasks, one head, the scatter of both impacts, scores, and where the numbers come from."""
    groups, continuations, tasks, parts, head, scatter, scores, about = st.tabs(
        [
            "Groups",
            "Sampled continuations",
            "Still able",
            "Which heads do it",
            "What a head does",
            "Perplexity against bias",
            "All scores",
            ABOUT,
        ],
        default=ABOUT,  # which has no chart: Plotly is loaded where one is opened
        key="details",
        on_change="rerun",
    )
    heads = now.heads
    job = st.session_state.get("job main")
    result: Evaluation | None = job.result if job is not None and job.state == "done" else None
    with groups:
        if groups.open:
            _groups(result, settings)
    with continuations:
        if continuations.open:
            texts.draw(settings, heads, lambda sampled: _sampled(sampled, settings))
    with tasks:
        if tasks.open or able.wanted():
            able.draw(settings, heads, result is not None)
    with parts:
        if parts.open:
            why.draw(settings, heads)
    with head:
        if head.open:
            attention.draw(settings, table, heads)
            flat = int(st.session_state[f"attention head {settings.spec.source}"])
            writes.draw(settings, *divmod(flat, table.n_heads))
    with scatter:
        if scatter.open:
            grids.scatter(settings, table, now)
    with scores:
        if scores.open:
            grids.score_table(table, f"scores-{settings.axis_title}.csv")
    with about:
        if about.open:
            _about(settings, table, result)


def job_of(settings: Settings, config: EvalConfig, heads: PruneSet, name: str) -> Job[Evaluation]:
    """The running or finished measurement; asked for again only if what is asked for has changed."""
    return looking.latest(name, Measure(settings.spec, heads, config), engine().measure)


def _perplexity(
    result: Evaluation | None, guess: Estimated, off: float, table: ImpactTable, settings: Settings
) -> None:
    label = "Perplexity"
    help_text = (
        "exp of the mean negative log-likelihood a token on Wikipedia sentences (BOLD), "
        f"{said(SCORE_TEXT, table.ppl.provenance)}. Lower is better. The interval is over blocks of 64 tokens, "
        "base and pruned model on the same text.\n\n" + glossary.text("second-order")
    )
    if result is None:
        st.metric(label, f"≈ {number(guess.perplexity)}", help=help_text)
        base = table.ppl.base.perplexity
        doubt = "" if off < LARGE * base else " **Low confidence.**"
        usual = estimates.said(guess, settings.reading, 0, base)
        st.caption(f"**estimate**, {usual}; unpruned {base:.2f}.{doubt}")
        return
    p = result.perplexity
    st.metric(
        label, f"{p.base:.2f} → {number(p.pruned)}", percent(p.relative, 1), delta_color="inverse", help=help_text
    )
    st.caption(
        f"**measured** on {p.tokens:,} tokens; pruned 95% [{number(p.ppl_interval[0])}, {number(p.ppl_interval[1])}]"
    )


def _partial(label: str, part: Partial, unit: str, scale: float) -> None:
    """A number before its sample is whole."""
    shown = f"{scale * part.base:.2f} → {number(scale * part.pruned)}"
    st.metric(label, shown, percent(part.relative, int(scale == 1)), delta_color="inverse", help=SO_FAR_HELP)
    if part.done == part.total:
        st.caption(f"**measured** on {part.total:,} {unit}; change 95% {interval(part.interval)}")
        return
    st.caption(f"**so far** {part.done:,} of {part.total:,} {unit}; 95% {interval(part.interval)}, valid at every look")


def _gap_label(settings: Settings) -> str:
    reading = READING_TITLES.get(settings.reading, settings.reading).removeprefix("identity ")  # cut off at 1,280 px
    return f"Toxicity gap, ×10⁻³ · {reading}"


def _gap(
    result: Evaluation | None, guess: Estimated, table: ImpactTable, settings: Settings, whole: bool = False
) -> None:
    """`whole`: until then nothing is known, as there are too few blocks of prompts for looks."""
    label = _gap_label(settings)
    if result is None:
        base = table.bias.gap(settings.reading)
        st.metric(label, f"≈ {1000 * guess.gap:.2f}", help=GAP_HELP)
        usual = estimates.said(guess, settings.reading, 1, 1000 * base.gap)
        later = " Measured as a whole, once all prompts are done." if whole else ""
        st.caption(f"**estimate**, {usual}; unpruned {1000 * base.gap:.2f} on {base.n} validation prompts.{later}")
        return
    shown = result.readings[settings.reading]
    st.metric(
        label,
        f"{1000 * shown.base.gap:.2f} → {1000 * shown.pruned.gap:.2f}",
        percent(shown.gap.relative),
        delta_color="inverse",
        help=GAP_HELP,
    )
    st.caption(
        f"**measured** on {shown.base.n} {SPLIT_TITLES[settings.split]} prompts, change 95% "
        f"{interval(shown.gap.relative_interval)}"
    )


def _told(settings: Settings, table: ImpactTable, result: Evaluation | None) -> str:
    """What else is known of the set: how sure its estimates are, and what the measurement says beside the cards."""
    guess, ppl_off, gap_off = st.session_state["estimated"]
    by, (ppl, gap) = guess.taught.factors, (estimates.said(guess, settings.reading, which) for which in (0, 1))
    how_made = (
        f"Single heads multiplied, and corrected by measured sets (the changes times {by[0]:.2f} and {by[1]:.2f})"
    )
    numbers = f"perplexity {number(guess.perplexity)}, {ppl}; gap {1000 * guess.gap:.2f}, {gap}"
    text = f"**This set.** {how_made}: {numbers}. Second-order terms: {ppl_off:.2f} and {1000 * gap_off:.2f}."
    if guess.strengths is not None:
        text = f"**This set.** Gains that were learned together, beyond them {how_made.lower()}: {numbers}."
    if result is None:
        return text + f" {noise(table.bias.gap(settings.reading))}"
    shown = result.readings[settings.reading]
    others = "; ".join(
        f"{READING_TITLES[name]}: {1000 * r.base.gap:.2f} → {1000 * r.pruned.gap:.2f} ({percent(r.gap.relative)} "
        f"{interval(r.gap.relative_interval)})"
        for name, r in result.readings.items()
        if name != settings.reading
    )
    share = f"{result.parameters_removed / result.parameters:.1%} of {result.parameters / 1e6:.1f} M parameters"
    return (
        f"{text} {share} are removed. {noise(shown.base)} Estimate was {1000 * guess.gap:.2f}."
        + (f" {others[:1].upper()}{others[1:]}." if others else "")
        + _inside(shown)
    )


def _inside(shown: Reading) -> str:
    """The gap within templates, which does not let signs cancel between them."""
    if shown.within is None:
        return ""
    change, (level, p) = shown.within.changes[0], shown.within.noise
    return (
        f" Within templates (mean of {len(shown.within.templates)}): {1000 * change.base:.2f} → "
        f"{1000 * change.pruned:.2f} ({percent(change.relative)} {interval(change.relative_interval)}; noise alone "
        f"{1000 * float(level[0]):.2f}, {p_value(float(p[0]))})."
    )


def _removed(table: ImpactTable, now: Current, settings: Settings) -> None:
    total = table.n_layers * table.n_heads
    st.metric("Removed", f"{len(now.heads.heads)} of {total} heads", help="Heads that are off in what is measured.")
    neurons = ""
    if now.heads.others:
        left_out = "; estimates leave neurons out" * bool(now.heads.neurons)
        neurons = f"**And {now.heads.others_told()}**{left_out}. "
    protected = f"{len(now.selection.critical)} critical heads are protected. "
    hand = [f"{len(ids)} {what}" for ids, what in ((now.by_hand.prune, "pruned"), (now.by_hand.keep, "kept")) if ids]
    st.caption(
        neurons + protected + (f"**By hand: {', '.join(hand)}.**" if hand else "No hand-made changes."),
        help=glossary.text("critical head"),
    )


def _verdict(result: Evaluation, settings: Settings, heads: PruneSet) -> None:
    """One sentence that says what was shown, and what was not."""
    if not len(heads):
        st.info("Nothing is pruned: raise α or click a head.", icon=":material/info:")
        return
    reading = result.readings[settings.reading]
    where = f"{reading.base.n} {SPLIT_TITLES[settings.split]} prompts"
    text, good = verdict(reading, result.perplexity.relative, where)
    if settings.split == "valid" and good:
        text += " The scores were made on validation prompts too: switch to test prompts to see whether it holds."
    finding(good, text)


@lru_cache(maxsize=64)
def _group_ends(side: Toxicity, reading: str) -> dict[str, tuple[float, float]]:
    """Intervals of the groups' means: resampled once for a measurement, not at every rerun of the page."""
    return group_intervals(side.row(reading), side.groups)


def _groups(result: Evaluation | None, settings: Settings) -> None:
    if result is None:
        st.caption("The groups are shown as soon as the measurement is there.")
        return
    reading = result.readings[settings.reading]
    names = list(reading.base.group_means)
    title = f"Expected toxicity of each group, {reading.base.n} prompts, 95% intervals"
    st.plotly_chart(
        group_bars(
            names,
            charts.group_means(reading.base, names, _group_ends(result.base, reading.name)),
            charts.group_means(reading.pruned, names, _group_ends(result.pruned, reading.name)),
            Words(title, unit="×10⁻³", dark=st.context.theme.type == "dark"),
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


def _sampled(result: Evaluation, settings: Settings) -> None:
    reading = result.readings["sampled"]
    text, good = verdict(
        reading, result.perplexity.relative, f"{reading.base.n} {SPLIT_TITLES[settings.split]} prompts"
    )
    st.markdown(
        f"Sampled toxicity gap, ×10⁻³: **{1000 * reading.base.gap:.1f} → {1000 * reading.pruned.gap:.1f}** "
        f"({percent(reading.gap.relative)}), identity terms scored, continuation alone scored, one continuation a "
        f"prompt. {noise(reading.base)}"
    )
    (st.success if good else st.warning)(text)


def _about(settings: Settings, table: ImpactTable, result: Evaluation | None) -> None:
    prunable = sorted(set(range(table.n_layers * table.n_heads)) - set(st.session_state["selection"].critical))
    whole = table.bias.reliability(settings.reading)
    part = ""
    if len(prunable) > 2:
        found = table.bias.reliability(settings.reading, prunable)
        part = f", **{found.whole:.2f}** over the {found.heads} that may be pruned"
    base = table.bias.gap(settings.reading)
    st.markdown(_told(settings, table, result))
    st.markdown(
        f"**The scores.** Perplexity: {table.ppl.base.tokens:,} tokens in "
        f"{said(SCORE_TEXT, table.ppl.provenance)}, "
        f"{how(table.ppl.exact, 'preview from gradients')}. Bias: {base.n} validation prompts balanced over "
        f"{len(table.bias.groups)} groups, {how_bias(table.bias)} (exact: the head was really "
        f"removed); scorer {table.bias.scorer}, expected toxicity of the next word. {noise(base)} "
        f"Split-half reliability of the ranking by bias (Spearman, corrected to all prompts): "
        f"**{whole.whole:.2f}** over all heads{part}.\n\n"
        "**Reliable is not valid.** A repeatable ranking can still pick a set that does not lower the gap, since "
        "heads interact. The measurement above decides, and the test prompts have the last word.",
        help=glossary.text("reliability"),
    )
    if settings.spec.commit:
        st.markdown(
            f"**The model.** {code(settings.spec.source)} at commit {code(settings.spec.commit)}, which is what the "
            "hub answered when it was chosen here. Other commits have results of their own; reload the page to ask "
            "again."
        )
    opinions = engine().opinions(settings.scoring)
    if len(opinions):
        st.markdown(
            f"**What the scorer thinks of the words themselves**: its toxicity of “My friend is a … person.” The "
            f"sentence is harmless, so every difference is the scorer's own bias ({table.bias.scorer})."
        )
        bar = st.column_config.ProgressColumn("toxicity, 0 to 1", min_value=0.0, max_value=1.0, format="%.2f")
        st.dataframe(opinions, hide_index=True, height=212, column_config={"toxicity": bar})
    st.json(
        {
            "perplexity scores": table.ppl.provenance,
            "bias scores": table.bias.provenance,
            "measurement": None if result is None else result.provenance,
        },
        expanded=False,
    )
