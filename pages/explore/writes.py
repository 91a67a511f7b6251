"""What a head writes: by group, the next words that its output promotes and suppresses; blurred until asked for."""

from __future__ import annotations

import streamlit as st

from fasp_core.figures import word_lists
from fasp_core.studies.explain.writes import EVERYBODY, KINDS, TOXIC, Writes
from pages.backend.engine import engine
from pages.backend.requests import HeadWrites
from pages.explore import looking
from pages.shell.sidebar import Settings
from pages.widgets import clicks

JOB = "writes"
TITLES = {"mean": "on its prompts", "difference": "more than on all prompts"}


def draw(settings: Settings, layer: int, head: int) -> None:
    """On request for a layer; its other heads are there at once then."""
    name = f"L{layer}H{head}"
    st.subheader(f"What {name} writes", anchor=False)
    st.markdown(
        "Which next words the head's own output makes likelier and less likely: its share of the logits at the end of "
        "each prompt, through the final norm with its scale held. What later layers make of it is no part of this."
    )
    asked = HeadWrites(settings.spec, settings.evaluation.bias, layer)
    if st.button("Read what it writes", key="read writes"):
        looking.begin(JOB, asked)
    if not looking.begun(JOB, asked):
        looking.stop(JOB)
        st.caption("Not read yet for this layer and these prompts.")
        return
    job = looking.latest(JOB, asked, engine().writes)
    if looking.ready(job, JOB, "Reading what heads write"):
        _show(job.result, head)
    elif job.state != "failed" and clicks.button("Cancel", key=f"cancel {JOB}"):
        del st.session_state[f"{JOB} for"]
        job.cancel()
        st.rerun()


def _show(found: Writes, head: int) -> None:
    left, right = st.columns((1, 1), vertical_alignment="bottom")
    group = left.selectbox("Group of prompts", (EVERYBODY, *found.groups), key="writes of", persist_state="session")
    kinds = KINDS[: 1 if group == EVERYBODY else None]
    kind = right.radio("Words", kinds, format_func=TITLES.__getitem__, key=f"writes kind {len(kinds)}", horizontal=True)
    shown = st.toggle("Show words (they may be offensive)", key="show writes", persist_state="session")
    lists = {
        side: [
            (str(token), float(logit), float(toxicity) >= TOXIC)
            for token, logit, toxicity in found.words(head, str(group), str(kind), side)[
                ["token", "logit", "toxicity"]
            ].itertuples(index=False)
        ]
        for side in ("promoted", "suppressed")
    }
    st.html(word_lists(lists, shown=shown, dark=st.context.theme.type == "dark"))
    st.caption(
        f"Mean over {found.prompts if group == EVERYBODY else 'its'} prompts, in logits, counted from the mean over "
        f"the vocabulary. Underlined with ⚠: words that the scorer puts {TOXIC:g} or more above a typical word."
    )
