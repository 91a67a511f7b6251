"""What heads are worth for last words: against whole passages run by transformers with weights set to zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fasp_core.forward.ablation import gated
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import task
from fasp_core.scoring.entries import stored_task
from fasp_core.storage.store import Store
from fasp_core.tasks import files
from fasp_core.tasks.last_words import passages, rows
from tests.support.made import tiny_questions, write_task
from tests.support.oracles import without
from tests.support.tiny import tiny_lm

KINDS = ["llama", "gpt2", "gemma3_text"]
FEW, MANY = 6, 20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    write_task(tmp_path, "lambada", tiny_questions(60, 1, 3))
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def nats(lm: LanguageModel, model: object, items: int) -> np.ndarray:
    """[n] NLL of the last word, one passage after the other."""
    found = []
    for item in passages("valid", items).items:
        before, whole = (lm.tokens(text) for text in (item.contexts[0], item.contexts[0] + item.continuations[0]))
        with torch.no_grad():
            log_p = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)  # type: ignore[operator]
        found.append(-sum(float(log_p[t - 1, whole[t]]) for t in range(len(before), len(whole))))
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_is_each_head_removed_in_a_loop(kind: str, store: Store) -> None:
    lm = tiny_lm(kind)
    found = task.exact_task(lm, FEW, store)
    base = nats(lm, lm.model, FEW)
    table = np.stack([nats(lm, without(lm, {divmod(flat, lm.n_heads)}), FEW) for flat in range(lm.size)])
    assert found.base == pytest.approx(base, abs=1e-4)
    assert found.ablated == pytest.approx(table, abs=1e-4)
    z = (table - base).mean(1)
    assert found.z_task == pytest.approx(z, abs=1e-4)
    assert found.se_task == pytest.approx((table - base).std(1, ddof=1) / np.sqrt(FEW), abs=1e-4)
    assert np.abs(z).max() > 0.05
    assert (found.estimator, found.passages, found.removed_on) == ("exact", FEW, FEW)


@pytest.mark.parametrize("kind", KINDS)
def test_first_order_is_the_slope_at_a_gate_of_one(kind: str, store: Store) -> None:
    lm, step = tiny_lm(kind), 0.01
    found = task.first_order_task(lm, MANY, store)
    base = nats(lm, lm.model, MANY)
    assert found.base == pytest.approx(base, abs=1e-4)
    for flat in range(lm.size):
        ends = []
        for gate in (1 - step, 1 + step):
            gates = np.ones((lm.n_layers, lm.n_heads))
            gates[divmod(flat, lm.n_heads)] = gate
            with gated(lm, torch.tensor(gates, dtype=torch.float32)):
                ends.append(nats(lm, lm.model, MANY))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert found.ablated[flat] - found.base == pytest.approx(slope, abs=5e-3, rel=5e-3)


def test_two_phases_are_first_order_plus_its_mean_error(store: Store) -> None:
    lm = tiny_lm("llama")
    exact, first = task.exact_task(lm, FEW, store), task.first_order_task(lm, MANY, store)
    both = task.score_task(lm, store, MANY, FEW)
    assert set(exact.rows.tolist()) <= set(first.rows.tolist())  # more passages hold fewer
    few = [first.rows.tolist().index(row) for row in exact.rows.tolist()]
    want = (first.ablated - first.base).mean(1)
    want += (exact.ablated - exact.base).mean(1) - (first.ablated - first.base)[:, few].mean(1)
    assert both.z_task == pytest.approx(want, abs=1e-4)
    assert (both.estimator, both.passages, both.removed_on) == ("two-phase", MANY, FEW)
    assert (both.se_task >= first.se_task).all()
    found = stored_task(lm.id, store)
    assert found is not None
    assert found.z_task == pytest.approx(both.z_task)
    loaded = task.load_task(lm.id, store, MANY, FEW)
    assert loaded is not None
    assert loaded.z_task == pytest.approx(both.z_task)
    assert task.load_task(lm.id, store, MANY, FEW - 1) is None
    assert task.score_task(lm, store, FEW, FEW).estimator == "exact"


def test_exact_on_all_of_them_needs_no_first_order(store: Store) -> None:
    lm = tiny_lm("llama")
    found = task.score_task(lm, store, FEW, FEW)
    assert found.estimator == "exact"
    kept = stored_task(lm.id, store)
    assert kept is not None
    assert kept.estimator == "exact"
    assert stored_task(tiny_lm("gpt2").id, store) is None


def test_a_stopped_run_goes_on(store: Store) -> None:
    lm = tiny_lm("llama")
    want = task.exact_task(lm, FEW, Store(store.root / "other"))

    class Stop(Exception):
        pass

    def stop(done: float, _total: float, _text: str) -> None:
        if done >= 3:
            raise Stop

    with pytest.raises(Stop):
        task.exact_task(lm, FEW, store, stop)
    seen: list[float] = []
    found = task.exact_task(lm, FEW, store, lambda done, *_: seen.append(done))
    assert min(seen) > 3
    assert found.ablated == pytest.approx(want.ablated, abs=1e-6)


def test_passages_to_choose_on_and_to_claim_on_are_others() -> None:
    valid, test = (passages(split, 100) for split in ("valid", "test"))
    assert valid.available + test.available == 60
    assert not {item.contexts for item in valid.items} & {item.contexts for item in test.items}
    assert passages("valid", FEW).items == valid.items[:FEW]
    assert min(valid.available, test.available) > 15


def test_what_is_too_long_loses_its_beginning(folder: Path) -> None:
    from tests.support.made import Question
    from tests.support.tiny import CONTEXT, tiny_text

    write_task(folder, "lambada", [Question(tiny_text(CONTEXT + 40, i), (" red house",), 0) for i in range(8)])
    files._read.cache_clear()
    lm = tiny_lm("gpt2")
    found = rows(lm, passages("valid", 8))
    assert {len(row) for row in found.ids} == {CONTEXT}
    assert found.cut == len(found.ids) > 0
    assert found.first.tolist() == [CONTEXT - 2] * len(found.ids)
