"""A first visit's four steps: a card that points at the parts themselves, brings each into view, and goes when told to.

That it was seen is kept in a cookie, which the next visit of the same browser brings along; no address changes. Where a
browser keeps no cookies it comes back with the next visit.
"""

from __future__ import annotations

import streamlit as st

from fasp_core.figures.theme import theme_of

COOKIE = "fasp_tour"
STEP = "tour step"  # in the session: which step is shown, None once it is over
STEPS = (
    (
        "Look at the maps",
        "Every cell is one attention head. Orange on the first map: the head helps language modelling. Orange on the "
        "second: it adds bias. A cross is a pruned head; click a cell to toggle it.",
    ),
    (
        "Move γ and α",
        "γ is the share of heads that are protected because language needs them, α the share to prune. Heads and "
        "estimates (≈) follow while you drag.",
    ),
    (
        "Read the numbers and the verdict",
        "A moment after the hand rests the set is really removed and the numbers say **measured**, with an interval. "
        "The sentence beside them says what was shown, and what was not.",
    ),
    (
        "Check on test prompts",
        "In the sidebar: “Measure on”. Heads are chosen on validation prompts, so a fall there flatters the choice. "
        "Switch to test once you have chosen.",
    ),
)
# What each step is about is framed where it stands; the instrument's own parts take their frame from a variable.
_FRAME = "2px solid #D9771F"
_AROUND = f"outline: {_FRAME}; outline-offset: 5px; border-radius: 4px; scroll-margin: 16px;"
POINTS = (
    ("instrument", f"--tour-maps: {_FRAME};"),
    ("instrument", f"--tour-sliders: {_FRAME};"),
    ("above", _AROUND),
    ("split", _AROUND),
)
_SEEK = "<script>document.querySelector('.st-key-{}')?.scrollIntoView({{ block: 'nearest' }});</script>"
_PLACE = """.st-key-tour { position: fixed; right: 2.2rem; bottom: 1rem; width: 46rem; max-width: 90vw; z-index: 1000;
  box-shadow: 0 4px 24px rgba(0, 0, 0, 0.3); }
@media (min-width: 768px) { .st-key-tour { max-width: calc(100vw - 24rem); } } /* beside the sidebar, not below it */"""
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
    page = theme_of(st.context.theme.type == "dark").page
    part, frame = POINTS[step]
    framed = f"body:has(.st-key-tour) .st-key-{part} {{ {frame} }}"  # a style stays on the page when the tour is over
    st.html(f"<style>{_PLACE} .st-key-tour {{ background: {page}; }} {framed}</style>")
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
            st.html(_SEEK.format(part), unsafe_allow_javascript=True)  # likewise


def _go(step: int | None) -> None:
    st.session_state[STEP] = step
