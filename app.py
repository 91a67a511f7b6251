"""FASP Studio: `streamlit run app.py`. Navigation and page settings; what stands around all pages is `around.py`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from fasp_studio import ahead

ahead.wait()

from pages.backend import demo  # noqa: E402
from pages.shell import around, once, overtaken  # noqa: E402

once.install()
overtaken.install()
st.set_page_config(page_title="FASP Studio", page_icon=str(Path(__file__).parent / "docs" / "icon.png"), layout="wide")
first = st.Page("pages/explore/explore.py", title="Explore heads", icon=":material/grid_on:", default=True)
told = st.Page("pages/presentation/presentation.py", title="Presentation", icon=":material/slideshow:")
chosen = st.navigation(
    [
        first,
        told,
        st.Page("pages/compare/compare.py", title="Compare methods", icon=":material/query_stats:"),
        st.Page("pages/scorecard/scorecard.py", title="Scorecard", icon=":material/balance:"),
        st.Page("pages/transfer/transfer.py", title="Transfer between biases", icon=":material/compare_arrows:"),
        st.Page("pages/assumptions/assumptions.py", title="Check the assumptions", icon=":material/fact_check:"),
        st.Page("pages/contexts/contexts.py", title="Contexts", icon=":material/forum:"),
        st.Page("pages/take_home/take_home.py", title="Take home", icon=":material/download:"),
        st.Page("pages/released/released.py", title="Released scores", icon=":material/folder_open:"),
    ]
)
# A demo begins with the presentation; a link to a set still opens that set.
arrived = st.session_state.setdefault("arrived", False)
st.session_state["arrived"] = True
if demo.current() is not None and not arrived and chosen.title == first.title and not st.query_params:
    st.switch_page(told)
around.draw(chosen, first=chosen.title == first.title)
