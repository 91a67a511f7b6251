"""Released scores: what the FASP authors' own files choose, without a model, and how far they can be trusted."""

from __future__ import annotations

import numpy as np
import streamlit as st

from fasp_core import released as published
from fasp_core.errors import InputError
from fasp_core.figures import Marks, Words, head_grid, short
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import HeadScores, Selection
from fasp_core.released import Floats, RuleComparison, Trust
from fasp_core.scoring.manual_edits import reasons
from pages.backend import demo
from pages.released import shown, trust
from pages.released.shown import Settings
from pages.shell import start
from pages.widgets import glossary
from pages.widgets.drawing import chart, download
from pages.widgets.markdown import escape_markdown

REPOSITORY = "https://github.com/chandar-lab/FASP"


def page() -> None:
    """Draw the page; everything on it is arithmetic on a file."""
    st.title("What do the released scores choose?", anchor=False)
    st.caption(
        "The authors of FASP released the scores of every head for models of up to 7 billion parameters. This page "
        "repeats their choice of heads from such a file, shows where ties bend it, and tells how much of a score is "
        "noise. No model is loaded."
    )
    settings = shown.draw()
    if settings.problem:
        st.error(escape_markdown(settings.problem), icon=":material/error:")
    if settings.opened is None:
        _empty()
        return
    if not settings.n_heads:
        st.info(
            f"The shape of **{escape_markdown(settings.model)}** is not known to this app: choose in the sidebar "
            "how many heads it has in a layer.",
            icon=":material/grid_on:",
        )
        return
    scores = settings.opened.file.head_scores(settings.model, settings.axis, settings.n_heads)
    _findings(settings)
    both, why_not = _choices(scores, settings)
    found = "No heads are chosen." if both is None else trust.known(settings, both.stable)
    if both is None:
        st.error(f"No heads can be chosen: {escape_markdown(why_not)}", icon=":material/error:")
    else:
        _cards(both, found)
    texts = _hover(scores, None if both is None else both.stable, found)
    dark = st.context.theme.type == "dark"
    _grids(settings, scores, both, found, texts, dark)
    if both is not None:
        _sets(settings, both)
        trust.draw(settings, both.stable, found, texts, dark)


def _empty() -> None:
    if demo.current() is not None:
        st.info(f"No file can be opened here. {demo.READ_ONLY}", icon=":material/lock:")
        return
    with st.container(border=True):
        st.subheader("Open a file of released scores", anchor=False)
        st.markdown(
            f"They are in the folder `model` of [github.com/chandar-lab/FASP]({REPOSITORY}/tree/main/model). Download "
            "one and upload it in the sidebar, or give its path.\n\n"
            "- `head_contributions.json`: 13 models in one file, among them GPT-J (28 × 16 heads) and Llama-2 "
            "(32 × 32); one number a head and score.\n"
            "- `head_scores_<model>.csv`: one model, every seed. Only such a file tells how much is noise.\n\n"
            "You will see two grids with one cell a head, perplexity and bias after the head is removed; the heads "
            "that FASP protects and prunes at your γ and α; the set of this project's rule beside that of the "
            "authors' code, and why they differ; and, for a CSV file, whether another seed would have chosen the same "
            "heads."
        )


def _findings(settings: Settings) -> None:
    assert settings.opened is not None
    found = published.findings(settings.opened.file, settings.model, settings.axis, settings.n_heads)
    for finding in found:
        if finding.severe:
            st.warning(escape_markdown(finding.text), icon=":material/warning:")
    notes = [escape_markdown(finding.text) for finding in found if not finding.severe]
    if notes:
        with st.expander(f"What this file holds and lacks ({len(notes)})", icon=":material/fact_check:"):
            st.markdown("\n".join(f"- {note}" for note in notes))


def _choices(scores: HeadScores, settings: Settings) -> tuple[RuleComparison | None, str]:
    try:
        return published.compare_rules(scores, settings.method, settings.gamma, settings.alpha, settings.seed), ""
    except InputError as error:
        return None, str(error)


def _cards(both: RuleComparison, found: Trust | str) -> None:
    stable, theirs = both.stable, both.released
    n = stable.n_layers * stable.n_heads
    if theirs is None:
        differ = "theirs fails"
    elif theirs.pruned == stable.pruned:
        differ = "same set"
    else:
        differ = f"{len(set(both.only_stable) | set(both.only_released))} heads differ"
    agree = "not known" if isinstance(found, str) else trust.interval(found.free.spearman)
    rules = "The stable rule takes exactly the number of heads asked for. The authors' code sets thresholds."
    seeds = (
        "Spearman correlation between seeds of the bias scores of the heads that may be pruned, 95% interval. "
        "0 is noise, 1 repeats perfectly."
    )
    cards = (
        ("Critical heads", f"{len(stable.critical)} of {n}", glossary.text("critical head")),
        ("Pruned heads", f"{stable.k} of {n}", None),
        ("Both rules", differ, rules),
        ("Two seeds agree", agree, seeds),
    )
    for column, (label, value, hint) in zip(st.columns(4), cards, strict=True):
        column.metric(label, value, border=True, height="stretch", help=hint)


