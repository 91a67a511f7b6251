"""Folders: one whole model that is read in full, or a sentence that names the file and the cause."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from fasp_core.errors import InputError
from fasp_core.model import file_heads, model_files
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from tests.support.tiny import KINDS, tiny_config, tiny_model, tiny_tokenizer, token_rows

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 548105171\n"
INDEX, SINGLE = model_files.INDEX, model_files.SINGLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tiny_model("llama"), tmp_path / "tiny")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return saved(tiny_model("llama"), tmp_path / "tiny", max_shard_size="20KB")


def saved(model: Any, folder: Path, **how: Any) -> Path:
    model.save_pretrained(folder, **how)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path) -> LanguageModel:
    return load(ModelSpec(str(folder), device="cpu"))


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        loaded(folder)
    message = str(error.value)
    assert str(folder) in message
    assert message.endswith((".", ")"))
    return message


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | settings))


# adapters, pickles, GGUF files


@pytest.mark.parametrize("whole", [True, False], ids=["inside a base", "alone"])
def test_adapters_are_named_with_their_base(whole: bool, folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    save_file({"base_model.model.layers.0.lora_A.weight": torch.ones(4, 4)}, folder / "adapter_model.safetensors")
    if not whole:
        (folder / SINGLE).unlink()
        (folder / "config.json").unlink()
    assert "merge the adapter into its base 'org/base' first" in refused(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "merge the adapter into its base first" in refused(folder)
    (folder / "adapter_config.json").unlink()
    assert "holds an adapter" in refused(folder)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "consolidated.00.pth"]
)
def test_pickled_weights_alone(name: str, folder: Path) -> None:
    (folder / SINGLE).rename(folder / name)
    assert f"holds its weights only as {name}, and pickled weights are not read" in refused(folder)


def test_a_folder_of_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "model.Q4_K.GGUF").write_bytes(b"GGUF")
    (tmp_path / "config.json").write_text("{}")
    assert f"name the file, in a folder '{tmp_path}/model.Q4_K.GGUF'" in refused(tmp_path)


# what lies there in place of a file


@pytest.mark.parametrize(
    "name", ["config.json", SINGLE, "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (POINTER, "is a pointer of Git LFS.*git lfs pull"),
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
    ],
    ids=["pointer", "empty", "page"],
)
def test_what_lies_in_place_of_a_file(content: bytes, told: str, name: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"'{folder / name}' {told}"):
        loaded(folder)


@pytest.mark.parametrize("name", ["config.json", SINGLE, "tokenizer.json"])
def test_files_that_may_not_be_read(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def closed(path: Path, *args: Any, **named: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **named)

    monkeypatch.setattr(Path, "open", closed)
    assert f"{name}' cannot be read (Permission denied): check who may read it" in refused(folder)


@pytest.mark.parametrize("names", [("tokenizer.json",), ("tokenizer.json", "tokenizer_config.json")])
def test_tokenizer_files_that_are_missing(names: tuple[str, ...], folder: Path) -> None:
    for name in names:
        (folder / name).unlink()
    assert "holds no tokenizer: it needs tokenizer.json" in refused(folder)
    (folder / "vocab.json").write_text("{}")
    assert "or vocab.json with merges.txt" in refused(folder)


# sets of weights


def test_shards_are_read(sharded: Path) -> None:
    ids = token_rows(1, 9)
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    assert torch.equal(loaded(sharded).model(ids).logits, tiny_model("llama")(ids).logits)


def shard(folder: Path, i: int) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[i]


def test_missing_and_cut_shards_are_named(sharded: Path) -> None:
    path = shard(sharded, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert f"{path.name}' is no whole safetensors file: download it again. (it ends after" in refused(sharded)
    path.unlink()
    assert f"lacks {path.name}: download the missing weights" in refused(sharded)
    last = shard(sharded, -1)
    last.unlink()
    assert f"lacks {path.name} and 1 more: download" in refused(sharded)


def test_shards_without_their_index(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    assert f"holds shards of weights without {INDEX}" in refused(sharded)


def test_two_sets_of_weights(sharded: Path, tmp_path: Path) -> None:
    other = saved(tiny_model("llama", seed=1), tmp_path / "other")
    shutil.copy(other / SINGLE, sharded)
    assert f"holds two sets of weights, {SINGLE} and {INDEX}: keep the files of one" in refused(sharded)
    (sharded / SINGLE).unlink()
    shutil.copy(shard(sharded, 0), sharded / "model-00001-of-00002.safetensors")
    assert "holds shards of two sets of weights, of 2 and of" in refused(sharded)


def test_other_files_of_weights_are_passed_over(folder: Path) -> None:
    """As transformers does, which reads model.safetensors alone."""
    save_file({"tok_embeddings.weight": torch.ones(4, 4)}, folder / "consolidated.safetensors")
    ids = token_rows(1, 9)
    assert torch.equal(loaded(folder).model(ids).logits, tiny_model("llama")(ids).logits)
    (folder / SINGLE).unlink()
    assert f"holds weights called consolidated.safetensors, and what is read is {SINGLE}" in refused(folder)


def test_an_index_that_does_not_fit(sharded: Path) -> None:
    path, whole = sharded / INDEX, json.loads((sharded / INDEX).read_bytes())
    places = dict(whole["weight_map"])
    first, last = shard(sharded, 0).name, shard(sharded, -1).name
    path.write_text(json.dumps({"weight_map": places | {"extra.weight": first}}))
    assert f"{first}' lacks extra.weight, which {INDEX} names" in refused(sharded)
    path.write_text(json.dumps({"weight_map": places | {"extra.weight": "more.safetensors"}}))
    assert f"lacks more.safetensors, which {INDEX} names" in refused(sharded)
    path.write_text(json.dumps({"weight_map": {t: f for t, f in places.items() if f != last}}))
    assert f"does not name {last}" in refused(sharded)


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    first, second = shard(sharded, 0), shard(sharded, 1)
    twice = load_file(first) | load_file(second)
    save_file(twice, second, {"format": "pt"})
    assert f"in {first.name} and in {second.name}: use shards of one model" in refused(sharded)


# configs


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pruned_heads": {"0": [1], "1": [2, 3]}}, "(--heads L0H1,L1H2,L1H3)"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "are quantised (gptq"),
        ({"quantization_config": {"load_in_4bit": True}}, "are quantised (bitsandbytes"),
        ({"quantization_config": {"quant_method": "fp8"}}, "are quantised (fp8"),
        ({"compression_config": {"format": "int-quantized"}}, "are quantised (by a method that it does not name"),
        ({"rope_parameters": None, "rope_scaling": {"type": "xpos", "factor": 2.0}}, "rotary embeddings by 'xpos'"),
        ({"sliding_window": 16}, "sets sliding_window to 16"),
        ({"final_logit_softcapping": 30.0}, "sets final_logit_softcapping to 30.0"),
        ({"attn_logit_softcapping": 50.0}, "sets attn_logit_softcapping to 50.0"),
        ({"logits_scaling": 8.0}, "sets logits_scaling to 8.0"),
        ({"model_type": "qwen2_vl", "text_config": {"model_type": "qwen2"}}, "a model around a text model"),
        ({"model_type": "bloom"}, "Models of type 'bloom' are not supported"),
        ({"model_type": "gptj", "rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "by 'linear' (rope_scaling)"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_settings_that_change_numbers_and_are_not_read(settings: dict[str, Any], told: str, folder: Path) -> None:
    change(folder / "config.json", **settings)
    with pytest.raises(InputError) as error:
        loaded(folder)
    assert told in str(error.value)
    with pytest.raises(InputError) as asked:  # without any file but the config
        model_files.check_config(json.loads((folder / "config.json").read_bytes()), str(folder))
    assert str(asked.value) == str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_configs_as_transformers_writes_them(kind: str, tmp_path: Path) -> None:
    tiny_config(kind).save_pretrained(tmp_path)
    model_files.check_config(json.loads((tmp_path / "config.json").read_bytes()), kind)


@pytest.mark.parametrize(
    "settings",
    [
        {"sliding_window": 256},  # as many as there are positions
        {"sliding_window": None, "quantization_config": None, "pruned_heads": {}},
        {"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": False},
        {"rope_parameters": None, "rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"final_logit_softcapping": None, "logit_scale": 1.0},
    ],
)
def test_settings_that_change_nothing_or_are_read(settings: dict[str, Any], folder: Path) -> None:
    change(folder / "config.json", **settings)
    model_files.check_config(json.loads((folder / "config.json").read_bytes()), str(folder))


def test_quantised_weights_whose_config_says_nothing(folder: Path) -> None:
    held = load_file(folder / SINGLE)
    name = "model.layers.0.mlp.up_proj"
    save_file(held | {f"{name}.qweight": torch.ones(4, 4, dtype=torch.int32)}, folder / SINGLE, {"format": "pt"})
    assert f"are quantised ({name}.qweight in {SINGLE})" in refused(folder)
    held[f"{name}.weight"] = held[f"{name}.weight"].to(torch.float8_e4m3fn)
    save_file(held, folder / SINGLE, {"format": "pt"})
    assert f"are quantised ({name}.weight in {SINGLE})" in refused(folder)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight", "model.layers.0.lora_A.weight"],
)
def test_weights_without_a_place_in_the_model(name: str, folder: Path) -> None:
    """transformers passes over them with a warning."""
    save_file(load_file(folder / SINGLE) | {name: torch.ones(32)}, folder / SINGLE, {"format": "pt"})
    assert f"the weights hold {name}, for which the config has no place" in refused(folder)


def test_tables_that_older_versions_saved_are_passed_over(tmp_path: Path) -> None:
    for kind, name in (
        ("gpt2", "transformer.h.0.attn.bias"),
        ("gpt_neo", "transformer.h.0.attn.attention.bias"),
        ("gptj", "transformer.h.0.attn.masked_bias"),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("gpt_neox", "gpt_neox.layers.0.attention.masked_bias"),
    ):
        folder = saved(tiny_model(kind), tmp_path / kind)
        save_file(load_file(folder / SINGLE) | {name: torch.ones(4)}, folder / SINGLE, {"format": "pt"})
        loaded(folder)


def test_sizes_that_do_not_fit_are_told(folder: Path) -> None:
    change(folder / "config.json", intermediate_size=40)
    assert "is of shape [32, 48] in the weights and [32, 40] by the config" in refused(folder)


# models of images and text

EYES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "num_channels": 3,
}
AROUND: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": ("gemma3_text", {"vision_config": EYES, "mm_tokens_per_image": 4}),
    "llava": ("llama", {"vision_config": EYES | {"model_type": "clip_vision_model"}}),
    "llava_next": ("mistral", {"vision_config": EYES | {"model_type": "clip_vision_model"}}),
    "llava_onevision": ("qwen2", {"vision_config": EYES | {"model_type": "siglip_vision_model"}}),
    "vipllava": ("llama", {"vision_config": EYES | {"model_type": "clip_vision_model"}}),
    "mistral3": ("mistral", {"vision_config": EYES | {"model_type": "pixtral", "head_dim": 16}}),
    "internvl": (
        "qwen3",
        {"vision_config": EYES | {"model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [14, 14]}},
    ),
}


def around(kind: str, **settings: Any) -> Any:
    inner, parts = AROUND[kind]
    text = {**tiny_config(inner).to_dict(), "model_type": inner, "final_logit_softcapping": None}
    config = transformers.AutoConfig.for_model(kind, text_config=text | settings, **parts)
    model = transformers.AutoModelForImageTextToText.from_config(config).eval()
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=noise) + (p.ndim == 1 and bool((p == 1).all())))
    return model


def test_every_wrapper_is_tried() -> None:
    assert set(AROUND) == set(model_files.WRAPPERS)


@pytest.mark.parametrize("kind", AROUND)
@torch.no_grad()
def test_the_text_model_inside_a_model_of_images(kind: str, tmp_path: Path) -> None:
    model, ids = around(kind), token_rows(2, 20)
    expected = model(input_ids=ids).logits
    folder = saved(model, tmp_path / kind)
    lm = loaded(folder)
    assert lm.model.config.model_type == AROUND[kind][0]
    assert torch.equal(lm.model(ids).logits, expected)
    held = load_file(folder / SINGLE)  # as version 5 calls its own modules
    newer = {
        name.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head.", "lm_head."): t
        for name, t in held.items()
    }
    assert newer.keys() != held.keys()
    save_file(newer, folder / SINGLE, {"format": "pt"})
    assert torch.equal(loaded(folder).model(ids).logits, expected)


def test_a_soft_cap_that_a_wrapper_does_not_read(tmp_path: Path) -> None:
    folder = saved(around("gemma3", final_logit_softcapping=5.0), tmp_path / "capped")
    assert "sets final_logit_softcapping to 5.0, which is not read for models of the type 'gemma3'" in refused(folder)


# names alone


def test_names_of_a_repository() -> None:
    """As a hub lists them, with folders, before anything is downloaded."""
    good = ["README.md", "config.json", SINGLE, "tokenizer.json", "onnx/model.onnx", "original/consolidated.00.pth"]
    model_files.check_names(good, "org/name")
    model_files.check_names([*good, "pytorch_model.bin", "model.q8.gguf"], "org/name")
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    model_files.check_names(["config.json", *shards, INDEX, "vocab.json", "merges.txt"], "org/name")
    for names, told in (
        (
            ["config.json", "pytorch_model.bin", "tokenizer.json"],
            "'org/name' holds its weights only as pytorch_model.bin",
        ),
        (["README.md"], "there are no .safetensors weights"),
        ([SINGLE, "tokenizer.json"], "there is no config.json"),
        (["config.json", shards[0], INDEX, "tokenizer.json"], f"'org/name' lacks {shards[1]}"),
        (["config.json", SINGLE, "sub/tokenizer.json"], "'org/name' holds no tokenizer"),
    ):
        with pytest.raises(InputError) as error:
            model_files.check_names(names, "org/name")
        assert told in str(error.value)


def test_a_name_of_countless_shards() -> None:
    with pytest.raises(InputError):
        model_files.check_names(["config.json", "model-00001-of-99999.safetensors", INDEX], "org/name")


def test_a_pipe_in_place_of_a_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    assert "is no file" in refused(folder)
    with pytest.raises(InputError, match="is no file"):
        file_heads.settings(folder / "tokenizer.json")
