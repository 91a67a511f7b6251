"""Stored results as a list, and the removal of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fasp_core.errors import InputError
from fasp_core.storage import catalog
from fasp_core.storage.store import Store


@pytest.fixture
def store(tmp_cache: Path) -> Store:
    store = Store(tmp_cache)
    for i, model in enumerate(("built-in", "me/a", "me/b")):
        made = {
            "model": model,
            "created": f"2026-01-0{i + 1}T00:00:00+00:00",
            "seconds": 2 * i,
            "device": "cpu",
            "command": "x",
        }
        config = {
            "experiment": "compare",
            "weights": model,
            "plan": {"axis": "age", "alphas": [0.1, 0.2]},
            "long": "y" * 99,
        }
        store.save("experiments", config, label=f"{model}--compare", meta={"provenance": made})
    store.save("measured", {"one": 1}, label="measured")
    store.save("scores", {"score": "ppl"}, label="silent")
    return store


def test_the_list(store: Store) -> None:
    found = catalog.kept(store)
    assert [one.model for one in found] == ["me/b", "me/a", "built-in", ""]
    first, *_, silent = found
    assert (first.what, first.seconds, first.device, first.command) == ("compare", 4.0, "cpu", "x")
    assert first.settings == {"experiment": "compare", "weights": "me/b", "axis": "age", "alphas": "0.1, 0.2"}
    assert (silent.what, silent.created, silent.seconds) == ("scores: ppl", "", None)
    assert [one.removable for one in found] == [True, True, False, True]


def test_removal(store: Store, tmp_path: Path) -> None:
    mine, other, shipped, _ = catalog.kept(store)
    catalog.remove(store, mine)
    assert not mine.path.exists()
    assert other.path.exists()
    catalog.remove(store, mine)  # gone already: fine
    with pytest.raises(InputError, match="comes with the program"):
        catalog.remove(store, shipped)
    outside = tmp_path / "outside"
    outside.mkdir()
    for bad in (replace(other, path=outside), replace(other, kind="measured"), replace(shipped, removable=False)):
        with pytest.raises(InputError):
            catalog.remove(store, bad)
    assert outside.exists()
    assert shipped.path.exists()
    assert [one.name for one in catalog.kept(store)] == [
        other.name,
        shipped.name,
        "silent" + catalog.kept(store)[-1].name[6:],
    ]
