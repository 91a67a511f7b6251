"""What the installed command reads before a browser asks: what the first page needs, and nothing that it does not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fasp_studio import ahead

ROOT = Path(__file__).resolve().parents[2]
LATE = ("torch", "transformers", "scipy.stats", "sklearn", "pages.instrument.instrument")
TOLD = f"""
import sys
from pathlib import Path
from fasp_studio import ahead

ahead.begin(Path({str(ROOT)!r}), lambda: True)
ahead.wait()
from pages.backend.engine import engine
print(len(engine().results.tables._found), [name for name in {LATE} if name in sys.modules], *sys.modules)
"""


def test_scores_are_read_and_slow_modules_are_not() -> None:
    """In a process of its own: here all is imported already."""
    env = {**os.environ, "FASP_CACHE": str(ROOT / "cache"), "FASP_DEMO": ""}
    told = subprocess.run([sys.executable, "-c", TOLD], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert told.stdout.startswith("1 [] "), told.stdout[:200] + told.stderr
    there = told.stdout.split()
    assert all(name in there for name in ahead.MODULES)


def test_who_began_nothing_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_reading", None)
    ahead.wait()


def test_a_page_waits_until_all_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go, read = threading.Event(), []
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(ahead, "_read", lambda ready: read.append(go.wait(20) and ready()))
    monkeypatch.setattr(ahead, "_reading", None)
    ahead.begin(tmp_path, lambda: True)
    assert sys.path[0] == str(tmp_path)
    threading.Timer(0.1, go.set).start()
    ahead.wait()
    assert read == [True]


def test_it_begins_once_the_server_is_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    up, asked = [False, False, True], []
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(ahead, "_reading", None)
    monkeypatch.setattr(ahead, "import_module", lambda name: asked.append((name, len(up))))
    monkeypatch.setattr(ahead, "MODULES", ("one",))
    ahead.begin(tmp_path, lambda: up.pop(0))
    ahead.wait()
    assert asked == [("one", 0)]
