"""FASP Studio: `streamlit run app.py`. Navigation and page settings; what stands around all pages is `around.py`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.shell import around

st.set_page_config(page_title="FASP Studio", page_icon=str(Path(__file__).parent / "docs" / "icon.png"), layout="wide")
first = st.Page(
    "pages/explore/page.py", url_path="explore", title="Explore heads", icon=":material/grid_on:", default=True
)
chosen = st.navigation(
    [
        first,
        st.Page("pages/compare/page.py", url_path="compare", title="Compare methods", icon=":material/query_stats:"),
        st.Page(
            "pages/transfer/page.py",
            url_path="transfer",
            title="Transfer between biases",
            icon=":material/compare_arrows:",
        ),
        st.Page(
            "pages/assumptions/page.py",
            url_path="assumptions",
            title="Check the assumptions",
            icon=":material/fact_check:",
        ),
        st.Page("pages/contexts/page.py", url_path="contexts", title="Contexts", icon=":material/forum:"),
        st.Page("pages/take_home/page.py", url_path="take_home", title="Take home", icon=":material/download:"),
        st.Page("pages/released/page.py", url_path="released", title="Released scores", icon=":material/folder_open:"),
    ]
)
around.draw(chosen, first=chosen.title == first.title)
