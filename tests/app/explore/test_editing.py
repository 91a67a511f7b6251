"""Changing the set on the page "Explore heads": many heads at once, undo and redo, the link, saved and tried sets.

Nothing can be clicked on the maps here: real clicks are made in a browser.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import streamlit
from hypothesis import given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits
from pages.explore import tried
from pages.explore.named import NamedSet, from_json, to_json
from pages.explore.tried import frame
from pages.session import shared
from pages.shell.sidebar import Settings
from tests.support.fakes import Studio
from tests.support.running import (
    APP,
    AXIS,
    HAND,
    N_HEADS,
    change,
    exploring,
    marked,
    press,
    removed,
    requested,
    run,
    said,
)


@pytest.fixture
def studio(studio: Studio) -> Studio:
    studio.at_once()
    return studio


@pytest.fixture
def table(studio: Studio) -> ImpactTable:
    return studio.add_scores(AXIS)


def query(at: AppTest) -> dict[str, str]:
    """The address, with each value as text."""
    return {name: value[0] if isinstance(value, list) else str(value) for name, value in at.query_params.items()}


def linked(**address: str) -> AppTest:
    at = AppTest.from_file(APP, default_timeout=60)
    at.query_params.update(address)
    return run(at)


def folded_out(at: AppTest, key: str) -> AppTest:
    at.session_state[key] = True
    return run(at)


# many heads at once


def test_heads_in_a_text(studio: Studio, table: ImpactTable) -> None:
    at = exploring()
    chosen = requested(at)
    change(at, many="L0H0, L29H7-8")
    press(at, "many prune")
    named = {(0, 0), (29, 7), (29, 8)}
    assert marked(at, "pruned by hand") == named
    assert named <= requested(at).heads
    assert removed(at) == len(chosen) == 5  # they count toward alpha

    change(at, many=chosen.format())
    press(at, "many keep")
    assert not chosen.heads & requested(at).heads
    assert removed(at) == 5
    press(at, "many leave to the method")
    change(at, many="L0H0, L29H7-8")
    press(at, "many toggle")
    assert requested(at) == chosen
    assert at.session_state[HAND] == ManualEdits()

    change(at, many="H3")
    press(at, "many replace the set")
    assert requested(at) == PruneSet.of((layer, 3) for layer in range(30))
    assert at.slider(key="alpha").disabled  # by hand only: no slider adds to it
    assert at.slider(key="gamma").disabled


def test_nonsense_is_told_once_and_changes_nothing(studio: Studio, table: ImpactTable) -> None:
    at = exploring()
    chosen = requested(at)
    for text, told in (("<b>", r"'\<b\>' is not a head"), ("L30H0", "L30H0 does not exist"), ("", "No head is named")):
        change(at, many=text)
        press(at, "many prune")
        (error,) = at.error
        assert told in error.value
        assert requested(at) == chosen
    change(at, many="L0H1")
    press(at, "many prune")
    assert not at.error


# steps


def test_what_a_browser_says_before_it_has_heard_of_a_change_does_not_undo_it(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a measurement that is asked for in that moment brings the old values of all widgets along."""
    at = exploring()
    change(at, alpha=0.1)
    change(at, alpha=0.12)
    press(at, "undo")
    press(at, "undo")
    assert at.slider(key="alpha").value == 0.02
    monkeypatch.setattr(shared, "DRAWING", 0.0)
    for stale in (0.12, 0.1):
        at.query_params["alpha"] = str(stale)
        change(at, alpha=stale)
        assert at.slider(key="alpha").value == 0.02
    at.query_params["alpha"] = "0.12"
    change(at, alpha=0.15)
    assert at.slider(key="alpha").value == 0.15, "a new value is somebody's wish"
    now = shared.time.monotonic() + shared.SETTLING + 1
    monkeypatch.setattr(shared.time, "monotonic", lambda: now)
    at.query_params["alpha"] = "0.12"
    change(at, alpha=0.12)
    assert at.slider(key="alpha").value == 0.12, "and after a while an old one is, too"


