"""Passes in a higher precision without a copy, against copies in that precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from fasp_core.export.precise import computing_in
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from tests.support.tiny import KINDS, tiny_lm, token_rows

ROWS = token_rows(2, 12)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_numbers_are_those_of_a_copy(kind: str, stored: torch.dtype) -> None:
    lm = tiny_lm(kind)
    lm.model.to(stored)
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    for wide in (torch.float32, torch.float64):
        expected = copy.deepcopy(lm.model).to(wide)(ROWS, use_cache=False).logits
        with computing_in(wide, lm.model):
            found = lm.model(ROWS, use_cache=False).logits
        assert found.dtype == wide
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if wide == torch.float64 else 0)
    after = lm.model.state_dict()
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)


@torch.no_grad()
def test_weights_are_back_after_a_pass_that_failed() -> None:
    lm = tiny_lm("gpt2")

    def stop(*_: Any) -> None:
        raise MemoryError

    handle = lm.blocks[1].register_forward_hook(stop)
    with pytest.raises(MemoryError), computing_in(torch.float64, lm.model):
        lm.model(ROWS, use_cache=False)
    handle.remove()
    assert {p.dtype for p in lm.model.parameters()} == {torch.float32}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.model.modules())


@torch.no_grad()
def test_heads_can_be_off_meanwhile() -> None:
    lm, removed = tiny_lm("llama"), PruneSet.parse("L0H1,L1H3")
    with masked(lm, removed):
        expected = lm.model(ROWS, use_cache=False).logits
        with computing_in(torch.float64, lm.model):
            found = lm.model(ROWS, use_cache=False).logits
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-5)
