"""Everything that reads what others wrote: valid examples, how they are made hostile, and the reader itself.

A reader may refuse its input with an InputError of one sentence and nothing else.
"""

from __future__ import annotations

import io
import json
import re
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
from fasp_core.figures.clicks import clicked_heads
from fasp_core.heads import prune_files
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics import continuations
from fasp_core.scoring import score_files
from fasp_core.scoring.manual_edits import ManualEdits
from fasp_core.storage import catalog, keys, store
from fasp_core.storage.store import HEADER, Store
from fasp_core.studies.answers import numbers
from fasp_core.studies.contexts import scenarios
from pages.backend import demo
from pages.explore import named
from pages.instrument.sent import acts
from pages.session import recipe
from tests.fuzz import model_readers, mutate

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
    hand = {"prune": [5], "keep": [7], "leave": [9], "gains": [[8, 0.4]]}
    act = {"n": 1_700_000_000_000, "gamma": 0.3, "alpha": 0.05, **hand, "head": 5}
    return mutate.of_tree(rng, [act, {**act, "n": 1_700_000_000_001}])


def _read_queue(told: Any) -> None:
    for act in acts(told, 3, 270):
        assert len(act.on(ManualEdits())) == len(act.prune | act.keep)


def _read_event(event: Any) -> None:
    assert all(0 <= layer < 30 for layer, _ in clicked_heads(event, 9, 30))


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
    file.write_bytes(mutate.of_tensors(rng, file.read_bytes()))
    return folder


def _read_parts(folder: Path) -> None:
    parts = Store(folder).parts("scores", CONFIG)
    for name in parts.names():
        parts.load(name)


def _named(raw: bytes) -> None:
    for one in named.from_json(raw, {}).values():
        f"{one.model}{one.chosen}{one.heads.format()}".encode()  # can be shown


READERS: dict[str, Reader] = {
    "sets as text": Reader(_set, _read_set),
    "links": Reader(_link, _read_link),
    "clicks": Reader(_events, _read_event),
    "acts on the maps": Reader(_queue, _read_queue),
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
    "names of models": Reader(model_readers.source, model_readers.read_source),
    "model folders": Reader(model_readers.model_folder, model_readers.load, 3),
    "GGUF files": Reader(model_readers.gguf_file, model_readers.load, 5),
}
