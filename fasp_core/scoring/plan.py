"""What scoring a model would cost, from its config alone: memory, operations, and time on some number of GPUs.

Operations are counted as the algorithm runs them: the head's own block and those above it for each removal, one pass
and the walk up for each shard, prompts packed into trees. Matrix products count, as 2 for each multiplication and
addition; attention counts whole squares, as it is run under a mask. The weights are never made.
"""

from __future__ import annotations

import copy
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fasp_core.compute.shards import CUTS, cut
from fasp_core.errors import InputError
from fasp_core.lazy import torch
from fasp_core.metrics.expected import READINGS
from fasp_core.metrics.meters import BiasConfig, left_out
from fasp_core.metrics.work import Sweep, Windows
from fasp_core.model.architectures import architecture_named
from fasp_core.model.devices import CPU, full_precision, sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import wrap
from fasp_core.model.packing import pack_equal, pack_trees
from fasp_core.model.spec import ModelSpec, dtype_of

TOKENS_A_WORD = 1.15  # SmolLM2's tokenizer makes 1.06 to 1.20 of the packed words of HolisticBias' axes
ROWS = CPU.swept  # windows of text in a pass
ASSUMED = {"float32": 10.0, "bfloat16": 100.0, "float16": 100.0}  # TFLOP/s that a GPU keeps up: see docs/scale.md
BUS = 25e9  # bytes a second from main memory to a GPU, assumed: PCIe 4.0 x16 has 31.5e9 at most
FULL = 0.9  # share of a GPU's memory that may be filled
CHUNK = 128  # positions whose logits exist at once
PLACES = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes


@dataclass(frozen=True)
class Shape:
    """Of a model, what costs depend on.

    Attributes
    ----------
    block : weights in the matrices of one block, the mean over blocks.
    tail : in those after the last block and before the unembedding.
    unembedding : vocabulary times width.
    width : of the hidden states. `inner`: of the MLP. `mixed`: of the concatenated heads.
    """

    model_type: str
    n_layers: int
    n_heads: int
    parameters: int
    block: float
    tail: int
    unembedding: int
    vocabulary: int
    width: int
    inner: int
    mixed: int
    trees: bool

    @property
    def size(self) -> int:
        return self.n_layers * self.n_heads


@dataclass(frozen=True)
class Batch:
    """Token rows of one pass: [rows, length], `reads` positions whose logits are made, each summed to `columns`."""

    rows: int
    length: float
    reads: float
    columns: int = 0

    @property
    def tokens(self) -> float:
        return self.rows * self.length


def read_config(path: str | Path) -> Any:
    """A transformers config from a config.json, or from a folder that holds one. InputError if it is none."""
    from transformers import AutoConfig

    place = Path(os.path.expanduser(path))  # an unknown user stays as it is
    place = place / "config.json" if place.is_dir() else place
    if not place.is_file():
        raise InputError(f"There is no config '{path}': give a model's config.json, or a folder that holds one.")
    try:
        return AutoConfig.from_pretrained(str(place), trust_remote_code=False)
    except Exception as error:  # transformers raises whatever it stumbles over
        raise InputError(f"'{path}' is no config of a language model: give a model's config.json.") from error


def shape_of(config: Any) -> Shape:
    """Counted on a model whose weights are never made. InputError if the architecture is not supported."""
    from transformers import AutoModelForCausalLM

    architecture_named(config.model_type)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    lm = wrap(model, None, ModelSpec("config", device="meta"), "config")
    matrices = [sum(p.numel() for p in block.parameters() if p.ndim == 2) for block in lm.blocks]
    modules = [m for m in lm.architecture.tail_modules(model) if isinstance(m, torch.nn.Module)]
    tail = [p for m in modules for p in m.parameters() if p.ndim == 2]
    vocabulary, width = model.get_output_embeddings().weight.shape
    return Shape(
        config.model_type,
        lm.n_layers,
        lm.n_heads,
        lm.n_parameters,
        float(np.mean(matrices)),
        sum(p.numel() for p in tail),
        vocabulary * width,
        vocabulary,
        int(config.hidden_size),
        lm.n_neurons,
        lm.n_heads * lm.head_dim,
        lm.architecture.trees,
    )


