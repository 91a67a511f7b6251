"""What every page test needs: an app with a cache of its own and without a model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pages.backend.engine import engine
from tests.support.fakes import Studio


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
