"""The app's models: one for all names of a device, and an old one is gone before a new one comes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from fasp_core.errors import InputError
from fasp_core.model import devices, loading
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from pages.backend.engine import Engine, engine
from pages.backend.models import KEEP_MODELS
from pages.backend.requests import Experiment
from tests.support import pretend
from tests.support.fakes import use_engine
from tests.support.tiny import tiny_lm

DEVICE = pretend.NAME


class Loads:
    """In place of the loader: tiny models, and what was on the device when each was asked for."""

    def __init__(self) -> None:
        self.asked: list[ModelSpec] = []
        self.alive: list[int] = []
        self._made: list[weakref.ref[Any]] = []

    def __call__(self, spec: ModelSpec) -> LanguageModel:
        self.asked.append(spec)
        self.alive.append(sum(one() is not None for one in self._made))
        lm = tiny_lm("gpt2", seed=len(self.asked), device=spec.device if spec.device != "auto" else DEVICE)
        self._made.append(weakref.ref(lm.model))
        return lm

    def left(self) -> int:
        gc.collect()
        return sum(one() is not None for one in self._made)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    found = Loads()
    use_engine(monkeypatch, Engine(load=found))
    monkeypatch.setattr(devices, "_present", lambda: [DEVICE])
    with pretend.rules():
        yield found


def job(spec: ModelSpec) -> Any:
    found = engine().load(spec)
    assert found.wait(20)
    return found


def test_a_model_is_gone_before_the_next_is_loaded(loads: Loads) -> None:
    kept = [job(ModelSpec(f"model {i}", device=DEVICE)) for i in range(5)]  # as sessions keep their jobs
    assert all(one.result is None for one in kept)
    assert loads.alive == [0, 1, 1, 1, 1]
    assert loads.left() == KEEP_MODELS


def test_one_device_by_any_name_is_one_model(loads: Loads) -> None:
    found = {engine().models.get(ModelSpec("model", device=name)) for name in ("auto", DEVICE, f"{DEVICE}:0")}
    assert len(found) == len(loads.asked) == 1
    assert engine().models.get(ModelSpec("model", device=f"{DEVICE}:1")) not in found
    assert (
        engine().models.facts(ModelSpec("model"))
        == engine().models.facts(ModelSpec("model", device=DEVICE))
        is not None
    )
    assert engine()._lane(ModelSpec("model")) == engine()._lane(ModelSpec("model", device=DEVICE))


def test_a_job_that_failed_keeps_no_model(loads: Loads) -> None:
    def fail(lm: LanguageModel, *_: Any) -> None:
        raise InputError(f"{lm.n_layers} layers are too few: take more.")

    spec = ModelSpec("model 0", device=DEVICE)
    failed = engine().experiment(Experiment(spec, "nothing", ()), fail)
    assert failed.wait(20)
    assert failed.state == "failed"
    for i in range(1, 3):
        job(ModelSpec(f"model {i}", device=DEVICE))
    assert loads.alive == [0, 1, 1]
    assert "2 layers are too few" in str(failed.error)


def test_a_device_that_is_not_there_is_told_by_loading(loads: Loads) -> None:
    own = Engine(load=lambda spec: loading.pick_device(spec.device))  # type: ignore[return-value, arg-type]
    with pytest.raises(InputError, match="'cuda:99' cannot be used here"):
        own.models.get(ModelSpec("model", device="cuda:99"))
