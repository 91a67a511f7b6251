"""Every benchmark but those in a browser, on a tiny model; and what their numbers are made of."""

from __future__ import annotations

import importlib
import json
import math
import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import (
    _browser,
    _common,
    audit,
    bias_scores,
    cluster,
    drag,
    exact_sweep,
    live,
    noise,
    scaling,
    start,
    utility,
    words,
    written,
)
from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.estimate import first_order_impacts
from fasp_core.storage.store import Store
from fasp_core.studies.contexts import scenarios
from fasp_core.tasks import files
from tests.support.made import tiny_questions, write_task
from tests.support.numbered import NUMBERED, numbered_lm
from tests.support.tiny import tiny_lm
from tests.support.worlds import WordScorer, use_scorer, write_axis, write_text

LAYERS = 4


@pytest.fixture
def lm() -> LanguageModel:
    return tiny_lm("llama", n_layers=LAYERS)


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 200, tokens=200, window=64, stride=64)


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BiasConfig:
    use_scorer(monkeypatch)
    return BiasConfig(write_axis(tmp_path / "own.csv"), split="all", n_prompts=36)


def positive(found: dict[str, Any], *keys: str) -> None:
    for key in keys:
        assert math.isfinite(found[key]), key
        assert found[key] > 0, key
    json.dumps(command.rounded(found), allow_nan=False)


# noise


def test_noise(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "VOCABULARIES", (300, 500))
    found = noise.run(lm, rows=3, rounds=2, steps=2)
    positive(found, "ratio_to_torch_generator", "ratio_to_numpy_philox", "step_seconds", "share_of_step")
    assert set(found["rows_a_second"]) == {"300", "500"}
    assert {len(ways) for ways in found["rows_a_second"].values()} == {3}


# audit


def test_audit() -> None:
    world = scenarios.parse(NUMBERED, "rooms.toml")
    found = audit.run(numbered_lm(), world, "rooms", names=2, samples=40, seeds=2, whole=4, nodes=2)
    positive(found, "variance_ratio", "variance_ratio_mean_abs", "seconds_scenario")
    variance, seconds = found["variance"], found["processor_seconds"]
    assert found["variance_ratio"] == pytest.approx(
        variance["sampled"] * seconds["sampled"] / (variance["exact"] * seconds["exact"])
    )
    assert (found["scenarios"], found["names"], found["names_scenario"]) == (1, 4, 4)
    assert 0 < found["covered"] < 1


# written


def test_written(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch)
    config = BiasConfig("race_ethnicity", "test", 18)
    found = written.run(lm, config, Store(tmp_path), heads="L0H1,L1H2", steps=3, contexts=2, seeds=2)
    positive(found, "variance_ratio_written", "variance_ratio_shared", "variance_ratio_shared_direct")
    variance, seconds = found["variance"], found["processor_seconds"]
    assert found["variance_ratio_written"] == pytest.approx(
        variance["sampled"] * seconds["sampled"] / (variance["written"] * seconds["written"])
    )
    assert found["prompts"] == 18


def test_a_spread_is_the_variance_of_what_groups_change_by() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1], 50)
    pairs = [(np.full(100, 2.0), 2.0 + rng.normal(0, 1, 100)) for _ in range(4000)]
    assert written.spread(pairs, codes) == pytest.approx(2 * (1 / 2) ** 2 / 50, rel=0.1)
    calm = [(np.full(100, 2.0), np.full(100, 1.0))] * 3
    assert written.spread(calm, codes) == 0


# utility


def test_utility(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "piqa", tiny_questions(6, 3))
    write_task(tmp_path, "arc_easy", tiny_questions(4, 2, 1))
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    found = utility.run(lm, ("piqa", "arc_easy"), items=5, batch_sizes=(1, 2), threads=1)
    positive(found, "items_per_second", "ratio_against_lm_eval")
    assert found["max_abs_diff_nats"] < 1e-4
    assert found["lm_eval_batch_size"] in (1, 2)
    assert found["items"] == {"piqa": 5, "arc_easy": 4}
    assert found["answers"] == 5 * 3 + 4 * 2
    fastest = {name: min(laps) for name, laps in found["seconds"].items()}
    assert found["ratio_against_lm_eval"] == pytest.approx(fastest["lm_eval"] / fastest["ours"])
    assert found["items_per_second"] == pytest.approx(9 / fastest["ours"])


