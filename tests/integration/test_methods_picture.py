"""`python -m benchmarks._front`: what is stored becomes a table and a picture; without it one line says what to run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import _front as picture
from benchmarks._common import Unavailable
from fasp_core.storage.store import Store
from fasp_core.studies.compare.front import Front

ONE = {
    "reduction_pct": 63.0,
    "interval_pct": [50.0, 70.0],
    "ppl_change_pct": 8.0,
    "ppl_interval_pct": [7.0, 9.0],
    "paragraphs_change_pct": 7.0,
    "paragraphs_interval_pct": [6.0, 8.0],
    "lambada_points": -7.0,
    "lambada_interval": [-10.0, -4.0],
    "heads_removed": 13,
    "heads_scaled": 0,
    "chosen": "FASP",
    "prompts": 5004,
    "items": 300,
}


def test_nothing_stored_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="no comparison on race_ethnicity is stored"):
        picture.run(store=Store(tmp_path / "store"), folder=tmp_path)
    monkeypatch.setattr(picture.compare, "stored", lambda *_: SimpleNamespace())
    monkeypatch.setattr(picture.front, "fullest", lambda *_: Front({}, ("fasp",)))
    with pytest.raises(Unavailable, match="--methods all"):
        picture.run(store=Store(tmp_path / "store"), folder=tmp_path)
    assert not list(tmp_path.glob("methods*"))


def test_a_table_stands_beside_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture.compare, "stored", lambda *_: SimpleNamespace())
    monkeypatch.setattr(picture.front, "fullest", lambda *_: Front({"fasp": ONE}, ("search",), {"gains*1": "none"}))
    drawn: list[Any] = []

    def keep(figures: list[Any], path: Path) -> Path:
        drawn.extend(figures)
        return path

    monkeypatch.setattr(picture, "_picture", keep)
    found = picture.run(store=Store(tmp_path / "store"), folder=tmp_path)
    assert len(drawn) == len(picture.COSTS)
    text = (tmp_path / "methods.md").read_text()
    assert "| fasp | 13 removed, 0 scaled | 63% [50, 70] |" in text
    assert "(methods.png)" in text
    assert found["missing"] == ["search"]
