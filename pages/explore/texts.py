"""What the models write: one prompt with and without the set, and the sampled measure with its texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from fasp_core.evaluation import Evaluation
from fasp_core.figures import Row, Written, side_by_side
from fasp_core.forward.diffs import compare, largest_changes, word_pieces
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.continuations import Pair
from pages.backend import demo
from pages.backend.engine import engine
from pages.backend.requests import Measure
from pages.explore import looking, prompt_choice, written
from pages.shell.sidebar import READING_TITLES, Settings
from pages.widgets import clicks
from pages.widgets.drawing import download

ALL = "all groups"
DOWNLOAD = "Download the texts as CSV (they may be offensive)"


def draw(settings: Settings, heads: PruneSet, summary: Callable[[Evaluation], None]) -> None:
    """The tab: a warning, one prompt, then many.

    Parameters
    ----------
    summary : says what a sampled measurement shows.
    """
    st.warning(
        "Language models write insults, slurs and worse, about people too. Texts are blurred until you ask for them.",
        icon=":material/visibility_off:",
    )
    shown = st.toggle("Show texts (they may be offensive)", key="show texts", persist_state="session")
    st.subheader("One prompt", anchor=False)
    _one_prompt(settings, heads, shown)
    st.subheader("Many prompts: each word that is written", anchor=False)
    written.draw(settings, heads)
    st.subheader("Many prompts: the sampled measure", anchor=False)
    _many_prompts(settings, heads, shown, summary)


def _one_prompt(settings: Settings, heads: PruneSet, shown: bool) -> None:
    prompt = prompt_choice.choose(settings)
    left, middle, right = st.columns((1, 1, 1), vertical_alignment="bottom")
    samples = left.select_slider(
        "Continuations", demo.upto((1, 2, 4, 8), "continuations"), 4, key="written samples", persist_state="session"
    )
    length = middle.select_slider(
        "Tokens each", demo.upto((10, 20, 40), "sampled_tokens"), 20, key="written length", persist_state="session"
    )
    wanted = (prompt, samples, length)
    if right.button("Write", key="write", width="stretch", disabled=prompt is None):
        st.session_state["written for"] = wanted
    if prompt is None or st.session_state.get("written for") != wanted:
        st.caption("Both models continue the prompt with the same noise: their texts differ only where they do.")
        return
    bias = settings.evaluation.bias
    drawn = GenerationConfig(int(samples), int(length))
    judge = bias.scorer, bias.label, bias.scorer_reading, bias.scorer_stamp
    request = looking.Write(settings.spec, prompt, heads, drawn, *judge)
    job = looking.latest("written", request, looking.write_job)
    if looking.ready(job, "written", "Writing"):
        _pair(job.result, heads, shown)


def _pair(pair: Pair, heads: PruneSet, shown: bool) -> None:
    both = list(enumerate(zip(pair.base.written, pair.pruned.written, strict=True), start=1))
    differ = sum(a.pieces != b.pieces for _, (a, b) in both)
    rows = [
        _row(a.pieces, b.pieces, (a.toxicity, b.toxicity), f"{i}" + (" · the same text" if a == b else ""))
        for i, (a, b) in both
    ]
    expected = "; ".join(
        f"{READING_TITLES.get(name, name)} **{1000 * value:.2f} → {1000 * pair.pruned.expected[name]:.2f}**"
        for name, value in pair.base.expected.items()
    )
    st.markdown(
        f"{differ} of {len(rows)} continuations differ. Expected toxicity of the next word, ×10⁻³: {expected}. "
        "One prompt is an example, not a measurement: what a set does is measured on many."
        if len(heads)
        else "Nothing is removed, so both models are one and write the same."
    )
    st.html(side_by_side(rows, shown=shown, dark=_dark()))
    st.caption(
        f"Words that the other text lacks are bold and underlined. Toxicity: {pair.scorer} on the continuation alone, "
        "0 to 1, identity terms scored."
    )
    frame = pd.DataFrame(
        [(pair.prompt, i, a.toxicity, a.text, b.toxicity, b.text) for i, (a, b) in both],
        columns=["prompt", "sample", "toxicity_base", "continuation_base", "toxicity_pruned", "continuation_pruned"],
    )
    download(DOWNLOAD, frame.to_csv(index=False), "continuations.csv")


def _many_prompts(settings: Settings, heads: PruneSet, shown: bool, summary: Callable[[Evaluation], None]) -> None:
    st.markdown(
        "The papers measure toxicity on sampled continuations. That is slower and noisier than the expected measure, "
        "and it is the only one that reads whole texts. Both models get the same noise."
    )
    left, middle, right = st.columns((1, 1, 1), vertical_alignment="bottom")
    prompts = left.select_slider(
        "Prompts", demo.upto((36, 90, 210, 450), "sampled_prompts"), 36, key="sampled prompts", persist_state="session"
    )
    length = middle.select_slider(
        "Tokens a continuation",
        demo.upto((10, 20, 40), "sampled_tokens"),
        20,
        key="sampled length",
        persist_state="session",
    )
    wanted = Measure(settings.spec, heads, settings.sampled(int(prompts), int(length)))
    if right.button("Sample and score", key="sample", width="stretch"):
        st.session_state["sampled for"] = wanted
    if st.session_state.get("sampled for") != wanted:
        st.caption("Nothing was sampled for this prune set and these settings yet.")
        return
    job = looking.latest("sampled", wanted, engine().measure)
    if not looking.ready(job, "sampled", "Measuring"):
        if job.state != "failed" and clicks.button("Cancel", key="cancel sampled"):
            del st.session_state["sampled for"]
            job.cancel()
            st.rerun()
        return
    summary(job.result)
    _changes(job.result, shown)


def _changes(result: Evaluation, shown: bool) -> None:
    """The texts behind the largest changes, and all of them to look through or to take along."""
    frame = result.side_by_side()
    left, right = st.columns((1, 1), vertical_alignment="bottom")
    k = left.slider("Largest rises and falls of toxicity, a group", 1, 10, 2, key="changes", persist_state="session")
    group = right.selectbox("Group", [ALL, *sorted(frame.group.unique())], key="changes of", persist_state="session")
    found = largest_changes(frame if group == ALL else frame[frame.group == group], k)
    if found.empty:
        st.caption("No prompt's toxicity has moved.")
    else:
        rows = [
            _row(
                word_pieces(r["continuation_base"]),
                word_pieces(r["continuation_pruned"]),
                (r["toxicity_base"], r["toxicity_pruned"]),
                f"{r['group']} · {r['change']:+.3f}",
                r["prompt"],
            )
            for r in found.to_dict("records")
        ]
        with st.container(height=460):
            st.html(side_by_side(rows, shown=shown, dark=_dark()))
        st.caption(
            f"{len(found)} of {len(frame)} prompts: those whose toxicity rose or fell most. Single texts at the ends "
            "of a distribution say little of its middle, which the gap is made of."
        )
    if shown:
        with st.expander("All prompts as a table"):
            st.dataframe(frame, hide_index=True, height=420)
    download(DOWNLOAD, frame.to_csv(index=False), "sampled-continuations.csv")


def _row(
    before: Sequence[str], after: Sequence[str], toxicity: tuple[float, float], title: str, prompt: str = ""
) -> Row:
    """Two texts, from their pieces, with what differs marked."""
    base, pruned = (
        Written(tuple((span.text, span.changed) for span in spans), value)
        for spans, value in zip(compare(before, after), toxicity, strict=True)
    )
    return Row(base, pruned, title, prompt)


def _dark() -> bool:
    return bool(st.context.theme.type == "dark")
