"""The next word's probabilities, a piece of the vocabulary at a time, against all of it at once in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from fasp_core.forward import next_word
from fasp_core.metrics.expected import TokenToxicity, next_word_toxicity
from tests.support.tiny import KINDS, VOCAB, tiny_lm


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_word, "CELLS", {"cpu": 1})
    monkeypatch.setattr(next_word, "LEAST", 7)
    monkeypatch.setattr(next_word, "ROWS", 5)


def states_of(lm: Any, m: int = 13) -> tuple[torch.Tensor, torch.Tensor]:
    """Final hidden states and words; several chunks of positions, and a word of the last piece."""
    ids = torch.arange(m)[None] % VOCAB
    with torch.no_grad():
        hidden = lm.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    return hidden, torch.linspace(0, VOCAB - 1, m).long()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_pieces")
def test_every_architecture_in_pieces(kind: str) -> None:
    """Biases of the unembedding and capped logits included."""
    lm = tiny_lm(kind)
    states, words = states_of(lm)
    sizes = [logits.shape[-1] for _, logits in next_word.logit_pieces(lm, states[:5])]
    assert sizes == [7] * 11 + [3]
    logits = lm.logits(states).double()
    loss = next_word.log_loss(lm, states, words)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss, torch.nn.functional.cross_entropy(logits, words, reduction="none"), atol=2e-5)
    again, top = next_word.log_loss_and_top(lm, states, words)
    assert torch.equal(again, loss)
    assert torch.equal(top, logits.argmax(-1) == words)
    assert next_word.log_loss_and_top(lm, states, logits.argmax(-1))[1].all()
    values = torch.rand(VOCAB + 3, 4, generator=torch.Generator().manual_seed(0))  # more rows than logits: padded
    wanted = logits.softmax(-1) @ values[:VOCAB].double()
    np.testing.assert_allclose(next_word.mean_value(lm, states, values), wanted, rtol=2e-5)


@pytest.mark.usefixtures("small_pieces")
def test_with_and_without_gradients_the_same() -> None:
    lm = tiny_lm("llama")
    states, words = states_of(lm)
    draw = torch.Generator().manual_seed(0)
    worth = TokenToxicity(torch.rand(VOCAB, 4, generator=draw), torch.rand(VOCAB, generator=draw) < 0.5)
    whole = next_word_toxicity(lm, states.detach().requires_grad_(), words, worth)
    assert whole.requires_grad
    np.testing.assert_allclose(next_word_toxicity(lm, states, words, worth), whole.detach(), rtol=2e-5)


class _Quantized(torch.nn.Linear):
    """Whatever is not quite a linear layer."""


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("hooked", [True, False])
def test_heads_that_cannot_be_taken_apart_are_called_whole(hooked: bool) -> None:
    head = torch.nn.Linear(8, 50) if hooked else _Quantized(8, 50)
    if hooked:
        head._hf_hook = object()  # as accelerate marks what it moves between devices
    lm: Any = SimpleNamespace(model=SimpleNamespace(get_output_embeddings=lambda: head), logits=head)
    states = torch.randn(5, 8)
    ((start, found),) = next_word.logit_pieces(lm, states)
    assert start == 0
    assert torch.equal(found, head(states))


@settings(deadline=None, max_examples=60)
@given(
    some.integers(1, 9),
    some.integers(1, 60),
    some.integers(1, 25),
    some.sampled_from([1.0, 30.0, 1e4]),
    some.integers(),
)
def test_pieces_of_any_size_and_large_logits(m: int, words: int, least: int, spread: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed % 2**32)
    head = torch.nn.Linear(4, words, bias=False)
    with torch.no_grad():
        head.weight.normal_(0, spread, generator=draw)
    lm: Any = SimpleNamespace(
        model=SimpleNamespace(get_output_embeddings=lambda: head), logits=head, capped=lambda x: x
    )
    states = torch.randn(m, 4, generator=draw)
    goal = torch.randint(0, words, (m,), generator=draw)
    values = torch.rand(words, 2, generator=draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(next_word, "CELLS", {"cpu": 1})
        patch.setattr(next_word, "LEAST", least)
        loss, mean = next_word.log_loss(lm, states, goal), next_word.mean_value(lm, states, values)
    logits = head(states).detach().double()  # rounding of the products themselves is not at stake
    wanted = torch.nn.functional.cross_entropy(logits, goal, reduction="none")
    np.testing.assert_allclose(loss, wanted, atol=4e-6 * max(1.0, float(logits.abs().max())))
    if spread < 1e4:
        np.testing.assert_allclose(mean, logits.softmax(-1) @ values.double(), rtol=2e-3 if spread > 1 else 2e-5)
    assert torch.isfinite(mean).all()
    assert (mean >= 0).all()
    assert (mean <= 1 + 1e-5).all()
