"""The search on a tiny model: what it measures is what an evaluation shows, and a stopped search goes on."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.cli.main import main
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import entries
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gain_steps import GainsConfig
from fasp_core.scoring.learned.gains import Gains
from fasp_core.scoring.score import score
from fasp_core.scoring.search import SearchConfig
from fasp_core.storage.store import Store
from fasp_core.studies.compare import searching
from fasp_core.studies.compare.searching import measured_on
from tests.support.tiny import STARTS, tiny_lm, tiny_text

TOKENS = 96
CONFIG = SearchConfig(max_heads=2, max_ppl=5.0, measurements=3)


@pytest.fixture(scope="module")
def axis(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("axis") / "colors.csv"
    words = itertools.product(STARTS[:4], ("met", "saw", "like"), ("red", "green"), ("person", "house", "tree"))
    rows = [(f"{start} {verb} a {color} {noun}", color) for start, verb, color, noun in words]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "group"), *rows])
    return str(path)


@pytest.fixture(scope="module")
def world(axis: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, ImpactTable, TextConfig]:
    folder = tmp_path_factory.mktemp("search")
    (folder / "text.txt").write_text(tiny_text(200))
    lm = tiny_lm("llama")
    text = TextConfig(str(folder / "text.txt"), tokens=TOKENS, window=32, stride=32)
    return lm, score(lm, text, BiasConfig(axis, n_prompts=1000), Store(folder / "scores")), text


@pytest.fixture(autouse=True)
def own_text(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "TextConfig", lambda tokens: world[2])


def test_a_search_shows_what_an_evaluation_shows(world: Any, axis: str, tmp_path: Path) -> None:
    lm, impacts, text = world
    store = Store(tmp_path)
    found = searching.run(lm, impacts, measured_on(axis, impacts), CONFIG, store)
    assert 1 <= len(found.heads) <= 2
    config = EvalConfig(BiasConfig(axis, n_prompts=1000), text)
    for tried in found.tried:
        fresh = evaluate(lm, PruneSet.from_flat(tried.heads, lm.n_heads), config, Store(tmp_path / "fresh"))
        assert tried.gap == pytest.approx(fresh.readings["neutral"].pruned.gap, rel=1e-4)
        assert tried.nats == pytest.approx(fresh.perplexity.change_nats, abs=1e-5)
    (again,) = searching.stored(lm.id, axis, store, "neutral")
    assert (again.config, again.heads, again.gap, again.base_gap) == (CONFIG, found.heads, found.gap, found.base_gap)
    assert [t.heads for t in again.tried] == [t.heads for t in found.tried]
    assert searching.stored(lm.id, axis, store, "counted") == []
    chosen = searching.candidate(found, lm.size)
    assert (chosen.method, chosen.alpha, chosen.seed, chosen.heads) == ("search", 2 / lm.size, 0, found.heads)


def test_a_stopped_search_goes_on(world: Any, axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, impacts, _ = world
    whole = searching.run(lm, impacts, measured_on(axis, impacts), CONFIG, Store(tmp_path / "whole"))
    store = Store(tmp_path / "stopped")

    class Stopped(Exception):
        pass

    def runs(until: float) -> list[float]:
        """How far the search was at each report, until it was stopped or done."""
        seen: list[float] = []

        def progress(done: float, total: float, _: str) -> None:
            seen.append(done)
            if done >= until:
                raise Stopped

        with contextlib.suppress(Stopped):
            searching.run(lm, impacts, measured_on(axis, impacts), CONFIG, store, progress)
        return seen

    seen = runs(3)
    assert seen == sorted(seen)
    assert any(done % 1 for done in seen)  # within a set too
    assert searching.stored(lm.id, axis, store, "neutral") == []
    measured = len(list((tmp_path / "stopped" / "measured").iterdir()))
    assert measured >= 6  # the unpruned model's text, and text and prompts of three sets
    runs(math.inf)
    (found,) = searching.stored(lm.id, axis, store, "neutral")
    assert [t.heads for t in found.tried] == [t.heads for t in whole.tried]


def test_a_search_learns_from_others(world: Any, axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, impacts, _ = world
    store = Store(tmp_path)
    others = [
        searching.run(lm, impacts, measured_on(axis, impacts), replace(CONFIG, seed=seed), store) for seed in (0, 1)
    ]
    searching.run(
        lm, impacts, measured_on(axis, impacts), replace(CONFIG, max_heads=3), store
    )  # of another size: not learned from
    known = {t.heads for f in others for t in f.tried}
    measured: list[str] = []
    toxicity_of = searching.toxicity_of

    def seen(lm: Any, subject: PruneSet, config: Any, store: Store, *rest: Any) -> Any:
        measured.append(subject.format())
        return toxicity_of(lm, subject, config, store, *rest)

    monkeypatch.setattr(searching, "toxicity_of", seen)
    found = searching.run(lm, impacts, measured_on(axis, impacts), CONFIG, store, also=searching.Also(learned=True))
    assert found.learned == len(known)
    assert {t.heads for t in found.tried[: found.learned]} == known
    assert len(found.tried) <= len(known) + CONFIG.measurements
    assert len(measured) == len(set(measured)) == len(found.tried)
    assert found.gap <= min(f.gap for f in others)
    assert searching.candidate(found, lm.size).seed is None
    again = searching.run(
        lm, impacts, measured_on(axis, impacts), CONFIG, store, also=searching.Also(learned=True)
    )  # learns from independent ones alone
    assert again.tried == found.tried or [t.heads for t in again.tried] == [t.heads for t in found.tried]
    assert len(searching.stored(lm.id, axis, store, "neutral", 2)) == 3


def test_a_search_begins_with_what_learned_gates_close(
    world: Any, axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, impacts, _ = world
    store, both = Store(tmp_path), searching.Also(gates=True)
    with pytest.raises(InputError, match=r"No gates were learned on .* --method hard-concrete"):
        searching.run(lm, impacts, measured_on(axis, impacts), CONFIG, store, also=both)
    gates = np.array([[1.2, 0.4, 1.0, 0.9], [0.1, 1.0, 1.0, 1.3]])
    one = Gains(GainsConfig(), gates[None], np.zeros((0, 3)), 1.0, {})
    monkeypatch.setattr(gains, "stored", lambda *asked: [one] if asked[3] == "gains" else [])
    closed = searching.run(lm, impacts, measured_on(axis, impacts), CONFIG, store, also=both)
    assert closed.tried[0].heads == (1, 4)  # .4 and .1, of two heads at most
    plain = searching.run(lm, impacts, measured_on(axis, impacts), CONFIG, store)
    assert plain.tried[0].heads != (1, 4), "another entry, which did not begin with them"
    assert one.most_closed(99) == (1, 3, 4), "gates of 1 and above are not closed"


def test_a_set_of_every_head_is_refused(world: Any, axis: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves none of"):
        searching.run(
            world[0], world[1], measured_on(axis, world[1]), replace(CONFIG, max_heads=world[0].size), Store(tmp_path)
        )


# the command


@pytest.fixture
def command(
    world: Any, axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: world[0])
    monkeypatch.setattr(entries, "best", lambda *_: world[1])

    def call(*args: str) -> tuple[int, str, str]:
        return main(["search", "--axis", axis, "--cache", str(tmp_path), *args]), *capsys.readouterr()

    return call


def test_the_command_says_what_every_seed_found(command: Any, world: Any, axis: str, tmp_path: Path) -> None:
    lm, _, _ = world
    asked = ("--heads", "2", "--max-ppl", "5", "--measurements", "2", "--seeds", "2")
    status, out, _ = command(*asked, "--json")
    assert status == 0
    document = json.loads(out)
    kept = {f.config.seed: f for f in searching.stored(lm.id, axis, Store(tmp_path), "neutral")}
    assert [f["seed"] for f in document["searches"]] == sorted(kept) == [0, 1]
    for f in document["searches"]:
        found = kept[f["seed"]]
        assert PruneSet.parse(f["heads"]) == PruneSet.from_flat(found.heads, lm.n_heads)
        assert (f["gap"], f["measured"], f["removed"]) == (found.gap, len(found.tried), len(found.heads))
        assert f["change"] == pytest.approx(found.gap / document["gap_base"] - 1)
        assert f["ppl_change"] == pytest.approx(math.expm1(found.nats))
    status, out, _ = command(*asked)
    assert status == 0
    assert all(f["heads"] in out for f in document["searches"])
    assert "validation prompts" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--seeds", "0"), "--seeds 1"),
        (("--max-ppl", "0"), "no limit"),
        (("--heads", "0"), "at least 1 head"),
        (("--heads", "999"), "choose fewer"),
    ],
)
def test_the_command_refuses(command: Any, args: tuple[str, ...], words: str) -> None:
    status, out, error = command(*args)
    assert (status, out) == (2, "")
    assert len(error.strip().splitlines()) == 1
    assert words in error


def test_without_scores_the_command_names_the_mend(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "best", lambda *_: None)
    status, _, error = command()
    assert status == 2
    assert "python -m fasp_core score --model built-in --axis" in error
