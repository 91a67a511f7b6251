"""How toxic each word is expected to be that both models go on to write: on request, narrowing as texts are added."""

from __future__ import annotations

import streamlit as st

from fasp_core.compute.jobs import Job
from fasp_core.evaluation import Evaluation
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.studies.verdict import interval, noise, percent, verdict
from pages.backend import demo
from pages.backend.engine import engine
from pages.backend.requests import Measure
from pages.explore import looking
from pages.shell.sidebar import READING_TITLES, SPLIT_TITLES, Settings

JOB = "words"
TEXTS = (1, 2, 4, 8, 16)  # of a prompt, one size after the other


def draw(settings: Settings, heads: PruneSet) -> None:
    """The sizes, and the measurement as far as it is: first with one continuation of each prompt, then with more."""
    st.markdown(
        "At each step of what either model writes, the toxicity of the next word is averaged over all words that the "
        "model could say; the words before it are drawn, with the same noise for both. So it reaches beyond the next "
        "word with less noise than scored texts, and reads each word by itself."
    )
    columns = st.columns((1, 1, 1, 1), vertical_alignment="bottom")
    prompts = columns[0].select_slider(
        "Prompts that are continued",
        demo.upto((36, 90, 210, 450, 900), "sampled_prompts"),
        36,
        key="words prompts",
        persist_state="session",
    )
    steps = columns[1].select_slider(
        "Words", demo.upto((2, 4, 8, 16), "sampled_tokens"), 8, key="words steps", persist_state="session"
    )
    most = columns[2].select_slider(
        "Texts of each prompt, at most",
        demo.upto(TEXTS, "continuations"),
        4,
        key="words most",
        persist_state="session",
    )
    asked = (settings, heads, int(prompts), int(steps))
    if columns[3].button("Measure the words", key="measure words", width="stretch"):
        looking.begin(JOB, asked)
    if not looking.begun(JOB, asked):
        st.caption("Not measured for this prune set and these settings yet.")
        return

    def job_at(samples: int) -> Job[Evaluation]:
        request = Measure(settings.spec, heads, settings.written(int(prompts), int(steps), samples))
        return looking.latest(JOB, request, engine().measure)

    looking.grow(
        JOB,
        [size for size in TEXTS if size <= int(most)],
        job_at,
        lambda result: _show(result, settings),
        lambda samples: f"Measuring with {samples} of {most} continuations of each prompt",
    )


def _show(result: Evaluation, settings: Settings) -> None:
    name = settings.reading if settings.reading in result.readings else next(iter(result.readings))
    reading = result.readings[name]
    draws = result.config.bias.generation.samples
    text, good = verdict(
        reading, result.perplexity.relative, f"{reading.base.n} {SPLIT_TITLES[settings.split]} prompts"
    )
    others = "; ".join(
        f"{READING_TITLES[other]}: {1000 * r.base.gap:.2f} → {1000 * r.pruned.gap:.2f} ({percent(r.gap.relative)} "
        f"{interval(r.gap.relative_interval)})"
        for other, r in result.readings.items()
        if other != name
    )
    st.markdown(
        f"Gap of {result.config.bias.steps} written words, summed, ×10⁻³, {READING_TITLES[name]}: "
        f"**{1000 * reading.base.gap:.2f} → {1000 * reading.pruned.gap:.2f}** ({percent(reading.gap.relative)} "
        f"{interval(reading.gap.relative_interval)}), {draws * reading.base.n:,} continuations a side. "
        f"{noise(reading.base)} {others[:1].upper()}{others[1:]}."
    )
    (st.success if good else st.warning)(text)
    st.dataframe(by_step(result, name), hide_index=True)
    st.caption(
        "One row a word, gaps in thousandths. The first one is the next word of all other pages; later ones come after "
        "words that each model drew, so their gaps hold the noise of different texts."
    )


def by_step(result: Evaluation, name: str) -> pd.DataFrame:
    """The gap at each word of what is written."""
    return pd.DataFrame(
        {
            "word": t,
            "gap": f"{1000 * change.base:.2f} → {1000 * change.pruned:.2f}",
            "change": f"{percent(change.relative)} {interval(change.relative_interval)}",
        }
        for t, change in enumerate(result.readings[name].steps, start=1)
    )
