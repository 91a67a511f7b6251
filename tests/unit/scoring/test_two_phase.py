"""Two-phase scores: first-order rows of all prompts, corrected by exact rows of some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from scipy import stats

from fasp_core import gap
from fasp_core.data.text import TextConfig
from fasp_core.gap import PromptRows
from fasp_core.gap.gaps import weighted_gaps
from fasp_core.gap.resampling import random_halves
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring import entries, estimate, score
from fasp_core.scoring.impact_table import BiasImpacts
from fasp_core.storage.store import Store
from tests.support.tiny import tiny_lm
from tests.support.worlds import use_scorer, write_text

together = PromptRows.paired

FEW, MANY = 12, 40


def gap_by_hand(first: np.ndarray, errors: np.ndarray, at: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> float:
    """Each group's mean is that of its estimates plus the mean error over its prompts that were checked."""
    means, mass = [], []
    for g in range(codes.max() + 1):
        mine = codes == g
        checked = [(w, e) for w, e, p in zip(weights[at], errors, at, strict=True) if codes[p] == g]
        error = sum(w * e for w, e in checked) / sum(w for w, _ in checked) if sum(w for w, _ in checked) else 0.0
        means.append((weights[mine] * first[mine]).sum() / weights[mine].sum() + error)
        mass.append(weights[mine].sum())
    overall = np.average(means, weights=mass)
    return float(sum(abs(overall - m) for m in means))


@settings(max_examples=40, deadline=None)
@given(hs.integers(0, 9999))
def test_a_corrected_gap_is_that_of_corrected_means(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([[0, 1, 2], rng.integers(0, 3, 27)])
    at = np.concatenate([[0, 1, 2], 3 + rng.permutation(27)[:6]])
    first, errors = rng.random((4, 30)), rng.normal(0, 0.1, (4, 9))
    weights = rng.integers(0, 4, (5, 30)) * 1.0
    weights[:, [3, 4, 5]] += 1
    weights = np.concatenate([weights, np.ones((1, 30))])
    if any((weights[:, codes == g].sum(1) == 0).any() for g in range(3)):
        return
    found = weighted_gaps(first, weights, codes, gap.Correction(errors, at))
    by_hand = [[gap_by_hand(f, e, at, w, codes) for w in weights] for f, e in zip(first, errors, strict=True)]
    np.testing.assert_allclose(found, by_hand, atol=1e-12)


def test_checking_every_prompt_leaves_nothing_of_the_estimate() -> None:
    rng = np.random.default_rng(0)
    codes, blocks = np.arange(60) % 3, np.arange(60) // 3
    base, exact, first = rng.random(60), rng.random((5, 60)), rng.random((5, 60))
    correction = gap.Correction(exact - first, np.arange(60))
    kept = together(base, exact, codes, blocks)
    estimated = together(base, first, codes, blocks)
    np.testing.assert_allclose(
        gap.resampled_effects(estimated, 50, 3, correction),
        gap.resampled_effects(kept, 50, 3),
        atol=1e-12,
    )
    one = gap.split_half_reliability(estimated, [0, 1, 3, 4], correction=correction)
    other = gap.split_half_reliability(kept, [0, 1, 3, 4])
    assert one.whole == pytest.approx(other.whole)


def test_reliability_splits_the_correction_too() -> None:
    """Were its noise common to both halves, they would seem to agree."""
    rng = np.random.default_rng(1)
    codes, blocks = np.arange(120) % 2, np.arange(120) // 2
    base, first = np.zeros(120), np.zeros((40, 120))  # first order knows nothing; errors are noise alone
    at = np.arange(24)
    correction = gap.Correction(rng.normal(size=(40, 24)), at)
    found = gap.split_half_reliability(together(base, first, codes, blocks), correction=correction, splits=30)
    half = random_halves(codes, 30, np.random.default_rng(0), blocks)
    pairs = list(zip(first, correction.rows, strict=True))
    one, two = (np.array([[-gap_by_hand(f, e, at, w, codes) for w in h] for f, e in pairs]) for h in (half, 1 - half))
    by_hand = np.mean([stats.spearmanr(a, b).statistic for a, b in zip(one.T, two.T, strict=True)])
    assert found.halves == pytest.approx(by_hand)
    assert abs(found.halves) < 0.25
    spread = first.copy()
    spread[:, 0::2] += correction.rows[:, 0::2].mean(1, keepdims=True)
    spread[:, 1::2] += correction.rows[:, 1::2].mean(1, keepdims=True)
    assert gap.split_half_reliability(together(base, spread, codes, blocks)).halves > 0.99  # what is avoided


@pytest.fixture
def few_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, complete=False)
    monkeypatch.setattr(entries, "EXACT_PROMPTS", FEW)
    monkeypatch.setattr(estimate, "GAMMA", 0.0)
    monkeypatch.setattr(estimate, "ALPHA", 0.15)


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 200, tokens=64, window=32, stride=32)


