"""The row of small controls below the maps: what a click does, undo and redo, many heads at once, the link."""

from __future__ import annotations

import streamlit as st

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import HAND, ManualEdits, heads_in
from pages.explore import grid_options
from pages.session import shared
from pages.session.recipe import Trail
from pages.shell.current import Current
from pages.shell.sidebar import Settings
from pages.widgets.markdown import escape_markdown

TOGGLE, PRUNE, KEEP, LEAVE = "toggle", "prune", "keep", "leave to the method"
TOLD = {PRUNE: True, KEEP: False, LEAVE: None}
MEANT = {TOGGLE: "toggle", PRUNE: "prune", KEEP: "keep", LEAVE: "leave"}  # in the instrument's script
REPLACE = "replace the set"
CLICK_HELP = (
    "What a click on a map does to its head, and a drag to all heads within the box. A click with Shift takes every "
    "head between the last one that was clicked and this one; a number at the edge stands for a whole layer or head "
    "column. Heads pruned or kept by hand stay so whatever the method says, and the method chooses around them."
)


def toolbar(settings: Settings, table: ImpactTable, now: Current, trail: Trail) -> None:
    """One row, which wraps in narrow windows."""
    shared.write()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="tools"):
        st.segmented_control(
            "A click or box means",
            (TOGGLE, *TOLD),
            default=TOGGLE,
            required=True,
            key="click",
            persist_state="session",
            help=CLICK_HELP,
            label_visibility="collapsed",
        )
        st.button(
            "Undo",
            key="undo",
            icon=":material/undo:",
            disabled=not trail.past,
            on_click=shared.undo,
            help="The last change of the set: of a head, a slider, the method. Ctrl+Z.",
        )
        st.button(
            "Redo",
            key="redo",
            icon=":material/redo:",
            disabled=not trail.future,
            on_click=shared.redo,
            help="What was undone last. Ctrl+Y.",
        )
        st.button(
            "Reset",
            key="reset",
            icon=":material/restart_alt:",
            disabled=not now.by_hand,
            on_click=shared.tell,
            args=(settings.spec.source, ManualEdits()),
            help="Nothing by hand: back to the method's choice.",
        )
        with st.popover("Many heads", icon=":material/edit:", key="many popover"):
            _many(settings, table, now)
        with st.popover("Maps", icon=":material/tune:", key="grid popover"):
            grid_options.draw()
        with st.popover("Link", icon=":material/link:", key="link popover"):
            if (address := shared.link()) is None:
                st.markdown(shared.TOO_LONG)
            else:
                st.markdown("This address opens the same set on every page.")
                st.code(address, language=None, wrap_lines=True)


def meaning() -> str:
    """What a click means at present."""
    return str(st.session_state.get("click") or TOGGLE)


def changed(now: Current, by_hand: ManualEdits, heads: frozenset[int], means: str) -> ManualEdits:
    """What is set by hand after an act on some heads."""
    return by_hand.toggle(heads, now.choose) if means == TOGGLE else by_hand.set(heads, TOLD[means])


def _many(settings: Settings, table: ImpactTable, now: Current) -> None:
    st.text_input(
        "Heads",
        key="many",
        placeholder="L0H3,L2H1-4  or  L5  or  H3",
        help="Heads as L0H3, ranges as L2H1-4, whole layers as L5 or L5-7, head columns as H3.",
    )
    with st.container(horizontal=True, gap="small"):
        for means in (*TOLD, TOGGLE, REPLACE):
            st.button(
                means.capitalize(),
                key=f"many {means}",
                on_click=_change_many,
                args=(settings, table, now, means),
                help="Prune these heads and no others." if means == REPLACE else None,
            )
    if told := st.session_state.get("many error"):
        st.error(escape_markdown(told), icon=":material/error:")
    st.caption("The set of the moment, to copy:")
    st.code(now.heads.format() or "(no heads)", language=None, wrap_lines=True)


def _change_many(settings: Settings, table: ImpactTable, now: Current, means: str) -> None:
    source = settings.spec.source
    st.session_state["many error"] = ""
    try:
        heads = heads_in(st.session_state.get("many") or "", table.n_layers, table.n_heads)
    except InputError as error:
        st.session_state["many error"] = str(error)
        return
    if means == REPLACE:
        replace_with(PruneSet.from_flat(heads, table.n_heads))
    else:
        shared.tell(source, changed(now, shared.by_hand(source), heads, means))


def replace_with(heads: PruneSet) -> None:
    """Prune these heads, by hand, and no others; in a callback."""
    shared.adopt({"method": HAND, "prune": PruneSet(heads.heads).format(), "keep": ""})
