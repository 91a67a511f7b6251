"""Everything that reads what others wrote: valid examples, how they are made hostile, and the reader itself.

A reader may refuse its input with an InputError of one sentence and nothing else.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np
import pandas as pd

from fasp_core import released
from fasp_core.data import prompt_sampling, prompts, text
from fasp_core.errors import InputError
from fasp_core.export.writing import RESULT, read_result
from fasp_core.figures.clicks import clicked_heads, clicked_lines
from fasp_core.heads import prune_files
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics import continuations
from fasp_core.model import hub, loading
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.scoring import score_files
from fasp_core.storage import catalog, keys, store
from fasp_core.storage.store import HEADER, Store
from fasp_core.studies.contexts import numbers, scenarios
from pages.backend import demo
from pages.explore import grids, named
from pages.session import recipe
from pages.take_home import checkpoint
from pages.widgets import pointer
from tests.fuzz import mutate

Make = Callable[[Random, Path], Any]


@dataclass(frozen=True)
class Reader:
    """One kind of input.

    Attributes
    ----------
    make : a hostile input, made from a generator and in an empty folder that it may use.
    read : the reader, given what `make` made.
    weight : how many of its inputs are made where a cheap reader gets 100.
    """

    make: Make
    read: Callable[[Any], object]
    weight: int = 100


# --- sets and links ---

SETS = ("L0H3,L2H1-4", "L5N17,L6N0-9", " L0H0;L1H1\nL2H2 ", "L11H0-11,L29N0-1535", "")
LINK = {
    "model": "openai-community/gpt2",
    "dtype": "bfloat16",
    "axis": "age",
    "reading": "counted",
    "method": "random",
    "gamma": "0.25",
    "alpha": "0.1",
    "limit": "12",
    "seed": "7",
    "neurons": "L1N0-9",
    "prune": "L0H3,L2H1-4",
    "keep": "L3H1",
    "split": "test",
    "prompts": "450",
    "tokens": "2048",
}
SET_FILE = {
    "heads": [[0, 1], [2, 3]],
    "neurons": [[1, 17]],
    "prune_set": "L0H1,L2H3",
    "k": 2,
    "shape": [4, 4],
    "method": "fasp",
    "gamma": 0.3,
    "model": "tiny",
    "axis": "age",
    "reading": "neutral",
    "notes": ["one", "two"],
}
NAMED = {
    "prune sets": [
        {"name": f"set {i}", "model": "built-in", "parts": "L0H1,L2H3", "chosen": "FASP, γ 0.3"} for i in range(4)
    ]
}


def _set(rng: Random, _: Path) -> str:
    if rng.random() < 0.3:
        parts = (f"L{_n(rng)}{rng.choice('HNhnX')}{_n(rng)}" + rng.choice(("", f"-{_n(rng)}")) for _ in range(3))
        return rng.choice(", ;\n").join(parts)
    return mutate.of_text(rng, rng.choice(SETS))


def _n(rng: Random) -> str:
    return str(rng.choice((0, 1, 3, 12, 9999, 999_999, 10**9, "٣", "²", -1, "")))


def _read_set(given: str) -> None:
    found = PruneSet.parse(given)
    assert len(found) > 10_000 or PruneSet.parse(found.format()) == found


def _link(rng: Random, _: Path) -> str:
    query = dict(LINK)
    for _ in range(rng.choice((1, 2, 4))):
        name = rng.choice(list(query))
        query[name] = mutate.of_text(rng, query[name]) if rng.random() < 0.5 else str(rng.choice(mutate.TEXTS))
    raw = urlencode(query, errors="surrogatepass")
    return raw if rng.random() < 0.7 else mutate.of_text(rng, raw)


def _read_link(given: str) -> None:
    query = dict(parse_qsl(given, keep_blank_values=True, errors="replace", max_num_fields=1000))
    found, left_out = recipe.read(query)
    assert all(len(text) < 80 for text in left_out)
    again, none = recipe.read(recipe.Recipe(**found).query())  # type: ignore[arg-type]
    plain = recipe.Recipe().query() | {name: value for name, value in found.items()}
    assert not none
    assert all(plain[name] == value for name, value in again.items())
    demo.left_out(found)


def _events(rng: Random, _: Path) -> Any:
    point = {"curve_number": 3, "point_index": 5, "x": 1, "y": 2, "customdata": ["a"]}
    return mutate.of_tree(rng, {"selection": {"points": [point, point], "box": [], "lasso": []}})


def _queue(rng: Random, _: Path) -> Any:
    click = {"n": 1_700_000_000_000, "of": "built-in 30 9", "curve_number": 0, "point_index": 5, "shift": False}
    return mutate.of_tree(rng, [click, {**click, "n": 1_700_000_000_001}])


def _read_queue(clicks: Any) -> None:
    for click in pointer.fresh(clicks, 3):
        grids.acted_on({"selection": {"points": [click]}}, 30, 9)


def _read_event(event: Any) -> None:
    assert all(0 <= layer < 30 for layer, _ in clicked_heads(event, 9, 30))
    clicked_lines(event, 30, 9)


# --- prompts, words, texts ---

ROWS = [["text", "group"], *([f"I am a {word} person.", group] for word in ("red", "tall") for group in "AB")]


def _prompts(raw: bytes) -> None:
    found = prompts.from_csv(raw, "own")
    prompt_sampling.sample(found, 3, 0, minimum=1)


def _text_file(rng: Random, folder: Path) -> str:
    (folder / "text.txt").write_bytes(mutate.of_bytes(rng, b"A tall person met a friend. " * 5))
    return str(folder / "text.txt") if rng.random() < 0.7 else mutate.of_text(rng, str(folder / "text.txt"))


ANSWERS = (
    "about $1,200 to $1.5k",
    "5-10 hours a week",
    "ten percent, or one in ten",
    "between 20 and 30%",
    "at 9:30, 3/4",
)


def _answer(rng: Random, _: Path) -> tuple[str, Any]:
    long = rng.choice(("9", "1,", "one ", "5-", "$ ", "to ", "9 to ", "  ")) * rng.choice((0, 50, 400))
    answer = mutate.of_text(rng, rng.choice(ANSWERS)).encode("utf-8", "replace").decode()  # as tokenizers decode
    return answer + long, rng.choice(numbers.UNITS)


def _checked(given: str) -> None:
    continuations.checked(given).encode()


# --- released scores, score folders ---

RELEASED = {
    "distilgpt2": {"cont_to_ppl": [1.5] * 72, "cont_to_age_bias": [0.5] * 72, "magnitude_l2_structured": [2] * 72},
    "own/model": {"cont_to_ppl": [1.0, 2.0, 3.0, 4.0], "cont_to_age_bias": [4, 3, 2, 1]},
}
RELEASED_ROWS = [
    ["Group", "Bias", "Model", "Head id", "Seed", "Split", "PPL"],
    *([axis, f"{i}.5", "own/model", str(i + 1), seed, split, f"{50 + i}"]
      for axis in ("age", "religion") for seed in ("1", "2.0") for split in ("valid", "test") for i in range(4)),
]  # fmt: skip
SCORES = {
    "layer": [0, 0, 1, 1],
    "head": [0, 1, 0, 1],
    "z_nats": [0.1, 0.2, 0.3, 0.4],
    "z_ppl": [1.0, 2.0, 3.0, 4.0],
    "z_bias_neutral": [0.4, 0.1, 0.2, 0.3],
    "z_bias_neutral_se": [0.1] * 4,
}
ABOUT = {
    "model": "built-in",
    "axis": "age",
    "gap": {"neutral": {"noise_p": 0.5}},
    "reliability": {"neutral": {"prunable": {"halves": 0.3}}},
}


def _released(name: str) -> Callable[[bytes], None]:
    def read(raw: bytes) -> None:
        found = released.read_bytes(raw, name)
        for model in found.models:
            size = found.size(model)
            axes = found.axes(model)
            scores = found.head_scores(model, axes[0] if axes else None, size)
            released.findings(found, model, axes[0] if axes else None, size)
            released.compare_rules(scores, "fasp", 0.3, 0.1)
        "".join((*found.models, *(a for m in found.models for a in found.axes(m)))).encode()  # can be shown

    return read


def _score_folder(rng: Random, folder: Path) -> Path:
    rows = [list(SCORES), *([str(v) for v in row] for row in zip(*SCORES.values(), strict=True))]
    about = mutate.of_json(rng, ABOUT) if rng.random() < 0.6 else mutate.written(ABOUT)
    (folder / "scores.json").write_bytes(about)
    if rng.random() < 0.5:
        (folder / "scores.csv").write_bytes(mutate.of_table(rng, rows))
    else:
        (folder / "scores.parquet").write_bytes(mutate.of_bytes(rng, _parquet()) if rng.random() < 0.6 else _parquet())
    return folder


@cache
def _parquet() -> bytes:
    out = io.BytesIO()
    pd.DataFrame(SCORES).to_parquet(out, engine="pyarrow")
    return out.getvalue()


def _read_scores(folder: Path) -> None:
    opened = score_files.open_scores(folder, "fasp")
    select(opened.scores, "fasp", 0.3, 0.1)
    json.dumps([opened.notes, opened.model, opened.axis, opened.reading])


# --- scenarios, exports, store ---

SCENARIOS = """
[groups]
a = ["Jamal", "Lakisha"]
b = ["Todd", "Claire"]

