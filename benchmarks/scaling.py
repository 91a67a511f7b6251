"""Time and memory against layers, heads, prompts and tokens: small random models, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks._common import AXIS, ROOT, Gauge, forget_peak, machine, memory, say, spread
from benchmarks._shapes import random_llama
from fasp_core.data.text import SCORE_TEXT, TextConfig, token_windows
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.forward.sweep import Read, sweep_heads
from fasp_core.metrics.expected import TokenToxicity, read_expected
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, meter
from fasp_core.metrics.perplexity import block_sums, token_nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.packing import pack
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.estimate import first_order_rows
from fasp_core.storage.store import Store

VOCAB = 2048
WINDOW = 128
FLOOR = 2**20  # bytes: below, memory is the allocator's affair


@dataclass(frozen=True)
class Size:
    """A model and what it is run on. `length` is of each prompt, `tokens` of the text, in windows of 128."""

    layers: int = 8
    heads: int = 8
    hidden: int = 128
    prompts: int = 64
    length: int = 16
    tokens: int = 256


AXES: dict[str, dict[str, Sequence[int]]] = {  # job -> what is varied
    "exact_ppl": {"layers": (2, 4, 8, 16), "heads": (2, 4, 8, 16), "tokens": (128, 256, 512, 1024)},
    "exact_bias": {"prompts": (32, 64, 128, 256)},
    "first_order": {
        "layers": (2, 4, 8, 16),
        "heads": (2, 4, 8, 16),
        "prompts": (32, 64, 128, 256),
        "length": (8, 16, 32, 64),
    },
}


def run(
    axes: dict[str, dict[str, Sequence[int]]] | None = None,
    center: Size | None = None,
    built_in: bool = True,
    apart: bool = True,
) -> dict[str, Any]:
    """Exponents of time and of memory by job and axis: 1 means twice as much for twice as many.

    Parameters
    ----------
    axes : values of each varied field of `Size` by job; the other fields are those of `center`.
    built_in : also the peak memory of scoring the built-in model.
    apart : each size in a process of its own; in this one, peaks hold whatever was there before.
    """
    axes, center = axes or AXES, center or Size()
    done: dict[tuple[str, Size], dict[str, float]] = {}
    points: dict[str, dict[str, list[dict[str, float]]]] = {}
    exponents: dict[str, dict[str, dict[str, float]]] = {}
    for job, varied in axes.items():
        points[job], exponents[job] = {}, {}
        for name, values in varied.items():
            rows = []
            for value in values:
                size = replace(center, **{name: value})
                if (job, size) not in done:
                    done[job, size] = _apart(job, size) if apart else measure(job, size)
                    say(f"scaling: {job}, {name} {value}: {done[job, size]['seconds']:.3f} s")
                rows.append({name: value, **done[job, size]})
            points[job][name] = rows
            exponents[job][name] = {
                what: _exponent(values, [row[what] for row in rows]) for what in ("seconds", "working_bytes")
            }
    found: dict[str, Any] = {
        "exponents": exponents,
        "peak_bytes": int(max(row["peak_bytes"] for row in done.values())),
        "memory_growth_over_heads": {
            job: rows["heads"][-1]["working_bytes"] / rows["heads"][0]["working_bytes"]
            for job, rows in points.items()
            if "heads" in rows
        },
    }
    if built_in:
        found |= {f"built_in_{key}": value for key, value in _apart("built_in").items()}
        found["built_in_below_3_GB"] = found["built_in_peak_bytes"] < 3e9
    return {
        **found,
        "points": points,
        "center": asdict(center),
        "what": "Exponents are slopes of log-log lines (least squares). working_bytes: what the work adds to a process "
        "that holds the model. heads: in each layer, at the same hidden size. length: tokens of each prompt.",
        "model": "random Llama",
        **machine(),
    }


def _exponent(values: Sequence[float], results: Sequence[float]) -> float:
    return float(np.polyfit(np.log(values), np.log(results), 1)[0])


def _apart(job: str, size: Size | None = None) -> dict[str, float]:
    """`measure`, or the peak of scoring the built-in model, in a new process."""
    task = json.dumps({"job": job, "size": None if size is None else asdict(size)})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", task], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the process for {task} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(job: str, size: Size, repeats: int = 3) -> dict[str, float]:
    """Seconds (the best of some runs) and bytes of one job at one size."""
    lm = random_lm(size)
    work = JOBS[job](lm, size)
    final_hidden(lm, torch.zeros(1, 8, dtype=torch.int64))  # threads and code that the first pass brings up
    forget_peak()
    before, _ = memory()
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < 2:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    peak = memory()[1]
    return {"seconds": min(seconds), "peak_bytes": peak, "working_bytes": max(FLOOR, peak - before)}


def random_lm(size: Size) -> LanguageModel:
    """A Llama with seeded random weights and no tokenizer."""
    return random_llama(
        ModelSpec("random", device="cpu"),
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        vocab_size=VOCAB,
        max_position_embeddings=4096,
    )


def _tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


def _worth() -> TokenToxicity:
    values = torch.rand(VOCAB, 4, generator=torch.Generator().manual_seed(1))
    return TokenToxicity(values, torch.zeros(VOCAB, dtype=torch.bool))


def _swept(lm: LanguageModel, batches: Sequence[Any], read: Read, skip: Collection[int] = ()) -> None:
    """Heads ablated one after the other, with nothing kept."""
    deque(sweep_heads(lm, batches, read, skip), maxlen=0)


def _nll(lm: LanguageModel, ids: torch.Tensor, hidden: torch.Tensor) -> np.ndarray:
    return block_sums(token_nll(lm, hidden, ids), np.ones(len(ids), dtype=int))[0]


def _exact_ppl(lm: LanguageModel, size: Size) -> Callable[[], Any]:
    batches = list(_tokens(max(1, size.tokens // WINDOW), min(WINDOW, size.tokens)).split(2))

    return lambda: _swept(lm, batches, partial(_nll, lm))


def _exact_bias(lm: LanguageModel, size: Size) -> Callable[[], Any]:
    packs, worth = pack(lm, _tokens(size.prompts, size.length).tolist()), _worth()
    return lambda: _swept(lm, packs, lambda part, hidden: read_expected(lm, hidden, part, worth))


def _first_order(lm: LanguageModel, size: Size) -> Callable[[], Any]:
    gauge = Gauge(BiasConfig(AXIS), _worth(), _tokens(size.prompts, size.length).tolist())
    return lambda: first_order_rows(lm, gauge)  # type: ignore[arg-type]  # as much of a meter as it reads


JOBS = {"exact_ppl": _exact_ppl, "exact_bias": _exact_bias, "first_order": _first_order}


def score_some(
    lm: LanguageModel,
    store: Store,
    config: BiasConfig | None = None,
    text: TextConfig = SCORE_TEXT,
    heads: int = 3,
) -> dict[str, float]:
    """First-order z_bias of all heads and exact z_ppl and z_bias of some, as scoring does them; the process' peak."""
    gauge = meter(lm, config or BiasConfig(AXIS, n_prompts=216), store)
    assert isinstance(gauge, ExpectedMeter)
    first_order_rows(lm, gauge)
    skip = set(range(lm.size)) - set(spread(lm, heads))
    windows = [part for ids, _ in token_windows(lm, text).batches for part in ids.split(2)]
    _swept(lm, windows, partial(_nll, lm), skip)
    _swept(lm, gauge.packs, gauge.read, skip)
    return {"peak_bytes": memory()[1], "prompts": len(gauge.rows), "tokens": text.tokens, "heads_removed": heads}


def _child(task: dict[str, Any]) -> dict[str, float]:
    if task["job"] == "built_in":
        return score_some(load(ModelSpec()), Store())
    return measure(task["job"], Size(**task["size"]))


if __name__ == "__main__":
    print(json.dumps(_child(json.loads(sys.argv[1]))))
