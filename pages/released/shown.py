"""The released file that a reader has opened, and what of it is looked at."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from fasp_core import released
from fasp_core.errors import InputError
from fasp_core.heads.selection import METHODS
from fasp_core.released import Published
from pages.backend import demo, folders
from pages.shell import sidebar
from pages.shell.axis import axis_title
from pages.shell.sidebar import GAMMA, METHOD_TITLES
from pages.widgets import uploads

ALPHA = 0.1  # with gamma .3 the authors' own worked example


@dataclass(frozen=True)
class Opened:
    """A file, and a name that changes with its content."""

    file: Published
    key: str


@dataclass(frozen=True)
class Settings:
    """Everything that the sidebar says.

    `opened` is None as long as no file is open, and `problem` says why one could not be opened. `n_heads` is 0 as long
    as the shape of the model is not known.
    """

    opened: Opened | None
    problem: str
    model: str
    axis: str | None
    n_heads: int
    method: str
    gamma: float
    alpha: float
    seed: int


def draw() -> Settings:
    """Draw the sidebar and read it."""
    with st.sidebar:
        opened, problem = _file()
        model, axis, n_heads = "", None, 0
        if opened is not None:
            model = st.selectbox("Model", opened.file.models, key=f"released_model {opened.key}")
            axes = opened.file.axes(model)
            if axes:
                axis = st.selectbox(
                    "Axis",
                    axes,
                    format_func=axis_title,
                    key=f"released_axis {opened.key} {model}",
                    help="The demographic axis whose groups the authors compared.",
                )
            n_heads = _heads_a_layer(opened.file, model)
        st.divider()
        method = st.selectbox(
            "Method",
            METHODS,
            format_func=METHOD_TITLES.__getitem__,
            key="released_method",
            bind="query-params",
            help="FASP spares the critical heads and prunes those whose removal leaves the least bias. The others are "
            "baselines, which spare none.",
        )
        own: dict[str, Any] = {"bind": "query-params", "persist_state": None}
        gamma = sidebar.gamma("released_gamma", value=GAMMA, disabled=method != "fasp", **own)
        alpha = sidebar.alpha("released_alpha", more="", value=ALPHA, **own)
        seed = 0
        if method == "random":
            seed = int(st.number_input("Seed", 0, 999, 0, key="released_seed", help="Another seed draws other heads."))
    return Settings(opened, problem, model, axis, n_heads, method, gamma, alpha, seed)


def _file() -> tuple[Opened | None, str]:
    if demo.current() is not None:
        return None, ""
    found = uploads.opened(
        "Released file (JSON or CSV)",
        "released_upload",
        type=["json", "csv"],
        help="head_contributions.json or a head_scores_*.csv from the folder `model` of github.com/chandar-lab/FASP. "
        "It is read in memory and not kept.",
    )
    path = st.text_input(
        "or its path on this machine",
        key="released_path",
        persist_state="session",
        placeholder="FASP/model/head_contributions.json",
        disabled=found is not None,
        help="The path is opened by the computer that runs the app.",
    )
    try:
        if found is not None:
            name, content = found
            return read(name, content), ""
        if path.strip():
            return _from_path(Path(path.strip())), ""
    except InputError as error:
        return None, str(error)
    return None, ""


@st.cache_resource(max_entries=4, show_spinner=False)
def read(name: str, content: bytes) -> Opened:
    """A file that is in memory; the same one is read once."""
    return Opened(released.read_bytes(content, name), hashlib.sha256(name.encode() + content).hexdigest()[:12])


def _from_path(path: Path) -> Opened:
    folders.check(path)
    try:
        path = path.expanduser()
        stamp = path.stat().st_mtime_ns
    except (OSError, RuntimeError, ValueError):  # no such file, user or name: told when it is read
        stamp = 0
    return _read_path(path, stamp)


@st.cache_resource(max_entries=4, show_spinner=False)
def _read_path(path: Path, stamp: int) -> Opened:
    return Opened(released.read(path), hashlib.sha256(f"{path} {stamp}".encode()).hexdigest()[:12])


def _heads_a_layer(file: Published, model: str) -> int:
    """Known from the model's name, or asked for."""
    if model in released.SHAPES:
        return released.SHAPES[model][1]
    size = file.size(model)
    st.info(f"The shape of this model is not known. The file has {size} heads of it.", icon=":material/grid_on:")
    fitting = [n for n in range(1, size + 1) if size % n == 0]
    chosen = st.selectbox(
        "Heads in a layer",
        fitting,
        index=None,
        key=f"released_heads {model}",
        placeholder="choose",
        format_func=lambda n: f"{n} ({size // n} {'layer' if size == n else 'layers'})",
        help="Numbers that divide the number of heads. If the right one is not here, the file lacks heads.",
    )
    return chosen or 0
