"""Sets of heads: what is written, read and counted. That removing them is right is tested per architecture."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated, masked
from fasp_core.heads.prune_set import PruneSet
from tests.support.tiny import tiny_lm

HEADS_OF_A_MODEL = st.sets(st.tuples(st.integers(0, 40), st.integers(0, 12)))


@settings(deadline=None)
@given(HEADS_OF_A_MODEL, HEADS_OF_A_MODEL)
def test_what_is_formatted_reads_back(heads: set[tuple[int, int]], neurons: set[tuple[int, int]]) -> None:
    prune_set = PruneSet.of(heads, neurons)
    assert PruneSet.parse(prune_set.format()) == prune_set
    assert len(prune_set) == len(heads) + len(neurons)


GAINS = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(0, 4)), st.one_of(st.floats(0, 1.5), st.sampled_from([0.0, 1.0, 1.5]))
)


@settings(deadline=None)
@given(GAINS)
def test_gates_are_read_back_from_text_and_from_their_array(gates: dict[tuple[int, int], float]) -> None:
    array = np.ones((7, 5))
    for head, gate in gates.items():
        array[head] = gate
    found = PruneSet.from_gates(array, {(1, 3)})
    assert found.gates(7, 5) == pytest.approx(array, abs=1e-4)
    assert PruneSet.parse(found.format()) == found
    assert found.heads == {head for head, gate in gates.items() if round(gate, 4) == 0}
    assert len(found) == 1 + int((np.round(array, 4) != 1).sum())
    below = found.below(3)
    assert below.gates(7, 5)[:3] == pytest.approx(found.gates(7, 5)[:3])
    assert (below.gates(7, 5)[3:] == 1).all()
    for head in gates:
        assert found.toggled(head).gates(7, 5)[head] == (0 if head not in found.heads else 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("L0H1*1.6", "L0H1 cannot be multiplied by 1.6: a gain is from 0 to 1.5"),
        ("L0H1*0.4,L0H0-2*0.5", "L0H1 is given two gains, 0.4 and 0.5: name one"),
        ("L0H1,L0H1*0.5", "L0H1 is given two gains, 0 and 0.5"),
        ("L0H1*-1", "'L0H1*-1' is not a head"),
        ("L0H1*", "is not a head"),
        ("L0N1*0.5", "is not a head"),
        ("L0H1*1e9", "is not a head"),
    ],
)
def test_gains_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        PruneSet.parse(text)
    with pytest.raises(InputError, match="L0H0 cannot be multiplied by nan"):
        PruneSet.from_gates(np.array([[np.nan, 1.0]]))


def test_gains_stand_behind_what_is_removed() -> None:
    found = PruneSet.parse("L2H1*.4, L0H3*0,l0h2*1.0, L1H0-1*1.25,L3N7,L0H5")
    assert found.format() == "L0H3,L0H5,L3N7,L1H0*1.25,L1H1*1.25,L2H1*0.4"
    assert found.gates(3, 6)[1].tolist() == [1.25, 1.25, 1, 1, 1, 1]


def test_neurons_stand_beside_heads() -> None:
    prune_set = PruneSet.parse("L3N100-102, L0H1,l3n7,L30N123456")
    assert prune_set.heads == {(0, 1)}
    assert prune_set.neurons == {(3, 7), (3, 100), (3, 101), (3, 102), (30, 123456)}
    assert prune_set.format() == "L0H1,L3N7,L3N100-102,L30N123456"
    assert prune_set.below(3) == PruneSet.of([(0, 1)])
    assert prune_set.toggled((0, 1)) == PruneSet.of(neurons=prune_set.neurons)
    gates = PruneSet.parse("L1N0,L1N3").neuron_gates(2, 5)
    assert {layer: gate.tolist() for layer, gate in gates.items()} == {1: [0, 1, 1, 0, 1]}


@pytest.mark.parametrize("neuron", ["L2N0", "L0N5"])
def test_a_neuron_outside_the_model_is_named(neuron: str) -> None:
    with pytest.raises(InputError, match=f"{neuron} does not exist: this model has layers 0 to 1 with neurons 0 to 4"):
        PruneSet.parse(neuron).neuron_gates(2, 5)


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("", []),
        ("  \n", []),
        ("L0H3", [(0, 3)]),
        ("l0h3, L12H10", [(0, 3), (12, 10)]),
        ("L2H1-4", [(2, 1), (2, 2), (2, 3), (2, 4)]),
        ("L2H1-1", [(2, 1)]),
        ("L1H0;L0H0\nL1H0 ,", [(0, 0), (1, 0)]),
        ("L02H003", [(2, 3)]),
    ],
)
def test_parse(text: str, heads: list[tuple[int, int]]) -> None:
    assert list(PruneSet.parse(text)) == heads


@pytest.mark.parametrize(
    ("heads", "text"),
    [
        ([], ""),
        ([(0, 0), (0, 1)], "L0H0,L0H1"),
        ([(0, 0), (0, 1), (0, 2)], "L0H0-2"),
        ([(0, 1), (0, 2), (0, 3), (0, 5), (1, 4), (1, 5)], "L0H1-3,L0H5,L1H4,L1H5"),
        ([(0, 3), (1, 0), (1, 1), (1, 2)], "L0H3,L1H0-2"),  # a run ends with its layer
    ],
)
def test_format(heads: list[tuple[int, int]], text: str) -> None:
    assert PruneSet.of(heads).format() == text


@pytest.mark.parametrize("text", ["3", "L1", "H2", "L1H", "L-1H0", "L0H1-", "L0H0-1-2", "L0H0L1H1", "L0H99999"])
def test_what_is_no_head_is_named(text: str) -> None:
    with pytest.raises(InputError, match=f"'{text}' is not a head: write heads as L0H3"):
        PruneSet.parse(f"L0H0,{text}")


def test_a_backward_range_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("'L0H4-2' runs backwards")):
        PruneSet.parse("L0H4-2")


@settings(deadline=None)
@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, 300)))))
def test_flat_ids_are_layer_times_heads_plus_head(case: tuple[int, set[int]]) -> None:
    n_heads, ids = case
    prune_set = PruneSet.from_flat(ids, n_heads)
    assert prune_set.flat(n_heads) == sorted(ids)
    assert all(layer * n_heads + head in ids and head < n_heads for layer, head in prune_set)


@settings(deadline=None)
@given(HEADS_OF_A_MODEL)
def test_gates_are_zero_for_removed_heads_only(heads: set[tuple[int, int]]) -> None:
    gates = PruneSet.of(heads).gates(41, 13)
    assert gates.shape == (41, 13)
    for layer in range(41):
        for head in range(13):
            assert gates[layer, head] == ((layer, head) not in heads)


@pytest.mark.parametrize("head", [(3, 0), (0, 4)])
def test_heads_outside_the_model_are_refused(head: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"L{head[0]}H{head[1]} does not exist.*layers 0 to 2 with heads 0 to 3"):
        PruneSet.of([(0, 0), head]).gates(3, 4)


@settings(deadline=None)
@given(HEADS_OF_A_MODEL, st.tuples(st.integers(0, 40), st.integers(0, 12)))
def test_toggling_changes_one_head(heads: set[tuple[int, int]], head: tuple[int, int]) -> None:
    before = PruneSet.of(heads)
    after = before.toggled(head)
    assert (head in after.heads) != (head in before.heads)
    assert after.heads - {head} == before.heads - {head}
    assert after.toggled(head) == before


# on a model


@pytest.mark.parametrize("shape", [(2,), (4, 2), (2, 3), (1, 1, 2, 4)])
def test_gates_of_another_shape_are_a_mistake(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="gates have shape"), gated(tiny_lm("llama"), np.zeros(shape)):
        pass


def test_the_model_is_locked_while_masked() -> None:
    lm = tiny_lm("llama")
    free = []

    def look() -> None:
        got = lm.lock.acquire(blocking=False)
        free.append(got)
        if got:
            lm.lock.release()

    def in_another_thread() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    in_another_thread()
    with masked(lm, PruneSet.of([(0, 0)])):
        in_another_thread()
        with masked(lm, PruneSet.of([(1, 0)])):  # the same thread may nest
            in_another_thread()
    in_another_thread()
    assert free == [True, False, False, True]


@torch.no_grad()
def test_nested_masks_add_up() -> None:
    lm, ids = tiny_lm("gpt2"), torch.arange(10)[None]
    with masked(lm, PruneSet.of([(0, 1), (1, 2)])):
        together = lm.model(ids).logits
    with masked(lm, PruneSet.of([(0, 1)])), masked(lm, PruneSet.of([(1, 2)])):
        assert torch.equal(lm.model(ids).logits, together)
