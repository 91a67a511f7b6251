"""An engine of one's own: its scorer is handed in, equal requests are one job, a demo refuses what is new."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest

from fasp_core.compute.lanes import Lanes
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from pages.backend.engine import Engine
from pages.backend.requests import Experiment, Request
from pages.backend.results import Latest
from tests.support.fakes import at_once, stand_in
from tests.support.worlds import WordScorer


class Named(WordScorer):
    def __init__(self, config: BiasConfig) -> None:
        super().__init__({"old": 0.9, "young": 0.4})
        self.name = f"mine, {config.label}"


def own(lanes: Lanes) -> Engine:
    return Engine(lanes, lambda spec: stand_in(spec, "w", 2, 3), Named)


def test_the_scorer_is_the_one_that_was_handed_in() -> None:
    engine = own(at_once())
    assert engine.load_scorer(BiasConfig("age", scorer="me/mine", label="rude")).result == "mine, rude"
    found = engine.opinions(BiasConfig("age"))
    assert found.word.iloc[0] == "old"
    assert found.toxicity.is_monotonic_decreasing
    assert engine.opinions(BiasConfig("age")) is found


def test_equal_requests_are_one_job_and_share_nothing_with_other_kinds() -> None:
    engine, go_on = own(Lanes()), threading.Event()
    asked = [Experiment(ModelSpec(), title, (PruneSet.parse("L0H1"), "age")) for title in ("a", "a", "b")]
    jobs = [engine.experiment(one, lambda *_: go_on.wait(20)) for one in asked]
    assert jobs[0] is jobs[1] is engine.running(Experiment(ModelSpec(), "a", (PruneSet.of([(0, 1)]), "age")))
    assert jobs[2] is not jobs[0]
    go_on.set()
    assert all(job.wait(20) and job.result for job in jobs)
    assert engine.running(asked[0]) is None
    assert engine.models.facts(ModelSpec("x")) is None


@dataclass(frozen=True)
class New(Request):
    spec: ModelSpec
    title = "Something new"


def test_a_demo_refuses_a_kind_that_does_not_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASP_DEMO", raising=False)
    New(ModelSpec()).check()
    monkeypatch.setenv("FASP_DEMO", "1")
    with pytest.raises(InputError, match="demo"):
        New(ModelSpec()).check()


def test_the_latest_values_are_found_once() -> None:
    kept, asked = Latest[str](2), list[str]()

    def get(key: str, value: str | None = "value") -> Any:
        return kept.get(key, lambda: asked.append(key) or value)  # type: ignore[func-returns-value]

    assert get("none", None) is None
    assert [get(key) for key in ("none", "a", "none", "b", "none", "a")] == ["value"] * 6
    assert asked == ["none", "none", "a", "b", "a"]  # what was not found is looked for again, the oldest is forgotten
    kept.clear()
    get("a")
    assert asked[-1] == "a"
