"""Agreement of estimators over sets: which sets, correlations against SciPy, and a run that goes on where it was."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fasp_core.console import to_json
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap import PromptRows, group_codes, split_half_reliability
from fasp_core.gap import gap as toxicity_gap
from fasp_core.heads.selection import critical_heads
from fasp_core.metrics.measurements import Toxicity
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.estimate import first_order_impacts, refined_impacts
from fasp_core.scoring.exact import bias_impacts, ppl_impacts
from fasp_core.storage.store import Store
from fasp_core.studies.common import RESAMPLES
from fasp_core.studies.estimators import agreement
from fasp_core.studies.estimators import refined as cure
from fasp_core.studies.estimators.sets import FEWEST, NamedSet, sets
from tests.support.fakes import make_table
from tests.support.tiny import tiny_lm, tiny_text
from tests.support.worlds import PEOPLE, use_scorer, write_axis

HEADS = 4  # a layer, of tables and tiny models
together = PromptRows.paired


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LanguageModel, str, TextConfig, Store]:
    use_scorer(monkeypatch, None, True, agreement)
    (tmp_path / "text.txt").write_text(tiny_text(200))
    text = TextConfig(str(tmp_path / "text.txt"), tokens=120, window=64, stride=64)
    return tiny_lm("llama", n_layers=3), write_axis(tmp_path / "own.csv", PEOPLE), text, Store(tmp_path / "store")


def test_the_loop_replayed_is_the_one_that_is_run(tiny: tuple[LanguageModel, str, TextConfig, Store]) -> None:
    lm, axis, text, store = tiny
    config = BiasConfig(axis, split="all", n_prompts=60)
    refined = refined_impacts(lm, text, config, store)
    first = first_order_impacts(lm, config, store)
    exact = bias_impacts(lm, config, store)
    removed, z = cure.refine_on(exact, first, ppl_impacts(lm, text, store).z_nats)
    assert refined.exact is not None
    assert removed.tolist() == refined.exact.tolist()
    assert 0 < removed.sum() < lm.size
    for r, reading in enumerate(refined.readings):
        assert z[r] == pytest.approx(refined.z_bias(reading), abs=1e-6)


# sets


@pytest.mark.parametrize("seed", range(3))
def test_sets_have_their_sizes_and_avoid_critical_heads(seed: int) -> None:
    table = make_table(30, 9, n=60, seed=seed)
    z, critical = table.bias.z_bias("neutral"), set(critical_heads(table.ppl.z_nats, 0.3).tolist())
    found = {s.name: set(s.heads) for s in sets(table, seed)}
    assert len(found) >= FEWEST
    assert len({tuple(sorted(heads)) for heads in found.values()}) == len(found)
    free = sorted(set(range(270)) - critical, key=lambda h: -z[h])
    for k in (5, 13, 27):
        assert found[f"FASP {k}, neutral"] == set(free[:k])
        counted = table.bias.z_bias("counted")
        assert found[f"FASP {k}, counted"] == set(sorted(free, key=lambda h: -counted[h])[:k])
        assert len(found[f"random {k}"]) == k
    for k in (5, 13):
        assert found[f"opposite {k}"] == set(free[-k:])
    for k in (13, 27):
        mixed = found[f"half FASP, half random {k}"]
        assert len(mixed) == k
        assert mixed >= set(free[: k - k // 2])
        assert not mixed & critical
    assert found["ppl-only 13"] == set(np.argsort(table.ppl.z_nats)[:13].tolist())
    assert found["bias-only 13"] == set(np.argsort(-z)[:13].tolist())
    strong = max(set(range(270)) - critical, key=lambda h: abs(z[h]))
    assert found["one strong head"] == {strong}
    assert sets(table, seed) == sets(table, seed)
    assert sets(table, seed) != sets(table, seed + 1)


def test_equal_sets_are_one_point() -> None:
    table = make_table(30, 9, n=60)
    same = replace(table.bias, base=table.bias.base[[0, 0]], ablated=table.bias.ablated[:, [0, 0]])
    found = sets(replace(table, bias=same))
    assert "FASP 13, neutral = FASP 13, counted" in {s.name for s in found}
    assert len({s.heads for s in found}) == len(found) >= FEWEST


def test_a_model_with_too_few_heads_is_refused() -> None:
    with pytest.raises(InputError, match="not critical"):
        sets(make_table(3, HEADS))


# correlations over sets


def test_correlations_over_sets_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    truth_ = rng.normal(size=12)
    one, other = truth_ + rng.normal(0, 0.3, 12), truth_ + rng.normal(0, 0.3, 12)
    noise = rng.normal(0, 0.1, (2, 12, RESAMPLES))
    found = agreement.correlate("gap", "neutral", (one, one[:, None] + noise[0]), (other, other[:, None] + noise[1]))
    assert found.pearson.value == found.pearson_sets.value == pytest.approx(stats.pearsonr(one, other).statistic)
    assert found.spearman.value == pytest.approx(stats.spearmanr(one, other).statistic)
    assert found.pearson_sets.low < found.pearson.low < found.pearson.value < found.pearson.high


def test_noise_that_both_measures_share_is_resampled_together() -> None:
    """Both are the same function of the prompts, so no resample can part them."""
    rng = np.random.default_rng(1)
    one, drawn = rng.normal(size=6), rng.normal(size=(6, RESAMPLES))
    found = agreement.correlate("gap", "neutral", (one, drawn), (2 * one, 2 * drawn))
    assert (found.pearson.low, found.spearman.low) == pytest.approx((1, 1))


@pytest.mark.parametrize("quantity", agreement.QUANTITIES)
@pytest.mark.parametrize("k", [2, 5])
def test_the_ceiling_is_what_a_second_draw_of_all_samples_would_show(quantity: str, k: int) -> None:
    """Reliability predicts the correlation of two draws, and its root that with the truth."""
    rng = np.random.default_rng(2)
    codes = np.arange(150) % 3
    n = 1000
    means = 0.1 + 0.1 * codes + rng.normal(0, 0.03, (n, 1)) + rng.normal(0, 0.02, (n, 1)) * codes

    def draw() -> np.ndarray:
        return means[..., None] + rng.normal(0, 0.25, (n, 150, k))

    def change(x: np.ndarray) -> np.ndarray:
        return x.mean(1) if quantity == "toxicity" else toxicity_gap(x, codes)

    scores, again = draw(), draw()
    scores[0] = again[0] = means[0][:, None]
    found = agreement.ceiling(quantity, scores, codes, splits=10)
    a, b, true = (change(x)[1:] for x in (scores.mean(2), again.mean(2), means))
    assert 0.3 < found.pearson < 0.97  # the case is one that can go wrong
    assert found.pearson == pytest.approx(stats.pearsonr(a, b).statistic, abs=0.06)
    assert found.spearman == pytest.approx(stats.spearmanr(a, b).statistic, abs=0.06)
    assert found.pearson_ceiling == pytest.approx(stats.pearsonr(a, true).statistic, abs=0.06)
    assert found.pearson_ceiling == pytest.approx(math.sqrt(found.pearson))


def test_the_ceiling_without_noise_is_one_and_needs_two_samples() -> None:
    rng = np.random.default_rng(3)
    codes = np.arange(30) % 2
    scores = np.repeat(rng.random((6, 30, 1)), 4, 2)
    assert agreement.ceiling("gap", scores, codes).pearson_ceiling == pytest.approx(1.0)
    assert math.isnan(agreement.ceiling("gap", scores[..., :1], codes).pearson)


def test_changes_of_sets_are_paired() -> None:
    rng = np.random.default_rng(4)
    n, groups = 24, tuple("abc"[i % 3] for i in range(24))
    codes, _ = group_codes(groups)
    scores = rng.random((5, n, 2))
    rows = rng.random((5, 2, n))
    blocks = tuple(i // 3 for i in range(n))
    expected = [Toxicity(("neutral", "counted"), r, (), groups, (), {}, blocks) for r in rows]
    sampled = [Toxicity(("sampled",), s.mean(1)[None], (), groups, (), {}, blocks) for s in scores]
    words = rng.random((5, 2, n))
    written = [Toxicity(("neutral", "counted"), w, (), groups, (), {}, blocks) for w in words]
    named = [NamedSet(f"set {i}", (i, i + 4)) for i in range(4)]
    measured = {"expected": expected, "written": written, "sampled": sampled}
    found = agreement.agree(agreement.Plan("axis", length=8, written=3), named, measured, scores, HEADS)
    assert (found.prompts, found.groups, found.blocks, found.samples, found.continuations) == (24, 3, 8, 2, 48)
    for i, s in enumerate(found.sets):
        assert (s.name, s.heads, s.size) == (f"set {i}", f"L0H{i},L1H{i}", 2)
        for name, base, row in (
            ("neutral", rows[0, 0], rows[i + 1, 0]),
            ("counted", rows[0, 1], rows[i + 1, 1]),
            ("written, neutral", words[0, 0], words[i + 1, 0]),
            ("written, counted", words[0, 1], words[i + 1, 1]),
            ("sampled", scores[0].mean(1), scores[i + 1].mean(1)),
        ):
            assert s.gap[name].change == pytest.approx(toxicity_gap(row, codes) - toxicity_gap(base, codes))
            assert s.toxicity[name].change == pytest.approx(row.mean() - base.mean())
    for c in found.correlations:
        changes = [getattr(s, c.quantity) for s in found.sets]
        a, b = ([x[name].change for x in changes] for name in (c.reading, "sampled"))
        assert c.pearson.value == pytest.approx(stats.pearsonr(a, b).statistic)
        assert c.spearman.value == pytest.approx(stats.spearmanr(a, b).statistic)
    assert [(c.quantity, c.reading) for c in found.correlations] == [
        (q, r) for q in ("gap", "toxicity") for r in ("neutral", "counted", "written, neutral", "written, counted")
    ]
    text = agreement.markdown([found])
    assert "48 for each" in text
    assert "Written: 3 continuations of 8 words a prompt, 72 for each model." in text
    assert "8 blocks of prompts" in text
    assert all(s.name in text for s in found.sets)
    assert found.repeats["sampled"] == pytest.approx(
        split_half_reliability(together(scores[0].mean(1), scores[1:].mean(2), codes, blocks)).whole
    )
    json.loads(to_json(asdict(found)))


# the run


class Stopped(Exception):
    pass


def test_a_run_goes_on_where_it_was_and_measures_nothing_twice(
    tiny: tuple[LanguageModel, str, TextConfig, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, axis, _, store = tiny
    plan = agreement.Plan(axis, 60, 2, 4, written=1, steps=2)
    chosen = sets(make_table(3, HEADS), 0, (1, 2, 3))[:5]
    calls: list[int] = []
    lm.model.base_model.register_forward_pre_hook(lambda *_: calls.append(1))
    seen: list[tuple[float, float]] = []

    def stop(done: float, total: float, _text: str) -> None:
        if done >= 14:  # among the sampled ones
            raise Stopped
        seen.append((done, total))

    with pytest.raises(Stopped):
        agreement.run(lm, plan, store, stop, chosen=chosen)
    before = len(calls)
    assert before
    assert {total for _, total in seen} == {3 * 6}
    found = agreement.run(lm, plan, store, chosen=chosen)
    rest = len(calls) - before
    assert rest > 0

    scores: list[np.ndarray] = []
    original = agreement.agree

    def spy(*args: object, **named: object) -> agreement.Agreement:
        measured, each = args[2], args[3]
        assert isinstance(measured, dict)
        assert isinstance(each, np.ndarray)
        scores.append(each)
        for row, one in zip(each, measured["sampled"], strict=True):
            assert row.mean(1) == pytest.approx(one.row("sampled"))
        assert [len(side) for side in measured.values()] == [6, 6, 6]
        return original(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(agreement, "agree", spy)
    again = agreement.run(lm, plan, store, chosen=chosen)
    assert len(calls) == before + rest
    assert asdict(again) == asdict(found)
    assert scores[0].shape == (6, found.prompts, 2)
    assert found.continuations == 2 * found.prompts >= 2 * 60
    assert len({s.gap["sampled"].change for s in found.sets}) > 1  # sets differ


def test_two_sets_are_too_few(tiny: tuple[LanguageModel, str, TextConfig, Store]) -> None:
    lm, axis, _, store = tiny
    with pytest.raises(InputError, match="at least 3"):
        agreement.run(lm, agreement.Plan(axis, 12, 1, 2), store, chosen=[NamedSet("a", (0,)), NamedSet("b", (1,))])


def test_sets_come_from_stored_validation_scores(tiny: tuple[LanguageModel, str, TextConfig, Store]) -> None:
    lm, axis, _, store = tiny
    with pytest.raises(InputError, match="run 'python -m fasp_core score"):
        agreement.run(lm, agreement.Plan(axis, 12, 1, 2, scored_prompts=12, tokens=64), store)
