"""The adapter for lm-evaluation-harness where the harness is not installed."""

from __future__ import annotations

import sys

import pytest

from fasp_core.tasks import harness


def test_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    monkeypatch.setattr(harness, "harness_model", harness.harness_model.__wrapped__)
    assert harness.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run 'pip install lm-eval==0.4.13'" in line
