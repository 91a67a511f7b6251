"""What a GGUF file says about numbers: the model is plain transformers' with that setting, or the file is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from fasp_core.errors import InputError
from fasp_core.model.gguf_files import check_name
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from tests.support import ggufs
from tests.support.ggufs import ARCH, TOKENS, drawn
from tests.support.tiny import CONTEXT, tiny_config, token_rows

EXACT = 2e-4  # of logits up to 10; frequencies are rounded in another order
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}
SHORT, LONG = [1.0, 1.5, 2.0, 4.0], [1.0, 2.0, 6.0, 9.0]


def config(kind: str, **settings: Any) -> Any:
    """A tiny config with other settings; Gemma's scale as llama.cpp has it for that width of a head."""
    found = tiny_config(kind)
    if kind == "gemma3_text":
        settings = {"query_pre_attn_scalar": 16, "final_logit_softcapping": None} | settings
    return type(found).from_dict({**found.to_dict(), **settings})


def loaded(folder: Path, model: Any, *parts: Any, **more: Any) -> LanguageModel:
    path = ggufs.write(folder / "tiny.gguf", model, *parts, **more)
    return load(ModelSpec(str(path), device="cpu"), folder / "cache")


def refused(folder: Path, model: Any, *parts: Any, **more: Any) -> str:
    with pytest.raises(InputError) as error:
        loaded(folder, model, *parts, **more)
    assert "tiny.gguf" in str(error.value)
    assert not list((folder / "cache" / "models").glob("*/"))
    return str(error.value)


@torch.no_grad()
def assert_same(lm: LanguageModel, model: Any, length: int = 60) -> None:
    ids = token_rows(2, length)
    expected = model(ids).logits
    assert float(expected.abs().max()) > 1  # so that a difference shows
    torch.testing.assert_close(lm.model(ids).logits, expected, atol=EXACT, rtol=0)
    hidden = lm.model.base_model(ids).last_hidden_state
    torch.testing.assert_close(lm.logits(hidden), expected, atol=EXACT, rtol=0)


PATTERN = {"attention.sliding_window_pattern": [True, False]}  # of the tiny Gemma: every second layer sees all


@pytest.mark.parametrize("kind", ARCH)
def test_each_architecture(kind: str, tmp_path: Path) -> None:
    model = drawn(config(kind))
    lm = loaded(tmp_path, model, PATTERN if kind == "gemma3_text" else {})
    assert_same(lm, model)
    assert lm.model.config.model_type == kind


SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "base": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, {}),
    "no base": ("qwen2", {}, {"rope.freq_base": None}),
    "epsilon": ("qwen3", {"rms_norm_eps": 0.5}, {}),
    "epsilon, GPT-2": ("gpt2", {"layer_norm_epsilon": 0.5}, {}),
    "neurons, GPT-2": ("gpt2", {"n_inner": 40}, {}),
    "width of a head": ("llama", {"head_dim": 16}, {"attention.key_length": 16, "attention.value_length": 16}),
    "width of a head, Qwen2": ("qwen2", {"head_dim": 16}, {"attention.key_length": 16}),
    "all keys their own": ("qwen3", {"num_key_value_heads": 4}, {"attention.head_count_kv": None}),
    "tied": ("llama", {"tie_word_embeddings": True}, {}),
    "untied": ("gpt2", {"tie_word_embeddings": False}, {}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "linear, older key": (
        "qwen2",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        {"rope.scale_linear": 4.0},
    ),
    "factor alone": (
        "qwen3",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        {"rope.scaling.factor": 4.0},
    ),
    "none": ("llama", {}, {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}),
    "yarn": (
        "qwen2",
        {"rope_parameters": YARN},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
    ),
    "yarn, in full": (
        "llama",
        {
            "rope_parameters": YARN
            | {"beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 0.5 * (1 + 0.1 * math.log(4))}
        },
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
            "rope.scaling.yarn_beta_fast": 8.0,
            "rope.scaling.yarn_beta_slow": 2.0,
            "rope.scaling.attn_factor": 0.5,
        },
    ),
    "linear, Gemma": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            }
        },
        {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0, **PATTERN},
    ),
    "local base": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            }
        },
        {"rope.freq_base_swa": 500.0, **PATTERN},
    ),
    "soft cap": ("gemma3_text", {"final_logit_softcapping": 3.0}, {"final_logit_softcapping": 3.0, **PATTERN}),
    "scale": ("gemma3_text", {"query_pre_attn_scalar": 4}, {"attention.scale": 0.5, **PATTERN}),
    "window": ("gemma3_text", {"sliding_window": 9}, PATTERN),
    "windows everywhere": ("gemma3_text", {"layer_types": ["sliding_attention"] * 2}, {}),  # every sixth sees all
    "pattern": (
        "gemma3_text",
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"attention.sliding_window_pattern": 2},
    ),
    "window, Phi-3": ("phi3", {"sliding_window": 9}, {"attention.sliding_window": 9}),
    "part of a head turns": (
        "phi3",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        {},
    ),
    "a window beyond the positions": ("llama", {}, {"attention.sliding_window": CONTEXT}),
    "no experts": ("llama", {}, {"expert_count": 0, "logit_scale": 1.0, "attn_logit_softcapping": 0.0}),
}


