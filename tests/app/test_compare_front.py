"""All methods as points on "Compare methods": what is stored is drawn, what is missing offered, who has no set."""

from __future__ import annotations

from typing import Any

import pytest

from fasp_core.errors import InputError
from fasp_core.studies.compare.front import Front
from pages.backend.results import Results
from tests.support.fakes import MadeUp, Studio, add_comparison
from tests.support.running import AXIS, opened, said

SMALL: dict[str, Any] = {"gammas": (0.2,), "alphas": (0.02, 0.05), "seeds": 1, "prompts": 90, "tokens": 640}


def method(reduction: float, cost: float, words: float) -> dict[str, Any]:
    return {
        "reduction_pct": reduction,
        "interval_pct": [reduction - 9, reduction + 9],
        "within_templates_reduction_pct": reduction / 2,
        "ppl_change_pct": cost,
        "ppl_interval_pct": [cost - 1, cost + 1],
        "paragraphs_change_pct": cost,
        "paragraphs_interval_pct": [cost - 1, cost + 1],
        "lambada_points": words,
        "lambada_interval": [words - 3, words + 3],
        "prompts": 5004,
        "items": 300,
        "heads_removed": 13,
        "heads_scaled": 0,
        "chosen": "a title",
        "validation": {"reduction_pct": reduction + 2, "ppl_change_pct": cost},
    }


@pytest.fixture(autouse=True)
def comparison(studio: Studio) -> None:
    table = studio.add_scores(AXIS)
    add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **SMALL)


def test_what_is_stored_is_drawn_and_the_rest_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"fasp": method(63, 8, -7.3), "gains*0.5": method(55, 0.2, 4.0)}
    found = Front(methods, ("search",), {"hard-concrete": "No gates were learned."})
    monkeypatch.setattr(Results, "front", lambda *_: found)
    at = opened("compare")
    text = said(at)
    assert "All methods side by side, on unseen prompts" in [s.value for s in at.subheader]
    assert "| fasp | 13 removed, 0 scaled | 63% [54, 72] | 32% | +8.0% | +8.0% | -7.3 [-10.3, -4.3] |" in text
    assert (
        "Of the 2 methods that are measured here validation chooses `fasp` (a title): on 5,004 test prompts its gap is "
        "63% [54, 72] smaller, within "
        "templates 32%, perplexity of sentences +8.0% [+7.0, +9.0], of paragraphs +8.0% [+7.0, +9.0], last words "
        "-7.3 points [-10.3, -4.3] (300 passages)." in text
    )
    assert "1 method not measured side by side yet" in text
    assert "Measure them" in [b.label for b in at.main.button]
    assert "hard-concrete: No gates were learned." in text
    assert not at.error
    at.segmented_control(key="front cost").set_value("lambada")
    at.run()
    assert not at.exception


def test_nothing_stored_is_only_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Results, "front", lambda *_: Front({}, ("fasp", "search")))
    at = opened("compare")
    assert "2 methods not measured side by side yet" in said(at)
    assert "Open marks" not in said(at)


def test_passages_that_are_not_installed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def front(*_: Any) -> Front:
        raise InputError("The tasks are not installed.")

    monkeypatch.setattr(Results, "front", front)
    at = opened("compare")
    assert "The tasks are not installed." in said(at)
    assert not at.error
