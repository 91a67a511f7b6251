"""Files that are written anew where they lie: what was loaded stays as it was, and no id names what it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.model import loading
from fasp_core.model.loading import load
from fasp_core.model.model_files import SINGLE
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.stamps import stamp
from tests.support import ggufs
from tests.support.ggufs import drawn
from tests.support.tiny import tiny_config, tiny_model, token_rows
from tests.support.worlds import write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return ggufs.write(tmp_path / "tiny.gguf", drawn(tiny_config("llama")))


def spec(path: Path, **more: str) -> ModelSpec:
    return ModelSpec(str(path), device="cpu", **more)


def overwrite(path: Path) -> None:
    """As `cp` over it does: other numbers in the same file."""
    with path.open("r+b") as file:
        file.seek(-400, os.SEEK_END)
        file.write(b"\x3f" * 400)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_a_loaded_model_does_not_change_with_its_file(dtype: str, folder: Path) -> None:
    tiny_model("llama").to(getattr(torch, dtype)).save_pretrained(folder)  # loaded as it lies there
    lm, ids = load(spec(folder, dtype=dtype)), token_rows(2, 9)
    before = lm.model(ids).logits
    overwrite(folder / SINGLE)
    assert torch.equal(lm.model(ids).logits, before)
    assert not torch.equal(load(spec(folder, dtype=dtype)).model(ids).logits, before)


def test_tied_weights_stay_one(tmp_path: Path) -> None:
    model = load(spec(write_model(tmp_path / "gpt2", "gpt2"))).model
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()


def after(patch: pytest.MonkeyPatch, name: str, then: Callable[[], Any]) -> None:
    """Something happens right after a function of `loading` has returned."""
    usual = getattr(loading, name)

    def both(*args: Any, **named: Any) -> Any:
        found = usual(*args, **named)
        then()
        return found

    patch.setattr(loading, name, both)


@pytest.mark.parametrize("step", ["check_folder", "sha256_file", "from_folder"])
def test_a_folder_that_changes_while_it_is_loaded(step: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after(monkeypatch, step, lambda: overwrite(folder / SINGLE))
    with pytest.raises(InputError, match=f"The files of '{folder}' were changed meanwhile: load it again"):
        load(spec(folder))
    monkeypatch.undo()
    load(spec(folder))


def test_a_gguf_file_that_changes_before_it_is_converted(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept under the hash of what it was."""
    after(monkeypatch, "sha256_file", lambda: overwrite(gguf))
    with pytest.raises(InputError, match="were changed meanwhile"):
        load(spec(gguf), tmp_path / "cache")
    assert not list((tmp_path / "cache" / "models").glob("*/"))


def test_a_state_of_the_files_may_be_asked_for(folder: Path, gguf: Path, tmp_path: Path) -> None:
    for path, file in ((folder, folder / SINGLE), (gguf, gguf)):
        asked = spec(path, stamp=stamp(path))
        assert load(asked, tmp_path / "cache").spec == spec(path)  # which other machines load, too
        overwrite(file)
        assert stamp(path) != asked.stamp
        with pytest.raises(InputError, match="were changed meanwhile"):
            load(asked, tmp_path / "cache")


def test_what_has_no_files_has_no_stamp(folder: Path) -> None:
    before = stamp(folder)
    (folder / "picture.png").write_bytes(b"none that a loader reads")
    assert stamp(folder) == before
    assert [stamp(s) for s in ("built-in", "org/name@main", "a\0b", "/no/such/x.gguf", folder.parent)] == [""] * 5
