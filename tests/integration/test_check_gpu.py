"""The check for machines with a GPU, tried on the CPU and on the pretended device."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.check_gpu import __main__ as command
from benchmarks.check_gpu.sections import DRAWS, SECTIONS, difference
from tests.support import pretend
from tests.support.steps import STEPS

QUICK = {("cpu", name) for name in SECTIONS} | {(pretend.NAME, "attention"), (pretend.NAME, "sampling")}


@pytest.mark.parametrize(
    ("device", "name"),
    [
        pytest.param(device, name, marks=[] if (device, name) in QUICK else pytest.mark.slow)
        for device in ("cpu", pretend.NAME)
        for name in SECTIONS
    ],
)
def test_each_section_runs_and_finds_nothing_wrong(device: str, name: str) -> None:
    found = command._section(name, device, small=True)
    assert found["wrong"] == []
    if name == "rows":
        assert found["text"]["max_abs_diff"] < 1e-6
        assert found["prompts"]["max_abs_diff"] < 1e-6
        assert found["at_once"] == (1 if device == "cpu" else 9)
    if name == "kinds":
        assert not found["cannot_run_here"]
        assert max(found["largest_difference"].values()) == 0
    document = {"device": device, "sections": {name: {"ok": True, "seconds": 1.0, **found}}}
    assert f"| {name} | yes | 1 | " in command.table(json.loads(json.dumps(document)))


def test_a_machine_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(command, "_gpu", lambda: None)
    assert command.main([]) == 2
    said = capsys.readouterr()
    assert said.err.strip() == command.NO_GPU
    assert said.out == ""


@pytest.mark.slow  # another process that imports all
def test_sections_have_processes_of_their_own(capsys: Any) -> None:
    assert command.main(["--device", "cpu", "--small", "--sections", "environment"]) == 0
    line, _, shown = capsys.readouterr().out.partition("\n")
    document = json.loads(line)
    assert document["ok"]
    assert document["sections"]["environment"]["torch"] == torch.__version__
    assert "| environment | yes |" in shown


def test_a_section_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def run(given: list[str], timeout: float, **_: Any) -> Any:
        name = given[given.index("--sections") + 1]
        if name == "rows":
            raise subprocess.TimeoutExpired(given, timeout)
        said = {"memory": "", "sampling": '{"wrong": ["x"]}'}.get(name, '{"skipped": "tried", "wrong": []}')
        return subprocess.CompletedProcess(given, -6 if name == "memory" else 0, said)

    monkeypatch.setattr(subprocess, "run", run)
    assert command.main(["--device", "cpu", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["sections"]
    assert {name for name, section in found.items() if not section["ok"]} == {"rows", "memory", "sampling"}
    assert found["rows"]["wrong"] == ["was not done within 60 s"]
    assert found["memory"]["wrong"] == ["the process ended with status -6 and said nothing"]


def test_all_sections_together_take_less_than_eight_minutes() -> None:
    assert sum(seconds for _, seconds in SECTIONS.values()) <= 8 * 60


def test_differences() -> None:
    a = np.array([1.0, 2.0, 4.0])
    assert difference([a, "x", 3], [a, "x", 3]) == (0.0, False)
    assert difference(np.array([1.0, 2.0, 4.4]), a)[0] == pytest.approx(0.1)
    assert difference(1.5, 1.0)[0] == pytest.approx(0.5)
    for other in ([a, "y"], [a], [a[:2], "x"], [np.array([1.0, 2.0, np.nan]), "x"]):
        assert difference(other, [a, "x"])[1]
    assert any(word in name for name in STEPS for word in DRAWS)
