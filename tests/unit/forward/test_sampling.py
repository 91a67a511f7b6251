"""Continuations against a loop without a cache, and their noise against the distribution it must give."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.forward.noise import gumbel, keys
from fasp_core.forward.sampling import GenerationConfig, sample
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import KINDS, TOKENS, VOCAB, tiny_lm

PROMPTS = ("I met a red person", "They are", "We met a blue person", "My old friend and the", "I", "You are")
CONFIG = GenerationConfig(samples=2, tokens=8, seed=3)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("gptj")


@torch.no_grad()
def by_recomputing(lm: LanguageModel, prompt: str, number: int, config: GenerationConfig, stop: set[int]) -> str:
    """One continuation by whole passes over the growing text."""
    ids = lm.tokenizer(prompt).input_ids
    new: list[int] = []
    for step in range(config.tokens):
        logits = lm.model(torch.tensor([ids + new])).logits[0, -1]
        noise = gumbel(keys(config.seed, [prompt], [number], config.tokens)[:, step], VOCAB, "cpu")[0]
        token = int((logits / config.temperature + noise).argmax())
        if token in stop:
            break
        new.append(token)
    text: str = lm.tokenizer.decode(new, skip_special_tokens=True)
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_changes_nothing(kind: str) -> None:
    """Continuations run beyond the sliding and local windows of 4 tokens."""
    lm = tiny_lm(kind)
    config = replace(CONFIG, temperature=0.7)
    expected = [[by_recomputing(lm, p, s, config, {1}) for s in range(2)] for p in PROMPTS[:3]]
    assert sample(lm, PROMPTS[:3], config) == expected
    with masked(lm, PruneSet.of([(0, 1), (1, 0)])):
        pruned = [[by_recomputing(lm, p, s, config, {1}) for s in range(2)] for p in PROMPTS[:3]]
        assert sample(lm, PROMPTS[:3], config) == pruned
    assert pruned != expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_beginning_that_all_prompts_share_is_run_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(kind)
    prompts = [f"My old friend and the {who} person and {end}" for who in ("red", "blue") for end in ("I", "my friend")]
    expected = [[by_recomputing(lm, p, s, CONFIG, {1}) for s in range(2)] for p in prompts]
    runs = []
    forward = type(lm.model.base_model).forward

    def counted(self: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        runs.append(tuple(input_ids.shape))
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(lm.model.base_model), "forward", counted)
    assert sample(lm, prompts, CONFIG) == expected
    (shared,) = {length for rows, length in runs if rows == 1}
    assert shared > 4
    assert {length for rows, length in runs if rows > 1 and length > 1} == {
        len(lm.tokenizer(p).input_ids) - shared for p in prompts
    }


def test_the_same_seed_gives_the_same_texts(lm: LanguageModel) -> None:
    texts = sample(lm, PROMPTS, CONFIG)
    torch.manual_seed(99)  # the global generator plays no part
    assert sample(lm, PROMPTS, CONFIG) == texts
    other = sample(lm, PROMPTS, replace(CONFIG, seed=4))
    assert sum(a != b for a, b in zip(texts, other, strict=True)) >= 5
    assert len({text for row in texts for text in row}) > 10  # samples and prompts differ
    assert [len(row) for row in texts] == [2] * len(PROMPTS)


def test_a_text_does_not_depend_on_its_company(lm: LanguageModel) -> None:
    texts = dict(zip(PROMPTS, sample(lm, PROMPTS, CONFIG), strict=True))
    for prompt in PROMPTS:
        assert sample(lm, [prompt], CONFIG) == [texts[prompt]]
    backwards = PROMPTS[::-1]
    assert sample(lm, backwards, CONFIG) == [texts[p] for p in backwards]
    assert sample(lm, PROMPTS, CONFIG, rows=1) == [texts[p] for p in PROMPTS]
    more = sample(lm, PROMPTS, replace(CONFIG, samples=3, tokens=5))
    for prompt, row in zip(PROMPTS, more, strict=True):
        for longer, shorter in zip(texts[prompt], row, strict=False):
            assert longer.startswith(shorter)  # the first samples, cut short


def leaning_to(token_id: int, by: float) -> LanguageModel:
    lm = tiny_lm("gptj")
    lm.model.lm_head.bias[token_id] += by
    return lm


def test_texts_end_at_the_end_token() -> None:
    lm = leaning_to(1, 4.0)
    config = replace(CONFIG, samples=6)
    texts = sample(lm, PROMPTS, config)
    assert texts == [[by_recomputing(lm, p, s, config, {1}) for s in range(6)] for p in PROMPTS]
    lengths = Counter(len(lm.tokenizer(text).input_ids) for row in texts for text in row)
    assert len(lengths) > 3
    assert min(lengths) < 3


def test_a_model_may_have_several_end_tokens() -> None:
    like = TOKENS.index("Ġlike")
    lm = leaning_to(like, 4.0)
    assert any("like" in text for row in sample(lm, PROMPTS, CONFIG) for text in row)
    lm.model.config.eos_token_id = [like, 5]
    texts = sample(lm, PROMPTS, CONFIG)
    assert texts == [[by_recomputing(lm, p, s, CONFIG, {1, 5, like}) for s in range(2)] for p in PROMPTS]
    assert not any("like" in text for row in texts for text in row)


def test_nothing_is_computed_after_all_texts_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = leaning_to(1, 1e4)
    steps = []
    plain = type(lm.model.base_model).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(type(lm.model.base_model), "forward", forward)
    assert sample(lm, ["I met", "We met"], CONFIG) == [["", ""], ["", ""]]
    assert len(steps) == 1


def test_progress_counts_continuations(lm: LanguageModel) -> None:
    seen: list[tuple[float, float]] = []
    sample(lm, PROMPTS, replace(CONFIG, tokens=1), progress=lambda done, total, _: seen.append((done, total)))
    assert [total for _, total in seen] == [12] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (12, 12)


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"tokens": 0}, *({"temperature": t} for t in (0.0, -1.0, math.inf, math.nan))]
)
def test_configs_that_sample_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least 1 sample, 1 token and a finite temperature above 0"):
        GenerationConfig(**wrong)
