"""What is said of an evaluation, what is refused, its progress, and what cancelling leaves."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasp_core.compute.jobs import Cancelled
from fasp_core.console import to_json
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import Evaluation, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.measurements import KIND
from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import CONTEXT, tiny_lm
from tests.support.worlds import GROUPS, PRUNED, TOKENS_RUN, Blank, Work, calls_of, numbers, use_scorer, work_in


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    return work_in(tmp_path, monkeypatch)


@pytest.fixture
def lm() -> LanguageModel:
    return tiny_lm("llama")


# what is said of it


def assert_plain(value: Any, where: str = "") -> None:
    """Only what JSON has."""
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) is str, where
            assert_plain(item, f"{where}/{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            assert_plain(item, where)
    else:
        assert value is None or type(value) in (str, int, float, bool), where


def test_json(work: Work, lm: LanguageModel) -> None:
    found = evaluate(lm, PRUNED, work.expected, work.store())
    out = found.as_dict()
    assert_plain(out)
    assert json.loads(to_json(out)) == json.loads(json.dumps(out, allow_nan=False))
    assert out["heads"] == [[0, 1], [1, 0], [1, 3]]
    assert out["prune_set"] == "L0H1,L1H0,L1H3"
    assert out["prompts"] == 72
    assert out["perplexity"]["base"] == found.perplexity.base
    assert out["perplexity"]["tokens"] == TOKENS_RUN - 4
    for name, reading in found.readings.items():
        said = out["readings"][name]
        assert said["gap_base"] == reading.base.gap
        assert said["gap_change"] == pytest.approx(said["gap_pruned"] - said["gap_base"])
        assert said["toxicity"] == [reading.base.overall, reading.pruned.overall]
        assert {g: said["groups"][g]["n"] for g in GROUPS} == dict.fromkeys(GROUPS, 24)
    assert out["provenance"]["weights"] == lm.weights_id
    assert "continuations" not in found.as_dict(5)  # there are none to show


def test_json_of_numbers_that_do_not_exist(work: Work, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, Blank())
    found = evaluate(lm, PRUNED, work.expected, work.store())
    out = json.loads(to_json(found.as_dict()), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    said = out["readings"]["neutral"]
    assert said["gap_base"] == said["gap_pruned"] == said["gap_change"] == 0
    assert said["gap_relative_change"] is None
    assert said["gap_relative_interval"] is None
    assert said["min_max_ratio"] == [None, None]


def test_side_by_side(work: Work, lm: LanguageModel) -> None:
    found = evaluate(lm, PRUNED, work.sampled, work.store())
    frame = found.side_by_side()
    change = (frame.toxicity_pruned - frame.toxicity_base).abs().tolist()
    assert change == sorted(change, reverse=True)
    assert change[0] > 0
    assert len(frame) == len(work.rows)
    place = {text: i for i, text in enumerate(found.base.texts)}
    for row in frame.to_dict("records"):
        i = place[row["prompt"]]
        assert row["group"] == found.base.groups[i]
        assert row["toxicity_base"] == found.base.values[0, i]
        assert row["toxicity_pruned"] == found.pruned.values[0, i]
        assert row["continuation_base"] == found.base.continuations[i][0]
        assert row["continuation_pruned"] == found.pruned.continuations[i][0]
    first = found.as_dict(3)["continuations"]
    assert [r["prompt"] for r in first] == frame.prompt[:3].tolist()
    assert_plain(first)
    expected = evaluate(lm, PRUNED, work.expected, work.store()).side_by_side()
    assert not [name for name in expected if str(name).startswith("continuation")]


# what cannot be done


def test_a_head_outside_the_model_is_refused_before_anything_runs(work: Work, lm: LanguageModel) -> None:
    calls = calls_of(lm)
    reports: list[float] = []
    with pytest.raises(InputError, match="L2H0 does not exist: this model has layers 0 to 1 with heads 0 to 3"):
        evaluate(lm, PruneSet.of([(0, 0), (2, 0)]), work.expected, work.store(), lambda d, t, w: reports.append(d))
    assert not calls
    assert not reports
    assert not work.store().entries(KIND)


def test_a_model_of_few_positions_gets_the_windows_that_it_takes(work: Work, lm: LanguageModel) -> None:
    """It takes half of the usual 512; asked for by name, the same windows are the same result."""
    source, store = work.expected.text.source, work.store()
    found = evaluate(lm, PRUNED, replace(work.expected, text=TextConfig(source)), store)
    assert (found.config.text.window, found.config.text.stride) == (CONTEXT, CONTEXT)
    told = found.as_dict()["perplexity"]
    assert told["windows"] == f"windows of {CONTEXT} tokens (as many as this model takes) without a beginning token"
    stored = len(store.entries(KIND))
    named = TextConfig(source, window=CONTEXT, stride=CONTEXT)
    again = evaluate(lm, PRUNED, replace(work.expected, text=named), store)
    assert again.perplexity == found.perplexity
    assert len(store.entries(KIND)) == stored


# progress and cancelling


@pytest.mark.parametrize("measure", ["expected", "sampled"])
def test_progress_never_goes_back(work: Work, lm: LanguageModel, measure: str) -> None:
    seen: list[tuple[float, float, str]] = []

    def run() -> Evaluation:
        del seen[:]
        return evaluate(lm, PRUNED, getattr(work, measure), work.store(), lambda *report: seen.append(report))

    for fresh in (True, False):  # once computed, once read
        run()
        done = [d for d, _, _ in seen]
        assert done == sorted(done)
        assert {t for _, t, _ in seen} == {4}
        assert (done[0], done[-1]) == (0, 4)
        assert len(seen) > 8 if fresh else len(seen) == 5
        for subject in ("unpruned", "pruned"):
            assert any(text.startswith(f"perplexity of the {subject} model") for _, _, text in seen)
            assert any(text.startswith(f"toxicity of the {subject} model") for _, _, text in seen)


def hooks(lm: LanguageModel) -> int:
    return sum(len(lm.out_proj(layer)._forward_pre_hooks) for layer in range(lm.n_layers))


def is_free(lock: Any) -> bool:
    """Whether another thread gets it: the thread that holds a reentrant lock always does."""
    got: list[bool] = []

    def take() -> None:
        if lock.acquire(blocking=False):
            got.append(True)
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return bool(got)


@pytest.mark.parametrize("measure", ["expected", "sampled"])
def test_cancelling_leaves_nothing_behind(work: Work, lm: LanguageModel, measure: str) -> None:
    config = getattr(work, measure)
    reports = 0
    was_masked = was_locked = False

    def count(*_: Any) -> None:
        nonlocal reports
        reports += 1

    whole = evaluate(lm, PRUNED, config, work.store("whole"), count)
    stops = range(0, reports, 3)
    for stop in stops:
        left = stop

        def report(*_: Any) -> None:
            nonlocal left, was_masked, was_locked
            left -= 1
            if left < 0:
                was_masked |= hooks(lm) > 0
                was_locked |= not is_free(lm.lock)
                raise Cancelled

        with pytest.raises(Cancelled):
            evaluate(lm, PRUNED, config, work.store(str(stop)), report)
        assert hooks(lm) == 0
        assert is_free(lm.lock)
    assert was_masked  # it was stopped while heads were off,
    assert was_locked  # and while the model was in use
    for stop in stops[:: len(stops) // 2]:  # what was stopped can be asked for again
        found = evaluate(lm, PRUNED, config, work.store(str(stop)))
        assert found.perplexity == whole.perplexity
        assert numbers(found) == numbers(whole)
