"""The command `plan`: its document, its text, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fasp_core.cli.main import main
from fasp_core.cli.plan import duration
from tests.support.tiny import tiny_config

AXIS = "text,group\n" + "\n".join(f"I met a {g} {n},{g}" for g in ("blue", "red") for n in "abcdefghijklmnopqrst")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tiny_config("llama").save_pretrained(tmp_path)
    (tmp_path / "axis.csv").write_text(AXIS)
    return tmp_path


def asked(config: Path, *more: str) -> list[str]:
    return ["plan", "--config", str(config), "--axis", str(config / "axis.csv"), "--prompts", "6", *more]


def test_the_document(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(config, "--tokens", "100", "--window", "50", "--gpus", "3", "--tflops", "2", "--json")) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found["layers"], found["heads_a_layer"], found["heads"]) == (2, 4, 8)
    assert list(found["gpus"]) == ["1", "3", "8", "64"]
    assert (found["tflops"], found["rate_is"]) == (2, "given")
    assert found["work"]["z_ppl"]["tokens"] == 100
    # by hand: 2 layers of 4 heads are a pass, and 4 removals of 2 blocks and 4 of 1
    assert found["work"]["z_ppl"]["passes"] == pytest.approx(1 + (4 * 2 + 4 * 1) / 2)
    assert found["gpus"]["1"]["seconds"] == pytest.approx(found["flops"] / 2e12)
    assert not found["spread"]


def test_the_text(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(config)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("llama: 2 layers of 4 heads, 8 in all;")
    assert "One GPU keeps up 10 TFLOP/s (assumed)." in printed


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--measure", "--tflops", "3"), "give either --tflops or --measure"),
        (("--tflops", "0"), "correct --gpu-gb or --tflops"),
        (("--gpus", "0"), "1 GPU at least"),
        (("--gpu-gb", "0.00001"), "cannot hold what one block works on: give --gpu-gb"),
    ],
)
def test_what_is_refused(
    more: tuple[str, ...], sentence: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked(config, *more)) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{", "{}", '{"model_type": "bert"}', '{"model_type": "no such"}'])
def test_no_config(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    assert main(["plan", "--config", str(path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172800, "2 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
