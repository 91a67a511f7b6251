"""The recipe of this reader's session: the same on every page, in the address of each, and with steps to undo.

Widgets keep their values in the session under the names of the recipe's fields. A link is read once, as it is opened;
from then on the address follows what is chosen. Addresses that this session wrote are not read again: the browser may
send an older one along with a later click.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.manual_edits import ManualEdits
from pages.backend import demo
from pages.backend.engine import engine
from pages.backend.models import Facts
from pages.session import recipe
from pages.session.recipe import NAMES, Recipe, Trail
from pages.widgets.markdown import code

DEVICES = ("auto", "cpu", "cuda", "mps", "spread")
HANDS = ("prune", "keep")  # fields without a widget
SHARES = ("gamma", "alpha", "lambada_points", "task_points")  # rounded as links write them
WRITTEN = 100  # addresses that are remembered
SETTLING = 3.0  # seconds in which a browser may not have heard yet what a widget was set to
TOO_LONG = 'This set is too long for a link: save it under "Saved sets" on "Explore heads", and download the file.'
DRAWING = 1.0  # and in which it may not have drawn it, although its address says so already
_SET = "set here"  # widgets that were set by the program: what they were, one after the other, what they are, and when


def keep() -> None:
    """Hold to what widgets were set to: until a browser has heard of it, all that it asks for brings their old values.

    Whether it has heard, its address says, which it sends along: then an old value is somebody's choice. At the
    beginning of every run, of a fragment too.
    """
    state = st.session_state
    found: dict[str, tuple[tuple[object, ...], object, float]] = state.get(_SET, {})
    for name, (old, new, at) in list(found.items()):
        age = time.monotonic() - at
        if age > SETTLING:
            del found[name]
        elif state.get(name) in old and state.get(name) != new:
            if age > DRAWING and recipe.read(_address())[0].get(name, getattr(Recipe(), name)) == new:
                del found[name]
                continue
            state[name] = new
            state["behind"] = True


def _address() -> dict[str, str]:
    """What the address says of the recipe: of the browser's own, until it is written anew."""
    return {name: st.query_params[name] for name in NAMES if name in st.query_params}


def arrive() -> None:
    """Before any widget of a page: begin as at first or as the link says, tell what of it was left out."""
    state = st.session_state
    keep()
    state.setdefault("device", DEVICES[0])
    for name in NAMES:
        if name not in HANDS and state.get(name) is None:
            state[name] = getattr(Recipe(), name)
    state["model"] = demo.allowed(str(state["model"]))
    state["behind"] = False
    _read_link()
    write()
    if asked := state.get("asked"):
        st.warning("This link asks for what is not loaded. It would be read from disk or from the hub:")
        for name in ("model", "scorer"):
            if name in asked:
                st.code(str(asked[name]), language=None, wrap_lines=True)
        st.button("Open this link", key="open link", on_click=_open, args=(asked,), width="stretch")
    if left_out := _notice():
        st.warning(left_out, icon=":material/link_off:")


def now() -> Recipe:
    """What widgets and changes by hand say at present."""
    told = _values()
    source = str(told["model"])
    prune = keep = ""
    if waiting := st.session_state.get(f"told {source}"):
        prune, keep = waiting
    elif (known := _known(told)) is not None:
        hand = by_hand(source)
        prune, keep = (PruneSet.from_flat(ids, known.n_heads).format() for ids in (hand.prune, hand.keep))
    return Recipe(**{**told, "prune": prune, "keep": keep})


def _values() -> dict[str, Any]:
    """Values of the widgets by the names of fields; as at first where there is none."""
    found = {name: st.session_state.get(name) for name in NAMES if name not in HANDS}
    told = {name: getattr(Recipe(), name) if value is None else value for name, value in found.items()}
    return {**told, **{name: round(float(told[name]), 6) for name in SHARES}}


def _known(values: Mapping[str, object]) -> Facts | None:
    """The shape of the model that widgets name; None while it is not loaded, or if there is no such model."""
    device = str(st.session_state.get("device") or DEVICES[0])
    try:
        spec = ModelSpec(
            str(values["model"]), str(values["dtype"]), device, str(values["bos"]), ablation=str(values["ablation"])
        )
        return engine().models.facts(spec)
    except InputError:  # the page tells it where it loads the model
        return None


def by_hand(source: str) -> ManualEdits:
    """What was set by hand for a model."""
    found: ManualEdits = st.session_state.setdefault(f"by_hand {source}", ManualEdits())
    return found


def tell(source: str, changed: ManualEdits, fields: Mapping[str, object] | None = None) -> None:
    """Set heads by hand, and fields of the recipe with them, as one step that can be undone.

    Of several acts before the page is drawn, each is a step.
    """
    step()
    adopt(fields or {})
    _set(source, changed)
    step()


def _set(source: str, changed: ManualEdits) -> None:
    st.session_state[f"by_hand {source}"] = changed


