"""Models that others made, made hostile: names, folders and GGUF files."""

from __future__ import annotations

import json
import struct
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from fasp_core.model import hub, loading
from fasp_core.model.spec import BUILT_IN, ModelSpec
from pages.take_home import checkpoint
from tests.fuzz import mutate

# --- models ---

SOURCES = (
    "openai-community/gpt2",
    "gpt2",
    "org/name@v1/sub",
    "org/name@refs/pr/1",
    "./folder",
    "~/model",
    "/models/a.gguf",
    "built-in",
)


def source(rng: Random, folder: Path) -> str:
    return mutate.of_text(rng, rng.choice((*SOURCES, str(folder)))) if rng.random() < 0.8 else rng.choice(mutate.TEXTS)


def read_source(given: str) -> None:
    spec = ModelSpec(given, device="cpu")
    if given.lower().endswith(".gguf") or (given != BUILT_IN and hub.ref_of(given) is None):
        loading.load(spec)  # nothing of that name holds a model
    elif given != BUILT_IN:
        ref = hub.HubRef.parse(given)
        assert hub.HubRef.parse(str(ref)) == ref
        hub._cached(ref, "no network")
    checkpoint.folder_of(given)


PLACES = ("config.json", "config.json", "model.safetensors", "model.safetensors", "tokenizer.json", "other")
HUGE = {"num_hidden_layers": 10**9, "hidden_size": 10**7, "intermediate_size": 2**40, "vocab_size": 10**12}
OWN = {
    "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.T", None]},
    "attn_implementation": "somebody/kernel",
    "quantization_config": {"quant_method": "awq"},
    "model_type": "gpt_neo",
    "attention_types": [[["global", "local"], 10**9]],
    "num_attention_heads": 0,
    "num_key_value_heads": 3,
    "head_dim": 10**6,
    "max_position_embeddings": 10**15,
    "layer_types": ["x"],
    "rope_parameters": {"rope_type": "dynamic", "factor": 1e308},
    "torch_dtype": "float0",
    "architectures": ["os.system"],
}


@cache
def saved() -> dict[str, bytes]:
    from tests.support.worlds import write_model

    with tempfile.TemporaryDirectory() as name:
        return {path.name: path.read_bytes() for path in write_model(Path(name)).iterdir()}


def model_folder(rng: Random, folder: Path) -> str:
    for name, raw in saved().items():
        (folder / name).write_bytes(raw)
    place = rng.choice(PLACES)
    if place == "config.json":
        config = json.loads(saved()[place])
        for key in rng.sample(list(HUGE | OWN), rng.choice((1, 1, 2))):
            config[key] = (HUGE | OWN)[key]
        raw = mutate.written(config) if rng.random() < 0.5 else mutate.of_json(rng, json.loads(saved()[place]))
    elif place == "model.safetensors":
        raw = mutate.of_tensors(rng, saved()[place])
    elif place == "other":
        place = rng.choice(("model.safetensors.index.json", "tokenizer_config.json", "generation_config.json"))
        shards = {
            "weight_map": {"model.norm.weight": rng.choice(("../x.safetensors", "/etc/passwd", "model.safetensors"))}
        }
        raw = mutate.of_json(rng, shards if "index" in place else {"tokenizer_class": "LlamaTokenizer", **OWN})
    else:
        raw = mutate.of_json(rng, json.loads(saved()[place]))
    (folder / place).write_bytes(raw)
    return str(folder)


@cache
def gguf() -> bytes:
    from tests.support import ggufs, tiny

    with tempfile.TemporaryDirectory() as name:
        return ggufs.write(Path(name) / "a.gguf", ggufs.drawn(tiny.tiny_config("llama"))).read_bytes()


def gguf_file(rng: Random, folder: Path) -> str:
    """Bytes of the header changed, or one of its 4- or 8-byte numbers made huge; at times it ends early."""
    raw = bytearray(gguf())
    for _ in range(rng.choice((1, 1, 2))):
        at = 8 * rng.randrange(250)  # the header is not much longer
        huge = rng.choice((2**63, 2**40, 2**32, 10**6, 0))
        match rng.randrange(4):
            case 0:
                start = at + rng.randrange(8)
                raw[start : start + 8] = struct.pack("<Q", huge)
            case 1:
                start = at + rng.randrange(8)
                raw[start : start + 4] = struct.pack("<I", huge & 0xFFFFFFFF)
            case 2:
                del raw[at + rng.randrange(2000) :]
            case _:
                raw[:2000] = mutate.of_bytes(rng, bytes(raw[:2000]))
    path = folder / "a.gguf"
    path.write_bytes(raw)
    return str(path)


def load(source: str) -> None:
    loading.load(ModelSpec(source, device="cpu"))
