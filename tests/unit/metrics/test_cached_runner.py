"""Resumed measurements against whole passes, and the blocks that they run against what a toggle calls for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fasp_core.compute.jobs import Cancelled
from fasp_core.forward.ablation import masked
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, pack, pack_equal, pack_trees
from tests.support.tiny import HEADS, HIDDEN, KINDS, tiny_lm, token_rows

LAYERS = 4
NONE = PruneSet()
TEXT = (token_rows(2, 9), token_rows(1, 5, seed=1))
ROWS = [[1, 2, i] for i in range(6)] + [[1, 3, 4, i] for i in range(6)]
LAYER_BYTES = 4 * HIDDEN * sum(ids.numel() for ids in TEXT)
MASK_BYTES = 4 * (2 * 9**2 + 5**2)

HEAD_SETS = st.sets(st.tuples(st.integers(0, LAYERS - 1), st.integers(0, HEADS - 1)), max_size=5).map(PruneSet.of)
STEPS = st.lists(st.tuples(HEAD_SETS, st.booleans(), st.none() | st.integers(0, 2 * LAYERS)), min_size=2, max_size=8)


@cache
def model(kind: str) -> LanguageModel:
    return tiny_lm(kind, n_layers=LAYERS)


def room_for(layers: int, groups: int = 2) -> int:
    """A budget under which every group may keep this many layers of `TEXT`."""
    return groups * (MASK_BYTES + layers * LAYER_BYTES)


def hidden_of(
    runner: CachedRunner, inputs: Sequence[Tensor | Pack], heads: PruneSet, progress: Any = None
) -> list[Tensor]:
    return runner.measure(inputs, heads, lambda _i, hidden: hidden.clone(), progress)


def whole(lm: LanguageModel, inputs: Iterable[Tensor | Pack], heads: PruneSet) -> list[Tensor]:
    with masked(lm, heads):
        return [final_hidden(lm, batch) for batch in inputs]


def assert_same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def stopper(after: int | None) -> Any:
    """A report that raises once it has been called `after` times."""
    left = after

    def report(*_: Any) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                raise Cancelled

    return report


def blocks_run(lm: LanguageModel) -> list[int]:
    """Grows by the number of a block whenever it runs."""
    seen: list[int] = []
    for layer, block in enumerate(lm.blocks):
        block.register_forward_hook(lambda *_, layer=layer: seen.append(layer))
    return seen


def held_bytes(runner: CachedRunner) -> int:
    states = [s for group in runner._groups.values() for kept in group.batches for _, s in kept.states.values()]
    return sum({s.data_ptr(): s.numel() * s.element_size() for s in states}.values())


# the numbers


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4, deadline=None)
@given(STEPS, st.sampled_from([0, room_for(1), room_for(2), room_for(LAYERS), 1 << 20]))
def test_any_sequence_of_sets_gives_the_numbers_of_whole_passes(kind: str, steps: list[Any], budget: int) -> None:
    lm = model(kind)
    packs = pack(lm, ROWS)
    runner = CachedRunner(lm, budget)
    for heads, prompts, stop in steps:
        inputs = packs if prompts else TEXT
        try:
            found = hidden_of(runner, inputs, heads, stopper(stop))
        except Cancelled:
            continue
        assert_same(found, whole(lm, inputs, heads))
    for inputs in (packs, TEXT):  # whatever was stopped before
        assert_same(hidden_of(runner, inputs, heads), whole(lm, inputs, heads))
        assert held_bytes(runner) <= budget


def test_removed_heads_matter() -> None:
    """Else the equalities above would say nothing."""
    for kind in KINDS:
        lm = model(kind)
        (base,) = whole(lm, TEXT[:1], NONE)
        for layer in range(LAYERS):
            (pruned,) = whole(lm, TEXT[:1], PruneSet.of([(layer, 1)]))
            assert float((base - pruned).abs().max()) > 1e-3


def test_the_same_tokens_in_another_tree_are_another_input() -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    row, star = Pack(torch.tensor([[1, 2, 3]]), np.array([0]), torch.tensor([[2]])), [-1, 0, 0]
    trees = [Pack(row.ids, row.prompts, row.reads, np.array(parents)) for parents in ([-1, 0, 1], star)]
    runner = CachedRunner(lm)
    found = [hidden_of(runner, [batch], NONE)[0] for batch in (row, *trees)]
    for hidden, batch in zip(found, (row, *trees), strict=True):
        assert_same([hidden], whole(lm, [batch], NONE))
    assert not torch.allclose(found[1], found[2])
    assert not runner.measure([], NONE, lambda i, hidden: hidden)


# the work


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("kept", [1, 2, LAYERS])
def test_a_toggle_runs_the_blocks_from_the_nearest_kept_layer_on(layer: int, kept: int) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    runner, ran = CachedRunner(lm, room_for(kept)), blocks_run(lm)
    stride = LAYERS // kept
    heads = PruneSet.parse("L1H0,L3H1")
    hidden_of(runner, TEXT, heads)
    assert ran == 2 * list(range(LAYERS))
    for subject in (heads.toggled((layer, 2)), heads, heads.toggled((layer, 3))):
        del ran[:]
        hidden_of(runner, TEXT, subject)
        assert ran == 2 * list(range(layer // stride * stride, LAYERS))


def test_nothing_is_kept_without_room() -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    runner, ran = CachedRunner(lm, room_for(1) - 1), blocks_run(lm)
    for _ in range(2):
        hidden_of(runner, TEXT, NONE)
    assert len(ran) == 2 * 2 * LAYERS
    assert held_bytes(runner) == 0


def test_trees_resume_as_well() -> None:
    lm = tiny_lm("gpt2", n_layers=LAYERS)
    packs = pack_trees(ROWS, 1, 12)
    runner, ran = CachedRunner(lm), blocks_run(lm)
    hidden_of(runner, packs, NONE)
    del ran[:]
    hidden_of(runner, packs, PruneSet.of([(3, 0)]))
    assert ran == len(packs) * [3]


@pytest.mark.parametrize("at", range(1, LAYERS))
def test_what_a_stopped_measurement_did_is_not_done_again(at: int) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    old, new = PruneSet.parse("L2H0"), PruneSet.parse("L0H1,L2H0")
    above = LAYERS - 1 if at < LAYERS - 1 else 0  # what lies above the stop is still that of the old set
    for subject, start in ((new, at), (old, above)):
        runner, ran = CachedRunner(lm), blocks_run(lm)
        hidden_of(runner, TEXT[:1], old)
        with pytest.raises(Cancelled):
            hidden_of(runner, TEXT[:1], new, stopper(at))  # before block `at` of the one batch
        del ran[:]
        assert_same(hidden_of(runner, TEXT[:1], subject), whole(lm, TEXT[:1], subject))
        first = ran[: LAYERS - start]
        assert first == list(range(start, LAYERS))
        assert ran[len(first) :] == list(range(LAYERS))  # the whole pass


def test_the_input_used_longest_ago_gives_way() -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    inputs = [[token_rows(2, 8, seed=seed)] for seed in range(3)]
    runner, ran = CachedRunner(lm, 2 * 4 * (16 * HIDDEN * LAYERS + 2 * 8**2)), blocks_run(lm)

    def cost(i: int) -> int:
        del ran[:]
        hidden_of(runner, inputs[i], NONE)
        return len(ran)

    assert [cost(i) for i in (0, 1, 0, 1)] == [LAYERS, LAYERS, 1, 1]
    assert [cost(i) for i in (0, 2, 0, 1)] == [1, LAYERS, 1, LAYERS]  # 2 took the place of 1, not of 0
    assert held_bytes(runner) <= runner.budget


# manners


def hooks(lm: LanguageModel) -> int:
    modules = [*lm.blocks, *(lm.out_proj(layer) for layer in range(lm.n_layers))]
    return sum(len(module._forward_pre_hooks) for module in modules)


def test_stopping_leaves_the_model_as_it_was() -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    heads = PruneSet.parse("L1H1")
    before = whole(lm, TEXT, NONE)
    for stop, resumed in product(range(2 * LAYERS + 1), (False, True)):
        runner = CachedRunner(lm)
        if resumed:
            hidden_of(runner, TEXT, NONE)
        with pytest.raises(Cancelled):
            hidden_of(runner, TEXT, heads, stopper(stop))
        assert hooks(lm) == 0
        free: list[bool] = []
        thread = threading.Thread(target=lambda free=free: free.append(lm.lock.acquire(timeout=5)))
        thread.start()
        thread.join()
        assert free == [True]
        lm.lock = threading.RLock()  # that thread has gone with the lock
        assert_same(whole(lm, TEXT, NONE), before)


def test_progress_goes_block_by_block_to_the_end() -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    runner = CachedRunner(lm)
    for heads, blocks in ((NONE, LAYERS), (PruneSet.parse("L2H0"), LAYERS - 2)):
        seen: list[tuple[float, float, str]] = []
        hidden_of(runner, TEXT, heads, lambda *report, seen=seen: seen.append(report))
        total = 2 * (blocks + 1)
        assert [done for done, _, _ in seen] == list(range(total + 1))
        assert {t for _, t, _ in seen} == {total}
        assert all(text for _, _, text in seen)


def test_readers_of_one_desk_take_turns() -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    runner = CachedRunner(lm)
    packs = pack_equal(ROWS)
    sets = [PruneSet.of([(layer, head)]) for layer in range(LAYERS) for head in range(2)]
    wanted = {(heads, id(inputs)): whole(lm, inputs, heads) for heads in sets for inputs in (TEXT, packs)}
    wrong: list[str] = []

    def read(order: Sequence[PruneSet], inputs: Any) -> None:
        for heads in order:
            found = hidden_of(runner, inputs, heads)
            if not all(map(torch.equal, found, wanted[heads, id(inputs)])):
                wrong.append(heads.format())

    threads = [
        threading.Thread(target=read, args=(order, inputs)) for order in (sets, sets[::-1]) for inputs in (TEXT, packs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
