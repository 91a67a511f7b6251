"""The audit says what was found, and never that all is well where nothing could be looked up."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {"name": "a", "version": "1", "vulns": []}
FLAWED = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNSEEN = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([CLEAN], 0, "1 packages looked up, 0 with known flaws."),
        ([CLEAN, FLAWED], 1, "b 2: CVE-1, mended in 3"),
        ([CLEAN, UNSEEN], 3, "1 of 2 packages could not be looked up, such as c"),
        ([FLAWED, UNSEEN], 3, "b 2: CVE-1"),
        ([], 3, "No package was looked up"),
    ],
)
def test_what_is_told(audit: Any, packages: Any, status: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = SimpleNamespace(stdout=json.dumps({"dependencies": packages}), stderr="")
    assert audit.main(["x"], lambda _: answer) == status
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("out", ["", "[]", "null", "{}", "<html>"])
def test_no_answer_is_no_good_news(audit: Any, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = SimpleNamespace(stdout=out, stderr="Traceback\nConnectionError: no network")
    assert audit.main(["x"], lambda _: answer) == audit.UNKNOWN
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "nothing is known" in said
