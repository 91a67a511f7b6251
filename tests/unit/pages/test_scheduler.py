"""Where the jobs of pages run: on a cluster that the server was started with, and never in a demo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fasp_core.compute import cluster
from pages.backend.engine import scheduler, workers
from tests.support.tiny import tiny_lm


@pytest.mark.parametrize(
    ("address", "demo", "used"),
    [("", "", None), (" tcp://10.0.0.5:8786 ", "", "tcp://10.0.0.5:8786"), ("tcp://10.0.0.5:8786", "1", None)],
)
def test_the_server_says_where(address: str, demo: str, used: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_SCHEDULER", address)
    monkeypatch.setenv("FASP_DEMO", demo)
    asked: list[str | None] = []
    lm = tiny_lm("gpt2")

    @contextmanager
    def connected(where: str | None) -> Iterator[None]:
        asked.append(where)
        yield None

    monkeypatch.setattr(cluster, "connected", connected)
    assert scheduler() == used
    with workers(lm) as nobody:
        assert nobody is None
    assert asked == [used]
