"""Experiment 2 on the page: do the scores of the heads agree between axes?"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import streamlit as st

from fasp_core.figures import Cells, Words, cell_matrix, scatter_pair
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.scoring.manual_edits import how_removed
from fasp_core.scoring.score import prunable
from fasp_core.studies.transfer.correlation import LEAST_CEILING, AxisScore, Correlations, Pair, strongest
from pages.shell.axis import axis_title
from pages.shell.sidebar import READING_TITLES
from pages.transfer import axes
from pages.transfer.axes import KIND_TITLES, SUBSET_TITLES, Settings, plain, span, table
from pages.widgets import clicks
from pages.widgets.drawing import chart

CHOSEN = "transfer pair"  # in the session: the pair whose heads are shown


def draw(settings: Settings) -> None:
    """The matrix of correlations and the heads of one pair; a click reruns only this part."""
    st.subheader("Do the heads' scores agree?", anchor=False)
    with st.spinner("Resampling heads and prompts"):
        found = axes.correlations(settings.tables, settings.config.reading, settings.config.gamma)
    st.markdown(agreement(found, settings.kind))
    options = [(one, other, heads) for heads in SUBSET_TITLES for one, other in combinations(settings.names, 2)]
    if st.session_state.get(CHOSEN) not in options:
        st.session_state[CHOSEN] = strongest_pair(found, settings.kind)
    left, right = st.columns((1.3, 1))
    with left:
        draw_matrix(settings, found)
    with right:
        st.selectbox(
            "Heads of",
            options,
            format_func=lambda o: f"{axis_title(o[0])} × {axis_title(o[1])}, {SUBSET_TITLES[o[2]]}",
            key=CHOSEN,
            help="Or click a cell.",
        )
        draw_heads(settings, found, st.session_state[CHOSEN])
    pairs, trusted, about = st.tabs(["All pairs", "The axes' scores", "How to read this"])
    with pairs:
        table(found.frame(), "correlations.csv")
    with trusted:
        st.dataframe(trust(found), hide_index=True)
    with about:
        st.markdown(how_to_read(found))


def strongest_pair(found: Correlations, kind: str) -> tuple[str, str, str]:
    """What is opened at first: the strongest correlation over the heads that may be pruned."""
    best = max((p for p in found.pairs if (p.heads, p.kind) == ("prunable", kind)), key=lambda p: abs(p.r.value))
    return best.one, best.other, best.heads


def draw_matrix(settings: Settings, found: Correlations) -> None:
    """The matrix; a click on a cell opens its pair."""
    names = settings.names
    n_all, n_free = (found.axes[0].heads[heads] for heads in SUBSET_TITLES)
    places = {cell: pair_at(cell, names) for cell in np.ndindex(len(names), len(names))}
    cells = [found.axes[i] if at is None else found.pair(*at, settings.kind) for (i, _), at in places.items()]
    drawn = Cells(
        [axis_title(n) for n in names],
        [axis_title(n) for n in names],
        [c.r.value if isinstance(c, Pair) else float("nan") for c in cells],
        text=[plain(c.r.value) if isinstance(c, Pair) else _repeats(c, settings.kind) for c in cells],
        hover=[pair_hover(c) if isinstance(c, Pair) else _own_hover(c, settings.kind) for c in cells],
        faint=[isinstance(c, Pair) and not c.r.shown for c in cells],
        outlined=[at == st.session_state[CHOSEN] for at in places.values()],
        names=("interval holds 0", "", "opened"),
    )
    words = Words(
        "Correlation of z_bias over heads",
        f"Upper right: all {n_all} heads. Lower left: {n_free}.",
        dark=st.context.theme.type == "dark",
    )
    fig = cell_matrix(drawn, words, limit=1.0, colorbar=False, column_angle=-35)

    def act(found: frozenset[tuple[int, int]]) -> None:
        for cell in found:
            if (chosen := pair_at(cell, names)) is not None:  # a cell of the diagonal opens nothing
                st.session_state[CHOSEN] = chosen

    alt = "Correlation of the heads' bias scores between every two axes; the table below has the numbers."
    clicks.on_chart(fig, "correlations", alt, (len(names), len(names)), act)
    st.caption(
        f"Upper right: all heads. Lower left: the {n_free} that may be pruned. Diagonal: how well an axis' own "
        "scores repeat on other prompts (all heads, then those that may be pruned). Noise "
        "keeps a correlation below the root of the product of both, its *ceiling*. Pale: the 95% interval holds 0. "
        "**Click a cell for its heads.**"
    )


def _repeats(a: AxisScore, kind: str) -> str:
    return "\n".join(plain(a.reliability[heads][kind]) for heads in SUBSET_TITLES)


def _own_hover(a: AxisScore, kind: str) -> str:
    return (
        f"{axis_title(a.axis)}: how well its own scores repeat\n"
        f"{' / '.join(_repeats(a, kind).splitlines())} (all heads / those that may be pruned)\n"
        f"split halves of {a.prompts} prompts, corrected to all of them\n"
        f"{a.exact['all']} of {a.heads['all']} heads ablated, on {a.checked} prompts"
    )


def pair_at(cell: tuple[int, int], names: tuple[str, ...]) -> tuple[str, str, str] | None:
    """(axis, axis, heads) of a cell (row, column): above the diagonal all heads, below those that may be pruned."""
    i, j = cell
    if i == j:
        return None
    return names[min(i, j)], names[max(i, j)], "all" if j > i else "prunable"


def draw_heads(settings: Settings, found: Correlations, chosen: tuple[str, str, str]) -> None:
    one, other, heads = chosen
    p = found.pair(one, other, heads, settings.kind)
    effects, _ = axes.effects(settings.tables, settings.config.reading)
    a, b = effects[one], effects[other]
    per_layer, n = settings.first.n_heads, len(a.z)
    free = set(prunable(settings.first, settings.config.gamma))
    shown = range(n) if heads == "all" else sorted(free)
    hidden = np.ones(n, dtype=bool)
    hidden[list(shown)] = False
    labels = [PruneSet.from_flat([flat], per_layer).format() for flat in range(n)]
    spread = {e.axis: 1000 * e.impacts.standard_errors(settings.config.reading) for e in (a, b)}
    hover = [
        "\n".join(
            [
                f"{labels[flat]}" + ("" if flat in free else ", critical: never pruned"),
                *(
                    f"{axis_title(e.axis)}: {1000 * e.z[flat]:+.3f} ± {spread[e.axis][flat]:.2g}"
                    + (how_removed(e.impacts) if e.exact[flat] else ", first-order estimate")
                    for e in (a, b)
                ),
                "fall of the gap without it, ×10⁻³, ± one standard error",
            ]
        )
        for flat in range(n)
    ]
    st.markdown(sentence(p, found))
    chart(
        scatter_pair(
            np.where(hidden, np.nan, 1000 * a.z),
            np.where(hidden, np.nan, 1000 * b.z),
            Words(
                f"{axis_title(one)} against {axis_title(other)}",
                "Right, up: the gap falls without it.",
                x=f"z_bias on {axis_title(one)}, ×10⁻³",
                y=f"z_bias on {axis_title(other)}, ×10⁻³",
                dark=st.context.theme.type == "dark",
            ),
            names=labels,
            hover=hover,
            critical=set(range(n)) - free,
            estimated=set(np.flatnonzero(~(a.exact & b.exact)).tolist()),
            labelled=strongest(a, b, shown),
        ),
        key=f"heads {chosen} {settings.config.reading} {settings.config.gamma}",
    )


def agreement(found: Correlations, kind: str) -> str:
    """One sentence on the whole matrix."""
    parts = []
    for heads, what in SUBSET_TITLES.items():
        pairs = [p for p in found.pairs if (p.heads, p.kind) == (heads, kind)]
        r = sorted(p.r.value for p in pairs)
        caps = [p.ceiling for p in pairs]
        parts.append(
            f"over **{what}** ({pairs[0].n}) {sum(p.r.shown for p in pairs)} of {len(pairs)} correlations are clear of "
            f"0, from {plain(r[0])} to {plain(r[-1])} (middle {plain(float(np.median(r)))}) under ceilings of "
            f"{plain(min(caps))} to {plain(max(caps))}"
        )
    title = KIND_TITLES[kind]
    return f"{title[:1].upper()}{title[1:]}, {READING_TITLES.get(found.reading, found.reading)}: {'; '.join(parts)}."


def sentence(p: Pair, found: Correlations) -> str:
    """What one correlation says, and what it does not."""
    what = f"**r = {plain(p.r.value)}** {span(p.r)} over {p.n} heads ({p.kind.title()})"
    one, other = axis_title(p.one), axis_title(p.other)
    if p.r.value != p.r.value:
        return f"All heads have the same score on {one} or {other}: there is nothing to correlate."
    begin = (
        f"{one[:1].upper()}{one[1:]} and {other}: {what}."
        if p.r.shown
        else f"No correlation of {one} and {other} is shown: {what}."
    )
    limit = f"Noise in the scores alone sets a ceiling of {plain(p.ceiling)}"
    if p.corrected.value == p.corrected.value:
        limit += f"; without it r would be about {plain(p.corrected.value)} {span(p.corrected)}, the ceiling as known"
    both = [a for name in (p.one, p.other) for a in found.axes if a.axis == name]
    if all(a.exact[p.heads] == p.n and a.checked == a.prompts for a in both):
        sure = "All scores are exact."
    else:
        removed = " and ".join(f"{a.exact[p.heads]} (on {a.checked:,} of {a.prompts:,} prompts)" for a in both)
        sure = f"Heads really removed: {removed}; all else is estimated to first order."
    return f"{begin} {limit}. {sure}"


def pair_hover(p: Pair) -> str:
    return "\n".join(
        [
            f"{axis_title(p.one)} × {axis_title(p.other)}",
            f"{SUBSET_TITLES[p.heads]} ({p.n}): r = {plain(p.r.value)} {span(p.r)}",
            f"ceiling {plain(p.ceiling)}"
            + (f", r / ceiling {plain(p.corrected.value)}" if p.corrected.value == p.corrected.value else ""),
            f"noise in common adds {p.shared:+.2f}",
        ]
    )


def trust(found: Correlations) -> pd.DataFrame:
    """One row an axis: how far its scores can be trusted."""
    return pd.DataFrame(
        {
            "axis": axis_title(a.axis),
            "validation prompts": a.prompts,
            "groups": a.groups,
            "heads ablated": f"{a.exact['all']} of {a.heads['all']}",
            "removed, may be pruned": f"{a.exact['prunable']} of {a.heads['prunable']}",
            "on prompts": a.checked,
            "gap, ×10⁻³": round(1000 * a.gap, 3),
            "p of the gap": round(a.noise_p, 4),
            "repeats, all (Spearman)": round(a.reliability["all"]["spearman"], 3),
            "repeats, may be pruned (Spearman)": round(a.reliability["prunable"]["spearman"], 3),
            "repeats, all (Pearson)": round(a.reliability["all"]["pearson"], 3),
            "repeats, may be pruned (Pearson)": round(a.reliability["prunable"]["pearson"], 3),
        }
        for a in found.axes
    )


def how_to_read(found: Correlations) -> str:
    most = max((abs(p.shared) for p in found.pairs if p.shared == p.shared), default=0.0)
    alone = [axis_title(a.axis) for a in found.axes if not a.in_frames]
    own = (
        f"The frames of {', '.join(alone)} are not known: those prompts are resampled by themselves. " if alone else ""
    )
    return (
        f"**Intervals** are at level 95%, over heads and prompts: in each of {found.resamples:,} resamples the heads "
        "are drawn again, and so are the prompts of both axes. They take the heads of this model as a sample of heads "
        f"like them. Each pair stands by itself: of {len(found.pairs) // 4}, some leave 0 out by chance.\n\n"
        "**Is the noise of two axes independent?** Not by design: axes share sentence frames (a template with a noun). "
        "So a frame gets the same weight on every axis in a resample, and what noise in common adds to Pearson's r is "
        f"measured: **{plain(most)}** at most here. {own}\n\n"
        "**Ceiling**: the root of the product of both axes' reliabilities (split halves of the prompts, corrected to "
        "all of them). *r / ceiling* is what scores without noise would show. It takes the ceiling as known, may "
        f"exceed 1 by chance, and is left out where the ceiling is below {LEAST_CEILING}.\n\n"
        "**Why two sets of heads?** A few critical heads can make all axes seem to agree. In the scores of gpt2 that "
        "the FASP authors released, race and gender correlate at .78 over all heads, and at .07 over those that may be "
        "pruned (Pearson, γ = 0.3). Only these matter for a choice."
    )