@pytest.mark.parametrize("seconds", [0.1, 1.5])
def test_an_old_value_that_is_chosen_again_is_a_choice_once_the_browser_has_heard(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Its address says that it has; what it draws comes a moment later."""
    clock = [100.0]
    monkeypatch.setattr(shared, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    at = exploring()
    change(at, many="H3")
    press(at, "many replace the set")
    assert at.query_params["method"] in ("hand", ["hand"])
    clock[0] += seconds
    change(at, method="fasp")
    wanted = "fasp" if seconds > shared.DRAWING else "hand"
    assert at.session_state["method"] == wanted
    assert at.query_params.get("method", ["fasp"]) in (wanted, [wanted])


def test_a_choice_made_while_the_page_is_still_drawn_can_be_undone(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the run that draws the page, which knows by then what there was before."""
    with monkeypatch.context() as interrupted:
        interrupted.setattr("pages.explore.maps.draw", lambda *_: streamlit.stop())
        at = exploring()
    before = requested(at)
    change(at, alpha=0.1)
    assert requested(at) != before
    press(at, "undo")
    assert requested(at) == before


def test_undo_and_redo_take_every_change_of_the_set(studio: Studio, table: ImpactTable) -> None:
    at = exploring()
    assert at.button(key="undo").disabled
    assert at.button(key="redo").disabled
    sets = [requested(at)]

    def after(at: AppTest) -> None:
        sets.append(requested(at))

    after(change(at, alpha=0.1))
    change(at, many="L0H0-3")
    after(press(at, "many prune"))
    after(change(at, method="random"))
    after(change(at, seed=3))
    change(at, many="L1H1")
    after(press(at, "many replace the set"))
    after(change(at, neurons="L3N4"))
    assert len(set(sets)) == len(sets)
    change(at, split="test")  # how it is measured is no step

    for wanted in sets[-2::-1]:
        press(at, "undo")
        assert requested(at) == wanted
    assert at.button(key="undo").disabled
    assert at.get_by_key("split").value == "test"
    assert at.slider(key="alpha").value == 0.02
    for wanted in sets[1:]:
        press(at, "redo")
        assert requested(at) == wanted
    assert at.button(key="redo").disabled
    press(at, "undo")
    change(at, many="L2H2")
    press(at, "many prune")
    assert at.button(key="redo").disabled  # another way was taken


# the address


def test_a_link_opens_the_same_set(studio: Studio, table: ImpactTable) -> None:
    at = exploring()
    change(at, method="random")
    change(at, alpha=0.1, seed=7, reading="counted", split="test", prompts=90, tokens=512, neurons="L5N17-19")
    change(at, many="L0H0-3, L9H1")
    press(at, "many prune")
    change(at, many="L2H1")
    press(at, "many keep")
    address = query(at)
    assert address["prune"] == "L0H0-3,L9H1"
    assert address["keep"] == "L2H1"

    other = linked(**address)
    assert requested(other) == requested(at)
    assert other.session_state["job main"].key == at.session_state["job main"].key
    assert query(other) == address
    assert not other.sidebar.warning
    assert [m.value for m in other.metric] == [m.value for m in at.metric]
    assert linked().query_params == {}  # as at first, the address is short


def test_other_pages_keep_the_selection_and_its_link(studio: Studio, table: ImpactTable) -> None:
    at = exploring(gamma=0.5, alpha=0.1)
    change(at, many="L0H0")
    press(at, "many prune")
    chosen, address = requested(at), query(at)
    for page in ("transfer", "compare", "assumptions", "contexts", "released"):
        at.switch_page(f"pages/{page}/{page}.py")
        run(at)
        if page != "released":  # which has no model
            assert query(at) == address, page
    at.switch_page("pages/explore/explore.py")
    run(at)
    assert requested(at) == chosen
    assert query(at) == address
    assert at.slider(key="gamma").value == 0.5


def test_a_nonsense_link_gets_one_notice(studio: Studio, table: ImpactTable) -> None:
    at = linked(axis="<b>x</b>", gamma="abc", alpha="0.02", prune="L0H0,L99H0", keep="L0H0", seed="`1`")
    (warning,) = at.sidebar.warning
    for part in ("axis=<b>x</b>", "gamma=abc", "seed='1'", "prune=L99H0", "keep=L0H0"):
        assert f"`{part}`" in warning.value
    assert not at.main.warning or "link" not in at.main.warning[0].value
    assert removed(at) == 5
    assert marked(at, "pruned by hand") == {(0, 0)}
    assert query(at) == {"alpha": "0.02", "prune": "L0H0"}  # it mends itself
    run(at)
    assert at.sidebar.warning  # until something is changed
    change(at, alpha=0.03)
    assert not at.sidebar.warning


def test_a_link_alone_loads_no_model(studio: Studio, table: ImpactTable) -> None:
    studio.add_scores(AXIS, "tiny one")
    at = linked(model="tiny one", alpha="0.25", method="by hand only", prune="L3H2,L29H8")
    assert at.get_by_key("model").value == BUILT_IN
    assert "asks for what is not loaded" in at.sidebar.warning[0].value
    assert at.sidebar.code[0].value == "tiny one"
    press(at, "open link")
    run(at)
    assert at.get_by_key("model").value == "tiny one"
    assert requested(at) == PruneSet.of([(3, 2)])
    (warning,) = at.sidebar.warning  # known only since the model is loaded
    assert "`prune=L29H8`" in warning.value


# saved sets


def test_sets_under_names(studio: Studio, table: ImpactTable) -> None:
    at = folded_out(exploring(), "named open")
    first = requested(at)
    change(at, **{"set name": "  <b>one</b>  "})
    press(at, "save set")
    press(at, "save set")
    assert "A name has 1 to 60 characters" in at.error[0].value
    change(at, alpha=0.04, neurons="L2N3")
    second = requested(at)
    change(at, **{"set name": "two"})
    press(at, "save set")
    assert not at.error
    text = said(at)
    assert f"Only in A, 0: `{PruneSet().format() or 'none'}`" in text
    assert f"In both, 5: `{first.format()}`" in text
    only = PruneSet(second.heads - first.heads, second.neurons)
    assert f"Only in B, {len(only)}: `{only.format()}`" in text
    assert "Measured on 1,024 tokens and" in text
    assert "between the gaps of A and B" in text or "than A's" in text

    change(at, **{"one set": "<b>one</b>"})
    press(at, "load set")
    assert requested(at) == first
    assert at.get_by_key("method").value == "hand"
    change(at, **{"new name": "two"})
    press(at, "rename set")
    assert "a set of that name" in at.error[0].value
    change(at, **{"new name": "uno"})
    press(at, "rename set")
    assert list(at.session_state["named sets"]) == ["uno", "two"]
    press(at, "delete set")
    assert list(at.session_state["named sets"]) == ["two"]
    press(at, "undo")
    assert requested(at) == second


names = st.text(
    st.characters(min_codepoint=33, max_codepoint=500, exclude_categories=("Z", "C")), min_size=1, max_size=9
)


@settings(deadline=None)
@given(st.dictionaries(names, st.frozensets(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=9), max_size=5))
def test_sets_survive_the_file(sets: dict[str, frozenset[tuple[int, int]]]) -> None:
    named = {name: NamedSet("m", PruneSet(heads).format(), "FASP") for name, heads in sets.items()}
    assert from_json(to_json(named).encode(), {}) == named
    assert from_json(to_json(named).encode(), named) == named


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"prune sets": [1]}', b'{"prune sets": [{"name": "a"}]}']
)
def test_a_file_of_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="not a file of prune sets"):
        from_json(content, {})
    bad: dict[str, Any] = {"prune sets": [{"name": "a", "model": "m", "parts": "nonsense", "chosen": ""}]}
    with pytest.raises(InputError, match="'nonsense' is not a head"):
        from_json(json.dumps(bad).encode(), {})


