"""`compare` and the search within limits beside perplexity: what is chosen, claimed, refused and kept."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap.claims import Spent
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model import loading
from fasp_core.scoring import task
from fasp_core.scoring.score import score
from fasp_core.scoring.search import SearchConfig
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare, limits, outcome, searching
from fasp_core.studies.compare.limits import Limits, Meter
from fasp_core.tasks import files
from tests.support.commands import Run, refused, runner
from tests.support.fakes import MadeUp, Studio, add_comparison, made_up, made_up_lm
from tests.support.made import tiny_questions, write_task
from tests.support.tiny import STARTS, tiny_lm, tiny_text

AXIS = "race_ethnicity"
SMALL: dict[str, Any] = {"gammas": (0.2, 0.4), "alphas": (0.02, 0.05), "seeds": 2, "prompts": 180, "tokens": 640}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(compare.Plan.__init__, "__defaults__", ("neutral", *SMALL.values()))
    monkeypatch.setattr(outcome.ClaimConfig.__init__, "__defaults__", (360, 1280, 90, 2, 4))
    monkeypatch.setattr(loading, "load", lambda *_: made_up_lm())
    return runner(capsys, "compare", "--axis", AXIS)


class Costly(Meter):
    """Validation: every set but small ones loses 5 points; test: all lose 8."""

    def spent(self, heads: Any) -> tuple[Spent, ...]:
        lost = 8.0 if self.split == "test" else 5.0 if len(heads) > 6 else 1.0
        return (Spent("LAMBADA", "points", lost, self.limits.lambada_points or 0.0, (lost - 1, lost + 1)),)


def test_compare_chooses_within_all_limits_and_names_a_broken_one(
    run: Run, tmp_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = MadeUp(Studio(tmp_cache, monkeypatch).add_scores(AXIS), strength=10)
    add_comparison(Store(tmp_cache), AXIS, world, **SMALL)
    refused(run("--max-lambada-points", "2"), "add --run")
    refused(run("--max-lambada-points", "0", "--run"), "--max-lambada-points above 0")
    monkeypatch.setattr(limits, "Meter", Costly)
    free = json.loads(run("--json")[1])
    assert "limits" not in free
    with made_up(world):
        status, out, err = run("--run", "--max-lambada-points", "2", "--json")
        assert status == 0, err
        found = json.loads(out)
        assert found["limits"] == {"lambada_points": 2.0, "lambada_nats": None, "task_points": None}
        assert 0 < len(found["chosen"]["heads"].split(",")) <= 6 < len(free["chosen"]["heads"].split(","))
        claim = json.loads(run("--run", "--max-lambada-points", "2", "--outcome", "--json")[1])
        plain = json.loads(run("--run", "--outcome", "--json")[1])
    assert claim["limits"] == [
        {"name": "LAMBADA", "unit": "points", "lost": 8.0, "interval": [7.0, 9.0], "most": 2.0, "kept": False}
    ]
    assert claim["claim"]["colour"] == "red"
    assert "8.0 points [7.0, 9.0] of LAMBADA lost, more than the 2 allowed" in claim["claim"]["wrong"]
    assert "at most 2 points of LAMBADA lost" in claim["chosen_on"]
    assert "8.0 points [7.0, 9.0] of LAMBADA lost" in claim["sentence"]
    assert "limits" not in plain
    assert plain["chosen_on"] == "validation prompts and text, perplexity at most 10% up"


def test_a_search_keeps_to_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    write_task(tmp_path, "lambada", tiny_questions(60, 1, 3))
    (tmp_path / "text.txt").write_text(tiny_text(200))
    words = itertools.product(STARTS[:4], ("met", "saw", "like"), ("red", "green"), ("person", "house", "tree"))
    with (tmp_path / "axis.csv").open("w", newline="") as file:
        rows = [(f"{start} {verb} a {color} {noun}", color) for start, verb, color, noun in words]
        csv.writer(file).writerows([("text", "group"), *rows])
    text = TextConfig(str(tmp_path / "text.txt"), tokens=96, window=32, stride=32)
    monkeypatch.setattr(searching, "TextConfig", lambda tokens: text)
    axis, lm, store = str(tmp_path / "axis.csv"), tiny_lm("llama"), Store(tmp_path / "cache")
    impacts = score(lm, text, BiasConfig(axis, n_prompts=1000), store)
    prompts = searching.measured_on(axis, impacts)
    wanted = Limits(5.0, lambada_nats=0.05, items=10)
    config = searching.limited(SearchConfig(max_heads=2, max_ppl=5.0, measurements=4), wanted)
    with pytest.raises(InputError, match="score --task lambada"):
        searching.run(lm, impacts, prompts, config, store)
    impacts = replace(impacts, task=task.score_task(lm, store, 10))
    found = searching.run(lm, impacts, prompts, config, store)
    meter = Meter(lm, wanted, "valid", store)
    for tried in found.tried:
        assert tried.other == pytest.approx(meter.nats(tried.heads).value)
    inside = [t for t in found.tried if t.other is not None and t.other <= 0.05 and t.gap < found.base_gap]
    assert found.heads == (min(inside, key=lambda t: t.gap).heads if inside else ())
    (again,) = searching.stored(lm.id, axis, store, "neutral")
    assert again.config == config
    assert [t.other for t in again.tried] == [t.other for t in found.tried]
    other = replace(impacts, task=replace(impacts.task, ablated=impacts.task.ablated + 1.0))
    searching.run(lm, other, prompts, config, store)  # by other scores it is another search
    assert len(searching.stored(lm.id, axis, store, "neutral")) == 2