CONFIG = BiasConfig("age", n_prompts=MANY)


def test_two_phase_scores_of_a_model(few_exact: None, text: TextConfig, tmp_path: Path) -> None:
    lm, store = tiny_lm("llama", n_layers=5), Store(tmp_path / "store")
    found = score.score(lm, text, CONFIG, store, None, "two-phase").bias
    few = score.score(lm, text, replace(CONFIG, n_prompts=FEW), store, None, "refined").bias
    many = score.score(lm, text, CONFIG, store, None, "first-order").bias
    assert found.estimator == "two-phase"
    assert found.exact is not None
    assert few.exact is not None
    assert found.checked is not None
    assert 0 < found.exact.sum() < lm.size
    np.testing.assert_array_equal(found.exact, few.exact)
    prompts, part = CONFIG.prompts(), replace(CONFIG, n_prompts=FEW).prompts()
    assert [prompts.texts[i] for i in found.checked] == list(part.texts)
    np.testing.assert_allclose(found.ablated[found.exact][..., found.checked], few.ablated[few.exact], atol=1e-6)
    np.testing.assert_allclose(found.ablated[~found.exact], many.ablated[~found.exact], atol=1e-6)
    for r, reading in enumerate(found.readings):
        ones = np.ones(len(found.codes))
        for flat in range(lm.size):
            errors = few.ablated[flat, r] - many.ablated[flat, r, found.checked]
            errors = errors if few.exact[flat] else 0 * errors
            by_hand = gap_by_hand(many.ablated[flat, r], errors, found.checked, ones, found.codes)
            assert found.gap(reading).gap - found.z_bias(reading)[flat] == pytest.approx(by_hand, abs=1e-7)
        paired, correction = found.resampled_from(reading)
        rows = paired.values[1:]
        np.testing.assert_allclose(rows, many.ablated[:, r], atol=1e-6)
        assert correction is not None
        assert not correction.rows[~found.exact].any()
        assert np.isfinite(found.standard_errors(reading, 50)).all()
        assert np.isfinite(found.choice_probability(reading, 2, [], 50)).all()


def test_checking_all_prompts_is_refining_them(few_exact: None, text: TextConfig, tmp_path: Path) -> None:
    lm, config = tiny_lm("llama", n_layers=5), replace(CONFIG, n_prompts=FEW)
    found = score.score(lm, text, config, Store(tmp_path / "one"), None, "two-phase").bias
    refined = score.score(lm, text, config, Store(tmp_path / "two"), None, "refined").bias
    np.testing.assert_allclose(found.ablated, refined.ablated, atol=1e-6)
    for reading in found.readings:
        assert found.reliability(reading).whole == pytest.approx(refined.reliability(reading).whole, abs=1e-6)
        np.testing.assert_allclose(found.standard_errors(reading, 50), refined.standard_errors(reading, 50), rtol=1e-4)


def test_exact_scores_of_the_few_serve_where_they_are_stored(few_exact: None, text: TextConfig, tmp_path: Path) -> None:
    lm, store = tiny_lm("llama", n_layers=5), Store(tmp_path / "store")
    score.score(lm, text, replace(CONFIG, n_prompts=FEW), store)
    found = score.score(lm, text, CONFIG, store, None, "two-phase").bias
    assert found.exact is not None
    assert found.exact.all()


def test_they_are_found_and_never_taken_for_exact_rows(few_exact: None, text: TextConfig, tmp_path: Path) -> None:
    lm, store = tiny_lm("llama", n_layers=5), Store(tmp_path / "store")
    made = score.score(lm, text, CONFIG, store, None, "two-phase").bias
    best = entries.best(text, replace(CONFIG, n_prompts=FEW), lm.id, lm.name, store)
    assert best is not None
    assert best.bias.estimator == "two-phase"
    np.testing.assert_array_equal(best.bias.ablated, made.ablated)
    loaded = entries.load(text, CONFIG, lm.id, lm.name, store, "two-phase")
    assert loaded is not None
    exact: BiasImpacts = score.score(lm, text, CONFIG, store).bias
    fresh = score.score(lm, text, CONFIG, Store(tmp_path / "fresh")).bias
    np.testing.assert_allclose(exact.ablated, fresh.ablated, atol=1e-6)
