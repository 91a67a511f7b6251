"""Which device is taken, what suits it, and what is said of it."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fasp_core.cli.main import app
from fasp_core.errors import InputError
from fasp_core.model import devices, loading
from fasp_core.model.identity import ModelId
from fasp_core.model.provenance import provenance
from fasp_core.model.spec import BUILT_IN_SHA256, ModelSpec
from tests.support import pretend
from tests.support.tiny import tiny_lm

HERE = pretend.NAME
BROKEN = "no kernel image is available for execution on the device"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one GPU: what it is called is tried as any other."""
    monkeypatch.setattr(devices, "_present", lambda: [HERE])


@pytest.fixture
def broken(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its products fail, as those of a GPU that is too old for this PyTorch."""
    fault = devices._fault
    monkeypatch.setattr(devices, "_fault", lambda name: BROKEN if name.startswith(HERE) else fault(name))


def test_a_device_that_computes_is_taken(gpu: None) -> None:
    with pretend.rules(), pretend.counting() as seen:
        for name in ("auto", "spread", HERE, f"{HERE}:0"):
            assert devices.pick_device(name).type == HERE
            assert devices.passed_over(name) is None
    assert seen.kernels["mm"] <= 2  # once for each name of it
    assert devices.pick_device("cpu") == torch.device("cpu")


def test_one_that_does_not_is_passed_over_and_said(broken: None) -> None:
    assert devices.pick_device("auto") == torch.device("cpu")
    said = devices.passed_over("auto")
    assert said is not None
    assert f"The device '{HERE}' is here but does not compute, so cpu is used" in said
    assert BROKEN in said
    assert devices.passed_over("cpu") is None
    with pytest.raises(InputError, match=f"The device '{HERE}' cannot be used here .*{BROKEN}.*: choose auto, cpu"):
        devices.pick_device(HERE)


def test_a_command_says_so(broken: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: tiny_lm("gpt2"))
    done = CliRunner().invoke(app, ["evaluate", "--axis", "age", "--heads", "L9H9", "--cache", str(tmp_path)])
    assert f"The device '{HERE}' is here but does not compute" in done.stderr
    lm = tiny_lm("gpt2")
    lm.spec = ModelSpec("tiny-gpt2")
    assert BROKEN in provenance(lm, 1.0)["device_note"]


@pytest.mark.parametrize("name", ["banana", "meta", "cuda:99", "cpu:cpu"])
def test_what_cannot_multiply_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"The device '{name}' cannot be used here"):
        devices.pick_device(name)


def test_a_device_has_one_name(gpu: None) -> None:
    with pretend.rules():
        assert {devices.one_name(name) for name in ("auto", HERE, f"{HERE}:0")} == {f"{HERE}:0"}
        assert devices.one_name(f"{HERE}:1") == f"{HERE}:1"
    assert devices.one_name("spread") == "spread"
    assert devices.one_name("cpu") == "cpu"


def test_an_accelerator_gets_more_at_once() -> None:
    cpu, mps, cuda = (astuple(devices.sizes(torch.device(kind))) for kind in ("cpu", "mps", "cuda"))
    assert all(a <= b <= c for a, b, c in zip(cpu, mps, cuda, strict=True))
    assert cpu == (384, 800, 1, 2, 400, 256, 16)  # committed results were made so
    assert devices.sizes(torch.device("xpu")) == devices.sizes(torch.device("cuda"))


def test_float32_products_stay_float32(tmp_path: Path) -> None:
    lm = tiny_lm("gpt2")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        loading.load(ModelSpec(str(tmp_path), device="cpu"))
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    finally:
        devices.full_precision()


def test_16_bit_results_are_kept_by_kind_of_device() -> None:
    with pretend.rules():
        here, there = tiny_lm("gpt2"), tiny_lm("gpt2", device=HERE)
    assert here.id == there.id  # float32: keys as ever
    assert here.id.key() == {"weights": here.weights_id, "dtype": "float32"}
    for lm in (here, there):
        lm.spec = ModelSpec("tiny-gpt2", "bfloat16", lm.spec.device)
    assert here.id != there.id
    assert here.id.key() == {"weights": here.weights_id, "dtype": "bfloat16", "device": "cpu"}
    assert there.id.key() == {"weights": here.weights_id, "dtype": "bfloat16", "device": HERE}
    assert loading.known_id(ModelSpec(dtype="bfloat16", device="cpu")) == ModelId(*_built_in("bfloat16"), device="cpu")
    assert loading.known_id(ModelSpec()) == ModelId(*_built_in("float32"))


def _built_in(dtype: str) -> tuple[str, str]:
    return f"sha256:{BUILT_IN_SHA256}", dtype


def test_provenance_names_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "gpu" not in provenance(tiny_lm("gpt2"), 1.0)
    with pretend.rules():
        found = provenance(tiny_lm("gpt2", device=HERE), 1.0)
    assert found["gpu"] == [f"{HERE}:0"]
    assert found["float32_products"] == "highest"
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n")
    monkeypatch.setattr(devices, "_DRIVER", version)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    told = devices.facts({torch.device("cuda:1"), torch.device("cuda:0"), torch.device("cpu")})
    assert told["gpu"] == ["Card 0", "Card 1"]
    assert told["driver"] == "550.54.15"
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "none")
    assert devices.facts({torch.device("cuda:0")})["driver"] == "unknown"