def _grids(
    settings: Settings,
    scores: HeadScores,
    both: RuleComparison | None,
    found: Trust | str,
    texts: list[str],
    dark: bool,
) -> None:
    """Perplexity and bias after removal; of a model without them, magnitude and gradient."""
    marked = Marks() if both is None else Marks(set(both.stable.pruned), critical=set(both.stable.critical))
    errors = None if isinstance(found, str) else found.places.grid_se(both.stable.critical if both else ())
    removed = scores.z_ppl is not None or scores.z_bias is not None
    if removed:
        bias = None if scores.z_bias is None else -scores.z_bias
        drawn = [
            ("Perplexity after removal", scores.z_ppl, 1, None, "higher, so the head helps language modelling"),
            ("Bias after removal", bias, -1, errors, "lower, so the head adds bias"),
        ]
    else:
        drawn = [
            ("Magnitude of the weights", scores.magnitude, 1, None, "larger"),
            ("Size of the gradient", scores.gradient, 1, None, "larger"),
        ]
    s = settings
    shown = s.opened and s.opened.key, s.model, s.axis, s.n_heads, s.method, s.gamma, s.alpha, s.seed, dark
    about = "The unpruned model's value was not released, so 0 is no “no effect”. " if removed else ""
    for column, (title, values, sign, se, meaning) in zip(st.columns(2), drawn, strict=True):
        with column:
            if values is None:
                st.info(f"{title}: this file has no such scores of this model.", icon=":material/block:")
                continue
            apart, center = published.around_median(values)
            faint = "" if se is None else " Faint: within the noise between seeds."
            st.caption(
                f"Difference from the median over heads, {short(center, 4)}. {about}**Orange: {meaning} (than at the "
                f"median head).**{faint}"
            )
            chart(
                head_grid(
                    sign * apart,
                    scores.n_layers,
                    scores.n_heads,
                    Words(title, unit="above median" if sign > 0 else "below median", dark=dark),
                    hover=texts,
                    se=se,
                    marked=marked,
                ),
                key=f"{title} {shown}",
                alt=f"{title} of every head, {scores.n_layers} layers by {scores.n_heads} heads.",
            )


def _hover(scores: HeadScores, selection: Selection | None, found: Trust | str) -> list[str]:
    """[N] what a cell says when pointed at."""
    size = scores.n_layers * scores.n_heads
    why = [""] * size if selection is None else reasons(selection)
    bias = None if scores.z_bias is None else -scores.z_bias
    titled: list[tuple[str, Floats | None]] = [
        ("perplexity without it", scores.z_ppl),
        ("bias without it", bias),
        ("magnitude", scores.magnitude),
        ("gradient", scores.gradient),
    ]
    texts = []
    for flat in range(size):
        layer, head = divmod(flat, scores.n_heads)
        lines = [f"L{layer}H{head}", why[flat]]
        lines += [f"{name}: {_number(values[flat])}" for name, values in titled if values is not None]
        if not isinstance(found, str):
            places = found.places
            lines.append(f"bias: ± {places.pooled_se[flat]:.2g} (one standard error), {places.of_seeds[flat]} seeds")
            lines.append(f"pruned by {places.in_seeds[flat]} of {places.of_seeds[flat]} seeds, each alone")
            lines.append(f"pruned in {places.share[flat]:.0%} of the resamples of the noise")
        texts.append("\n".join(filter(None, lines)))
    return texts


def _number(x: float) -> str:
    return short(x, 5) if np.isfinite(x) else "no number"


def _sets(settings: Settings, both: RuleComparison) -> None:
    st.subheader("The set, by two rules", anchor=False)
    for column, (name, about, selection) in zip(
        st.columns(2),
        (
            ("stable", "exactly k heads; ties go to the lower head", both.stable),
            ("released", "the authors' code: every head up to a threshold", both.released),
        ),
        strict=True,
    ):
        with column:
            if selection is None:
                st.markdown(f"**Rule `{name}`**: {about}.")
                st.warning(escape_markdown(both.refused), icon=":material/block:")
                continue
            st.markdown(
                f"**Rule `{name}`**: {about}. **{selection.k} pruned** ({selection.requested_k} asked for), "
                f"{len(selection.critical)} critical."
            )
            text = PruneSet.of(selection.heads).format()
            st.code(text or "(no head)", language=None, wrap_lines=True)
            axis = f"_{settings.axis}" if settings.axis else ""
            file = f"{settings.model.split('/')[-1]}{axis}_{settings.method}_{name}.txt"
            download("Download this set", text + "\n", file, "text/plain", icon=None, disabled=not text)
    lines = [
        f"Only by rule `{name}`: {PruneSet.from_flat(heads, both.stable.n_heads).format()}."
        for name, heads in (("stable", both.only_stable), ("released", both.only_released))
        if heads and both.released is not None
    ]
    if lines or both.why:
        st.markdown("**Where they differ, and why**\n" + "\n".join(f"- {line}" for line in (*both.why, *lines)))
    else:
        st.caption("Both rules choose the same heads: no tie and no rounding touches a threshold here.")


start.told(page)()
