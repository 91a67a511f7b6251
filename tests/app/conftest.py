"""What every page test needs: an app with a cache of its own and without a model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pages.backend import engine
from tests.support.fakes import Studio


@pytest.fixture
def studio(tmp_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Studio]:
    """No demo, whatever the environment says; jobs that a test leaves behind end with it."""
    monkeypatch.delenv("FASP_DEMO", raising=False)
    studio = Studio(tmp_cache, monkeypatch)
    yield studio
    for _, job in engine._lanes.jobs():
        job.cancel()
    studio.open.set()
    studio.finish()
