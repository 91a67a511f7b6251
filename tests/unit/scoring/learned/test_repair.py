"""Repair against numpy's least squares on whole outputs, and what it never does: lose more, leave its bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from fasp_core.data.text import token_windows
from fasp_core.errors import InputError
from fasp_core.export.writing import export
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import MAX_GAIN, PruneSet
from fasp_core.scoring.learned.repair import least_change, lost, products, products_of, repair, stored_products
from fasp_core.storage.store import Store
from tests.support.tiny import tiny_lm
from tests.support.worlds import write_text

T, H, D, WIDTH = 60, 5, 12, 3


def toy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What heads add, [H, T, D], from random inputs and weights, and their inner products."""
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(T, H * WIDTH)), rng.normal(size=(D, H * WIDTH))
    x += 2 * rng.normal(size=(T, 1))  # heads say alike things
    adds = np.einsum("thd,ohd->hto", x.reshape(T, H, WIDTH), w.reshape(D, H, WIDTH))
    return adds, products_of(torch.tensor(x, dtype=torch.float32), torch.tensor(w, dtype=torch.float32), H)


@pytest.mark.parametrize("seed", range(5))
def test_products_are_those_of_what_heads_add(seed: int) -> None:
    adds, known = toy(seed)
    flat = adds.reshape(H, -1)
    assert known == pytest.approx(flat @ flat.T, rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_least_squares_of_numpy(seed: int) -> None:
    adds, _ = toy(seed)
    flat = adds.reshape(H, -1)
    gates = np.ones(H)
    gates[[1, 3]] = 0.0, 0.4 if seed % 2 else 0.0
    free = gates == 1
    target = flat.sum(0) - gates[~free] @ flat[~free]  # what the free heads have to add up to
    oracle = np.linalg.lstsq(flat[free].T, target, rcond=None)[0]
    found = least_change(gates, free, flat @ flat.T)
    if ((oracle >= 0) & (oracle <= MAX_GAIN)).all():
        assert found == pytest.approx(oracle, abs=1e-8)
    whole = gates.copy()
    whole[free] = found
    assert lost(whole, flat @ flat.T) == pytest.approx(float(((target - found @ flat[free]) ** 2).sum()), rel=1e-6)


@given(st.integers(0, 10_000), st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.4]), min_size=H, max_size=H))
@settings(max_examples=60, deadline=None)
def test_it_never_loses_more_and_keeps_to_its_bounds(seed: int, gates: list[float]) -> None:
    adds, _ = toy(seed)
    adds[seed % H] *= 4  # one head that others cannot stand for
    flat = adds.reshape(H, -1)
    known = flat @ flat.T
    start = np.array(gates)
    if (start == 1).all():
        return
    done = repair(PruneSet.from_gates(start[None]), known[None])
    found = done.prune_set.gates(1, H)[0].astype(float)
    assert ((found >= 0) & (found <= MAX_GAIN)).all()
    assert found[start != 1] == pytest.approx(start[start != 1], abs=1e-6)  # what was chosen stays
    assert lost(found, known) <= lost(start, known) * (1 + 1e-6)
    if not (start == 1).any():
        assert done.idle == (0,)
        return
    assert done.after[0] <= done.before[0] * (1 + 1e-9)
    free = start == 1
    oracle = lsq_linear(flat[free].T, flat.sum(0) - start[~free] @ flat[~free], (0, MAX_GAIN), tol=1e-12)
    both = [start.copy(), start.copy()]
    both[0][free], both[1][free] = least_change(start, free, known), oracle.x
    assert lost(both[0], known) == pytest.approx(lost(both[1], known), rel=1e-6, abs=1e-6)


def test_heads_that_say_the_same_share_the_rest() -> None:
    one = np.random.default_rng(0).normal(size=40)
    flat = np.stack([one, one, one, 0 * one])
    found = least_change(np.array([0.0, 1, 1, 1]), np.array([False, True, True, True]), flat @ flat.T)
    assert found == pytest.approx([1.5, 1.5, 1.0], abs=1e-8)  # the shortest move; a silent head stays


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_repaired_layer_writes_what_is_nearest(kind: str, tmp_path: Path) -> None:
    lm, store = tiny_lm(kind), Store(tmp_path / "store")
    text = write_text(tmp_path, 160, tokens=150, window=50, stride=50)
    found, again = products(lm, text, store), stored_products(lm.id, text, store)
    assert again is not None
    assert np.array_equal(again.values, found.values)
    assert again.tokens == found.tokens == token_windows(lm, text).n_scored < 150
    known = found.values
    assert stored_products(lm.id, replace(text, tokens=100), store) is None
    chosen = PruneSet.parse("L0H1,L1H2,L1N3")
    done = repair(chosen, known)
    assert done.prune_set.heads == chosen.heads
    assert done.prune_set.neurons == chosen.neurons
    assert all(done.after[layer] < done.before[layer] for layer in (0, 1))
    seen: list[torch.Tensor] = []
    hook = lm.out_proj(0).register_forward_hook(lambda _m, _a, out: seen.append(out.detach()))
    ids = torch.tensor([lm.tokens(Path(text.source).read_text())[:50]])
    with torch.no_grad():
        for one in (PruneSet(), chosen, done.prune_set):
            with masked(lm, one):
                lm.model(ids)
    hook.remove()
    whole, cut, mended = (out[0, :-1].double() for out in seen)
    first = PruneSet.parse("L0H1")
    single = repair(first, products(lm, replace(text, tokens=50), store).values)  # of these tokens alone
    bias = lm.out_proj(0).bias
    plain = whole if bias is None else whole - bias.detach().double()
    assert float(((whole - cut) ** 2).sum() / (plain**2).sum()) == pytest.approx(single.before[0], rel=1e-3)
    assert float(((whole - mended) ** 2).sum()) < float(((whole - cut) ** 2).sum())


def test_an_export_is_the_repaired_model(tmp_path: Path) -> None:
    import transformers

    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    text = write_text(tmp_path, 160, tokens=150, window=50, stride=50)
    done = repair(PruneSet.parse("L0H1,L1H0-1"), products(lm, text, store).values)
    assert done.prune_set.gains
    export(lm, done.prune_set, tmp_path / "out")
    ids = torch.arange(2, 22)[None]
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad(), masked(lm, done.prune_set):
        assert plain(ids).logits == pytest.approx(lm.model(ids).logits, abs=1e-4)


def test_a_set_that_cannot_be_repaired_is_told() -> None:
    known = np.ones((2, 4, 4))
    with pytest.raises(InputError, match="nothing to repair"):
        repair(PruneSet.parse("L0N3"), known)
    with pytest.raises(InputError, match="does not exist"):
        repair(PruneSet.parse("L2H0"), known)
