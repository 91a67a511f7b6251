"""Exports are read as the same model by transformers 4.57: by its fields of their config, and by itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from fasp_core.export import card, checking, older
from fasp_core.export.checking import Speed
from fasp_core.export.writing import Exported, export
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from tests.support.ggufs import drawn
from tests.support.tiny import HEADS, KINDS, tiny_config, tiny_model, tiny_tokenizer, token_rows

OLD_PYTHON = os.environ.get("FASP_OLD_TRANSFORMERS", "")
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.5, 2.0, 4.0],
    "long_factor": [1.0, 2.0, 6.0, 9.0],
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 40,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500000.0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e6}
ROPES: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("llama", {"rope_type": "default", "rope_theta": 500000.0}),
    "llama3": ("llama", LLAMA3),
    "yarn": ("qwen2", YARN),
    "linear": ("qwen3", {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}),
    "dynamic": ("mistral", {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
    "longrope": ("llama", LONGROPE),
    "longrope with its factor": ("llama", LONGROPE | {"attention_factor": 1.3}),
    "longrope, Phi-3": ("phi3", LONGROPE | {"partial_rotary_factor": 1.0}),
    "a part, Phi-3": ("phi3", {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}),
    "all, Pythia": ("gpt_neox", {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}),
    "Gemma": (
        "gemma3_text",
        {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
        },
    ),
}
CASES: dict[str, tuple[str, dict[str, Any] | None]] = {kind: (kind, None) for kind in KINDS} | {**ROPES}
FIELDS = ("rope_parameters", "dtype")  # that version 4.57 does not look at


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "speed", lambda *_: Speed(1.0, 1.0, 1.0, 1.0, 1, 1, 1, "cpu", "float32", 1))


def model_of(kind: str, rope: dict[str, Any] | None) -> Any:
    if rope is None:
        return tiny_model(kind)
    config = tiny_config(kind)
    more = {"original_max_position_embeddings": 40} if kind == "phi3" and rope["rope_type"] == "longrope" else {}
    return drawn(type(config).from_dict({**config.to_dict(), "rope_parameters": rope, **more}))


def exported(folder: Path, kind: str, rope: dict[str, Any] | None, parts: str = "L0H1,L1H0") -> Exported:
    model_of(kind, rope).save_pretrained(folder / "in")
    tiny_tokenizer().save_pretrained(folder / "in")
    return export(load(ModelSpec(str(folder / "in"), device="cpu")), PruneSet.parse(parts), folder / "out")


def frequencies(config: Any) -> list[torch.Tensor]:
    """All tables of rotary embeddings of a model with this config, and by how much they grow."""
    with torch.device("cpu"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    found = [tensor for name, tensor in model.named_buffers() if "inv_freq" in name]
    scaling = [getattr(module, "attention_scaling", 1.0) for module in model.modules() if hasattr(module, "rope_type")]
    return [*found, torch.tensor([float(one) for one in scaling if not isinstance(one, dict)])]


@pytest.mark.parametrize(("kind", "rope"), CASES.values(), ids=CASES.keys())
def test_the_older_fields_alone_give_the_same_model(kind: str, rope: dict[str, Any] | None, tmp_path: Path) -> None:
    """Version 5 still reads them where its own are missing."""
    found = exported(tmp_path, kind, rope)
    assert found.versions == {"loaded": transformers.__version__, "fields": "4.57", "differs": ""}
    settings = json.loads((tmp_path / "out" / "config.json").read_bytes())
    now = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert settings["torch_dtype"] == settings["dtype"] == "float32"
    before = type(now).from_dict({key: value for key, value in settings.items() if key not in FIELDS})
    expected, alone = frequencies(now), frequencies(before)
    assert len(expected) == len(alone)
    assert all(torch.equal(a, b) for a, b in zip(expected, alone, strict=True))
    source = transformers.AutoConfig.from_pretrained(tmp_path / "in")
    assert all(torch.equal(a, b) for a, b in zip(expected, frequencies(source), strict=True))


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("base", "rope_theta"),
        ("llama3", "rope_scaling"),
        ("linear", "rope_scaling"),
        ("a part, Phi-3", "partial_rotary_factor"),
        ("all, Pythia", "rotary_emb_base"),
        ("all, Pythia", "rotary_pct"),
        ("Gemma", "rope_local_base_freq"),
        ("Gemma", "rope_scaling"),
    ],
)
def test_a_field_that_is_not_there_is_noticed(name: str, without: str, tmp_path: Path) -> None:
    kind, rope = ROPES[name]
    settings: dict[str, Any] = {
        "model_type": kind,
        "num_attention_heads": HEADS,
        "hidden_size": 32,
        "rope_parameters": rope,
    }
    settings |= older.older_fields(settings)
    assert older.differs(settings) == ""
    assert "in another way" in older.differs({key: value for key, value in settings.items() if key != without})


def test_what_the_older_version_cannot_read_is_said(tmp_path: Path) -> None:
    found = exported(tmp_path, "phi3", LONGROPE | {"attention_factor": 1.9})
    assert "refuses rotary embeddings of Phi-3" in found.versions["differs"]
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"{found.versions['differs']}, so use version 5" in text
    written = json.loads((tmp_path / "out" / "config.json").read_bytes())["rope_scaling"]
    assert len(written) == 4  # so that 4.57, which wants three, says so


def test_the_card_names_the_versions(tmp_path: Path) -> None:
    exported(tmp_path, "llama", None)
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"Checked by loading it with transformers {transformers.__version__}; the fields" in text
    assert "that transformers 4.57 reads say the same" in text
    assert card.compared(
        {"difference": 0.0, "dtype": "float32", "float32": 0.0, "prompts": 1, "logits": 1, "limit": 1e-4}
    )


SPM = ["<unk>", "<s>", "</s>", "▁", "a", "r", "e", "d", "b", "re", "red", "▁red", "▁b", "ed", "▁bed", "<turn>"]
SPM_MERGES = [("r", "e"), ("re", "d"), ("▁", "red"), ("▁", "b"), ("e", "d"), ("▁b", "ed")]
BPE = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyzIM.Ġ", "re", "red", "Ġred", "<|endoftext|>"]
BPE_MERGES = [("r", "e"), ("re", "d"), ("Ġ", "red")]


def tokenizers() -> dict[str, tuple[str, Any]]:
    spm = {"vocab": {t: i for i, t in enumerate(SPM)}, "merges": SPM_MERGES}
    bpe = {"vocab": {t: i for i, t in enumerate(BPE)}, "merges": BPE_MERGES}
    more = transformers.LlamaTokenizer(**spm, add_prefix_space=False)
    more.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    more.chat_template = "{{ messages[0]['content'] }}"
    return {
        "Llama": ("llama", transformers.LlamaTokenizer(**spm)),
        "without a beginning": ("llama", transformers.LlamaTokenizer(**spm, add_bos_token=False)),
        "more special tokens": ("mistral", more),
        "GPT-2": ("gpt2", transformers.GPT2Tokenizer(**bpe)),
        "Qwen2": ("qwen2", transformers.Qwen2Tokenizer(**bpe)),
        "OPT": ("opt", transformers.GPT2Tokenizer(**bpe, bos_token="</s>", eos_token="</s>", add_bos_token=True)),
    }


@pytest.mark.parametrize("name", tokenizers())
def test_the_class_of_a_tokenizer_is_known_to_all(name: str, tmp_path: Path) -> None:
    kind, tokenizer = tokenizers()[name]
    tiny_model(kind).save_pretrained(tmp_path / "in")
    tokenizer.save_pretrained(tmp_path / "in")
    lm = load(ModelSpec(str(tmp_path / "in"), device="cpu"))
    export(lm, PruneSet.parse("L0H1"), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_bytes())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(written.get("extra_special_tokens"), list)
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("a red bed", " red", "red<turn>bed</s>", "I met a red person."):
        ids = lm.encode(text)
        assert list(back(text).input_ids) == ids
        assert back.decode(ids) == lm.tokenizer.decode(ids)
    assert (back.bos_token_id, back.eos_token_id) == (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id)
    assert bool(back.chat_template) == (name == "more special tokens")


# the older version itself

READ = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
for place in map(Path, sys.argv[1:]):
    held = load_file(place / "held.safetensors")
    model, loading = AutoModelForCausalLM.from_pretrained(place / "out", output_loading_info=True)
    with torch.no_grad():
        difference = float((model.eval()(held["ids"]).logits - held["logits"]).abs().max())
    lost = sum(map(len, (loading["missing_keys"], loading["unexpected_keys"], loading["mismatched_keys"])))
    ids = AutoTokenizer.from_pretrained(place / "out")("I met a red person.").input_ids
    print(json.dumps([place.name, difference, lost, ids]))
"""
SETS = {"zeroed": "L0H1,L1H0,L0N3", "gone": "L0H0-1,L1H2-3,L0N0-9,L1N5-14"}


