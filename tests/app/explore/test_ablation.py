"""The setting of what a pruned head becomes: part of the link, another model for scores, means where it is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fasp_core.data.text import TextConfig
from fasp_core.metrics import calibration
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from pages.backend import demo
from pages.backend.models import Models
from pages.session.recipe import Recipe, read
from tests.support.fakes import Studio
from tests.support.running import AXIS, change, opened
from tests.support.tiny import tiny_lm, tiny_text


def test_means_have_scores_of_their_own(studio: Studio) -> None:
    studio.add_scores(AXIS)
    at = opened(query={"ablation": "mean"})
    assert at.selectbox(key="ablation").value == "mean"
    assert "Score all heads" in [b.label for b in at.main.button]
    change(at, ablation="zero")
    assert "Score all heads" not in [b.label for b in at.main.button]
    assert "ablation" not in at.query_params


def test_a_link_names_what_is_not_usual() -> None:
    assert "ablation" not in Recipe().query()
    assert Recipe(ablation="mean").query() == {"ablation": "mean"}
    assert read({"ablation": "mean"}) == ({"ablation": "mean"}, [])
    assert read({"ablation": "resample"}) == ({}, ["ablation=resample"])  # which cannot be exported


def test_a_demo_has_zero_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "current", lambda: demo.Demo())
    found: dict[str, object] = {"ablation": "mean", "axis": AXIS}
    assert demo.left_out(found) == ["ablation=mean"]


def test_a_loaded_model_has_its_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text.txt"
    path.write_text(tiny_text(100))
    monkeypatch.setattr(calibration, "TEXT", TextConfig(str(path), 90, window=40, stride=40))
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))

    def load(spec: ModelSpec) -> LanguageModel:
        return replace(tiny_lm("llama"), spec=spec)

    models, spec = Models(load), ModelSpec("tiny-llama", device="cpu")
    plain, mean = models.get(spec), models.get(replace(spec, ablation="mean"))
    assert plain.constants is None
    assert mean.constants is not None
    assert models.identity(replace(spec, ablation="mean")) == replace(models.identity(spec), ablation="mean")
