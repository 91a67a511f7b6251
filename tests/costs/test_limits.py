"""Limits beside perplexity: what sets cost by them, which is chosen, and what a claim says of one that is broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.gap.claims import Evidence, Spent, verdict
from fasp_core.heads.prune_set import PruneSet
from fasp_core.scoring.search import SearchConfig
from fasp_core.storage.store import Store
from fasp_core.studies.compare import searching
from fasp_core.studies.compare.compare import choose
from fasp_core.studies.compare.limits import Limits, Meter, StoredMeter, Unmeasured
from fasp_core.tasks import files
from fasp_core.tasks.last_words import half
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods
from tests.support.made import comparison, tiny_questions, write_task
from tests.support.tiny import tiny_lm

HEADS = (0, 5, 6)
LIMITS = Limits(0.1, 2.0, 0.5, 3.0, ("lambada", "piqa"), 12)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    write_task(tmp_path, "lambada", tiny_questions(60, 1, 3))
    write_task(tmp_path, "piqa", tiny_questions(60, 2))
    return tmp_path


@pytest.mark.parametrize("split", ["valid", "test"])
def test_what_a_set_costs_is_counted_by_hand(folder: Path, split: str) -> None:
    lm = tiny_lm("llama")
    nats, right = {}, {}
    for task in ("lambada", "piqa"):
        for heads in ((), HEADS):
            own, hits = [], []
            with masked(lm, PruneSet.from_flat(heads, lm.n_heads)):
                for item in half(task, split, 12).items:
                    found = log_likelihoods(lm, [encode_pair(lm, item.contexts[0], c) for c in item.continuations])
                    own.append(found.values[item.right])
                    best = bool(found.greedy[0]) if task == "lambada" else int(found.values.argmax()) == item.right
                    hits.append(best)
            nats[task, heads], right[task, heads] = np.mean(own), np.mean(hits)
    by = {one.name: one for one in Meter(lm, LIMITS, split, Store(folder / "cache")).spent(HEADS)}
    lost = {task: 100 * (right[task, ()] - right[task, HEADS]) for task in ("lambada", "piqa")}
    assert by["LAMBADA's last word"].value == pytest.approx(nats["lambada", ()] - nats["lambada", HEADS], abs=1e-4)
    assert by["LAMBADA"].value == pytest.approx(lost["lambada"])
    assert by["the mean of lambada, piqa"].value == pytest.approx(np.mean(list(lost.values())))
    assert [one.most for one in by.values()] == [0.5, 2.0, 3.0]
    for one in by.values():
        assert one.interval is not None
        assert one.interval[0] <= one.value <= one.interval[1]


def test_only_what_is_limited_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, store = tiny_lm("llama"), Store(folder / "cache")
    assert Meter(lm, Limits(), "valid", store).spent(HEADS) == ()
    assert Meter(lm, Limits(), "valid", store).fits(HEADS)
    assert not store.entries("tasks")
    Meter(lm, Limits(lambada_points=1.0, items=4), "valid", store).spent(HEADS)
    assert {entry.config["task"] for entry in store.entries("tasks")} == {"lambada"}


def test_the_lowest_gap_that_fits_is_chosen() -> None:
    result = comparison(2)
    plain = choose(result, "neutral", 0.3)
    assert plain is not None
    asked: list[tuple[int, ...]] = []

    def fits(heads: object) -> bool:
        asked.append(tuple(heads))  # type: ignore[arg-type]
        return len(asked) > 2

    found = choose(result, "neutral", 0.3, fits=fits)
    assert asked[0] == plain.heads
    assert len(asked) == len(set(asked)) == 3
    assert found is not None
    gaps = result.gaps("valid", "neutral")
    rows = dict(zip((c.heads for c in result.candidates), result.rows, strict=True))
    inside = sorted(
        {
            float(gaps[r])
            for c, r in zip(result.candidates, result.rows, strict=True)
            if r and gaps[r] < gaps[0] and result.perplexity(c, "valid").relative <= 0.3
        }
    )
    assert gaps[rows[found.heads]] == pytest.approx(inside[2])
    assert choose(result, "neutral", 0.3, fits=lambda _: True) == plain
    assert choose(result, "neutral", 0.3, fits=lambda _: False) is None


ALL = [Evidence(m, "neutral", "one", "fell", True) for m in ("next word", "within templates", "written")]


@pytest.mark.parametrize(
    ("value", "colour", "said"),
    [
        (1.9, "green", ""),
        (2.0, "green", ""),
        (8.0, "red", "8.0 points [4.2, 11.8] of LAMBADA lost, more than the 2 allowed"),
        (float("nan"), "amber", "what it costs by LAMBADA was not measured"),
    ],
)
def test_a_broken_limit_is_no_success(value: float, colour: str, said: str) -> None:
    spent = Spent("LAMBADA", "points", value, 2.0, (4.2, 11.8))
    found = verdict(ALL, "neutral", {"perplexity": (0.05, 0.1)}, [spent])
    assert found.colour == colour
    assert said in " ".join([*found.wrong, *found.missing])
    assert verdict(ALL, "neutral", {"perplexity": (0.05, 0.1)}).colour == "green"
    assert (spent.as_dict()["kept"] is None) == (value != value)


def test_limits_are_said_and_bad_ones_refused() -> None:
    assert LIMITS.text() == (
        "perplexity at most 10% up, at most 2 points of LAMBADA lost, at most 0.5 nats more for LAMBADA's last word, "
        "at most 3 points lost in the mean of lambada, piqa"
    )
    most = "--max-ppl 0.1 --max-lambada-points 2 --max-lambada-nats 0.5 --max-task-points 3"
    assert LIMITS.options() == f"{most} --limit-items 12"
    assert replace(LIMITS, items=Limits().items).options() == most
    assert Limits(0.1, lambada_points=1).text().endswith("at most 1 point of LAMBADA lost")
    assert Limits(0.1).text() == "perplexity at most 10% up"
    assert not Limits(0.1).beyond_ppl
    for wrong in ({"lambada_points": 0.0}, {"lambada_nats": -1.0}, {"task_points": 101.0}):
        with pytest.raises(InputError, match="is no limit: give --max-"):
            Limits(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--max-ppl"):
        Limits(0.0)


def test_limits_lie_within_looser_ones_of_the_same_kind() -> None:
    plain, one = Limits(0.1), Limits(0.1, lambada_points=2.0)
    assert plain.within(Limits(0.1))
    assert replace(plain, max_ppl=0.08).within(plain)
    assert not replace(plain, max_ppl=0.12).within(plain)
    assert one.within(replace(one, lambada_points=3.0))
    assert not one.within(replace(one, lambada_points=1.0))
    assert not one.within(plain)
    assert not plain.within(one)
    assert not replace(one, items=20).within(one)
    assert one.asked == ("lambada",)
    assert LIMITS.asked == ("lambada", "piqa")
    assert plain.asked == ()


@pytest.mark.parametrize("split", ["valid", "test"])
def test_what_is_stored_is_read_without_a_model(folder: Path, split: str) -> None:
    lm, store = tiny_lm("llama"), Store(folder / "cache")

    def known() -> StoredMeter:
        return StoredMeter(lm.id, lm.n_heads, LIMITS, split, store)

    assert all(np.isnan(one.value) for one in known().spent(HEADS))
    with pytest.raises(Unmeasured, match="LAMBADA"):
        known().fits(HEADS)
    measured = Meter(lm, LIMITS, split, store).spent(HEADS)
    assert known().spent(HEADS) == measured
    assert np.isnan(known().spent((1,))[0].value)
    generous = replace(LIMITS, lambada_points=100.0, lambada_nats=100.0, task_points=100.0)
    assert StoredMeter(lm.id, lm.n_heads, generous, split, store).fits(HEADS)


def test_a_search_within_more_limits_is_another_search() -> None:
    plain = SearchConfig(max_heads=3)
    more = searching.limited(plain, replace(Limits(), lambada_points=2.0, items=40))
    assert searching.limited(plain, Limits()) == plain
    assert (more.lambada_points, more.items, more.lambada_nats) == (2.0, 40, None)
    assert searching.limits_of(more) == Limits(lambada_points=2.0, items=40)


@pytest.mark.parametrize(
    ("value", "most", "unit", "said"),
    [
        (2.05, 2.0, "points", "2.05 points"),
        (12.67, 2.0, "points", "12.7 points"),
        (100.0, 2.0, "points", "100.0 points"),
        (-0.0, 2.0, "points", "0.0 points"),
        (-0.04, 2.0, "points", "0.0 points"),
        (0.1004, 0.1, "nats", "0.1004 nats"),
        (1.96, 2.0, "points", "2.0 points"),
    ],
)
def test_what_is_spent_never_contradicts_its_limit(value: float, most: float, unit: str, said: str) -> None:
    text = Spent("LAMBADA", unit, value, most).text()
    assert text == f"{said} of LAMBADA lost"
    assert (float(text.split()[0]) > most) == (value > most)


@pytest.mark.parametrize(
    ("max_ppl", "said"), [(0.1, "10%"), (0.025, "2.5%"), (0.004, "0.4%"), (0.075, "7.5%"), (0.07, "7%")]
)
def test_a_limit_is_said_as_it_was_given(max_ppl: float, said: str) -> None:
    assert Limits(max_ppl).text() == f"perplexity at most {said} up"
    (wrong,) = verdict(ALL, "neutral", {"perplexity": (max_ppl + 4e-4, max_ppl)}).wrong
    assert wrong.endswith(f"more than the {said} allowed")
    assert float(wrong.split("%")[0].split()[-1]) > 100 * max_ppl
