"""NLL token by token against transformers alone, and repeated tokens against a loop that reads the rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.data.text import TextConfig, token_windows
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import perplexity_of
from fasp_core.metrics.repeated import TokenNats, places, repeats, tokens_of
from fasp_core.storage.store import Store
from tests.support.oracles import without
from tests.support.tiny import tiny_lm, tiny_text

HEADS = PruneSet.parse("L0H3,L1H0")


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 2))
def test_repeated_is_what_stood_before(row: list[int], begun: int) -> None:
    found = repeats(row, begun)
    assert found == [any(row[j] == row[i] for j in range(begun, i)) for i in range(len(row))]


@pytest.mark.parametrize("prune_set", [PruneSet(), HEADS], ids=["unpruned", "pruned"])
def test_as_transformers_alone(tmp_path: Path, prune_set: PruneSet) -> None:
    (tmp_path / "text.txt").write_text(tiny_text(300, 5))
    text, lm = TextConfig(str(tmp_path / "text.txt"), 300, 40, 30), tiny_lm("llama")
    store = Store(tmp_path / "cache")
    found = tokens_of(lm, prune_set, text, store)
    model = without(lm, prune_set)
    want, again = [], []
    for ids, firsts in token_windows(lm, text).batches:
        for row, first in zip(ids, firsts, strict=True):
            with torch.no_grad():
                log_p = model(row[None]).logits[0, :-1].double().log_softmax(-1)
            want += [-float(log_p[t - 1, row[t]]) for t in range(int(first), len(row))]
            again += [int(row[t]) in row[:t].tolist() for t in range(int(first), len(row))]
    assert found.nats == pytest.approx(want, abs=1e-4)
    assert found.again.tolist() == again
    assert 0 < sum(again) < len(again)
    part = found.nll(repeated=True)
    assert part.mean == pytest.approx(np.mean(np.array(want)[again]), abs=1e-4)
    assert part.tokens == sum(again)
    whole, _ = perplexity_of(lm, prune_set, text, store)
    assert found.nll().sums == pytest.approx(whole.sums, abs=1e-3)
    assert found.nll().counts.tolist() == whole.counts.tolist()
    kept = tokens_of(lm, prune_set, text, Store(tmp_path / "other"), None, CachedRunner(lm))
    assert kept.nats == pytest.approx(found.nats, abs=1e-5)


def test_a_second_time_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(tiny_text(100))
    text, lm, store = TextConfig(str(tmp_path / "text.txt"), 100, 50, 50), tiny_lm("gpt2"), Store(tmp_path / "cache")
    first = tokens_of(lm, HEADS, text, store)
    monkeypatch.setattr("fasp_core.metrics.repeated.windows_of", lambda *_: pytest.fail("measured again"))
    assert tokens_of(lm, HEADS, text, store).nats.tolist() == first.nats.tolist()


def test_blocks_without_a_repeated_token_are_left_out() -> None:
    found = TokenNats(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True]), np.array([0, 0, 1, 2]))
    assert found.nll(repeated=True).sums.tolist() == [3.0, 4.0]
    assert found.nll().counts.tolist() == [2, 1, 1]
    with pytest.raises(InputError, match="take more tokens"):
        TokenNats(np.ones(2), np.zeros(2, dtype=bool), np.array([0, 0])).nll(repeated=True)


def test_beginnings_are_none_of_the_text(tmp_path: Path) -> None:
    class Windows:
        batches = ((torch.tensor([[1, 5, 1, 5]]), np.array([1])),)

    assert places(Windows(), 1)[0].tolist() == [False, False, True]  # type: ignore[arg-type]
    assert places(Windows(), 0)[0].tolist() == [False, True, True]  # type: ignore[arg-type]
