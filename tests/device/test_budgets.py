"""What a head may cost on a device: kernels, waits and memory, counted on the pretended one."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fasp_core.data.text import TextConfig, TokenWindows
from fasp_core.forward.ablation import gated, masked
from fasp_core.forward.recorded_pass import ResumablePass
from fasp_core.forward.sweep import sweep_heads
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import TokenToxicity, read_expected
from fasp_core.metrics.perplexity import measure_nll, nll_sums, window_packs
from fasp_core.model import grouped
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import pack, pack_rows
from fasp_core.model.passes import double, on_host
from tests.support import pretend
from tests.support.tiny import KINDS, VOCAB, tiny_lm, token_rows

WAITS = 3  # for the device, a head and batch
KERNELS = 40  # a block
# What transformers' own blocks cost beyond that: more norms, of six to eight kernels each, or attention in parts.
WIDER = {"gptj": 45, "qwen3": 48, "gemma3_text": 66}
UPLOADS = {"gpt_neo": 1}  # a block: its attention makes a number on the CPU and sends it
DEPTHS = (3, 7)
QUICK = ("gpt2", "llama", "gemma3_text")


@pytest.fixture(autouse=True)
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(grouped, "DEVICES", [pretend.NAME])
    with pretend.rules("cuda"):
        yield


def batches(lm: LanguageModel, what: str) -> tuple[list[Any], Any]:
    if what == "text":
        return [pack_rows(token_rows(2, 24), np.arange(2))], lambda p, h: nll_sums(lm, p, h, np.array([1, 1]))[0]
    worth = TokenToxicity(torch.rand(VOCAB, 4), torch.rand(VOCAB) > 0.5).on(lm.device)
    return pack(lm, [[1, 2, 3, i] for i in range(9)]), lambda p, h: read_expected(lm, h, p, worth)


def one_head(lm: LanguageModel, what: str) -> pretend.Seen:
    """What L0H1 costs, removed after L0H0."""
    packs, read = batches(lm, what)
    heads = sweep_heads(lm, packs, read, set(range(-1, lm.size)) - {1})
    next(heads)  # what is made once: uploads of the batch
    (packed,) = packs
    held = ResumablePass(lm, packed)
    with pretend.counting() as seen, torch.no_grad(), masked(lm, PruneSet.of([(0, 1)])):
        read(held.batch, held.resume())
    return seen


@pytest.mark.parametrize("what", ["text", "prompts"])
@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])
def test_a_head_keeps_within_its_budget(kind: str, what: str) -> None:
    costs = [one_head(tiny_lm(kind, n_layers=n, device=pretend.NAME), what) for n in DEPTHS]
    for depth, cost in zip(DEPTHS, costs, strict=True):
        assert cost.waited <= WAITS + UPLOADS.get(kind, 0) * depth, cost.waits
    few, many = costs
    extra = many.kernels - few.kernels
    per_block = (many.launched - few.launched) / (DEPTHS[1] - DEPTHS[0])
    assert per_block <= WIDER.get(kind, KERNELS), extra
    assert not extra["attention, not fused"]


def test_gates_are_looked_at_once_and_on_the_cpu() -> None:
    lm = tiny_lm("gpt2", n_layers=6, device=pretend.NAME)
    gates = PruneSet.parse("L0H1,L5H2").gates(6, 4)
    with pretend.counting() as seen:
        with gated(lm, gates):
            hooked = [layer for layer in range(6) if lm.out_proj(layer)._forward_pre_hooks]
        with gated(lm, np.ones((6, 4), np.float32)):
            assert not any(lm.out_proj(layer)._forward_pre_hooks for layer in range(6))
    assert hooked == [0, 5]
    assert seen.waited == 1  # the gates, on their way there
    with pretend.counting() as seen, gated(lm, torch.ones(2, 6, 4, device=pretend.NAME)):
        pass
    assert seen.waited <= 2  # gates that are there already: by rows


def test_a_batch_that_was_halved_is_held_once() -> None:
    """After memory has ended, what is held are the halves at the input of their block, and no states beside these."""
    lm = tiny_lm("gpt2", device=pretend.NAME)
    ids = token_rows(8, 24)
    read = lambda part, hidden: np.zeros((len(part), 1))  # noqa: E731
    states = ids.numel() * lm.model.config.hidden_size * 4

    def held(room: float) -> tuple[int, int]:
        gc.collect()
        before = pretend.allocated()
        with pretend.limit(room):
            heads = sweep_heads(lm, [ids], read, skip=range(-1, 4))
            next(heads)
            gc.collect()
            return pretend.allocated() - before, pretend.peak(again=True) - before

    whole, most = held(float("inf"))
    halved, less = held(most * 0.75)
    assert less <= most * 0.75
    assert whole >= states
    assert halved <= whole + states // 8  # masks and positions of two passes in place of one


def test_waiting_once_brings_many_tensors() -> None:
    made = [torch.randn(3, 4), torch.arange(5), torch.randn(2), torch.randn(1, 0)]
    there = [x.to(f"{pretend.NAME}:{i % 2}") for i, x in enumerate(made)] + [torch.ones(2)]
    with pretend.counting() as seen:
        back = on_host(there)
    assert all(map(torch.equal, back, [*made, torch.ones(2)]))
    assert seen.waited == 3  # float32 of the first device, int64 and float32 of the second


def test_float64_is_made_where_there_is_some() -> None:
    x = torch.randn(3).to(pretend.NAME)
    assert double(x).device == x.device
    with pretend.rules("mps"):
        assert double(x).device.type == "cpu"
        assert double(x).dtype == torch.float64


# --- grouped-query attention ---


def windows_of(ids: torch.Tensor) -> TokenWindows:
    return TokenWindows(TextConfig(), ((ids, np.ones(len(ids), dtype=int)),), "", ids.numel() - len(ids))


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])
def test_attention_with_groups_is_fused_and_gives_the_same_numbers(kind: str) -> None:
    lm, there = tiny_lm(kind), tiny_lm(kind, device=pretend.NAME)
    groups = lm.n_kv_heads < lm.n_heads
    assert (there.model.config._attn_implementation == grouped.NAME) == groups
    assert lm.model.config._attn_implementation != grouped.NAME  # on the CPU numbers stay as they are
    windows = windows_of(token_rows(3, 40))
    with pretend.counting() as seen:
        found = measure_nll(there, windows).sums
    assert not seen.kernels["attention, not fused"]
    np.testing.assert_allclose(found, measure_nll(lm, windows, rows=len(windows.batches[0][0])).sums, rtol=1e-5)


def test_without_the_switch_it_would_not_be_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "DEVICES", [])
    lm = tiny_lm("llama", device=pretend.NAME)
    with pretend.counting() as seen, torch.no_grad():
        lm.model(token_rows(2, 9).to(lm.device))
    assert seen.kernels["attention, not fused"]
    q, k = torch.randn(1, 4, 5, 8, dtype=torch.bfloat16), torch.randn(1, 2, 5, 8, dtype=torch.bfloat16)
    with pretend.counting() as seen:
        scaled_dot_product_attention(*(x.to(pretend.NAME) for x in (q, k, k)), is_causal=True, enable_gqa=True)
    assert seen.kernels == Counter(attention=1)  # 16 bits have a kernel for groups


def test_texts_go_side_by_side_on_a_device() -> None:
    windows = windows_of(token_rows(9, 16))
    for device, passes in (("cpu", 9), (pretend.NAME, 2)):
        lm, seen = tiny_lm("gpt2", device=device), []
        lm.blocks[0].register_forward_hook(lambda *_, seen=seen: seen.append(1))
        measure_nll(lm, windows)
        assert len(seen) == passes
    assert len(window_packs(windows)[0]) == 9


def test_a_model_that_is_dropped_is_freed() -> None:
    gc.collect()
    before = pretend.allocated()
    lm = tiny_lm("gpt2", device=pretend.NAME)
    gone = weakref.ref(lm.model)
    assert pretend.allocated() > before
    with torch.no_grad(), masked(lm, PruneSet.of([(0, 1)])):
        lm.model(token_rows(2, 9).to(lm.device))
    del lm
    gc.collect()
    assert gone() is None
    assert pretend.allocated() == before
