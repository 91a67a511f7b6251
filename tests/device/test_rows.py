"""Heads of a layer as rows of one pass: the numbers of one by one, with fewer kernels and waits."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from fasp_core.forward import sweep
from fasp_core.forward.sweep import at_once, sweep_heads
from fasp_core.metrics.expected import TokenToxicity, read_expected
from fasp_core.metrics.work import Windows
from fasp_core.model import grouped
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import wrap
from fasp_core.model.packing import Pack, pack, pack_equal
from fasp_core.model.passes import NotFinite
from fasp_core.model.spec import ModelSpec
from tests.support import pretend
from tests.support.steps import assert_same
from tests.support.tiny import HEADS, KINDS, VOCAB, tiny_lm, token_rows

DEEP, WIDE = 30, 9  # layers and heads of the built-in model


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what is collected where memory ends is what these tests have made
    with pretend.rules("cuda"):
        yield
    gc.unfreeze()


def built_in_shape(device: str) -> LanguageModel:
    """Random weights: the built-in model's layers and heads, a tenth of its width."""
    config = transformers.LlamaConfig(
        hidden_size=72,
        intermediate_size=192,
        num_hidden_layers=DEEP,
        num_attention_heads=WIDE,
        num_key_value_heads=3,
        vocab_size=VOCAB,
        max_position_embeddings=256,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).to(device)
    return wrap(model, None, ModelSpec("random", device=device), "random")


def prompts(lm: LanguageModel, trees: bool) -> tuple[list[Pack], Any]:
    """Packs of prompts that share beginnings, and how they are read."""
    rows = [[*start, *end] for start in token_rows(3, 4).tolist() for end in token_rows(4, 3, seed=2).tolist()]
    rows += token_rows(5, 5, seed=3).tolist()
    values = torch.rand(VOCAB, 4, generator=torch.Generator().manual_seed(1))
    worth = TokenToxicity(values, torch.zeros(VOCAB, dtype=torch.bool)).on(lm.device)
    packs = pack(lm, rows, 2) if trees else pack_equal(rows, 2, max_tokens=49)  # 7 rows of 7 tokens among them
    return packs, lambda part, hidden: read_expected(lm, hidden, part, worth)


def text(lm: LanguageModel) -> tuple[list[Pack], Any]:
    windows = Windows(token_rows(2, 20, seed=5), np.array([1, 4])), Windows(token_rows(3, 9, seed=6), np.ones(3, int))
    return Windows.packs(lm, windows)


INPUTS = {"trees": partial(prompts, trees=True), "prompts": partial(prompts, trees=False), "text": text}


def swept(lm: LanguageModel, what: str, skip: Sequence[int] = (), together: int | None = None) -> dict[int, Any]:
    packs, read = INPUTS[what](lm)
    return dict(sweep_heads(lm, packs, read, skip, together))


def same(found: dict[int, Any], wanted: dict[int, Any]) -> None:
    """But for rounding: BLAS chooses its kernels by the number of rows, on some processors more than on others."""
    assert list(found) == list(wanted)
    assert_same([list(readings) for readings in found.values()], [list(readings) for readings in wanted.values()])


@pytest.mark.parametrize("what", INPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_give_the_numbers_of_one_by_one(kind: str, what: str) -> None:
    lm = tiny_lm(kind)
    alone = swept(lm, what)
    for together in (3, HEADS):
        same(swept(lm, what, together=together), alone)
    some = swept(lm, what, skip=(-1, 0, 2, 5), together=HEADS)
    same(some, {flat: alone[flat] for flat in (1, 3, 4, 6, 7)})


@pytest.mark.parametrize("what", INPUTS)
@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_a_device_takes_rows_by_itself(kind: str, what: str) -> None:
    lm = tiny_lm(kind, device=pretend.NAME)
    assert at_once(lm, token_rows(2, 9)) == HEADS
    assert at_once(tiny_lm(kind), token_rows(2, 9)) == 1
    assert at_once(lm, token_rows(100, 100)) == 1
    same(swept(lm, what), swept(tiny_lm(kind), what))


def test_kernels_and_waits_of_a_middle_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "DEVICES", [pretend.NAME])
    lm = built_in_shape(pretend.NAME)
    middle = range(WIDE * DEEP // 2, WIDE * DEEP // 2 + WIDE)
    packs, read = Windows.packs(lm, [Windows(token_rows(2, 32), np.ones(2, int))])
    seen: dict[int, pretend.Seen] = {}
    found: dict[int, dict[int, Any]] = {}
    for together in (1, WIDE):
        heads = sweep_heads(lm, packs, read, set(range(lm.size)) - set(middle), together)
        next(heads)  # the unpruned model
        with pretend.counting() as seen[together]:
            found[together] = dict(heads)
    same(found[WIDE], found[1])
    alone, rows = seen[1], seen[WIDE]
    assert rows.launched <= 40 * (DEEP // 2)  # blocks and reading
    assert rows.launched < alone.launched / WIDE + 20
    assert alone.waited <= 3 * WIDE
    assert rows.waited <= 3


@pytest.mark.parametrize(("room", "heads", "rows"), [(400_000, True, False), (300_000, True, True)])
def test_memory_that_ends_takes_heads_first_and_rows_then(
    monkeypatch: pytest.MonkeyPatch, room: int, heads: bool, rows: bool
) -> None:
    lm, seen = tiny_lm("gpt2", device=pretend.NAME), set()
    real_fewer, real_parts = sweep._Held._fewer, sweep._parts
    monkeypatch.setattr(sweep._Held, "_fewer", lambda *args: seen.add("heads") or real_fewer(*args))
    monkeypatch.setattr(sweep, "_parts", lambda s: seen.add("rows") or real_parts(s))
    batch = Windows(token_rows(8, 20, seed=5), np.ones(8, int))
    found = []
    for model, most in ((tiny_lm("gpt2"), math.inf), (lm, room)):
        packs, read = Windows.packs(model, [batch])
        with pretend.limit(most):
            found.append(dict(sweep_heads(model, packs, read, skip=range(-1, HEADS))))
    same(found[1], found[0])
    assert ("heads" in seen, "rows" in seen) == (heads, rows)


def test_the_head_whose_numbers_are_none_is_named() -> None:
    lm = tiny_lm("gpt2", device=pretend.NAME)

    def overflow(_module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        """No numbers in the rows in which the third head is off."""
        third = args[0].unflatten(-1, (HEADS, -1))[:, :, 2]
        return out.masked_fill((third == 0).all(-1).all(-1)[:, None, None], float("nan"))

    lm.out_proj(1).register_forward_hook(overflow)
    packs, read = text(lm)
    with pytest.raises(NotFinite, match="with L1H2 removed"):
        dict(sweep_heads(lm, packs, read, skip=range(-1, 4)))
