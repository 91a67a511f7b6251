"""What every page test needs: an app with a cache of its own and without a model."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pytest
from streamlit.components.v2 import manifest_scanner

from fasp_core.metrics.meters import BiasConfig
from pages.backend.engine import engine
from pages.backend.results import Results
from pages.instrument import instrument
from pages.widgets import scoring
from tests.support.fakes import Studio


class Faithful(pytest.MonkeyPatch):
    """A `MonkeyPatch` whose stand-ins refuse arguments that what they stand for would refuse."""

    def setattr(self, target: Any, name: Any, *value: Any, **how: Any) -> None:  # type: ignore[override]
        real = None if isinstance(target, str) else getattr(target, name, None)
        told = inspect.isroutine(real) and not inspect.isbuiltin(real) and value
        if told and (inspect.isfunction(value[0]) or inspect.ismethod(value[0])):
            value = (_as_called(real, value[0]),)
        super().setattr(target, name, *value, **how)


def _as_called(real: Any, stand_in: Any) -> Any:
    signature = inspect.signature(real)

    @wraps(stand_in)
    def called(*given: Any, **named: Any) -> Any:
        signature.bind(*given, **named)
        return stand_in(*given, **named)

    return called


@pytest.fixture(scope="session", autouse=True)
def _packages_read_once() -> Generator[None]:
    """A server looks through all installed packages for components when it starts; here every page would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(autouse=True)
def _maps_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no browser to say so."""
    monkeypatch.setattr(instrument, "drawn", lambda: True)


@pytest.fixture
def kind() -> type[Studio]:
    """Which studio."""
    return Studio


@pytest.fixture
def studio(tmp_cache: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Studio]) -> Generator[Studio]:
    """No demo, whatever the environment says; jobs that a test leaves behind end with it."""
    monkeypatch.delenv("FASP_DEMO", raising=False)
    studio = kind(tmp_cache, monkeypatch)
    yield studio
    for job in engine().jobs():
        job.cancel()
    studio.open.set()
    studio.finish()


@pytest.fixture
def judge(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> str:
    """Another scorer than the offline one, which need not be loaded: whatever it is asked, it scores heads alike."""
    scores = Results.scores
    monkeypatch.setattr(Results, "scores", lambda self, spec, config: scores(self, spec, BiasConfig(config.axis)))
    monkeypatch.setattr(scoring, "load_scorer", lambda _config: True)
    return "org/judge"


@pytest.fixture
def monkeypatch() -> Generator[pytest.MonkeyPatch]:
    """Whose stand-ins are called as what they stand for can be."""
    patch = Faithful()
    yield patch
    patch.undo()
