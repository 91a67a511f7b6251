"""Written toxicity against an enumeration of everything that a tiny model can write, and step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.forward.sampling import GenerationConfig, draw, sample_ids
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import READINGS, measure_expected
from fasp_core.metrics.written import written
from fasp_core.model.packing import encode, pack
from tests.support.oracles import SET, after, enumerated, worth_of
from tests.support.tiny import CONTEXT, KINDS, tiny_lm

PROMPTS = ("I met a red person", "We know", "They are green, and we", "We see")


@pytest.mark.parametrize(
    ("kind", "removed"), [pytest.param("gpt2", PruneSet(), marks=pytest.mark.slow), ("llama", SET)]
)
def test_unbiased_for_all_that_can_be_written(kind: str, removed: PruneSet) -> None:
    lm = tiny_lm(kind)
    worth, n = worth_of(lm), 60
    with masked(lm, removed):
        right = np.stack([enumerated(lm, ids, 3, worth) for ids in encode(lm, PROMPTS)], -1)
        parts = [written(lm, PROMPTS, worth, GenerationConfig(30, 3, seed=2, first=30 * i)) for i in range(n)]
    found, noise = np.mean(parts, 0), np.std(parts, 0, ddof=1) / math.sqrt(n)
    assert found.shape == right.shape == (len(READINGS), 3, len(PROMPTS))
    assert found[:, 0] == pytest.approx(right[:, 0], abs=2e-6)  # nothing is drawn yet
    off = np.abs(found - right)[:, 1:] / noise[:, 1:]
    assert off.max() < 4
    assert np.sqrt((off**2).mean()) < 1.5
    assert noise[:, 1:].max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_that_of_a_whole_pass(kind: str) -> None:
    lm, config = tiny_lm(kind), GenerationConfig(samples=3, tokens=5, seed=7)
    worth, stops = worth_of(lm), lm.stops
    with masked(lm, SET):
        found = written(lm, PROMPTS, worth, config)
        tokens = sample_ids(lm, PROMPTS, config, stops)
        for i, ids in enumerate(encode(lm, PROMPTS)):
            each = np.zeros((config.tokens, len(READINGS)))
            for row in tokens[i]:
                for t in range(config.tokens):
                    if stops & set(row[:t]):
                        break
                    each[t] += after(lm, torch.tensor([ids + row[:t]]), worth)[1][0] / len(tokens[i])
            assert pytest.approx(each, abs=2e-6) == found[:, :, i].T


def test_one_step_is_the_expected_measure() -> None:
    lm = tiny_lm("llama")
    worth = worth_of(lm)
    one = written(lm, PROMPTS, worth, GenerationConfig(samples=4, tokens=1))
    assert one[:, 0] == pytest.approx(measure_expected(lm, pack(lm, encode(lm, PROMPTS)), worth), abs=1e-6)


def test_nothing_is_written_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that ends nearly always: what follows counts nothing, and the batch stops."""
    lm = tiny_lm("gpt2")
    worth, (stop,) = worth_of(lm), lm.stops
    whole = lm.logits

    def ending(states: torch.Tensor) -> torch.Tensor:
        logits = whole(states)
        logits[:, stop] += 40
        return logits

    monkeypatch.setattr(lm, "logits", ending)
    found = written(lm, PROMPTS, worth, GenerationConfig(samples=2, tokens=6))
    assert found[:, 0].min() > 0
    assert not found[:, 1:].any()


def test_parts_and_batches_change_nothing() -> None:
    lm, worth = tiny_lm("llama"), worth_of(tiny_lm("llama"))
    whole = written(lm, PROMPTS, worth, GenerationConfig(samples=4, tokens=4))
    halves = [written(lm, PROMPTS, worth, GenerationConfig(samples=2, tokens=4, first=at)) for at in (0, 2)]
    longer = written(lm, PROMPTS, worth, GenerationConfig(samples=4, tokens=6))
    assert np.mean(halves, 0) == pytest.approx(whole, abs=1e-6)
    assert longer[:, :4] == pytest.approx(whole, abs=1e-6)
    narrow = draw(lm, PROMPTS, GenerationConfig(samples=4, tokens=4), rows=1)
    assert narrow.tokens == draw(lm, PROMPTS, GenerationConfig(samples=4, tokens=4)).tokens


def test_a_temperature_is_that_of_the_whole_distribution() -> None:
    """Nearly nothing is left to chance at a low one: the expectation is the worth of the likeliest word."""
    lm = tiny_lm("gpt2")
    worth = worth_of(lm)
    (ids,) = encode(lm, PROMPTS[:1])
    found = written(lm, PROMPTS[:1], worth, GenerationConfig(tokens=1, temperature=1e-3))
    word = int(after(lm, torch.tensor([ids]), worth)[0].argmax())
    place = int(worth.fresh[ids[-1]])
    assert found[:, 0, 0] == pytest.approx(worth.values[word].view(2, -1)[place].numpy(), abs=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    lm = tiny_lm("gpt2")
    with pytest.raises(InputError, match="takes"):
        written(lm, PROMPTS, worth_of(lm), GenerationConfig(tokens=CONTEXT))
