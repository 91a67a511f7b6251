"""Prune sets under names of one's own: kept side by side, compared as A and B, brought back, taken along as a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from fasp_core import gap
from fasp_core.errors import InputError
from fasp_core.evaluation import Evaluation
from fasp_core.heads.prune_set import MAX_PARTS, PruneSet
from fasp_core.lazy import pd
from fasp_core.storage import tabular
from fasp_core.studies.verdict import interval, percent
from pages.backend import demo
from pages.explore import editing, looking, measured
from pages.session import shared
from pages.session.recipe import READING_TITLES, SPLIT_TITLES
from pages.shell.current import Current
from pages.shell.sidebar import Settings
from pages.widgets.drawing import download
from pages.widgets.markdown import escape_markdown

LONGEST_NAME = 60
LONGEST_SET = 2_000_000  # characters in a file: sets that are too long for a link are taken along so
MOST = 100


@dataclass(frozen=True)
class NamedSet:
    """Heads and neurons of one model, written as L0H3,L2H1-4,L5N17, and how they were chosen."""

    model: str
    parts: str
    chosen: str = ""

    @property
    def heads(self) -> PruneSet:
        return PruneSet.parse(self.parts)


Sets = dict[str, NamedSet]


def sets() -> Sets:
    """Those of this session."""
    found: Sets = st.session_state.setdefault("named sets", {})
    return found


def free_name(name: str, taken: Sets) -> str:
    """A name as it is kept.

    Raises
    ------
    InputError
        It is blank, too long, or another set has it.
    """
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(f"A name has 1 to {LONGEST_NAME} characters: write a short one.")
    if name in taken:
        raise InputError("There is a set of that name: choose another one, or delete the old set first.")
    if len(taken) >= MOST:
        raise InputError(f"There are {MOST} sets: delete one first.")
    return name


def to_json(named: Sets) -> str:
    """As a file."""
    return json.dumps({"prune sets": [{"name": name, **asdict(s)} for name, s in named.items()]}, indent=1)


def from_json(content: bytes, taken: Sets) -> Sets:
    """Sets of a file, beside those that are there; of the same name, the file's counts.

    Raises
    ------
    InputError
        The file is not of the form that `to_json` writes; the message says where.
    """
    try:
        rows = json.loads(tabular.decode(content, "The file"))["prune sets"]
        read = {str(row["name"]): NamedSet(*(str(row[k]) for k in ("model", "parts", "chosen"))) for row in rows}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("This is not a file of prune sets: choose one that was downloaded here.") from error
    found, left = dict(taken), MAX_PARTS
    for name, one in read.items():
        found.pop(name, None)
        if len(one.parts) > LONGEST_SET or len(one.chosen) > 200 or len(one.model) > 300:
            raise InputError("A set in this file is too long to be one: choose another file.")
        if not (one.chosen + one.model).isprintable():  # half characters, which no page can show
            raise InputError("A set in this file has a name that cannot be shown: choose another file.")
        left -= len(one.heads)
        if left < 0:
            raise InputError(f"The sets in this file have more than {MAX_PARTS:,} parts: choose another file.")
        found[free_name(name, found)] = NamedSet(one.model, one.heads.format(), one.chosen)
    return found


def draw(settings: Settings, now: Current) -> None:
    """Saving, the list, the comparison; folded away at first."""
    with st.expander("Saved sets", icon=":material/bookmark:", key="named open", on_change="rerun") as folded:
        if not folded.open:
            return
        left, right = st.columns((2, 1), vertical_alignment="bottom")
        left.text_input(
            "Name of the current set", key="set name", max_chars=LONGEST_NAME, placeholder="such as FASP 13"
        )
        right.button(
            "Save",
            key="save set",
            icon=":material/bookmark_add:",
            width="stretch",
            on_click=_save,
            args=(settings, now),
        )
        mine = {name: s for name, s in sets().items() if s.model == settings.spec.source}
        if error := st.session_state.get("sets error"):
            st.error(escape_markdown(error), icon=":material/error:")
        if mine:
            _manage(mine)
        if len(mine) > 1:
            _compare(settings, mine)
        _files()


def _save(settings: Settings, now: Current) -> None:
    def work() -> None:
        name = free_name(st.session_state.get("set name") or "", sets())
        sets()[name] = NamedSet(settings.spec.source, now.heads.format(), shared.now().text())
        st.session_state["set name"] = ""

    _told(work)


def _told(work: Any) -> None:
    """Do it in a callback; bad input is told where the sets stand."""
    st.session_state["sets error"] = ""
    try:
        work()
    except InputError as error:
        st.session_state["sets error"] = str(error)


def _manage(mine: Sets) -> None:
    frame = pd.DataFrame(
        [(name, len(s.heads.heads), len(s.heads.neurons), s.chosen, s.parts) for name, s in mine.items()],
        columns=["name", "heads", "neurons", "chosen as", "parts"],
    )
    st.dataframe(frame, hide_index=True, height=min(38 + 35 * len(mine), 220))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox("Set", tuple(mine), key="one set", width=220)
        st.button("Bring back", key="load set", icon=":material/upload:", on_click=_load, args=(mine[name],))
        with st.popover("Rename", key="rename popover"):
            st.text_input("New name", key="new name", max_chars=LONGEST_NAME)
            st.button("Rename", key="rename set", on_click=_rename, args=(name,))
        st.button("Delete", key="delete set", icon=":material/delete:", on_click=_delete, args=(name,))


def _load(one: NamedSet) -> None:
    """Exactly its heads and neurons, whatever a method would choose now."""
    st.session_state["sets error"] = ""
    editing.replace_with(one.heads)
    shared.adopt({"neurons": one.heads.others.format()})


def _delete(name: str) -> None:
    sets().pop(name, None)
    for key in ("one set", "set A", "set B"):  # a widget must not hold what is no option any more
        if st.session_state.get(key) == name:
            del st.session_state[key]


def _rename(name: str) -> None:
    def work() -> None:
        new = free_name(st.session_state.get("new name") or "", sets())
        st.session_state["named sets"] = {new if n == name else n: s for n, s in sets().items()}
        for key in ("one set", "set A", "set B"):
            if st.session_state.get(key) == name:
                st.session_state[key] = new
        st.session_state["new name"] = ""

    _told(work)


def _compare(settings: Settings, mine: Sets) -> None:
    st.markdown("**Compare two**")
    names = tuple(mine)
    left, right = st.columns(2)
    a = left.selectbox("A", names, index=0, key="set A")
    b = right.selectbox("B", names, index=1, key="set B")
    one, other = mine[a].heads, mine[b].heads
    for title, parts in (
        ("Only in A", PruneSet(one.heads - other.heads, one.neurons - other.neurons, one.gains - other.gains)),
        ("Only in B", PruneSet(other.heads - one.heads, other.neurons - one.neurons, other.gains - one.gains)),
        ("In both", PruneSet(one.heads & other.heads, one.neurons & other.neurons, one.gains & other.gains)),
    ):
        st.markdown(f"{title}, {len(parts)}: `{parts.format() or 'none'}`")
    jobs = [
        measured.job_of(settings, settings.evaluation, heads, f"set {x}") for x, heads in (("A", one), ("B", other))
    ]
    for x, job in zip("AB", jobs, strict=True):
        looking.ready(job, f"set {x}", "Measuring")
    if all(job.state == "done" for job in jobs):
        _results(settings, jobs[0].result, jobs[1].result)


def _results(settings: Settings, a: Evaluation, b: Evaluation) -> None:
    rows = []
    for name, result in (("A", a), ("B", b)):
        p, reading = result.perplexity, result.readings[settings.reading]
        low, high = p.ppl_interval
        rows.append(
            (
                name,
                f"{p.pruned:.2f} [{low:.2f}, {high:.2f}]",
                f"{p.relative:+.1%}",
                f"{1000 * reading.pruned.gap:.2f}",
                percent(reading.gap.relative) + " " + interval(reading.gap.relative_interval),
            )
        )
    columns = ["set", "perplexity, 95%", "change", "gap, ×10⁻³", "change, 95%"]
    st.dataframe(pd.DataFrame(rows, columns=columns), hide_index=True)
    first = a.readings[settings.reading]
    st.caption(
        f"Measured on {a.perplexity.tokens:,} tokens and {first.base.n} {SPLIT_TITLES[settings.split]} prompts, "
        f"{READING_TITLES[settings.reading]}; changes against the unpruned model ({a.perplexity.base:.2f}, "
        f"{1000 * first.base.gap:.2f})."
    )
    st.markdown(against(a, b, settings.reading))


def against(a: Evaluation, b: Evaluation, reading: str) -> str:
    """B's gap against A's, on the same prompts."""
    rows = gap.PromptRows.of([a.pruned.row(reading), b.pruned.row(reading)], a.base.groups, a.base.blocks)
    change = rows.changes()[0]
    if change.interval is None:
        return "B against A: not known."
    low, high = (1000 * x for x in change.interval)
    shown = f"{1000 * change.change:+.2f} [{low:+.2f}, {high:+.2f}] thousandths, 95%, on the same prompts"
    word = "smaller" if high < 0 else "larger" if low > 0 else None
    said = f"B's gap is {word} than A's" if word else "No difference between the gaps of A and B is shown"
    return f"{said}: {shown}."


def _files() -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        download("Download all", to_json(sets()), "prune-sets.json", "application/json", disabled=not sets())
        if demo.current() is not None:
            return
        with st.popover("Add from a file", icon=":material/upload_file:", key="upload popover"):
            st.file_uploader("Sets that were downloaded here", type="json", key="sets file", on_change=_upload)


def _upload() -> None:
    upload = st.session_state.get("sets file")

    def work() -> None:
        if upload is not None:
            st.session_state["named sets"] = from_json(upload.getvalue(), sets())

    _told(work)
