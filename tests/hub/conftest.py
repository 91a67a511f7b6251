"""A hub on this machine and a client that asks it, with a cache of its own; and tiny models to put there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub, ask, files_of, model_folders, serving


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub, asked by this process."""
    with serving() as served:
        ask(monkeypatch, served.url, tmp_path / "hf")
        yield served


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return model_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def files(folders: dict[str, Path]) -> dict[str, dict[str, bytes]]:
    """The same as files of repositories."""
    return {name: files_of(path) for name, path in folders.items()}
