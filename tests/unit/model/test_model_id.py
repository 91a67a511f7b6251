"""The identity of a model inside keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasp_core.model.identity import ModelId
from fasp_core.storage.store import Store


def test_a_key_holds_weights_and_precision() -> None:
    assert ModelId("sha256:ab").key() == {"weights": "sha256:ab", "dtype": "float32"}
    assert ModelId("sha256:ab", "bfloat16").key() != ModelId("sha256:ab").key()


@pytest.mark.parametrize("weights", ["", "hub:None", "None"])
def test_a_model_without_an_identity_has_no_key(weights: str) -> None:
    with pytest.raises(ValueError, match="without an identity"):
        ModelId(weights)


def test_a_search_for_entries_leaves_out_those_with_more_in_their_key(tmp_path: Path) -> None:
    store, one = Store(tmp_path), ModelId("sha256:ab")
    store.save("scores", {**one.key(), "n": 1}, meta={})
    store.save("scores", {**one.key(), "n": 2, "later": "field"}, meta={})
    assert len(store.find("scores", one.wanted())) == 2
    assert len(store.find("scores", one.wanted() | {"later": None})) == 1
