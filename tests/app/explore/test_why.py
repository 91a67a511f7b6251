"""The tab "Which heads do it" and what a head writes, with a tiny model that is really explained."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.manual_edits import ManualEdits
from pages.backend.engine import engine
from pages.backend.requests import Explain, HeadWrites
from tests.support.fakes import Studio
from tests.support.running import AXIS, exploring, press, run, said
from tests.support.tiny_studio import SOURCE, TinyStudio
from tests.support.worlds import use_scorer


@pytest.fixture
def kind() -> type[Studio]:
    return TinyStudio


@pytest.fixture(autouse=True)
def scored(studio: TinyStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, complete=False)
    studio.add_scores(AXIS, SOURCE)
    studio.at_once()


def at_tab(name: str, **state: Any) -> AppTest:
    return exploring(model=SOURCE, details=name, alpha=0.25, **{"explain prompts": 90, "explain tokens": 1024, **state})


def test_a_change_is_split_on_request_and_found_again(studio: TinyStudio) -> None:
    at = at_tab("Which heads do it")
    assert "Not split yet" in said(at)
    press(at, "explain split")
    found = at.session_state["job explain"].result
    heads = at.session_state["job main"].key.heads
    assert found.plan.prune_set == heads
    assert found.sentence()[:20] in said(at)
    (frame,) = [d.value for d in at.main.dataframe if "gap, ×10⁻³ [95%]" in d.value and "head" in d.value]
    assert frame["head"].tolist()[-3:] == ["sum of the parts", "measured change", "quadrature error"]
    assert sorted(frame["head"].tolist()[:-3]) == sorted(found.names)
    again = at_tab("Which heads do it")
    assert "Stored:" in said(again)
    assert "job explain" not in again.session_state
    again.session_state[f"by_hand {SOURCE}"] = ManualEdits(keep=frozenset(range(8)))
    assert "nothing to split" in said(run(again))


def test_what_a_head_writes_is_blurred_until_asked_for(studio: TinyStudio) -> None:
    at = at_tab("What a head does")
    assert "Not read yet" in said(at)
    press(at, "read writes")
    assert at.session_state["job writes"].state == "done", at.session_state["job writes"]
    (words,) = [node.value for node in at.main.get("html") if "promoted" in str(node.value)] or [""]
    assert "blur" in words
    at.toggle(key="show writes").set_value(True)
    run(at)
    (words,) = [node.value for node in at.main.get("html") if "promoted" in str(node.value)] or [""]
    assert "blur" not in words
    assert "suppressed" in words


def test_a_demo_splits_and_reads_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_DEMO", "1")
    small, large = (BiasConfig(AXIS, "valid", n) for n in (210, 450))
    heads = PruneSet.parse("L0H1")
    Explain(ModelSpec(), heads, EvalConfig(small), "neutral").check()
    HeadWrites(ModelSpec(), small, 0).check()
    for asked in (Explain(ModelSpec(), heads, EvalConfig(large), "neutral"), HeadWrites(ModelSpec(), large, 0)):
        with pytest.raises(InputError, match="at most 210 prompts"):
            asked.check()
    with pytest.raises(InputError, match="other models only"):
        engine().explain(Explain(ModelSpec("org/other"), heads, EvalConfig(small), "neutral"), "me")