@pytest.mark.slow
@pytest.mark.skipif(not OLD_PYTHON, reason="name a Python with transformers 4.57 in FASP_OLD_TRANSFORMERS")
def test_the_older_version_gives_the_same_logits(tmp_path: Path) -> None:
    ids, places, expected = token_rows(2, 60), [], {}
    for number, (name, (kind, rope)) in enumerate(CASES.items()):
        for title, parts in SETS.items():
            place = tmp_path / f"{number}-{title}"
            found = exported(place, kind, rope, parts)
            assert found.versions["differs"] == "", name
            lm = load(ModelSpec(str(place / "in"), device="cpu"))
            with torch.no_grad(), masked(lm, PruneSet.parse(parts)):
                logits = lm.model(ids).logits.contiguous()
            save_file({"ids": ids, "logits": logits}, place / "held.safetensors")
            places.append(place)
            expected[place.name] = (name, float(logits.abs().max()), lm.encode("I met a red person."))
    run = subprocess.run(
        [OLD_PYTHON, "-c", READ, *map(str, places)], capture_output=True, text=True, check=False, timeout=900
    )
    assert run.returncode == 0, run.stderr[-2000:]
    said = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
    assert len(said) == len(places)
    for place, difference, lost, tokens in said:
        name, largest, known = expected[place]
        print(f"{name}, {place.split('-')[1]}: {difference:.1e} of logits up to {largest:.1f}")
        assert difference <= 1e-5 * max(1.0, largest), name
        assert (lost, tokens) == (0, known), name
