"""The data of "Take home": scores and set as files, and a set brought from a file."""

from __future__ import annotations

import streamlit as st

from fasp_core.data.text import SCORE_TEXT
from fasp_core.errors import InputError
from fasp_core.figures.export import file_name
from fasp_core.heads import prune_files
from fasp_core.heads.prune_set import PruneSet
from fasp_core.report import data
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import HAND
from pages.backend import demo
from pages.backend.engine import engine
from pages.session import shared
from pages.shell.current import Current
from pages.shell.sidebar import Settings
from pages.widgets.drawing import download
from pages.widgets.markdown import escape_markdown


def draw(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Downloads on the left, a set from a file on the right."""
    left, right = st.columns(2)
    with left, st.container(border=True, height="stretch"):
        files(settings, table, now)
    if demo.current() is not None:
        return
    with right, st.container(border=True, height="stretch"):
        bring(settings, table, now)


def files(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Scores of all heads in three forms, and the set in two."""
    rows = data.frame(table, now.selection)
    document, raw = data.set_json(
        now.selection, now.heads, model=settings.spec.source, axis=settings.axis_title, reading=settings.reading
    )
    name = file_name(settings.axis_title)

    def about() -> bytes:
        return data.scores_json(table, settings.scoring, SCORE_TEXT, rows, document)

    st.markdown(
        f"**Scores of all {len(rows)} heads**: one row a head, with standard errors, and whether it is removed, "
        f"critical or changed by hand. Perplexity on {table.ppl.base.tokens:,} tokens, bias on "
        f"{len(table.bias.codes):,} validation prompts; the JSON file says more of both."
    )
    with st.container(horizontal=True):
        download("CSV", data.csv(rows), f"scores-{name}.csv", "text/csv")
        download("Parquet", data.parquet(rows), f"scores-{name}.parquet", "application/vnd.apache.parquet")
        download("JSON", about, f"scores-{name}.json", "application/json")
    st.markdown(
        f"**The set**, {len(now.heads.heads)} heads: what `select --out` writes. It can be brought back here, given to "
        "`evaluate --prune-set`, `audit` and `report`, or read in Python."
    )
    with st.container(horizontal=True):
        download("Set (JSON)", raw, f"set-{name}.json", "application/json")
        download("Set (text)", now.heads.format() + "\n", f"set-{name}.txt", "text/plain")
    able = engine().results.able(settings.spec, now.heads) if len(now.heads) else None
    if able is not None:
        st.markdown(
            "**What it is still able to do**: one row a task that both models were asked, as `utility` gives it."
        )
        with st.container(horizontal=True):
            download("Tasks (CSV)", data.tasks_csv(able), f"tasks-{name}.csv", "text/csv")
            download("Tasks (JSON)", data.tasks_json(able), f"tasks-{name}.json", "application/json")


def bring(settings: Settings, table: ImpactTable, now: Current) -> None:
    """A set from a file: what it holds, and the way to Explore."""
    st.markdown("**Bring a set** from a file made here or by `select --out`, or a text such as `L0H3,L2H1-4`.")
    upload = st.file_uploader(
        "A prune set", type=["json", "txt"], key="set file", max_upload_size=1, label_visibility="collapsed"
    )
    if upload is None:
        return
    try:
        found = prune_files.read(upload.getvalue(), upload.name, (table.n_layers, table.n_heads))
    except InputError as error:
        st.error(escape_markdown(error), icon=":material/error:")
        return
    size = table.n_layers * table.n_heads
    neurons = f" and {found.parts.others_told()}" * bool(found.parts.others)
    st.metric("The file holds", f"{len(found.parts.heads)} of {size} heads{neurons}")
    st.code(found.parts.format() or "nothing", language=None, wrap_lines=True)
    s = settings
    others = (
        (found.model, s.spec.source),
        (found.axis, s.axis, s.axis_title),
        (found.reading, s.reading),
    )  # a file of one's own is named by its title
    if any(said not in (None, *here) for said, *here in others):
        st.warning("The file says that this set was chosen for another model, axis or reading:", icon=":material/info:")
        st.text(", ".join(said for said, *_ in others if said is not None))
    if st.button(
        "Use this set on Explore heads",
        key="use set",
        type="primary",
        icon=":material/grid_on:",
        on_click=use,
        args=(found.parts,),
    ):
        st.switch_page("pages/explore/explore.py", query_params={})  # those of the sidebar go along


def use(parts: PruneSet) -> None:
    """Exactly these are off: by hand only, as no method may have come to them."""
    heads, neurons = PruneSet(parts.heads).format(), parts.others.format()
    shared.adopt({"method": HAND, "prune": heads, "keep": "", "neurons": neurons})
