"""The tabs "Sampled continuations" and "What a head does", with a tiny model that really writes and looks."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from fasp_core.forward.attention import pattern
from fasp_core.forward.diffs import largest_changes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import continuations
from fasp_core.metrics.continuations import Pair
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits
from pages.backend.engine import engine
from pages.explore import prompt_choice
from pages.explore.attention import strongest
from tests.support.fakes import Studio, make_table
from tests.support.running import AXIS, change, exploring, press, run, said
from tests.support.tiny import HEADS
from tests.support.tiny_studio import SOURCE, TinyStudio

TEXTS, HEAD = "Sampled continuations", "What a head does"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def kind() -> type[Studio]:
    return TinyStudio


@pytest.fixture
def table(studio: TinyStudio) -> ImpactTable:
    return studio.add_scores(AXIS, SOURCE)


def at_tab(name: str, **state: Any) -> AppTest:
    return exploring(model=SOURCE, details=name, alpha=0.25, **state)


def pages(at: AppTest) -> list[str]:
    """Bodies of the HTML on the page that shows texts, not of styles."""
    found: Any = at.get("html")
    return [node.proto.body for node in found if not node.proto.body.startswith("<style>")]


def figure(at: AppTest, key: str) -> dict[str, Any]:
    charts: Any = at.get("plotly_chart")
    (found,) = [json.loads(c.proto.spec) for c in charts if key in c.proto.id]
    return dict(found)


def asked(at: AppTest, name: str) -> Any:
    return at.session_state[f"job {name}"].key


# continuations


def test_one_prompt_of_the_axis(studio: TinyStudio, table: ImpactTable) -> None:
    studio.at_once()
    at = at_tab(TEXTS)
    assert "blurred until you ask" in said(at)
    assert not pages(at)
    assert "job written" not in at.session_state
    press(at, "write")
    request = asked(at, "written")
    assert request.heads == at.session_state["job main"].key.heads
    assert len(request.heads) == 2  # a quarter of 8
    pair = at.session_state["job written"].result
    (page,) = pages(at)
    assert page.count("filter:blur") == 8
    for name, (before, after) in {
        "masked": (pair.base.expected["neutral"], pair.pruned.expected["neutral"]),
        "scored": (pair.base.expected["counted"], pair.pruned.expected["counted"]),
    }.items():
        assert f"identity terms {name} **{1000 * before:.2f} → {1000 * after:.2f}**" in said(at)
    differ = sum(a != b for a, b in zip(pair.base.written, pair.pruned.written, strict=True))
    assert f"{differ} of 4 continuations differ" in said(at)

    change(at, **{"show texts": True})
    assert "filter:blur" not in pages(at)[0]

    # another group, another prompt: nothing is written before it is asked for
    groups = at.selectbox(key=f"prompt group {AXIS} valid")
    change(at, **{f"prompt group {AXIS} valid": groups.options[1]})
    assert not pages(at)
    box = at.selectbox(key=f"prompt {AXIS} valid {groups.options[1]}")
    assert f"{len(box.options):,} validation prompts" in box.label
    measured = at.session_state["job main"].key.config.bias.prompts()
    mine = [t for t, g in zip(measured.texts, measured.groups, strict=True) if g == groups.options[1]]
    assert box.options[: len(mine)] == mine, "those that are measured come first"
    change(at, **{box.key or "": box.options[3]})
    press(at, "write")
    assert asked(at, "written").prompt == box.options[3]

    # a new set is followed
    at.session_state[f"by_hand {SOURCE}"] = ManualEdits(prune=frozenset({0, 1, 2}))
    run(at)
    assert asked(at, "written").heads == at.session_state["job main"].key.heads != request.heads
    change(at, alpha=0.0)
    at.session_state[f"by_hand {SOURCE}"] = ManualEdits()
    run(at)
    assert "Nothing is removed" in said(at)


def test_a_prompt_typed_in(studio: TinyStudio, table: ImpactTable) -> None:
    studio.at_once()
    at = at_tab(TEXTS, **{"prompt from": "typed"})
    assert at.button(key="write").disabled
    change(at, **{"prompt typed": " \n "})
    assert "holds no word" in at.error[0].value
    assert at.button(key="write").disabled
    change(at, **{"prompt typed": f"We met {SCRIPT} and"})
    assert not at.error
    press(at, "write")
    assert asked(at, "written").prompt == f"We met {SCRIPT} and"
    assert all("<script" not in page for page in pages(at))
    assert "met" not in str(at.query_params)
    # it is still there on the other tab
    at.session_state["details"] = HEAD
    run(at)
    assert at.text_area(key="prompt typed").value == f"We met {SCRIPT} and"
    assert asked(at, "attention").prompt == f"We met {SCRIPT} and"
    at.session_state["details"] = TEXTS
    run(at)
    assert len(pages(at)) == 1

    change(at, **{"prompt typed": "I am a " + "tall " * 300})
    press(at, "write")
    (error,) = at.error
    assert "shorten it" in error.value
    assert not pages(at)


def test_a_newer_prompt_overtakes(studio: TinyStudio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded()
    go_on = threading.Event()
    really = continuations.write

    def slowly(*args: Any) -> Pair:
        while not go_on.wait(0.01):
            args[-1](0, 1, "waiting")
        return really(*args)

    monkeypatch.setattr(continuations, "write", slowly)
    at = at_tab(TEXTS, **{"prompt from": "typed", "prompt typed": "We met a man"})
    studio.finish()
    press(at, "write")
    first = at.session_state["job written"]
    assert first.state in ("waiting", "running")
    assert not pages(at)
    run(at)
    assert at.session_state["job written"] is first, "a rerun asks for nothing new"
    change(at, **{"prompt typed": "We met a woman"})
    press(at, "write")
    second = at.session_state["job written"]
    assert first.wait(20)
    assert first.state == "cancelled"
    go_on.set()
    assert second.wait(60)
    run(at)
    assert second.result.prompt == "We met a woman"
    assert len(pages(at)) == 1


def test_the_largest_changes_of_the_sampled_run(studio: TinyStudio, table: ImpactTable) -> None:
    studio.at_once()
    at = at_tab(TEXTS)
    press(at, "sample")
    (page,) = pages(at)
    frame = at.session_state["job sampled"].result.side_by_side()
    found = largest_changes(frame, 2)
    assert 2 < len(found) < len(frame)
    titles = re.findall(r"<strong>(.*?)</strong>", page)
    assert titles == [f"{r.group} · {r.change:+.3f}" for r in found.itertuples()]
    assert page.count("filter:blur") == 3 * len(found)
    group = found.group.iloc[-1]
    change(at, **{"changes of": group, "changes": 1, "show texts": True})
    (page,) = pages(at)
    titles = re.findall(r"<strong>(.*?)</strong>", page)
    assert len(titles) <= 2
    assert all(title.startswith(f"{group} · ") for title in titles)
    assert "filter:blur" not in page
    assert page.count("text-decoration:underline") == 2 * len(titles)  # "whole" and "pruned"


def test_a_sampled_run_is_cancelled(studio: TinyStudio, table: ImpactTable) -> None:
    loaded()
    at = at_tab(TEXTS)
    studio.finish()
    studio.open.clear()
    press(at, "sample")
    job = at.session_state["job sampled"]
    assert job.state in ("waiting", "running")
    press(at, "cancel sampled")
    assert job.wait(20)
    assert job.state == "cancelled"
    assert "Nothing was sampled" in said(at)


# a head


def loaded() -> LanguageModel:
    return engine().models.get(ModelSpec(SOURCE))


def shown_weights(chart: dict[str, Any], trace: int = 0) -> np.ndarray:
    rows = [[np.nan if x is None else x for x in row] for row in _rows(chart["data"][trace]["z"])]
    return np.array(rows, dtype=float)


def _rows(z: Any) -> Any:
    if isinstance(z, dict):  # as Plotly sends arrays
        import base64

        shape = [int(x) for x in z["shape"].split(",")]
        return np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).reshape(shape).tolist()
    return z


def test_the_head_that_adds_most_bias_is_looked_at_first(studio: TinyStudio, table: ImpactTable) -> None:
    studio.at_once()
    at = at_tab(HEAD)
    heads = at.session_state["job main"].key.heads
    z = table.bias.z_bias("neutral")
    flat = max(heads.flat(HEADS), key=lambda i: z[i])
    layer, head = divmod(flat, HEADS)
    box = at.selectbox(key=f"attention head {SOURCE}")
    assert box.value == flat
    request = asked(at, "attention")
    assert request.layer == layer
    expected = pattern(loaded(), request.prompt, layer)
    chart = figure(at, "attention map")
    np.testing.assert_allclose(np.nan_to_num(shown_weights(chart)), expected.weights[head], atol=1e-6)
    text = said(at)
    assert f"**L{layer}H{head}** · z_ppl **{table.ppl.z_ppl[flat]:+.3f}** ± {table.ppl.se_ppl[flat]:.2g}" in text
    se = 1000 * table.bias.standard_errors("neutral")[flat]
    assert f"z_bias **{1000 * z[flat]:+.3f}** ± {se:.2g} ×10⁻³. " in text
    facts = expected.facts(head)
    assert f"first token **{facts.on_first:.0%}** · mean distance back **{facts.distance:.1f} tokens**" in text
    assert f"entropy **{facts.entropy:.2f} bits** of {facts.most:.2f}" in text
    assert f"L{layer}H{head} is removed at present" in text
    assert "Attention is not Explanation" in text

    # it follows the set until another head is chosen
    others = frozenset({(flat + 1) % 8, (flat + 2) % 8})
    keep = ManualEdits(prune=others, keep=frozenset(heads.flat(HEADS)) - others)
    at.session_state[f"by_hand {SOURCE}"] = keep
    run(at)
    other = strongest(table, at.session_state["job main"].key.heads, "neutral")
    assert at.selectbox(key=f"attention head {SOURCE}").value == other
    change(at, **{f"attention head {SOURCE}": flat})
    assert asked(at, "attention").layer == layer
    assert "removed at present" not in said(at)
    at.session_state[f"by_hand {SOURCE}"] = ManualEdits()
    run(at)
    assert at.selectbox(key=f"attention head {SOURCE}").value == flat
    # a click on a grid chooses
    at.session_state[f"clicked head {SOURCE}"] = other
    run(at)
    assert at.selectbox(key=f"attention head {SOURCE}").value == other
    change(at, reading="counted")
    assert at.selectbox(key=f"attention head {SOURCE}").value == other


def test_all_heads_of_a_layer(studio: TinyStudio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.at_once()
    at = at_tab(HEAD, **{"attention all": True})
    request, chart = asked(at, "attention"), figure(at, "attention layer")
    expected = pattern(loaded(), request.prompt, request.layer).weights
    assert len(chart["data"]) == HEADS
    for head in range(HEADS):
        np.testing.assert_allclose(np.nan_to_num(shown_weights(chart, head)), expected[head], atol=1e-6)
    off = {h for layer, h in at.session_state["job main"].key.heads if layer == request.layer}
    titles = [a["text"] for a in chart["layout"]["annotations"]]
    assert [i for i, title in enumerate(titles) if "removed" in title] == sorted(off)

    # more than fit come a page at a time, the page of the chosen head first
    monkeypatch.setattr("pages.explore.attention.PAGE", 3)
    change(at, **{f"attention head {SOURCE}": request.layer * HEADS + 3})
    chart = figure(at, "attention layer")
    assert chart["layout"]["annotations"][0]["text"].startswith(f"<b>L{request.layer}H3")
    assert len(chart["data"]) == 1
    change(at, **{f"attention page {SOURCE} {request.layer} 3": 0})
    assert len(figure(at, "attention layer")["data"]) == 3


def test_long_and_short_prompts(studio: TinyStudio, table: ImpactTable) -> None:
    studio.at_once()
    at = at_tab(HEAD, **{"prompt from": "typed", "prompt typed": "I am" + " tall" * 98})
    assert "The first 64 of 100 tokens are shown" in said(at)
    assert len(shown_weights(figure(at, "attention map"))) == 64
    change(at, **{"prompt typed": "I"})
    assert "look at itself alone" in said(at)
    assert "nan" not in said(at)
    change(at, **{"prompt typed": ""})
    assert "Write the beginning of a text" in said(at)


def test_nothing_runs_for_a_tab_that_nobody_looks_at(studio: TinyStudio, table: ImpactTable) -> None:
    studio.at_once()
    at = at_tab("Groups")
    assert "job attention" not in at.session_state
    assert "job written" not in at.session_state
    assert not pages(at)


def test_what_goes_wrong_is_told(studio: TinyStudio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.at_once()

    def fails(*_: Any) -> None:
        raise RuntimeError("/secret/path")

    with monkeypatch.context() as patch:
        patch.setattr("pages.explore.looking.pattern", fails)
        at = at_tab(HEAD)
        assert "RuntimeError" in at.error[0].value
        assert "/secret" not in said(at)
    press(at, "again attention")
    assert not at.error
    assert figure(at, "attention map")


def test_the_strongest_head_of_a_set_and_of_a_model() -> None:
    table = make_table()
    z = table.bias.z_bias("neutral")
    assert strongest(table, PruneSet(), "neutral") == int(z.argmax())
    assert strongest(table, PruneSet.from_flat([2, 5, 7], 4), "neutral") == max((2, 5, 7), key=lambda i: z[i])


def test_a_group_of_many_prompts_is_cut(
    studio: TinyStudio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.at_once()
    monkeypatch.setattr(prompt_choice, "MOST", 30)
    at = at_tab(TEXTS)
    (box,) = [b for b in at.main.selectbox if (b.key or "").startswith(f"prompt {AXIS}")]
    assert len(box.options) == 30
    assert len(set(box.options)) == 30
