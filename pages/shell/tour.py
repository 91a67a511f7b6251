"""A first visit's four steps: a strip above the page, which covers nothing and goes when it is told to.

That it was seen is kept in a cookie, which the next visit of the same browser brings along; no address changes. Where a
browser keeps no cookies it comes back with the next visit.
"""

from __future__ import annotations

import streamlit as st

COOKIE = "fasp_tour"
STEP = "tour step"  # in the session: which step is shown, None once it is over
STEPS = (
    (
        "Look at the grids",
        "Further down. Every cell is one attention head. Orange on the left: the head helps language modelling. Orange "
        "on the right: it adds bias. A cross is a pruned head; click a cell to toggle it.",
    ),
    (
        "Move γ and α",
        "In the sidebar. γ is the share of heads that are protected because language needs them, α the share to prune. "
        "The grids and the numbers follow.",
    ),
    (
        "Read the cards and the verdict",
        "Above the grids. ≈ is an estimate; a moment later the set is really removed and the card says **measured**, "
        "with an interval. The sentence below says what was shown, and what was not.",
    ),
    (
        "Check on test prompts",
        "In the sidebar: “Measure on”. Heads are chosen on validation prompts, so a fall there flatters the choice. "
        "Switch to test once you have chosen.",
    ),
)
_SEEN = f"<script>document.cookie = '{COOKIE}=seen; path=/; max-age=31536000; SameSite=Lax';</script>"


def start() -> None:
    """Begin with the first step, as the help menu does."""
    st.session_state[STEP] = 0


def draw() -> None:
    """The step of the moment; nothing once the tour is over. Its buttons do not run the page again."""
    if STEP not in st.session_state:
        st.session_state[STEP] = None if COOKIE in st.context.cookies else 0
    if st.session_state[STEP] is not None:
        st.fragment(_strip)()


def _strip() -> None:
    step: int | None = st.session_state[STEP]
    if step is None:
        st.html(_SEEN, unsafe_allow_javascript=True)  # a fixed text: nothing of a reader's is in it
        return
    title, text = STEPS[step]
    last = step == len(STEPS) - 1
    with st.container(border=True, key="tour"):
        st.markdown(f"**{title}** ({step + 1} of {len(STEPS)}). {text}")
        with st.container(horizontal=True, gap="small"):
            st.button(
                "Done" if last else "Next",
                key="tour next",
                type="primary",
                on_click=_go,
                args=(None if last else step + 1,),
            )
            st.button("Back", key="tour back", disabled=not step, on_click=_go, args=(max(step - 1, 0),))
            if not last:
                st.button("Skip the tour", key="tour skip", type="tertiary", on_click=_go, args=(None,))


def _go(step: int | None) -> None:
    st.session_state[STEP] = step