def adopt(fields: Mapping[str, object]) -> list[str]:
    """Take over fields of a recipe, before the widgets are drawn or in a callback.

    Fields that are not named stay. Heads wait until the model's shape is known; returned is what of them does not fit.
    """
    state = st.session_state
    for name, value in fields.items():
        if name not in HANDS and state.get(name) != value:
            before = state.setdefault(_SET, {}).get(name, ((),))[0]
            state[_SET][name] = ((*before, state.get(name)), value, time.monotonic())
            state[name] = value
            state["behind"] = True  # what a fragment was given is from before
    if not any(name in fields for name in HANDS):
        return []
    source = str(state.get("model") or Recipe().model)
    state[f"told {source}"] = tuple(str(fields.get(name, "")) for name in HANDS)
    known = _known(_values())
    return [] if known is None else settle(source, known.n_layers, known.n_heads)


def settle(source: str, n_layers: int, n_heads: int) -> list[str]:
    """Set the heads that a link or a step names by hand, now that the model's shape is known; what does not fit."""
    waiting = st.session_state.pop(f"told {source}", None)
    if waiting is None:
        return []
    kept: list[set[tuple[int, int]]] = []
    left_out = []
    for name, text in zip(HANDS, waiting, strict=True):
        named = PruneSet.parse(text)
        inside = {h for h in named.heads if h[0] < n_layers and h[1] < n_heads}
        if kept:  # a head that is to be pruned cannot be kept
            inside -= set(kept[0])
        kept.append(inside)
        if outside := named.heads - inside:
            left_out.append(f"{name}={PruneSet(outside).format()}")
    _set(source, ManualEdits(*(frozenset(PruneSet.of(heads).flat(n_heads)) for heads in kept)))
    return left_out


def behind() -> bool:
    """Whether widgets outside a running fragment have been changed in its callback: all has to be drawn again."""
    return bool(st.session_state.get("behind"))


def write() -> None:
    """Let the address say what is chosen; it says nothing of a set that is `TOO_LONG`."""
    wanted, shown = now().query(), _address()
    if not recipe.fits(wanted):
        wanted = {}
    if wanted == shown:
        return
    address = st.query_params
    seen: list[dict[str, str]] = st.session_state.setdefault("addresses", [])
    st.session_state["addresses"] = [*seen, wanted][-WRITTEN:]
    for name in set(shown) - set(wanted):
        del address[name]
    if wanted:
        address.update(wanted)


def link() -> str | None:
    """The whole address of the page as it is now; None where the set is `TOO_LONG`."""
    query = now().query()
    if not recipe.fits(query):
        return None
    return str(st.context.url or "").split("?")[0] + (f"?{urlencode(query)}" if query else "")


def step() -> Trail:
    """Remember what is chosen as a step that can be undone."""
    trail: Trail = st.session_state.get("trail", Trail()).moved(now().of_set())
    st.session_state["trail"] = trail
    return trail


def undo() -> None:
    """One step back."""
    _go(st.session_state.get("trail", Trail()).back())


def redo() -> None:
    """One step forth."""
    _go(st.session_state.get("trail", Trail()).forth())


def put(to: Recipe) -> None:
    """Go to a recipe, as a step of its own; what only says how to measure stays."""
    adopt({name: getattr(to, name) for name in NAMES if name not in recipe.MEASURING})


def _go(trail: Trail) -> None:
    st.session_state["trail"] = trail
    if trail.now is not None:
        put(trail.now)


def _read_link() -> None:
    state, query = st.session_state, _address()
    if not query or query in state.get("addresses", []):
        return
    state["addresses"] = [*state.get("addresses", []), query][-WRITTEN:]
    found, left_out = recipe.read(query)
    left_out += demo.left_out(found)
    source = str(found.get("model", state["model"]))
    scorer = found.get("scorer", Recipe().scorer)
    new = source not in (state["model"], Recipe().model) and _known({**_values(), **found}) is None
    if new or scorer not in (state["scorer"], Recipe().scorer):
        state["asked"] = found  # a link alone makes nobody's machine read a model or a scorer
    else:
        left_out += _taken(found)
        state.pop(_SET, None)  # no widget has been drawn yet
    if left_out:
        leave_out(left_out)


def _taken(found: dict[str, object]) -> list[str]:
    """Take over a link; heads that were set by hand before are no part of it."""
    st.session_state.pop("asked", None)
    return adopt({"prune": "", "keep": "", **found} if found else {})


def _open(asked: dict[str, object]) -> None:
    if left_out := _taken(asked):
        leave_out(left_out)


def leave_out(parts: list[str]) -> None:
    """Tell in the sidebar, when it is drawn next, that these parts of a link cannot be used."""
    st.session_state["left out"] = (parts, None)


def _notice() -> str:
    """One sentence on what a link named in vain, until something is changed."""
    kept = st.session_state.get("left out")
    if kept is None:
        return ""
    left_out, at = kept
    if at is not None and at != now():
        del st.session_state["left out"]
        return ""
    st.session_state["left out"] = (left_out, now())
    named = ", ".join(code(part) for part in left_out)
    return f"Left out of this link, as it cannot be used here: {named}."
