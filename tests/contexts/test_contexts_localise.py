"""Where a difference between names sits: against finite differences, exact expectations and the model's own word."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.model.language_model import LanguageModel
from fasp_core.studies.contexts import localise, scenarios
from fasp_core.studies.contexts.audit import Replies
from fasp_core.studies.contexts.chats import ask, name_places
from tests.support.contexts import FILE, instruct_lm
from tests.support.tiny import VOCAB

WORLD = scenarios.parse(FILE, "rooms.toml")
HOUSE = WORLD.scenarios[0]
ANSWERS = ((5, 9, 3), (5, 9), (12,), (5, 9, 3), (40, 41, 42))
WEIGHTS = (0.5, -1.0, 2.0, 0.25, 0.0)
KINDS = ("llama", "gpt2", "gpt_neo", "opt")  # gpt_neo cannot share beginnings; opt's MLP sees flattened rows


def instruct(kind: str) -> LanguageModel:
    lm = instruct_lm(kind)
    lm.model = lm.model.double()
    return lm


@pytest.fixture(params=KINDS)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return instruct(request.param)


@torch.no_grad()
def log_p(lm: LanguageModel, chat: list[int], answer: tuple[int, ...], temperature: float) -> float:
    logits = lm.model(torch.tensor([[*chat, *answer]])).logits[0].double() / temperature
    rows = logits[len(chat) - 1 : -1].log_softmax(-1)
    return float(rows[range(len(answer)), list(answer)].sum())


def slope(lm: LanguageModel, read: object, kind: str, layer: int, part: int) -> float:
    """Central difference of a reading in one gate around 1: wide enough for float32 norms, close enough for a ReLU."""
    step = 1e-4 if lm.name == "tiny-opt" else 3e-3
    found = []
    for gate in (1 + step, 1 - step):
        heads = torch.ones(lm.n_layers, lm.n_heads, dtype=torch.double)
        units = torch.ones(lm.n_neurons, dtype=torch.double)
        (heads[layer] if kind == "heads" else units)[part] = gate
        with gated(lm, heads, {layer: units}):
            found.append(read())  # type: ignore[operator]
    return (found[0] - found[1]) / (2 * step)


def test_gradients_equal_finite_differences(lm: LanguageModel) -> None:
    _, chat = ask(lm, HOUSE, "red")
    heads, neurons = localise.log_p_gradients(lm, chat, ANSWERS, WEIGHTS, 0.6)

    def read() -> float:
        return sum(w * log_p(lm, chat, a, 0.6) for a, w in zip(ANSWERS, WEIGHTS, strict=True))

    for layer, part in ((0, 0), (0, 3), (1, 2)):
        assert heads[layer, part] == pytest.approx(slope(lm, read, "heads", layer, part), rel=2e-3, abs=2e-4)
        assert neurons[layer, part] == pytest.approx(slope(lm, read, "neurons", layer, part), rel=2e-3, abs=2e-4)
    assert np.abs(heads).max() > 0.05


def test_the_score_function_gives_the_slope_of_the_expectation() -> None:
    """Every one-token answer, weighted by its probability: the sum over answers is the expectation itself."""
    lm = instruct("llama")
    _, chat = ask(lm, HOUSE, "blue")
    worth = np.random.default_rng(0).normal(size=VOCAB)
    answers = [(token,) for token in range(VOCAB)]

    @torch.no_grad()
    def chances() -> np.ndarray:
        out: np.ndarray = (lm.model(torch.tensor([chat])).logits[0, -1].double() / 0.6).softmax(-1).numpy()
        return out

    p = chances()
    heads, neurons = localise.log_p_gradients(lm, chat, answers, list(p * (worth - p @ worth)), 0.6)
    for layer, part in ((0, 1), (1, 3)):
        expected = slope(lm, lambda: float(chances() @ worth), "heads", layer, part)
        assert heads[layer, part] == pytest.approx(expected, rel=2e-3, abs=1e-5)
        expected = slope(lm, lambda: float(chances() @ worth), "neurons", layer, part)
        assert neurons[layer, part] == pytest.approx(expected, rel=2e-3, abs=1e-5)


def test_effects_add_up_over_names() -> None:
    lm = instruct("llama")
    people = tuple((name, group) for name, group in WORLD.people if group != "three")
    texts = [[f"${10 + 7 * i + s}" if s else "none" for s in range(3)] for i in range(len(people))]
    ids = tuple(tuple((20 + i, 30 + s) for s in range(3)) for i in range(len(people)))
    replies = Replies(HOUSE, people, ("one", "two"), tuple(map(tuple, texts)), ids, {})
    found = localise.effects(lm, replies, 0.6)
    numbers = np.log1p([[10 + 7 * i + s for s in (1, 2)] for i in range(len(people))])
    first, second = numbers[:3], numbers[3:]
    assert found.gap == pytest.approx(first.mean() - second.mean())
    change, error = found.change("heads")
    total = np.zeros_like(change)
    for i, (name, group) in enumerate(people):
        mine = first if group == "one" else second
        weights = [0.0, *((numbers[i] - mine.mean()) / mine.size)]
        _, chat = ask(lm, HOUSE, name)
        by_head, _ = localise.log_p_gradients(lm, chat, ids[i], weights, 0.6)
        total -= by_head if group == "one" else -by_head
    np.testing.assert_allclose(change, total, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.reduction("heads"), -np.sign(found.gap) * total, rtol=1e-5, atol=1e-7)
    assert found.reduction("neurons").shape == (lm.n_layers, lm.n_neurons)
    assert (error > 0).all()


def test_attention_is_what_the_model_says(lm: LanguageModel) -> None:
    usual, before = lm.model.config._attn_implementation, lm.model(torch.tensor([[3, 4, 5]])).logits
    found = localise.attention_to_name(lm, HOUSE, ["red", "tall"])
    assert found.shape == (2, lm.n_layers, lm.n_heads)
    assert (found >= 0).all()  # a local window may not reach back to the name
    assert (found < 1).all()
    assert found.max() > 0.01
    assert lm.model.config._attn_implementation == usual
    assert torch.equal(lm.model(torch.tensor([[3, 4, 5]])).logits, before)
    text, ids = ask(lm, HOUSE, "red")
    (place,) = name_places(lm, text, "red")
    assert lm.tokenizer.decode([ids[place]]).strip() == "red"
    other = copy.deepcopy(lm.model)
    other.set_attn_implementation("eager")
    with torch.no_grad():
        weights = other(torch.tensor([ids]), output_attentions=True).attentions
    expected = np.array([[float(w[0, h, -1, place]) for h in range(lm.n_heads)] for w in weights])
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_activation_by_hand() -> None:
    lm = instruct("llama")
    text, ids = ask(lm, HOUSE, "blue")
    found = localise.activation(lm, HOUSE, ["red", "blue"])[1]
    (place,) = name_places(lm, text, "blue")
    inputs: list[torch.Tensor] = []
    mlp = lm.blocks[1].mlp
    handle = mlp.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with torch.no_grad():
        lm.model(torch.tensor([ids]))
        handle.remove()
        hidden = torch.nn.functional.silu(mlp.gate_proj(inputs[0][0])) * mlp.up_proj(inputs[0][0])
        expected = hidden[place:].abs().mean(0) * mlp.down_proj.weight.norm(dim=0)
    np.testing.assert_allclose(found[1], expected.numpy(), rtol=1e-5)
    assert not any(m._forward_pre_hooks for m in lm.model.modules())


def test_a_name_of_several_tokens_and_places() -> None:
    lm = instruct("llama")
    text = "We red and red green ."
    assert name_places(lm, text, "red") == [1, 3]
    assert name_places(lm, text, "red green") == [3, 4]
    lm.tokenizer = type("Slow", (), {"is_fast": False})()
    with pytest.raises(InputError, match="where tokens stand"):
        name_places(lm, text, "red")


@given(st.integers(0, 10**6), st.floats(0.01, 1), st.floats(0, 1))
def test_what_stands_out_for_one_group_alone(seed: int, share: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 3, 7))
    found = localise.stands_out(first, second, share, other)
    order = [
        {divmod(int(i), 7) for i in np.argsort(-x.ravel())[: int(np.ceil(s * 21))]}
        for x, s in ((first, share), (second, other))
    ]
    assert set(found) == order[0] - order[1]
    with pytest.raises(InputError, match="Shares"):
        localise.stands_out(first, second, 0, other)
