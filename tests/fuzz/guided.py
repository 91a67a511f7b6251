"""Inputs that grow by the branches they reach: `python -m tests.fuzz.guided --inputs 20000`. Needs atheris.

`python -m tests.fuzz` changes valid examples blindly. Here a change that reached a new branch of our code is kept and
changed further (libFuzzer, through atheris). That fits readers of text and bytes that are written in Python; what reads
models, Parquet and safetensors is native code, whose branches it does not see. What counts as wrong is the same. Each
reader has a process of its own. Prints JSON; status 1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

# readers, by whether they take text (True) or bytes
READERS = {
    "sets as text": True,
    "links": True,
    "set files": False,
    "saved sets": False,
    "prompts (CSV)": False,
    "released scores (JSON)": False,
    "released scores (CSV)": False,
    "scenarios (TOML)": True,
    "typed prompts": True,
    "names of models": True,
}
CANARY = "canary"  # no reader of ours
EXAMPLES = 40  # that a reader's inputs grow from
LONGEST = 4096  # bytes
MEMORY = 4096  # MB


def grow(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """Feed one reader in a process of its own.

    Returns
    -------
    inputs, seconds, branches (reached at the first and at the last input), kept (inputs that reached something new),
    found {what is wrong: the input, as hex}.

    Raises
    ------
    RuntimeError
        The process ended before all inputs were read.
    """
    with tempfile.TemporaryDirectory(prefix="fasp-guided-") as folder:
        corpus, found = Path(folder) / "corpus", Path(folder) / "found"
        corpus.mkdir()
        found.touch()
        told_to = ["--found", str(found), "--inputs", str(inputs), "--seed", str(seed), "--corpus", str(corpus)]
        began = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", "--child", name, *told_to],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        seconds = time.perf_counter() - began
        told = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+)", ended.stderr, re.MULTILINE)
        if ended.returncode or not told:
            raise RuntimeError(f"{name}: {ended.stderr[-3000:]}")
        lines = [json.loads(line) for line in found.read_text().splitlines()]
        return {
            "inputs": int(told[-1][0]),
            "seconds": round(seconds, 1),
            "branches": [int(told[0][1]), int(told[-1][1])],
            "kept": len(list(corpus.iterdir())),
            "found": {line["wrong"]: line["input"] for line in lines},
        }


def _child(name: str, options: argparse.Namespace) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["fasp_core", "pages", "tomllib", "tests.fuzz.canary"]):
        from tests.fuzz import canary
        from tests.fuzz.__main__ import one
        from tests.fuzz.readers import READERS as ALL
        from tests.fuzz.readers import Reader

    made = Reader(lambda rng, _: bytes([rng.randrange(256)]), canary.read)
    reader, seen = {**ALL, CANARY: made}[name], set[str]()
    corpus = Path(options.corpus)
    with tempfile.TemporaryDirectory(prefix="fasp-guided-room-") as text:
        room = Path(text).resolve()
        for i in range(EXAMPLES):
            given = reader.make(Random(f"{name} {options.seed} {i}"), room)
            raw = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
            (corpus / f"example-{i}").write_bytes(raw[:LONGEST])

        def feed(data: bytes) -> None:
            given = data.decode("utf-8", "surrogateescape") if READERS.get(name) else data
            if (wrong := one(reader, given, room)) and wrong not in seen:
                seen.add(wrong)
                with open(options.found, "a") as file:
                    file.write(json.dumps({"wrong": wrong, "input": data.hex()}) + "\n")

        limits = [f"-runs={options.inputs}", f"-seed={options.seed + 1}", f"-max_len={LONGEST}", "-timeout=0"]
        atheris.Setup([sys.argv[0], *limits, f"-rss_limit_mb={MEMORY}", str(corpus)], feed)
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(READERS))
    for hidden in ("--child", "--found", "--corpus"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child, options)
    readers = {name: grow(name, options.inputs, options.seed) for name in READERS if options.only in (None, name)}
    out = {
        "inputs": sum(one["inputs"] for one in readers.values()),
        "seconds": round(sum(one["seconds"] for one in readers.values()), 1),
        "readers": readers,
    }
    print(json.dumps(out, indent=1))
    return int(any(one["found"] for one in readers.values()))


if __name__ == "__main__":
    sys.exit(main())
