"""Attention weights against plain transformers, built eager from the start, on every supported architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.forward.attention import TOKENS, Pattern, attentions, pattern, token_labels
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import KINDS, tiny_config, tiny_lm, tiny_text

LAYERS = 3


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.no_grad()
def plainly(lm: LanguageModel, kind: str, ids: list[int]) -> tuple[torch.Tensor, ...]:
    config = tiny_config(kind, LAYERS)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.load_state_dict(lm.model.state_dict())
    found: tuple[torch.Tensor, ...] = model(torch.tensor([ids]), output_attentions=True).attentions
    return found


def test_weights_are_those_of_plain_transformers(kind: str) -> None:
    lm = tiny_lm(kind, n_layers=LAYERS)
    ids = lm.encode(tiny_text(20))
    usual = lm.model.config._attn_implementation
    with torch.no_grad():
        before = lm.model(torch.tensor([ids])).logits
    found, expected = attentions(lm, ids), plainly(lm, kind, ids)
    assert len(found) == len(expected) == LAYERS
    for layer, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == (lm.n_heads, 20, 20)
        torch.testing.assert_close(ours, theirs[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.sum(-1), torch.ones(lm.n_heads, 20), rtol=0, atol=1e-5)
        assert not ours.triu(1).any()
        np.testing.assert_allclose(pattern(lm, tiny_text(20), layer).weights, theirs[0].numpy(), atol=1e-6)
    assert max(float(w[:, 5:].std()) for w in found) > 0.01, "weights that are all alike would agree with anything"
    # the model is left as it was, for everybody else
    assert lm.model.config._attn_implementation == usual
    with torch.no_grad():
        assert torch.equal(lm.model(torch.tensor([ids])).logits, before)


def test_the_model_is_left_as_it_was_when_something_goes_wrong() -> None:
    lm = tiny_lm("llama")
    with pytest.raises(IndexError):
        attentions(lm, [3, 10**6])
    assert lm.model.config._attn_implementation == "sdpa"
    assert lm.lock.acquire(blocking=False)
    lm.lock.release()


def test_a_removed_head_looks_as_before_and_changes_only_what_comes_later() -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    ids = lm.encode(tiny_text(12))
    whole = attentions(lm, ids)
    with masked(lm, PruneSet.of([(1, 2)])):
        pruned = attentions(lm, ids)
    assert torch.equal(whole[0], pruned[0])
    assert torch.equal(whole[1], pruned[1])
    assert not torch.allclose(whole[2], pruned[2])


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "gpt_neo"])
def test_the_beginning_of_a_long_prompt_looks_as_if_it_stood_alone(kind: str) -> None:
    lm, text = tiny_lm(kind), tiny_text(TOKENS + 30)
    found = pattern(lm, text, 1)
    assert found.tokens == TOKENS + 30
    assert len(found.labels) == found.weights.shape[-1] == TOKENS
    whole = attentions(lm, lm.encode(text))[1][:, :TOKENS, :TOKENS].numpy()
    np.testing.assert_allclose(found.weights, whole, atol=1e-5)


def places(w: np.ndarray) -> Iterator[tuple[int, list[float]]]:
    for query in range(1, len(w)):
        yield query, [float(x) for x in w[query]]


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 99), st.floats(0, 1))
def test_facts_by_loops(n: int, seed: int, sparse: float) -> None:
    rng = np.random.default_rng(seed)
    w = np.tril(rng.random((2, n, n)) * (rng.random((2, n, n)) > sparse)) + 1e-3 * np.eye(n)
    w = (w / w.sum(-1, keepdims=True)).astype(np.float32)
    facts = Pattern(("x",) * n, w, n).facts(1)
    firsts, distances, entropies, most = [], [], [], []
    for query, row in places(w[1]):
        firsts.append(row[0])
        distances.append(sum(x * (query - key) for key, x in enumerate(row)))
        entropies.append(-sum(x * math.log2(x) for x in row if x > 0))
        most.append(math.log2(query + 1))
    expected = [sum(x) / len(x) for x in (firsts, distances, entropies, most)]
    assert [facts.on_first, facts.distance, facts.entropy, facts.most] == pytest.approx(expected, abs=1e-6)
    assert facts.places == n - 1
    assert -1e-6 <= facts.entropy <= facts.most + 1e-6


def test_a_prompt_of_one_token_has_no_facts() -> None:
    facts = pattern(tiny_lm("gpt2"), "I", 0).facts(0)
    assert facts.places == 0
    assert math.isnan(facts.entropy)
    with pytest.raises(InputError, match="no token"):
        pattern(tiny_lm("gpt2"), "", 0)


def test_labels_show_what_cannot_be_seen() -> None:
    lm = tiny_lm("gpt2")
    assert token_labels(lm, lm.encode("I am\n.")) == ("I", "␣am", "↵", ".")
    assert token_labels(lm, [1, 0]) == ("<eos>", "<unk>")
    lm.tokenizer = type(
        "Odd", (), {"decode": lambda _self, ids, skip_special_tokens: "".join("\u202ea\t" + "b" * 30 for _ in ids)}
    )()
    (label,) = token_labels(lm, [7])
    assert label == "\\u202ea⇥" + "b" * 7 + "…"
    assert label.isprintable()
