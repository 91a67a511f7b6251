"""The checkpoint as a part of a page: what it predicts, does and shows, with tiny models that are really exported."""

from __future__ import annotations

import io
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from transformers import AutoModelForCausalLM

from fasp_core.compute.lanes import Lanes
from fasp_core.errors import InputError
from fasp_core.export import checking
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from pages.backend.engine import Engine, engine
from pages.take_home import checkpoint as take_checkpoint
from tests.support import fakes
from tests.support.fakes import use_engine
from tests.support.running import labels, press, run, said
from tests.support.tiny import tiny_lm

SHRINKS = "L0H0-1,L1H2-3,L1H0,L0N5"


def page() -> None:
    import streamlit as st

    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.model.spec import ModelSpec
    from pages.take_home import checkpoint as take_checkpoint

    spec = ModelSpec(st.session_state["model"], ablation=st.session_state["ablation"])
    take_checkpoint.draw(spec, PruneSet.parse(st.session_state["parts"]))


@pytest.fixture
def at_once(tmp_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of its own in which a job is done as soon as it is asked for; the folder of exports."""
    use_engine(monkeypatch, Engine(fakes.at_once(), load))
    return tmp_cache / "exports"


def load(spec: ModelSpec) -> LanguageModel:
    lm = tiny_lm(spec.source.removeprefix("tiny-"))
    return replace(lm, spec=replace(lm.spec, ablation=spec.ablation))


def opened(parts: str, model: str = "tiny-llama", ablation: str = "zero") -> AppTest:
    at = AppTest.from_function(page, default_timeout=60)
    at.session_state["model"], at.session_state["parts"], at.session_state["ablation"] = model, parts, ablation
    return run(at)


def test_nothing_removed_is_nothing_to_take(at_once: Path) -> None:
    assert "choose heads or neurons first" in said(opened(""))


def test_it_foretells_what_goes_and_what_is_zeroed(at_once: Path) -> None:
    at = opened(SHRINKS)
    # two heads and one group of each of two layers, 8 rows of 32 each, of 4 x 32 x 32 attention weights and more
    saved = 2 * (2 + 1) * 2 * 8 * 32
    assert f"4 heads, about {saved:,} of {tiny_lm('llama').n_parameters:,} parameters" in said(at)
    assert "4 → 2 heads, 2 → 1 key and value heads" in said(at)
    assert "**Only zeroed:** 1 head and 1 neuron: L1H0,L0N5." in said(at)
    assert "each gets 2 of 4" in said(at)
    assert not at_once.exists()


def test_where_nothing_can_go_it_says_so(at_once: Path) -> None:
    at = opened("L0H0-1,L1H0-1", "tiny-gpt2")
    assert "**Really goes:** nothing." in said(at)
    assert "divides its hidden size among its heads" in said(at)


def test_an_export_and_what_came_of_it(at_once: Path) -> None:
    at = press(opened(SHRINKS), "Write it")
    (folder,) = at_once.iterdir()
    assert folder.name.startswith("tiny-llama-")
    assert "The checkpoint is written." in said(at)
    assert "in float32 (" in said(at)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (table,) = (frame.value for frame in at.dataframe)
    count = sum(p.numel() for p in model.parameters())
    assert table.set_index("").loc["parameters"].tolist() == [f"{tiny_lm('llama').n_parameters:,}", f"{count:,}"]
    assert "tokens read a second" in set(table[""])
    assert "4 rows of 64 tokens" in said(at)
    assert str(folder) in [block.value for block in at.code]
    assert "Write it" not in labels(at)
    (download,) = at.get("download_button")
    assert "Download as zip" in download.proto.label  # type: ignore[union-attr]
    assert "The checkpoint is written." in said(opened(SHRINKS))  # who comes later finds it
    assert "Write it" in labels(opened("L0H0"))  # another set is another folder


@pytest.mark.parametrize("folder", ["", "mine"])
def test_heads_taken_out_in_another_way_are_another_checkpoint(at_once: Path, folder: str) -> None:
    at = opened(SHRINKS)
    at.text_input[0].set_value(folder or at.text_input[0].value)
    assert "The checkpoint is written." in said(press(run(at), "Write it"))
    at = opened(SHRINKS, ablation="mean")
    at.text_input[0].set_value(folder or at.text_input[0].value)
    run(at)
    assert "The checkpoint is written." not in said(at)
    assert ("name another one" in said(at)) == bool(folder)


def test_the_zip_holds_the_folder(at_once: Path, tmp_path: Path) -> None:
    press(opened(SHRINKS), "Write it")
    (folder,) = at_once.iterdir()
    (folder / "elsewhere").symlink_to("/etc/hostname")
    with zipfile.ZipFile(io.BytesIO(take_checkpoint.zipped(folder))) as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / folder.name
    assert {p.name for p in unpacked.iterdir()} == {p.name for p in folder.iterdir()} - {"elsewhere"}
    assert (unpacked / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    AutoModelForCausalLM.from_pretrained(unpacked)


def test_a_large_one_is_not_for_the_browser(at_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(take_checkpoint, "MAX_ZIP", 1000)
    at = press(opened(SHRINKS), "Write it")
    assert not at.get("download_button")
    assert "too much for a download in the browser" in said(at)


@pytest.mark.parametrize(
    "name", ["../out", "a/b", "a\\b", "/tmp/x", "..", ".", ".hidden", "", " ", "a b", "a\nb", "c:", "x" * 81, "é"]
)
def test_no_path_leaves_the_folder_of_exports(at_once: Path, name: str) -> None:
    with pytest.raises(InputError, match="A folder's name has letters"):
        take_checkpoint.folder_of(name)
    assert take_checkpoint.folder_of("my-model_2") == at_once / "my-model_2"


def test_a_bad_name_is_told_and_writes_nothing(at_once: Path) -> None:
    at = opened(SHRINKS)
    at.text_input[0].set_value("../../out")
    run(at)
    assert "A folder's name has letters" in said(at)
    assert "Write it" not in labels(at)
    assert not at_once.exists()


def test_another_folder_of_that_name_is_left_alone(at_once: Path) -> None:
    (at_once / "mine").mkdir(parents=True)
    (at_once / "mine" / "export.json").write_text('{"weights": "others", "prune_set": "L0H0"}')
    at = opened(SHRINKS)
    at.text_input[0].set_value("mine")
    run(at)
    assert "name another one" in said(at)
    assert "Write it" not in labels(at)
    at.text_input[0].set_value("other")
    press(run(at), "Write it")
    assert sorted(p.name for p in at_once.iterdir()) == ["mine", "other"]


def test_a_failed_check_is_told(at_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "largest_difference", lambda *_: 0.5)
    at = press(opened(SHRINKS), "Write it")
    assert "its logits differ from the masked model's by up to 0.5" in said(at)
    assert "Write it" in labels(at)
    assert list(at_once.parent.glob("exports/*")) == []


def test_a_running_export_is_watched_and_cancelled(tmp_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch, Engine(Lanes(), load))
    engine().load(ModelSpec("tiny-llama")).wait(30)
    begun, go_on = threading.Event(), threading.Event()
    check = checking.check

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return check(*args)

    monkeypatch.setattr(checking, "check", slow)
    at = opened(SHRINKS)
    for _ in range(20):
        if "Write it" in labels(at):
            break
        run(at)
    press(at, "Write it")
    try:
        assert begun.wait(30)
        assert "Cancel" in labels(run(at))
        press(at, "Cancel")
    finally:
        go_on.set()
    for job in engine().jobs():
        job.wait(30)
    assert "Cancelled. Nothing is left of it." in said(run(at))
    assert [path for path in tmp_cache.rglob("*") if "export" in path.name] == []
