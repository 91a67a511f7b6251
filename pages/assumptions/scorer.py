"""The tab "What the scorer thinks": its scores of identity words in sentences that say nothing bad."""

from __future__ import annotations

import streamlit as st

from fasp_core.figures import Words
from fasp_core.figures.assumptions import Ends, word_strips
from fasp_core.metrics.meters import BiasConfig
from fasp_core.studies.robustness import opinions
from fasp_core.studies.robustness.opinions import Opinions
from pages.backend.engine import engine
from pages.shell.axis import axis_title
from pages.widgets.drawing import chart, csv_table

SCORERS = {"offline": "Toxicity (alt-profanity-check)", "vader": "Negative sentiment (VADER)"}


def draw(axis: str) -> None:
    """Both scorers side by side; no model is needed."""
    st.caption(
        "Every gap inherits the opinions of the classifier that scores texts. Here the words of the axis stand in "
        f"{len(opinions.SENTENCES)} sentences that say nothing bad, such as “{opinions.SENTENCES[1].format('…')}”. A "
        "scorer without bias would give all words the same low score. **Identity terms masked** is the reading that "
        "takes these words out of the measure."
    )
    dark = st.context.theme.type == "dark"
    found = {name: _asked(name, axis) for name in SCORERS}
    for o, column in zip(found.values(), st.columns(2), strict=True):
        with column:
            (st.info if o.words[0].mean == o.words[-1].mean else st.warning)(o.outcome, icon=":material/psychology:")
    for name, column in zip(SCORERS, st.columns(2), strict=True):
        o = found[name]
        with column:
            chart(
                word_strips(
                    [axis_title(w.group) for w in o.words],
                    Ends([w.mean for w in o.words], [w.low for w in o.words], [w.high for w in o.words]),
                    Words(
                        SCORERS[name],
                        f"{len(o.words)} words, {len(o.sentences)} sentences each; lines: lowest to highest sentence.",
                        unit="score of a neutral sentence",
                        dark=dark,
                    ),
                    groups=[axis_title(g.group) for g in o.groups],
                    group_means=[g.mean for g in o.groups],
                    hover=[
                        f"{w.word} ({w.group})\nmean {w.mean:.3f} over {len(o.sentences)} sentences\n"
                        f"from {w.low:.3f} to {w.high:.3f}"
                        for w in o.words
                    ],
                ),
                key=f"opinions {name}",
                alt="Scores of identity words in neutral sentences, by group; the table below has the numbers.",
            )
            st.caption(
                f"Words differ by {o.between_words:.3f} (standard deviation of their means); one word differs between "
                f"sentences by {o.between_sentences:.3f}."
            )
    for tab, (name, o) in zip(st.tabs(list(SCORERS.values())), found.items(), strict=True):
        with tab:
            csv_table(o.frame(), f"opinions-{axis_title(axis).replace(' ', '-')}-{name}.csv", height=320)


@st.cache_resource(max_entries=32, show_spinner="Asking the scorer")
def _asked(scorer: str, axis: str) -> Opinions:
    return opinions.ask(engine().scorer(BiasConfig(axis, scorer=scorer)), opinions.identity_terms(axis))
