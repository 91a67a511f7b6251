"""Expected toxicity against an enumeration of the vocabulary, word by word, prompt by prompt and step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from fasp_core.forward.ablation import masked
from fasp_core.forward.next_word import ROWS
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import READINGS, TokenToxicity, measure_expected, next_word_toxicity, read_expected
from fasp_core.metrics.token_toxicity import WordValues
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, encode, pack
from tests.support.tiny import KINDS, TOKENS, VOCAB, tiny_lm

PROMPTS = (
    "I met a red person",
    "We know",
    "They are green, and we",
    "My friend is",
    "I met a red person.",
    "I",
    "The old man of the house saw",
    "You hate",
    "I met a blue person",
)


def values() -> np.ndarray:
    """[2, 2, V]: other numbers in every place, so that a wrong one shows."""
    return np.random.default_rng(0).random((2, 2, VOCAB)).astype(np.float32)


@pytest.fixture(scope="module")
def worth() -> TokenToxicity:
    return TokenToxicity.of(tiny_lm("llama"), WordValues(values(), 0.0, 0, 0, 0, ""))


@torch.no_grad()
def by_enumeration(lm: LanguageModel, ids: Sequence[int], steps: int, r: int) -> float:
    """Each of the last `steps` positions by itself, in a pass that ends there."""
    found = []
    for end in range(len(ids) - steps + 1, len(ids) + 1):
        logits = lm.model(torch.tensor([list(ids[:end])])).logits[0, -1].tolist()
        weights = [math.exp(x - max(logits)) for x in logits]
        place = 0 if TOKENS[ids[end - 1]][-1].isalnum() else 1  # a word may be under way, or not
        worths = values()[place, r]
        found.append(sum(w * float(worths[v]) for v, w in enumerate(weights)) / math.fsum(weights))
    return sum(found) / steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 3])
def test_expected_toxicity_by_enumeration(kind: str, steps: int, worth: TokenToxicity) -> None:
    lm = tiny_lm(kind)
    context = [7, 30, 12][: steps - 1]
    rows = [ids + context for ids in encode(lm, PROMPTS)]
    packs = pack(lm, rows, steps)
    found = measure_expected(lm, packs, worth)
    assert found.shape == (len(READINGS), len(PROMPTS))
    with masked(lm, PruneSet.of([(0, 0), (1, 1)])):
        pruned = measure_expected(lm, packs, worth)
        check(lm, rows, steps, pruned)
    check(lm, rows, steps, found)
    assert np.abs(found - pruned).max() > 1e-3
    assert len(np.unique(found.round(6))) == found.size  # a wrong order of prompts would show


def check(lm: LanguageModel, rows: list[list[int]], steps: int, found: np.ndarray) -> None:
    for r in range(len(READINGS)):
        for i, ids in enumerate(rows):
            assert found[r, i] == pytest.approx(by_enumeration(lm, ids, steps, r), abs=2e-6)


def test_word_values_reach_the_logits_rows() -> None:
    lm = tiny_lm("llama")
    longer = np.concatenate([values(), np.ones((2, 2, 3), dtype=np.float32)], axis=2)
    given = TokenToxicity.of(lm, WordValues(longer, 0.0, 0, 0, 0, ""))
    states = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([2, TOKENS.index("."), 2, TOKENS.index("Ċ")])
    found = next_word_toxicity(lm, states, tokens, given)
    chances = lm.logits(states).softmax(-1)
    for i, place in enumerate([0, 1, 0, 1]):
        np.testing.assert_allclose(found[i], chances[i].detach() @ torch.tensor(values()[place].T), atol=1e-6)


def test_more_rows_than_are_taken_at_once(worth: TokenToxicity) -> None:
    lm = tiny_lm("llama")
    n = 2 * ROWS + 5
    hidden = torch.randn(n, 3, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.zeros((n, 3), dtype=torch.long)
    whole = Pack(ids, np.arange(n), torch.arange(1, n + 1)[:, None] * 3 - 1)
    with torch.no_grad():
        expected = next_word_toxicity(lm, hidden[:, -1], ids[:, -1], worth)
    np.testing.assert_allclose(read_expected(lm, hidden, whole, worth), expected, atol=1e-7)


def test_toxicity_has_a_gradient(worth: TokenToxicity) -> None:
    lm = tiny_lm("gpt2")
    states = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (grad,) = torch.autograd.grad(next_word_toxicity(lm, states, torch.tensor([1, 2]), worth)[:, 0].sum(), states)
    step = torch.zeros_like(states)
    step[1, 5] = 1e-2
    with torch.no_grad():
        ends = [next_word_toxicity(lm, states + s * step, torch.tensor([1, 2]), worth)[1, 0] for s in (1, -1)]
    assert float(grad[1, 5]) == pytest.approx(float(ends[0] - ends[1]) / 2e-2, rel=0.02, abs=1e-5)
