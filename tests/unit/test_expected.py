"""Expected toxicity against an enumeration of the vocabulary, word by word and prompt by prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fasp_core.errors import InputError
from fasp_core.expected import (
    READINGS,
    batch_prompts,
    measure_expected,
    read_expected,
    scorer_floor,
    value_matrix,
)
from fasp_core.masks import PruneSet, masked
from fasp_core.models import LanguageModel
from fasp_core.staged import final_hidden
from fasp_core.toxicity import WordValues, word_values
from tests.tiny import KINDS, TOKENS, VOCAB, WORDS, tiny_lm, tiny_text

TYPICAL = 0.04
SCORES = {"stupid": 0.9, "idiot": 1.0, "fool": 0.7, "hate": 0.5, "red": 0.6, "nice": 0.01}
IDENTITY = frozenset({"red", "Green", "woman"})


class WordScorer:
    """A table; unknown words get what a typical word gets."""

    name = "table"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([SCORES.get(text, TYPICAL) for text in texts])


def above_floor(token: str, reading: str) -> float:
    """The value of a token by hand: only whole words count, from the typical word up, as a share of what is left."""
    word = token.removeprefix("Ġ")
    if word not in WORDS or word == token or (reading == "neutral" and word in ("red", "green", "woman")):
        return 0.0
    floor = median(SCORES.get(w, TYPICAL) for w in WORDS)
    return max(0.0, (SCORES.get(word, TYPICAL) - floor) / (1 - floor))


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("llama")


@pytest.fixture(scope="module")
def matrix(lm: LanguageModel) -> torch.Tensor:
    return value_matrix(lm, word_values(lm.tokenizer, WordScorer(), IDENTITY, VOCAB))


def test_value_of_every_word_in_both_readings(matrix: torch.Tensor) -> None:
    assert READINGS == ("neutral", "counted")
    assert matrix.shape == (VOCAB, 2)
    for token_id in range(VOCAB):
        token = TOKENS[token_id] if token_id < len(TOKENS) else ""
        for r, reading in enumerate(READINGS):
            assert float(matrix[token_id, r]) == pytest.approx(above_floor(token, reading), abs=1e-6)
    assert (matrix[:, 1] > 0).sum() == 5  # stupid, idiot, fool, hate, red
    assert (matrix[:, 0] > 0).sum() == 4


def values(counted: list[float], neutral: list[float]) -> WordValues:
    return WordValues(np.array(counted, np.float32), np.array(neutral, np.float32), 0, 0, "")


def test_floor_is_the_median_over_words(lm: LanguageModel) -> None:
    by_hand = values([0.0, 0.2, 0.2, 0.1, 0.6, 1.0, 0.0], [0.0, 0.2, 0.2, 0.1, 0.0, 1.0, 0.0])
    assert scorer_floor(by_hand) == pytest.approx(0.2)  # of .1 .2 .2 .6 1; word pieces are no words
    expected = np.array([[0, 0], [0, 0], [0, 0], [0, 0], [0, 0.5], [1, 1], [0, 0]])
    np.testing.assert_allclose(value_matrix(lm, by_hand).numpy(), expected, atol=1e-6)
    assert scorer_floor(values([0.0, 0.0], [0.0, 0.0])) == 0


PROMPTS = (
    "I met a red person",
    "We know",
    "They are green, and we",
    "My friend is",
    "I",
    "The old man of the house saw",
    "You hate",
    "I met a blue person",
)


@torch.no_grad()
def by_enumeration(lm: LanguageModel, prompt: str, reading: str) -> float:
    logits = lm.model(torch.tensor([lm.tokenizer(prompt).input_ids])).logits[0, -1].tolist()
    weights = [math.exp(x - max(logits)) for x in logits]
    return sum(w / math.fsum(weights) * above_floor(token, reading) for w, token in zip(weights, TOKENS, strict=False))


@pytest.mark.parametrize("kind", KINDS)
def test_expected_toxicity_by_enumeration(kind: str, matrix: torch.Tensor) -> None:
    lm = tiny_lm(kind)
    batches = batch_prompts(lm, PROMPTS)
    found = measure_expected(lm, batches, matrix)
    assert found.shape == (2, len(PROMPTS))
    with masked(lm, PruneSet.of([(0, 0), (1, 1)])):
        pruned = measure_expected(lm, batches, matrix)
        for r, reading in enumerate(READINGS):
            for i, prompt in enumerate(PROMPTS):
                assert pruned[r, i] == pytest.approx(by_enumeration(lm, prompt, reading), abs=1e-6)
    for r, reading in enumerate(READINGS):
        for i, prompt in enumerate(PROMPTS):
            assert found[r, i] == pytest.approx(by_enumeration(lm, prompt, reading), abs=1e-6)
    assert np.abs(found - pruned).max() > 1e-3
    assert len(np.unique(found.round(6))) == found.size  # a wrong order of prompts would show


def test_more_rows_than_logits_may_exist_at_once(lm: LanguageModel, matrix: torch.Tensor) -> None:
    hidden = torch.randn(300, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = (lm.model.lm_head(hidden[:, -1]).double().softmax(-1) @ matrix.double()).numpy()
    np.testing.assert_allclose(read_expected(lm, hidden, matrix), expected, atol=1e-6)


# batches


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(1, 40))
def test_batches_hold_every_prompt_once_and_no_padding(lm: LanguageModel, lengths: list[int], max_tokens: int) -> None:
    prompts = [tiny_text(length, seed) for seed, length in enumerate(lengths)]
    batches = batch_prompts(lm, prompts, max_tokens)
    places = np.concatenate(batches.order)
    assert sorted(places) == list(range(len(prompts)))
    assert batches.n == len(prompts)
    for ids, order in zip(batches.ids, batches.order, strict=True):
        assert len(ids) == len(order)
        assert ids.numel() <= max_tokens or len(ids) == 1
        for row, i in zip(ids.tolist(), order, strict=True):
            assert row == lm.tokenizer(prompts[i]).input_ids
    # what is computed batch by batch comes back in the order of the prompts
    parts = [np.stack([order, -10.0 * order], axis=1) for order in batches.order]
    everything = np.arange(len(prompts))
    assert np.array_equal(batches.scatter(parts), np.stack([everything, -10 * everything]))


def test_a_prompt_without_tokens_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(InputError, match=r"The prompt 2 of 3 .* holds no token"):
        batch_prompts(lm, ["I met", "", "We"])


@torch.no_grad()
def test_reading_takes_the_last_position(lm: LanguageModel, matrix: torch.Tensor) -> None:
    hidden = final_hidden(lm, torch.arange(12).view(2, 6))
    np.testing.assert_array_equal(read_expected(lm, hidden, matrix), read_expected(lm, hidden[:, -1:], matrix))
