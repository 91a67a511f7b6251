"""Models that the app keeps loaded: each is the one that its files hold, and none waits for another to load."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from pages.backend.engine import Engine
from pages.backend.models import Models
from pages.backend.requests import Experiment
from tests.support.ggufs import drawn
from tests.support.ggufs import write as write_gguf
from tests.support.tiny import tiny_config, tiny_lm
from tests.support.worlds import write_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_cache: Path) -> None:
    """GGUF files are converted into it."""


def weight(lm: LanguageModel, *_: Any) -> float:
    return float(lm.model.lm_head.weight.abs().sum())


def write(path: Path, seed: int) -> None:
    """A model in place of whatever was there."""
    if path.suffix == ".gguf":
        torch.manual_seed(seed)
        write_gguf(path, drawn(tiny_config("llama")) if seed else drawn(tiny_config("llama", 1)))
    else:
        write_model(path, seed=seed)
    os.utime(path, ns=(seed, seed))  # whatever the clock's grain


@pytest.mark.parametrize("name", ["model", "model.gguf"])
def test_a_model_that_was_overwritten_is_another(name: str, tmp_path: Path) -> None:
    engine, path = Engine(), tmp_path / name
    write(path, 0)
    spec = ModelSpec(str(path), device="cpu")

    def asked() -> Any:
        """As a page asks, whose sidebar pins the model at every draw."""
        job = engine.experiment(Experiment(engine.models.pinned(spec), "weights", ()), lambda lm, *_: lm.weights_id)
        assert job.wait(60)
        return job.result

    first, before = asked(), engine.models.pinned(spec)
    assert asked() == first == load(spec).weights_id
    write(path, 1)
    assert engine.models.facts(spec) is None
    assert asked() != first
    assert asked() == load(spec).weights_id
    assert engine.models.get(before).weights_id == first  # who still looks at the old one sees the old one
    with pytest.raises(InputError, match="were changed meanwhile"):
        Models().get(before)  # and is told where it is gone


class Slow:
    """A loader in which one model takes until it is told."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.asked = threading.Event(), threading.Event(), list[str]()

    def __call__(self, spec: ModelSpec) -> LanguageModel:
        self.asked.append(spec.source)
        if spec.source == "org/slow":
            self.begun.set()
            assert self.go_on.wait(30)
        return tiny_lm("llama", device="cpu")


def test_nobody_waits_for_a_model_that_others_load() -> None:
    slow = Slow()
    engine = Engine(load=slow)
    quick = ModelSpec("org/quick", device="cpu")
    assert engine.load(quick).wait(30)
    loading = engine.load(ModelSpec("org/slow", device="cpu"))
    assert slow.begun.wait(30)
    for spec in (quick, ModelSpec("org/third", device="cpu")):
        asked = engine.experiment(Experiment(spec, "weights", ()), weight)
        assert asked.wait(30)
        assert asked.result
    second = engine.experiment(Experiment(ModelSpec("org/slow", device="cpu"), "weights", ()), weight)
    while second.state == "waiting":
        time.sleep(0.01)
    second.cancel()
    assert second.wait(5)  # which waits for the first, and need not
    assert second.state == "cancelled"
    assert loading.state == "running"
    slow.go_on.set()
    assert loading.wait(30)
    assert loading.state == "done"
    assert slow.asked == ["org/quick", "org/slow", "org/third"]


def test_two_who_ask_at_once_get_one_model() -> None:
    slow = Slow()
    models, found = Models(slow), list[Any]()
    spec = ModelSpec("org/slow", device="cpu")
    threads = [threading.Thread(target=lambda: found.append(models.get(spec))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert slow.begun.wait(30)
    slow.go_on.set()
    for thread in threads:
        thread.join(30)
    assert found[0] is found[1]
    assert slow.asked == ["org/slow"]