# tried sets


OURS = Settings(ModelSpec(), AXIS, "race ethnicity", "neutral", "fasp", 0.3, 0.02, 0, "valid", 90, 512)


@pytest.mark.parametrize(
    "other",
    [
        replace(OURS, spec=ModelSpec(ablation="mean")),
        replace(OURS, scorer="org/judge"),
        replace(OURS, scorer="org/judge", label="insult"),
        replace(OURS, scorer="org/judge", scorer_reading="softmax"),
        replace(OURS, axis="/uploads/another.csv"),
    ],
)
def test_what_was_measured_otherwise_is_no_measurement_of_the_same_set(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch, other: Settings
) -> None:
    state: dict[str, Any] = {"estimated": (SimpleNamespace(perplexity=20.0, gap=0.01),)}
    monkeypatch.setattr(shared.st, "session_state", state)
    now: Any = SimpleNamespace(heads=PruneSet.of([(0, 1)]))
    gap = SimpleNamespace(relative=-0.5, relative_interval=(-0.6, -0.4), n=90)
    ppl = SimpleNamespace(relative=0.1, base=20.0, ppl_interval=(21.0, 23.0), tokens=512)
    result = SimpleNamespace(perplexity=ppl, readings={"neutral": SimpleNamespace(gap=gap)})
    done: Any = SimpleNamespace(state="done", result=result)
    waiting: Any = SimpleNamespace(state="waiting", so_far=None)
    tried.note(OURS, table, now, done)
    tried.note(OURS, table, now, waiting)
    tried.note(other, table, now, waiting)
    assert [bool(t.said) for t in state["tried"]] == [True, False]
    assert list(tried.measured_changes(OURS, N_HEADS)) == [(1,)]
    assert tried.measured_changes(replace(OURS, split="test"), N_HEADS)  # on whatever prompts of the axis
    assert not tried.measured_changes(other, N_HEADS)


def test_every_set_that_was_tried_is_there(studio: Studio, table: ImpactTable) -> None:
    at = exploring()
    first = requested(at)
    change(at, alpha=0.04)
    folded_out(at, "tried open")
    kept = at.session_state["tried"]
    assert [t.heads for t in kept] == [first, requested(at)]
    ppl, gap = table.estimate(first.flat(N_HEADS), "neutral")
    base = table.ppl.base.perplexity, table.bias.gap("neutral").gap
    assert kept[0].estimated == pytest.approx((ppl / base[0] - 1, gap / base[1] - 1))
    result = at.session_state["job main"].result
    assert kept[1].measured == pytest.approx((result.perplexity.relative, result.readings["neutral"].gap.relative))
    assert kept[0].measured[0] == pytest.approx(1.01**5 - 1)
    shown = frame(kept, 1)
    assert list(shown["set"]) == ["FASP, γ 0.3, α 0.02", "▸ FASP, γ 0.3, α 0.04"]
    assert shown["perplexity, 95%"][0].startswith("+5.1% [")
    change(at, alpha=0.02)
    assert len(at.session_state["tried"]) == 2  # the same set again is the same entry
    asked = len(studio.asked)
    change(at, alpha=0.04)
    assert len(studio.asked) == asked  # and is there without a measurement
    assert "**estimate**" not in said(at)