@pytest.mark.parametrize(("kind", "settings", "keys"), SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_are_carried_over(kind: str, settings: dict[str, Any], keys: dict[str, Any], tmp_path: Path) -> None:
    model = drawn(config(kind, **settings))
    assert_same(loaded(tmp_path, model, keys), model)


def test_the_factors_of_llama_3(tmp_path: Path) -> None:
    """As llama.cpp's converter makes them: how often a frequency of the plain base holds the scaled one."""
    model = drawn(config("llama", rope_parameters=LLAMA3))
    rotary = model.model.rotary_emb
    plain = 10000.0 ** -(torch.arange(0, 8, 2) / 8)
    factors = (plain / rotary.inv_freq).numpy()
    assert factors.max() > 7
    assert_same(loaded(tmp_path, model, {}, {"rope_freqs.weight": factors}), model)


@pytest.mark.parametrize("length", [30, 60])  # within and beyond the positions of its first training
def test_the_factors_of_phi_3(length: int, tmp_path: Path) -> None:
    rope = {
        "rope_type": "longrope",
        "short_factor": SHORT,
        "long_factor": LONG,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 40,
        "partial_rotary_factor": 1.0,
    }
    model = drawn(config("phi3", rope_parameters=rope, original_max_position_embeddings=40))
    keys = {
        "rope.scaling.original_context_length": 40,
        "rope.scaling.attn_factor": math.sqrt(1 + math.log(CONTEXT / 40) / math.log(40)),
    }
    tensors = {"rope_factors_short.weight": np.array(SHORT), "rope_factors_long.weight": np.array(LONG)}
    assert_same(loaded(tmp_path, model, keys, tensors), model, length)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "experts": ("llama", {"expert_count": 8}, "sets llama.expert_count to 8"),
    "another key": ("qwen3", {"attention.output_scale": 0.5}, "sets qwen3.attention.output_scale to 0.5"),
    "soft cap of attention": ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    "soft cap": ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    "logits": ("llama", {"logit_scale": 0.5}, "logit_scale"),
    "embeddings": ("llama", {"embedding_scale": 12.0}, "embedding_scale"),
    "residuals": ("llama", {"residual_scale": 0.2}, "residual_scale"),
    "attention": ("llama", {"attention.scale": 0.9}, "attention.scale"),
    "window": ("qwen2", {"attention.sliding_window": 9}, "attention.sliding_window"),
    "part of a head turns": ("qwen2", {"rope.dimension_count": 4}, "rope.dimension_count"),
    "values of another width": ("qwen3", {"attention.value_length": 8}, "attention.value_length"),
    "no epsilon": ("llama", {"attention.layer_norm_rms_epsilon": None}, "does not set attention.layer_norm_rms"),
    "no keys": ("llama", {"attention.head_count_kv": None}, "does not set attention.head_count_kv"),
    "no positions": ("gpt2", {"context_length": None}, "does not set context_length"),
    "no window": ("gemma3_text", {"attention.sliding_window": None}, "does not set attention.sliding_window"),
    "longrope": ("llama", {"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0}, "rope.scaling.type"),
    "yarn": ("phi3", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, "rope.scaling.type"),
    "yarn's extrapolation": (
        "llama",
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.yarn_ext_factor": 0.5},
        "rope.scaling.yarn_ext_factor",
    ),
    "both directions": ("llama", {"attention.causal": False}, "attention.causal"),
    "layers of different sizes": ("llama", {"attention.head_count_kv": [2, 4]}, "attention.head_count_kv"),
}


@pytest.mark.parametrize(("kind", "keys", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_read_is_refused_by_its_name(kind: str, keys: dict[str, Any], told: str, tmp_path: Path) -> None:
    assert told in refused(tmp_path, drawn(config(kind)), keys)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("llama", "blk.0.attn_q_norm.weight"),
        ("llama", "blk.1.attn_k.bias"),
        ("qwen2", "blk.0.attn_output.bias"),
        ("qwen2", "rope_freqs.weight"),
        ("phi3", "rope_factors_long.weight"),
    ],
)
def test_a_tensor_without_a_place_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    message = refused(tmp_path, drawn(config(kind)), {}, {name: np.ones(8)})
    assert name in message or "rope_freqs or rope_factors" in message


@pytest.mark.parametrize("number", [1, 8])  # one would be taken for all
def test_another_number_of_factors_is_refused(number: int, tmp_path: Path) -> None:
    message = refused(tmp_path, drawn(config("llama")), {}, {"rope_freqs.weight": np.full(number, 2.0)})
    assert "in another number than 4" in message


def test_architectures_that_are_not_read(tmp_path: Path) -> None:
    path = ggufs.write(tmp_path / "tiny.gguf", drawn(config("llama")))
    for arch, told in (("bloom", "Models of type 'bloom' are not supported"), ("gemm2", "could not be read")):
        other = tmp_path / f"{arch}.gguf"
        other.write_bytes(path.read_bytes().replace(b"llama", arch.encode()))
        with pytest.raises(InputError, match=told):
            load(ModelSpec(str(other), device="cpu"), tmp_path / "cache")


TOKENIZERS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "GPT-2's way": ({"pre": "gpt-2"}, "a  12 red", ["a", "Ġ", "Ġ", "12", "Ġred"]),
    "not said": ({}, "a  12 red", ["a", "Ġ", "Ġ", "12", "Ġred"]),
    "digits one by one": ({"pre": "smollm"}, "a  12 red", ["a", "ĠĠ", "1", "2", "Ġred"]),
    "Qwen's": ({"pre": "qwen2"}, "a 12 red", ["a", "Ġ", "1", "2", "Ġred"]),
    "Llama 3's": ({"pre": "llama-bpe"}, "a 12 red", ["a", "Ġ", "12", "Ġred"]),
    "with a beginning": ({"add_bos_token": True, "bos_token_id": 1}, "a red", ["<eos>", "a", "Ġred"]),
    "without a beginning": ({"add_bos_token": False, "bos_token_id": 1}, "a red", ["a", "Ġred"]),
    "with an end": ({"add_eos_token": True}, "a red", ["a", "Ġred", "<eos>"]),
}


@pytest.mark.parametrize(("keys", "text", "tokens"), TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_text_is_split_as_the_file_says(keys: dict[str, Any], text: str, tokens: list[str], tmp_path: Path) -> None:
    lm = loaded(tmp_path, drawn(config("llama")), tokenizer=keys)
    assert [TOKENS[i] for i in lm.tokenizer(text).input_ids] == tokens


PIECES = ("<unk>", "<s>", "</s>", "▁", "a", "r", "e", "d", "b", "▁a", "▁r", "re", "red", "▁red", "ed", "▁b", "▁bed")


@pytest.mark.parametrize(
    ("keys", "tokens"),
    [
        ({}, ["<s>", "▁red", "▁bed"]),  # as llama.cpp does where the file does not say
        ({"add_space_prefix": True, "add_bos_token": False}, ["▁red", "▁bed"]),
        ({"add_space_prefix": False, "add_bos_token": True}, ["<s>", "red", "▁bed"]),
    ],
)
def test_sentencepiece_begins_as_the_file_says(keys: dict[str, Any], tokens: list[str], tmp_path: Path) -> None:
    tokenizer = {"bos_token_id": 1, "eos_token_id": 2, **keys}
    lm = loaded(tmp_path, drawn(config("llama")), tokenizer=tokenizer, pieces=PIECES)
    ids = lm.encode("red bed")
    assert [PIECES[i] for i in ids] == tokens
    assert lm.tokenizer.decode(ids, skip_special_tokens=True) == "red bed"


def test_an_unknown_way_to_split_text_is_refused(tmp_path: Path) -> None:
    assert "'superbpe' (tokenizer.ggml.pre)" in refused(tmp_path, drawn(config("llama")), tokenizer={"pre": "superbpe"})


def test_ends_are_all_that_the_file_names(tmp_path: Path) -> None:
    lm = loaded(tmp_path, drawn(config("llama")), tokenizer={"eot_token_id": 4, "eom_token_id": 5})
    assert lm.model.generation_config.eos_token_id == [1, 4, 5]
    (folder,) = (tmp_path / "cache" / "models").glob("*/")
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [1, 4, 5]


def test_tokens_that_the_file_does_not_name_are_none(tmp_path: Path) -> None:
    """The class of a config names others: 1 and 2 for Llama, 32000 for Phi-3."""
    lm = loaded(tmp_path, drawn(config("phi3")), tokenizer={"eos_token_id": None})
    found = lm.model.config
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (None, None, None)


# parts, and names


@pytest.mark.parametrize("name", ["m-00001-of-00003.gguf", "M-00002-OF-00002.GGUF"])
def test_parts_of_a_split_file_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"is part \d of \d of a split GGUF.*llama-gguf-split --merge"):
        load(ModelSpec(str(tmp_path / name), device="cpu"), tmp_path / "cache")
    check_name(Path("m-00001-of-00001.gguf"))


def test_a_part_under_another_name_is_known_by_its_metadata(tmp_path: Path) -> None:
    model = drawn(config("llama"))
    path = ggufs.write(tmp_path / "tiny.gguf", model, tokenizer={"eos_token_id": 1}, general={"split.count": 3})
    with pytest.raises(InputError, match="is a part of a split GGUF"):
        load(ModelSpec(str(path), device="cpu"), tmp_path / "cache")


def test_letters_of_the_ending_do_not_matter(tmp_path: Path) -> None:
    model = drawn(config("llama"))
    path = ggufs.write(tmp_path / "Tiny.GGUF", model)
    assert_same(load(ModelSpec(str(path), device="cpu"), tmp_path / "cache"), model)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match=r"Tiny.GGUF' is a pointer of Git LFS"):
        load(ModelSpec(str(path), device="cpu"), tmp_path / "cache")


def test_transformers_reads_less(tmp_path: Path) -> None:
    """Why the settings are carried over here: should this fail, part of `gguf_settings` can go."""
    path = ggufs.write(
        tmp_path / "tiny.gguf", drawn(config("llama")), {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    )
    read = transformers.AutoConfig.from_pretrained(tmp_path, gguf_file=path.name)
    assert read.rope_parameters["rope_type"] == "default"
