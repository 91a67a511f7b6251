"""How far released scores can be trusted, where the file holds several seeds."""

from __future__ import annotations

import numpy as np
import streamlit as st

from fasp_core import released
from fasp_core.errors import InputError
from fasp_core.figures import Words
from fasp_core.figures.ranking import ranked_heads
from fasp_core.heads.selection import Selection
from fasp_core.lazy import pd
from fasp_core.released import Agreement, Estimate, SeedRows, Trust
from pages.released.shown import Settings
from pages.shell.axis import axis_title
from pages.shell.sidebar import METHOD_TITLES
from pages.widgets.drawing import chart
from pages.widgets.markdown import escape_markdown

Key = tuple[str, str, str]  # of the file, model, axis
BY_BIAS = ("fasp", "bias-only")
Z = 1.96


def known(settings: Settings, selection: Selection) -> Trust | str:
    """What the seeds say about a choice, or why they say nothing."""
    assert settings.opened is not None
    file, axis = settings.opened.file, settings.axis
    if settings.method not in BY_BIAS:
        return f"“{METHOD_TITLES[settings.method]}” reads no bias scores, so their noise does not touch its choice."
    if axis is None or not file.rows:
        return (
            "**This file cannot say.** It holds one number a head, the mean over seeds. Open `head_scores_*.csv` of "
            "the same model, which holds every seed; where none was released, the noise of the scores is not known."
        )
    rows, test = (file.seed_rows(settings.model, axis, split) for split in ("valid", "test"))
    assert rows is not None  # the axes of a file of rows are those of its validation rows
    try:
        return _trust(rows, test, selection, (settings.opened.key, settings.model, axis))
    except InputError as error:
        return escape_markdown(error)


@st.cache_resource(max_entries=64, show_spinner="Comparing the seeds")
def _trust(_rows: SeedRows, _test: SeedRows | None, selection: Selection, key: Key) -> Trust:
    return released.trust(_rows, selection, _test, lambda rows, heads: _agreement(rows, heads, key))


@st.cache_resource(max_entries=256, show_spinner=False)
def _agreement(_rows: SeedRows, heads: tuple[int, ...] | None, key: Key) -> Agreement:
    return released.agreement(_rows, heads)


def draw(settings: Settings, selection: Selection, found: Trust | str, hover: list[str], dark: bool) -> None:
    """The section of the page."""
    st.subheader("How far can these scores be trusted?", anchor=False)
    if isinstance(found, str):
        st.info(found, icon=":material/help:")
        return
    text, noisy = verdict(found)
    if noisy:
        st.warning(text, icon=":material/casino:")
    else:
        st.info(text, icon=":material/balance:")
    left, right = st.columns(2)
    with left:
        _table(found)
    with right:
        _ranking(selection, found, hover, dark)
    heads, axes = st.tabs(["Heads, one by one", "All axes of this model"])
    with heads:
        _heads(selection, found)
    with axes:
        _axes(settings, selection)


def verdict(found: Trust) -> tuple[str, bool]:
    """What the seeds show in a few sentences, and whether it is a warning."""
    free, places = found.free, found.places
    complete = "" if free.heads == places.free else " and have a number in every seed"
    what = (
        f"Over the {free.heads} heads that may be pruned{complete}, two seeds correlate {interval(free.spearman)} "
        "(Spearman)"
    )
    sure = len(places.sure)
    beyond = (
        f"**{sure} of the {places.k}** pruned heads {'is' if sure == 1 else 'are'} in the set in 95% or more of the "
        f"resamples; if all scores were noise, {places.sure_by_chance:.1f} would be."
    )
    if free.noise:
        return (
            f"**This ranking cannot be told from noise.** {what}, and the interval holds 0: another seed may well "
            f"prune other heads. {beyond}",
            True,
        )
    mean = f"The mean of {free.seeds} seeds has a reliability of {interval(free.mean_spearman)}"
    if free.mean_spearman.value < 0.5:
        return (
            f"**More noise than signal.** {what}. {mean}, so more than half of the differences between heads are "
            f"noise. {beyond}",
            True,
        )
    return f"**The ranking repeats in part.** {what}. {mean}. {beyond}", False


def interval(estimate: Estimate) -> str:
    """`.14 [.02, .27]`."""
    if estimate.value != estimate.value:
        return "not defined"
    return f"{_short(estimate.value)} [{_short(estimate.low)}, {_short(estimate.high)}]"


def _short(x: float) -> str:
    return f"{x:.2f}".replace("0.", ".", 1).replace("-", "−").replace("−.00", ".00")


