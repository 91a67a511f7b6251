"""Entries and models that somebody changed: refused in a sentence, and no code beside them is run."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fasp_core.errors import InputError
from fasp_core.model import loading, model_files
from fasp_core.model.spec import ModelSpec
from fasp_core.storage import catalog, keys, store
from fasp_core.storage.store import HEADER, DamagedEntry, Store
from tests.fuzz import model_readers
from tests.fuzz.__main__ import Hang, sentence

# --- the store: a header that was changed under a seal that fits ---


def sealed(folder: Path, **changes: Any) -> Path:
    made = Store(folder).save("scores", {"a": 1}, tables={"t": pd.DataFrame({"x": [1]})}, meta={"provenance": {}})
    header = json.loads((made.path / HEADER).read_bytes()) | changes
    header.pop("sha256")
    header["sha256"] = store.sha256(keys.canonical(header))
    (made.path / HEADER).write_text(json.dumps(header))
    return made.path


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "..", "", "../../secret", "t.pickle", "entry.json"])
def test_entries_that_name_files_as_no_one_writes_them(name: str, tmp_path: Path) -> None:
    sealed(tmp_path, files={name: {"sha256": "0", "bytes": 1}})
    assert Store(tmp_path).entries("scores") == []
    assert Store(tmp_path).load("scores", {"a": 1}) is None


def test_entries_nested_deeper_than_a_digest_goes(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(480):
        deep = [deep]
    sealed(tmp_path, config={"a": deep})
    assert Store(tmp_path).entries("scores") == []


@pytest.mark.parametrize("meta", [[], {"provenance": "none"}, {"provenance": {"seconds": 10**400}}, {"provenance": []}])
def test_results_of_strange_provenance_are_listed(meta: Any, tmp_path: Path) -> None:
    sealed(tmp_path, meta=meta)
    (found,) = catalog.kept(Store(tmp_path))
    assert found.seconds is None
    assert found.model == ""


@pytest.mark.parametrize(("name", "ask"), [("t.parquet", lambda e: e.table("t")), (store.ARRAYS, lambda e: e.arrays)])
def test_files_that_fit_their_seal_and_are_no_tables(name: str, ask: Any, tmp_path: Path) -> None:
    path = sealed(tmp_path, files={name: {"sha256": store.sha256(b"junk"), "bytes": 4}})
    (path / name).write_bytes(b"junk")
    (entry,) = Store(tmp_path).entries("scores")
    with pytest.raises(DamagedEntry):
        ask(entry)


def test_a_part_nested_beyond_reading_is_removed(tmp_path: Path) -> None:
    parts = Store(tmp_path).parts("scores", {"a": 1})
    parts.save("one", {"a": pd.Series([1.0]).to_numpy()})
    assert parts.load("one") is not None
    raw = b"[" * 100_000
    (parts.folder / "one.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    assert parts.load("one") is None
    assert parts.names() == set()


# --- models ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, raw in model_readers.saved().items():
        (tmp_path / name).write_bytes(raw)
    return tmp_path


def load(path: Path) -> str:
    """The sentence with which a model is refused; "" if it is loaded."""
    try:
        loading.load(ModelSpec(str(path), device="cpu"))
    except InputError as error:
        return str(error) if sentence(str(error)) == "" else f"no sentence: {error}"
    return ""


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_hidden_layers": 10**9}, "names layers that its weights do not have"),
        ({"num_hidden_layers": "2"}, "names layers that its weights do not have"),
        ({"num_hidden_layers": -1}, "names layers that its weights do not have"),
        ({"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]}, "names layers that its weights"),
        ({"intermediate_size": 2**40}, "its weights hold"),
        ({"vocab_size": 10**10}, "its weights hold"),
        ({"attn_implementation": "somebody/kernel"}, "attention by code from elsewhere"),
        ({"_attn_implementation": "somebody/kernel"}, "attention by code from elsewhere"),
    ],
)
def test_configs_that_ask_for_more_than_there_is(settings: dict[str, Any], told: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | settings))
    assert told in load(folder)


def test_a_folder_whose_index_names_files_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / model_files.INDEX).write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    assert "names files outside its folder" in load(folder)


def test_weights_that_are_no_files(folder: Path) -> None:
    os.mkfifo(folder / "z.safetensors")  # reading it would never end
    assert "is no file" in load(folder)
    (folder / "z.safetensors").unlink()
    (folder / "z.safetensors").mkdir()
    assert "is no file" in load(folder)


@pytest.mark.parametrize("shape", [[2**40], [-1], ["a"], [2**30, 2**30], None, [0.5]])
def test_headers_of_more_numbers_than_bytes(shape: Any, folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    assert "is no whole safetensors file" in load(folder)


def test_code_beside_a_model_is_not_run(folder: Path) -> None:
    """`auto_map` names a module of the folder; transformers would import it where remote code is trusted."""
    (folder / "own.py").write_text(
        f"open({str(folder / 'ran')!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n"
    )
    config = json.loads((folder / "config.json").read_bytes())
    own = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    load(folder)
    assert not (folder / "ran").exists()


def gguf(folder: Path, find: bytes, change: bytes) -> Path:
    raw = model_readers.gguf()
    at = raw.index(find) + len(find)
    (folder / "a.gguf").write_bytes(raw[:at] + change + raw[at + len(change) :])
    return folder / "a.gguf"


def test_a_gguf_array_that_goes_on_behind_the_file(tmp_cache: Path, tmp_path: Path) -> None:
    """The reader found nothing there, took it for a number of no bytes, and went on for 2^60 of them."""
    path = gguf(tmp_path, b"tokenizer.ggml.token_type", struct.pack("<IIQ", 9, 0, 2**60))
    assert "goes on behind its end" in load(path)


def test_a_gguf_file_of_a_billion_layers(tmp_cache: Path, tmp_path: Path) -> None:
    assert "names layers" in load(gguf(tmp_path, b"llama.block_count", struct.pack("<II", 4, 10**9)))


def test_a_gguf_file_that_does_not_say_its_layers(tmp_cache: Path, tmp_path: Path) -> None:
    raw = model_readers.gguf().replace(b"llama.block_count", b"llama.block_cound")
    (tmp_path / "a.gguf").write_bytes(raw)
    assert "how many layers" in load(tmp_path / "a.gguf")


def test_the_untouched_ones_are_taken(folder: Path, tmp_cache: Path) -> None:
    """So that the tests above can fail."""
    assert load(folder) == ""
    (folder / "a.gguf").write_bytes(model_readers.gguf())
    assert load(folder / "a.gguf") == ""


def test_a_hang_is_not_caught_by_readers() -> None:
    assert not issubclass(Hang, Exception)