[contexts.purchases]
title = "Purchases"
unit = "dollars"
opening = "I would offer $"
question = "What should I offer {name} for a {item}?"
scenarios = ["chair", "bicycle"]
"""
TOML = (
    *("[[", "]", "a.b.c = ", '"""', "'''", "[" * 2000, "{a=" * 800, "a." * 3000 + "b=1", "= 9" + "9" * 5000),
    *('unit = ["dollars"]', "unit = {a=1}", "inf", "nan", "2024-99-99", "\\uD800", "0x" + "f" * 9000),
)  # fmt: skip


def _scenarios(rng: Random, _: Path) -> str:
    if rng.random() < 0.5:
        return mutate.of_text(rng, SCENARIOS).encode("utf-8", "replace").decode()  # a file is UTF-8 by then
    lines = SCENARIOS.split("\n")
    for _ in range(rng.choice((1, 2, 3))):
        at = rng.randrange(len(lines))
        key = lines[at].split("=")[0]
        value = rng.choice(
            (
                *TOML,
                *(t for t in mutate.TEXTS if not re.search("[\ud800-\udfff]", t)),
                json.dumps(rng.choice(mutate.NUMBERS)),
                "[1,2]",
                "true",
                '""',
                "[]",
            )
        )
        lines[at] = rng.choice((f"{key}={value}", value, lines[at] + "\n" + lines[at], ""))
    return "\n".join(lines)


def _read_scenarios(given: str) -> None:
    found = scenarios.parse(given, "own.toml")
    for context in found.contexts:
        for one in found.of(context):
            for person, _ in found.people:
                one.ask(person).encode()  # can be shown
    found.smaller(1, 1)


def _export(rng: Random, folder: Path) -> Path:
    (folder / RESULT).write_bytes(mutate.of_json(rng, {"weights": "sha256:1", "prune_set": "L0H1", "size": {"a": [1]}}))
    return folder


CONFIG = {"experiment": "compare", "axis": "age", "weights": "sha256:1", "sizes": [1, 2, {"a": 0.5}]}
META = {"provenance": {"model": "built-in", "seconds": 1.5, "created": "2026-01-01", "command": "x"}, "notes": ["n"]}


def _entry(rng: Random, folder: Path) -> Path:
    """A stored entry whose header is changed, half the time under a seal that fits."""
    made = Store(folder).save(
        "scores", CONFIG, tables={"t": pd.DataFrame({"x": [1, 2]})}, arrays={"a": np.arange(3)}, meta=META
    )
    path = made.path / HEADER
    header = json.loads(path.read_bytes())
    if rng.random() < 0.6:
        header.pop("sha256")
        header = mutate.of_tree(rng, header)
        if isinstance(header, dict):
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                header["sha256"] = store.sha256(keys.canonical(header))
                if rng.random() < 0.5:
                    path = path.parent.rename(path.parent.with_name("x--" + store.digest(header["config"]))) / HEADER
        path.write_bytes(mutate.written(header))
    else:
        victim = rng.choice(sorted(path.parent.iterdir()))
        victim.write_bytes(mutate.of_bytes(rng, victim.read_bytes()))
    return folder


def _read_store(folder: Path) -> None:
    results = Store(folder)
    for entry in results.entries("scores"):
        for name in entry.files:
            with suppress(InputError):
                entry.read(name)
    catalog.kept(results)
    results.load("scores", CONFIG)
    found = results.compute("scores", CONFIG, lambda: {"arrays": {"a": np.arange(3)}})
    json.dumps(found.arrays.get("a", np.arange(3)).tolist())


def _part(rng: Random, folder: Path) -> Path:
    parts = Store(folder).parts("scores", CONFIG)
    parts.save("one", {"a": np.arange(3.0)})
    file = next(parts.folder.glob("*.safetensors"))
    file.write_bytes(_tensors(rng, file.read_bytes()))
    return folder


def _tensors(rng: Random, raw: bytes) -> bytes:
    """A safetensors file with a changed header of the right length, or changed bytes."""
    if rng.random() < 0.5:
        return mutate.of_bytes(rng, raw)
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    header = mutate.of_json(rng, json.loads(raw[8:end]))
    length = len(header) if rng.random() < 0.8 else rng.choice((0, 1, 2**31, 2**63, 2**64 - 1))
    return struct.pack("<Q", length) + header + raw[end:]


def _read_parts(folder: Path) -> None:
    parts = Store(folder).parts("scores", CONFIG)
    for name in parts.names():
        parts.load(name)


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


def _source(rng: Random, folder: Path) -> str:
    return mutate.of_text(rng, rng.choice((*SOURCES, str(folder)))) if rng.random() < 0.8 else rng.choice(mutate.TEXTS)


def _read_source(given: str) -> None:
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
def _saved() -> dict[str, bytes]:
    from tests.support.worlds import write_model

    with tempfile.TemporaryDirectory() as name:
        return {path.name: path.read_bytes() for path in write_model(Path(name)).iterdir()}


def _model_folder(rng: Random, folder: Path) -> str:
    for name, raw in _saved().items():
        (folder / name).write_bytes(raw)
    place = rng.choice(PLACES)
    if place == "config.json":
        config = json.loads(_saved()[place])
        for key in rng.sample(list(HUGE | OWN), rng.choice((1, 1, 2))):
            config[key] = (HUGE | OWN)[key]
        raw = mutate.written(config) if rng.random() < 0.5 else mutate.of_json(rng, json.loads(_saved()[place]))
    elif place == "model.safetensors":
        raw = _tensors(rng, _saved()[place])
    elif place == "other":
        place = rng.choice(("model.safetensors.index.json", "tokenizer_config.json", "generation_config.json"))
        shards = {
            "weight_map": {"model.norm.weight": rng.choice(("../x.safetensors", "/etc/passwd", "model.safetensors"))}
        }
        raw = mutate.of_json(rng, shards if "index" in place else {"tokenizer_class": "LlamaTokenizer", **OWN})
    else:
        raw = mutate.of_json(rng, json.loads(_saved()[place]))
    (folder / place).write_bytes(raw)
    return str(folder)


@cache
def _gguf() -> bytes:
    from tests.support import ggufs, tiny

    with tempfile.TemporaryDirectory() as name:
        return ggufs.write(Path(name) / "a.gguf", ggufs.drawn(tiny.tiny_config("llama"))).read_bytes()


def _gguf_file(rng: Random, folder: Path) -> str:
    """Bytes of the header changed, or one of its 4- or 8-byte numbers made huge; at times it ends early."""
    raw = bytearray(_gguf())
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


def _load(source: str) -> None:
    loading.load(ModelSpec(source, device="cpu"))


def _named(raw: bytes) -> None:
    for one in named.from_json(raw, {}).values():
        f"{one.model}{one.chosen}{one.heads.format()}".encode()  # can be shown


READERS: dict[str, Reader] = {
    "sets as text": Reader(_set, _read_set),
    "links": Reader(_link, _read_link),
    "clicks": Reader(_events, _read_event),
    "quick clicks": Reader(_queue, _read_queue),
    "set files": Reader(
        lambda rng, _: mutate.of_json(rng, SET_FILE), lambda raw: prune_files.read(raw, "set.json", (4, 4))
    ),
    "saved sets": Reader(lambda rng, _: mutate.of_json(rng, NAMED), _named),
    "prompts (CSV)": Reader(lambda rng, _: mutate.of_table(rng, ROWS), _prompts),
    "released scores (JSON)": Reader(lambda rng, _: mutate.of_json(rng, RELEASED), _released("scores.json")),
    "released scores (CSV)": Reader(lambda rng, _: mutate.of_table(rng, RELEASED_ROWS), _released("scores.csv")),
    "score folders": Reader(_score_folder, _read_scores, 30),
    "scenarios (TOML)": Reader(_scenarios, _read_scenarios),
    "answers of a model": Reader(_answer, lambda given: numbers.parse(*given)),
    "typed prompts": Reader(lambda rng, _: mutate.of_text(rng, "My new neighbours are Dutch"), _checked),
    "text files": Reader(_text_file, text.load_text),
    "exports": Reader(_export, read_result, 30),
    "store entries": Reader(_entry, _read_store, 10),
    "store parts": Reader(_part, _read_parts, 30),
    "names of models": Reader(_source, _read_source),
    "model folders": Reader(_model_folder, _load, 3),
    "GGUF files": Reader(_gguf_file, _load, 5),
}