def _table(found: Trust) -> None:
    every, free = found.every, found.free
    one, mean = "one seed", f"mean of {free.seeds}"
    lines = [
        (one, "Spearman", every.spearman, free.spearman),
        (one, "Pearson", every.pearson, free.pearson),
        (one, "intraclass", every.icc, free.icc),
        (mean, "from Spearman", every.mean_spearman, free.mean_spearman),
        (mean, "from Pearson", every.mean_pearson, free.mean_pearson),
        (mean, "intraclass", every.mean_icc, free.mean_icc),
    ]
    if found.tested is not None:
        lines.append(("valid with test", "Spearman", *found.tested))
    columns = ["reliability of", "by", f"all {every.heads}", f"{free.heads} prunable"]
    shown = [(what, by, interval(a), interval(b)) for what, by, a, b in lines]
    st.dataframe(pd.DataFrame(shown, columns=columns), hide_index=True)
    st.caption(
        "0 is noise, 1 repeats perfectly. In brackets: 95% intervals by 1,000 resamples of the heads; for the "
        "intraclass correlation the exact one of normal scores. A few heads that wreck the model make seeds agree over "
        "all heads, but the choice is made among the others. For the mean of the seeds: Spearman-Brown. The seeds "
        "share their prompts, so on other prompts agreement can be lower still."
    )


def _ranking(selection: Selection, found: Trust, hover: list[str], dark: bool) -> None:
    places, n = found.places, len(hover)
    fig = ranked_heads(
        places.mean,
        Z * places.pooled_se,
        Words(
            "Bias after removal, heads in order",
            f"Mean of {found.free.seeds} seeds ± {Z} s.e.; dashed: end of the choice.",
            unit="bias without the head",
            dark=dark,
        ),
        shown=sorted(set(range(n)) - set(selection.critical)),
        chosen=places.chosen,
        hover=hover,
        cut=places.cut,
    )
    chart(
        fig,
        key=f"ranking {selection} {dark}",
        alt="Bias after removal of the heads that may be pruned, in order, with intervals.",
    )
    st.caption(
        f"A head's score differs by {places.noise:.3g} between seeds (standard deviation, pooled over the heads that "
        "may be pruned). Where most bars reach across the dashed line, noise decides who is pruned."
    )


def _heads(selection: Selection, found: Trust) -> None:
    places = found.places
    critical, chosen = set(selection.critical), set(places.chosen)
    table = pd.DataFrame(
        {
            "head": [f"L{flat // selection.n_heads}H{flat % selection.n_heads}" for flat in range(places.mean.size)],
            "state": [
                "pruned" if flat in chosen else "critical" if flat in critical else "kept"
                for flat in range(places.mean.size)
            ],
            "bias without it": places.mean,
            "s.e., own seeds": places.se,
            "s.e., pooled": places.pooled_se,
            "seeds that prune it": [f"{a} of {b}" for a, b in zip(places.in_seeds, places.of_seeds, strict=True)],
            "share": places.share,
        }
    ).sort_values(["share", "bias without it"], ascending=[False, True])
    every = len(places.in_every_seed)
    st.caption(
        f"Every seed alone would prune {every} {'head' if every == 1 else 'heads'}; if all scores were noise, "
        f"{places.by_chance:.1f} would be pruned by all {found.free.seeds}. A resample moves each mean by noise drawn "
        "from the differences between seeds and chooses again, 1,000 times."
    )
    st.dataframe(
        table,
        hide_index=True,
        height=318,
        column_config={
            "bias without it": st.column_config.NumberColumn(format="%.4f"),
            "s.e., own seeds": st.column_config.NumberColumn(format="%.4f"),
            "s.e., pooled": st.column_config.NumberColumn(format="%.4f"),
            "share": st.column_config.ProgressColumn(
                "share of resamples that prune it", min_value=0.0, max_value=1.0, format="percent"
            ),
        },
    )


def _axes(settings: Settings, selection: Selection) -> None:
    """The same numbers for every axis; the heads that may be pruned are those of this page's γ."""
    assert settings.opened is not None
    file = settings.opened.file
    free = np.setdiff1d(np.arange(file.size(settings.model)), selection.critical)
    lines = []
    for axis in file.axes(settings.model):
        rows = file.seed_rows(settings.model, axis)
        assert rows is not None
        key = (settings.opened.key, settings.model, axis)
        try:
            every, part = _agreement(rows, None, key), _agreement(rows, tuple(free.tolist()), key)
        except InputError as error:
            lines.append((axis_title(axis), "", "", "", str(error)))
            continue
        reads = (
            "noise" if part.noise else "more noise than signal" if part.mean_spearman.value < 0.5 else "repeats in part"
        )
        lines.append(
            (
                axis_title(axis),
                interval(every.spearman),
                interval(part.spearman),
                interval(part.mean_spearman),
                reads,
            )
        )
    st.dataframe(
        pd.DataFrame(
            lines,
            columns=["axis", "two seeds, all heads", "two seeds, prunable heads", "mean of the seeds, prunable", "so"],
        ),
        hide_index=True,
    )
    st.caption("Spearman correlations with 95% intervals, as in the table above.")