def text_batches(tokens: int, window: int, rows: int = ROWS) -> list[Batch]:
    """As `ppl_impacts` runs them: windows that do not overlap, `rows` of a length at a time."""
    lengths = [window] * (tokens // window) + [tokens % window] * (tokens % window > 1)
    batches: list[Batch] = []
    for length in lengths:
        if batches and batches[-1].length == length and batches[-1].rows < rows:
            batches[-1] = Batch(batches[-1].rows + 1, length, batches[-1].reads + length - 1)
        else:
            batches.append(Batch(1, length, length - 1))
    return batches


def prompt_batches(config: BiasConfig, trees: bool) -> list[Batch]:
    """As prompts are packed, with words for tokens: what a tokenizer makes of a word is taken as the same for all."""
    numbers: dict[str, int] = {}
    rows = [
        [numbers.setdefault(word, len(numbers)) for word in re.findall(r"\w+|[^\w\s]", text)]
        for text in config.prompts().texts
    ]
    if trees:
        packs = pack_trees(rows, 1, int(CPU.tree / TOKENS_A_WORD))
    else:
        packs = pack_equal(rows, 1, int(CPU.prompts / TOKENS_A_WORD))
    columns = 2 * len(READINGS)
    return [Batch(len(p.ids), p.ids.shape[1] * TOKENS_A_WORD, len(p.prompts), columns) for p in packs]


def block_flops(shape: Shape, batch: Batch) -> float:
    """Of one block on one batch."""
    return batch.tokens * (2 * shape.block + 4 * batch.length * shape.mixed)


def read_flops(shape: Shape, batch: Batch) -> float:
    """From the final hidden states of a batch to what is kept of them."""
    return batch.reads * (2 * shape.unembedding + 2 * shape.vocabulary * batch.columns)


def sweep_flops(shape: Shape, batches: Sequence[Batch], heads: Sequence[int]) -> float:
    """Of `Sweep(heads, batches)`: a pass, the walk up, and for each head its own block and all above it."""
    layers = [flat // shape.n_heads for flat in heads if flat >= 0]
    blocks = shape.n_layers + sum(shape.n_layers - layer for layer in layers)
    blocks += max(layers) - min(layers) if layers else 0
    return sum(
        blocks * block_flops(shape, b)
        + len(heads) * read_flops(shape, b)
        + (1 + len(layers)) * 2 * b.tokens * shape.tail
        for b in batches
    )


def busiest(shape: Shape, batches: Sequence[Batch], workers: int) -> float:
    """FLOPs of the worker that has most to do, if each takes the next shard once it is free; all of one for itself."""
    heads = list(range(-1, shape.size))
    if workers == 1:
        return sweep_flops(shape, batches, heads)
    loads = np.zeros(workers)
    for flats, those in cut(heads, range(len(batches)), shape.n_layers, shape.n_heads, CUTS * workers):
        loads[loads.argmin()] += sweep_flops(shape, [batches[b] for b in those], flats)
    return float(loads.max())


def waiting_seconds(shape: Shape, batches: Sequence[Batch], dtype: str, missing: float) -> float:
    """What it takes to fetch a share `missing` of the blocks from main memory each time that they run."""
    runs = 2 * shape.n_layers - 1 + shape.n_heads * shape.n_layers * (shape.n_layers + 1) / 2
    return len(batches) * runs * shape.block * PLACES[dtype] * missing / BUS


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker, and how many GPUs it needs.

    Attributes
    ----------
    weights, states : spread over its GPUs. States are what a sweep holds of all batches: hidden states and masks.
    working : on each of them: the logits of a chunk, and what a block makes on the way.
    """

    weights: int
    states: int
    working: int

    def gpus(self, capacity: float) -> int:
        """How many of `capacity` bytes. InputError if what has to be on each of them is too large."""
        room = FULL * capacity - self.working
        if room <= 0:
            raise InputError(f"A GPU of {capacity / 1e9:g} GB cannot hold what one block works on: give --gpu-gb.")
        return math.ceil((self.weights + self.states) / room)


def memory(shape: Shape, batches: Sequence[Batch], dtype: str) -> Memory:
    """What a worker holds while it sweeps."""
    size = PLACES[dtype]
    largest = max(b.tokens for b in batches)
    states = sum(size * (b.tokens * shape.width + b.length**2 * (b.columns > 0)) for b in batches)
    working = 2 * 4 * CHUNK * shape.vocabulary + size * largest * (3 * shape.inner + 6 * shape.width)
    return Memory(size * shape.parameters, int(states), int(working))


def measured_rate(config: Any, dtype: str, device: torch.device, window: int = 512, repeats: int = 3) -> float:
    """TFLOP/s that this machine keeps up on one block and the unembedding of this shape, with random weights."""
    from transformers import AutoModelForCausalLM

    full_precision()
    rows = sizes(device).swept
    single = copy.deepcopy(config)
    single.num_hidden_layers = 1
    for name in ("layer_types", "attention_layers"):
        if getattr(single, name, None):
            setattr(single, name, getattr(single, name)[:1])
    model = AutoModelForCausalLM.from_config(single, trust_remote_code=False, dtype=dtype_of(dtype)).to(device)
    lm: LanguageModel = wrap(model, None, ModelSpec("config", dtype, str(device)), "config")
    shape = shape_of(single)
    batch = Windows(torch.randint(shape.vocabulary, (rows, window)), np.ones(rows, dtype=int))
    costs = text_batches(rows * window, window, rows)
    heads = tuple(range(min(3, lm.n_heads)))
    fastest = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        for _found in Sweep(heads, (batch,)).run(lm):  # what is read comes to the CPU: nothing is left under way
            pass
        fastest = min(fastest, time.perf_counter() - began)
    return sweep_flops(shape, costs, heads) / fastest / 1e12


@dataclass(frozen=True)
class Asked:
    """What is planned.

    Attributes
    ----------
    gpus : numbers of GPUs to give times for. `capacity`: bytes of each.
    tflops : that one GPU keeps up; None: `ASSUMED` of the dtype.
    """

    axis: str
    prompts: int = 720
    tokens: int = 8192
    window: int = 512
    dtype: str = "float32"
    gpus: tuple[int, ...] = (1, 8, 64)
    capacity: float = 80e9
    tflops: float | None = None
    measured: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 2 or self.window < 2 or min(self.gpus) < 1:
            raise InputError("A plan needs 2 tokens, windows of 2 and 1 GPU at least: raise what is below.")
        if self.capacity <= 0 or (self.tflops is not None and not self.tflops > 0):
            raise InputError("A GPU has memory and a rate above 0: correct --gpu-gb or --tflops.")


def plan(shape: Shape, asked: Asked) -> dict[str, Any]:
    """Exact scores of one axis and one text, JSON-ready: sizes in bytes, time in seconds."""
    jobs = {
        "z_ppl": text_batches(asked.tokens, asked.window),
        "z_bias": prompt_batches(BiasConfig(asked.axis, n_prompts=asked.prompts), shape.trees),
    }
    everything = list(range(-1, shape.size))
    work: dict[str, dict[str, float]] = {}
    for name, batches in jobs.items():
        flops, tokens = sweep_flops(shape, batches, everything), sum(b.tokens for b in batches)
        whole = sum(shape.n_layers * block_flops(shape, b) for b in batches)
        removals = (
            sum(block_flops(shape, b) for b in batches) * shape.n_heads * shape.n_layers * (shape.n_layers + 1) / 2
        )
        work[name] = {
            "tokens": round(tokens),
            "batches": len(batches),
            "passes": 1 + removals / whole,
            "flops": flops,
            "flops_a_token_and_head": flops / tokens / shape.size,
        }
    together = [b for batches in jobs.values() for b in batches]
    found = {dtype: memory(shape, together, dtype) for dtype in ("float32", "float16")}
    here = memory(shape, together, asked.dtype)
    needed = here.gpus(asked.capacity)
    rate = asked.tflops or ASSUMED[asked.dtype]
    times: dict[str, dict[str, float | bool]] = {}
    for count in sorted(set(asked.gpus)):
        workers = max(1, count // needed)
        flops = sum(busiest(shape, batches, workers) for batches in jobs.values())
        seconds, waits = flops / (rate * 1e12), count < needed
        if waits:
            missing = 1 - count * (FULL * asked.capacity - here.working) / (here.weights + here.states)
            seconds += waiting_seconds(shape, together, asked.dtype, missing)
        times[str(count)] = {"workers": workers, "seconds": seconds, "blocks_wait_in_main_memory": waits}
    return {
        "model_type": shape.model_type,
        "layers": shape.n_layers,
        "heads_a_layer": shape.n_heads,
        "heads": shape.size,
        "parameters": shape.parameters,
        "axis": asked.axis,
        "prompts": len(BiasConfig(asked.axis, n_prompts=asked.prompts).prompts()),
        "notes": left_out(BiasConfig(asked.axis, n_prompts=asked.prompts)),
        "tokens": asked.tokens,
        "window": asked.window,
        "dtype": asked.dtype,
        "gpu_bytes": asked.capacity,
        "memory": {
            dtype: {
                "weights": m.weights,
                "states": m.states,
                "working": m.working,
                "gpus_a_worker": m.gpus(asked.capacity),
                "a_gpu": round((m.weights + m.states) / m.gpus(asked.capacity) + m.working),
            }
            for dtype, m in found.items()
        },
        "spread": needed > 1,
        "work": work,
        "flops": sum(w["flops"] for w in work.values()),
        "tflops": rate,
        "rate_is": "assumed" if asked.tflops is None else "measured here" if asked.measured else "given",
        "gpus": times,
    }