def test_utility_without_the_harness(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lm_eval", "lm_eval.api.instance"):
        monkeypatch.setitem(sys.modules, name, None)
    assert command.main(["utility"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "run 'pip install -r requirements-dev.txt'" in line


# exact_sweep


def test_exact_sweep(lm: LanguageModel, text: TextConfig) -> None:
    found = exact_sweep.run(lm, text)
    positive(found, "ratio", "bound", "plain_seconds", "resumed_seconds")
    assert found["max_abs_diff_nats"] <= 1e-5
    assert found["equal_within_1e-5"]
    assert found["heads"] == lm.size
    assert found["tokens"] == 200 - 4  # the first token of a window is not scored
    assert found["ratio"] == pytest.approx(found["plain_seconds"] / found["resumed_seconds"])


def test_exact_sweep_notices_other_results(
    lm: LanguageModel, text: TextConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the sweep to remove another head than the plain way, the difference would say so."""
    real = exact_sweep.masked

    def wrong(lm: LanguageModel, heads: PruneSet) -> Any:
        (layer, head) = next(iter(heads))
        return real(lm, PruneSet.of([(layer, (head + 1) % lm.n_heads)]))

    monkeypatch.setattr(exact_sweep, "masked", wrong)
    found = exact_sweep.run(lm, text, heads=[1, 6])
    assert found["max_abs_diff_nats"] > 1e-5
    assert not found["equal_within_1e-5"]


def test_exact_sweep_bound_by_counting_blocks(lm: LanguageModel, text: TextConfig) -> None:
    """Blocks are counted while both ways run; the base pass' own blocks are taken off."""
    found = exact_sweep.run(lm, text)
    calls = [0]
    for block in lm.blocks:
        block.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    exact_sweep.run(lm, text)
    passes = 3  # of one text: 200 tokens are three full windows and a short one, two in a pass
    run_once = 2 * lm.n_layers * passes  # unmasked, once each way
    counts = found["bound_counts"]
    blocks = lm.size * passes * (counts["blocks_plain"] + counts["blocks_resumed"])
    assert calls[0] == pytest.approx(run_once + blocks)
    # all heads of all layers: on average (L + 1) / 2 blocks above, and one walk up to the last layer
    assert counts["blocks_resumed"] == pytest.approx((LAYERS + 1) / 2 + (LAYERS - 1) / lm.size)
    free_unembedding = counts["blocks_plain"] / counts["blocks_resumed"]
    assert 1 < found["bound"] < free_unembedding


# bias_scores


def test_bias_scores(lm: LanguageModel, text: TextConfig, prompts: BiasConfig, tmp_path: Path) -> None:
    found = bias_scores.run(
        lm, prompts, text, Store(tmp_path / "store"), sizes=(18, 36), target=0.999, heads=3, recipe=(4, 3)
    )
    positive(found, "ratio_plain", "ratio_released", "seconds", "plain_seconds", "released_seconds")
    assert set(found["by_reading"]) == {"neutral", "counted"}
    assert [row["prompts"] for row in found["rounds"]] == [18, 36]
    assert found["prompts"] in (18, 36)
    more = found["extrapolation"]
    assert more["heads_timed"] == 3
    assert found["plain_seconds"] == pytest.approx(np.mean(more["plain_seconds_a_head"]) * lm.size)
    per_head = more["released_seconds_a_continuation"] * 10_168
    assert found["released_seconds"] == pytest.approx(per_head * lm.size)
    assert "12 of 16 heads" in found["reliability_of"]


def test_reliability_of_rows_taken_over(
    lm: LanguageModel, text: TextConfig, prompts: BiasConfig, tmp_path: Path
) -> None:
    """The search ends at the reliability of one run on all its prompts, and stops as soon as it may."""
    store = Store(tmp_path / "store")
    free = list(range(0, lm.size, 2))
    rounds = bias_scores._search(lm, prompts, store, (18, 36), 2.0, free)
    whole = first_order_impacts(lm, prompts, store)
    for reading in ("neutral", "counted"):
        assert rounds[-1]["reliability"][reading] == pytest.approx(whole.reliability(reading, free).whole, abs=1e-3)
    assert len(bias_scores._search(lm, prompts, store, (18, 36), -1.0, free)) == 1


def test_first_sure_is_the_smallest() -> None:
    rounds = [{"asked": n, "reliability": {"neutral": r}} for n, r in ((10, 0.5), (20, 0.92), (40, 0.95))]
    assert bias_scores._first_sure(rounds, "neutral", 0.9)["asked"] == 20
    assert bias_scores._first_sure(rounds, "neutral", 0.99)["asked"] == 40


def test_equal_prompts_are_of_the_commonest_length() -> None:
    rows = [[1], [2, 3], [4, 5], [6, 7, 8]]
    assert bias_scores._equal_prompts(rows, 3).tolist() == [[2, 3], [4, 5], [2, 3]]


# live


def test_live(lm: LanguageModel, text: TextConfig, prompts: BiasConfig, tmp_path: Path) -> None:
    config = EvalConfig(prompts, text)
    found = live.run(lm, config, Store(tmp_path / "store"), toggles=4, pruned=3, worst=1, plain=2)
    names = ("measure_p50_s", "measure_p95_s", "measure_max_s", "measure_upper_p95_s", "without_desk_p50_s")
    positive(found, "estimate_p50_ms", "estimate_p95_ms", *names)
    assert found["max_abs_diff_without_desk"] < 1e-5
    assert found["toggles"] == 4
    assert found["upper_toggles"] >= 4
    assert found["measure_p50_s"] <= found["measure_p95_s"] <= found["measure_max_s"]
    assert found["prompts"] == 36
    assert not (tmp_path / "store" / "measured").exists()


def test_live_without_a_browser_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_browser, "BROWSERS", ("no-such-browser",))
    (told,) = live._on_page().values()
    assert "install chromium" in told


def test_live_toggles_no_head_twice(lm: LanguageModel) -> None:
    """A head toggled twice would bring back a set whose measurement is stored."""
    plan = live._plan(lm, toggles=6, worst=2, seed=3)
    heads = [head for head, _ in plan]
    assert len(set(heads)) == len(heads)
    assert [kind for _, kind in plan].count("random") == 6
    assert sum(head // lm.n_heads >= LAYERS / 2 for head in heads) >= 6
    assert all(head < lm.n_heads for head, kind in plan if kind == "worst")


# scaling


def test_scaling() -> None:
    small = scaling.Size(layers=2, heads=2, hidden=16, prompts=4, length=4, tokens=32)
    axes = {
        "exact_ppl": {"layers": (1, 2), "heads": (2, 4)},
        "exact_bias": {"prompts": (4, 8)},
        "first_order": {"heads": (2, 4)},
    }
    found = scaling.run(axes, small, built_in=False, apart=False)
    assert set(found["exponents"]) == set(axes)
    slopes = [x for job in found["exponents"].values() for axis in job.values() for x in axis.values()]
    assert len(slopes) == 8
    assert np.isfinite(slopes).all()
    positive(found, "peak_bytes")
    assert found["points"]["exact_ppl"]["layers"][1]["seconds"] == found["points"]["exact_ppl"]["heads"][0]["seconds"]


def test_exponent_of_a_power() -> None:
    values = np.array([2.0, 4.0, 8.0, 16.0])
    assert scaling._exponent(values, 3 * values**1.7) == pytest.approx(1.7)


@pytest.mark.slow  # another process that imports all; peaks of this one are tried below
def test_a_size_of_its_own_process() -> None:
    """Its peak is its own: on Linux `ru_maxrss` of a child begins with its parent's."""
    block = np.ones(700_000_000, dtype=np.uint8)
    size = scaling.Size(layers=1, heads=2, hidden=16, prompts=2, length=4, tokens=16)
    found = scaling._apart("exact_ppl", size)
    positive(found, "seconds", "peak_bytes", "working_bytes")
    assert 50e6 < found["peak_bytes"] < _common.memory()[1] - 100e6  # an interpreter with torch, without the block
    assert block[-1]


def test_scoring_peak(lm: LanguageModel, text: TextConfig, prompts: BiasConfig, tmp_path: Path) -> None:
    found = scaling.score_some(lm, Store(tmp_path / "store"), prompts, text, heads=2)
    assert found["peak_bytes"] >= 50e6
    assert found["prompts"] == 36


# what they share


def test_peak_holds_what_was_freed() -> None:
    _common.forget_peak()
    before, _ = _common.memory()
    with mmap.mmap(-1, 100_000_000) as pages:  # never pages that the allocator still holds, as an array's may be
        pages.write(bytes(1) * len(pages))
    now, peak = _common.memory()
    assert peak >= before + 80_000_000
    assert now <= peak


@pytest.mark.parametrize(("count", "layers"), [(4, {0, 1, 2, 3}), (2, {0, 3}), (99, {0, 1, 2, 3})])
def test_spread_reaches_both_ends(lm: LanguageModel, count: int, layers: set[int]) -> None:
    found = _common.spread(lm, count)
    assert {flat // lm.n_heads for flat in found} == layers
    assert len(found) == min(count, lm.size)


# the command


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_sweep, "run", lambda: {"ratio": 1.2345678, "odd": math.nan, "rows": [{"a": 1.0}]})
    assert command.main(["exact_sweep", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["benchmark"] == "exact_sweep"
    assert found["ratio"] == 1.2346
    assert found["odd"] is None
    assert found["rows"] == [{"a": 1.0}]
    assert command.main(["exact_sweep"]) == 0
    assert "ratio" in capsys.readouterr().out.splitlines()[1]


def test_one_that_cannot_run_stops_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_browser, "BROWSERS", ("no-such-browser",))
    monkeypatch.setattr(exact_sweep, "run", lambda: {"ratio": 2.0})
    assert command.main(["start", "exact_sweep", "--json"]) == 1
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1
    assert "Chromium" in shown.err
    assert json.loads(shown.out)["ratio"] == 2.0


@pytest.mark.parametrize("path", sorted(Path(command.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_every_module_can_be_imported(path: Path) -> None:
    importlib.import_module("benchmarks" if path.stem == "__init__" else f"benchmarks.{path.stem}")


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["nothing"])
    assert "exact_sweep" in capsys.readouterr().err


def test_all_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, every = (
        [],
        [audit, bias_scores, cluster, drag, exact_sweep, live, noise, scaling, start, utility, words, written],
    )
    for module in every:
        monkeypatch.setattr(module, "run", lambda module=module: ran.append(module) or {"x": 1})
    assert command.main([]) == 0
    assert ran == every


def test_models_stay_as_they_were(lm: LanguageModel) -> None:
    """Timed heads are removed by hooks that are gone afterwards."""
    ids = torch.arange(6)[None]
    before = lm.model(ids).logits
    bias_scores._generate(lm, ids, 2)
    assert torch.equal(lm.model(ids).logits, before)
    assert not any(lm.out_proj(layer)._forward_pre_hooks for layer in range(lm.n_layers))


def test_words(lm: LanguageModel, tmp_path: Path) -> None:
    found = words.run(lm, WordScorer(knows=True), Store(tmp_path), sizes=(100, 200, 400), width=8, sample=6, timed=20)
    assert found["max_abs_diff"] < 1e-5
    assert found["max_abs_diff_stored"] < 1e-6
    assert found["by_need"]["max_abs_diff"] < 1e-5  # no hyphens there
    assert [row["words"] for row in found["growth"]] == [100, 200, 400]
    assert math.isfinite(found["exponent_vocabulary"])
