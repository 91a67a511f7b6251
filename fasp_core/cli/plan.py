"""The command `plan`: what scoring a model would cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Device, Dtype, Prompts, Tokens, Window, window_within
from fasp_core.cli.text import noted
from fasp_core.console import log, table
from fasp_core.errors import InputError

WORK = {"z_ppl": "perplexity", "z_bias": "toxicity gap"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The model, the prompts and text, and the machines."""

    config: Annotated[Path, typer.Option(help="A model's config.json, or a folder that holds one. No weights needed.")]
    axis: Annotated[str, typer.Option(help="A HolisticBias axis, or a CSV file (text,group).")] = "race_ethnicity"
    n_prompts: Prompts = defaults.SCORE_PROMPTS
    tokens: Tokens = defaults.SCORE_TOKENS
    window: Window = None
    gpus: Annotated[int | None, typer.Option(help="A number of GPUs beside 1, 8 and 64.")] = None
    gpu_gb: Annotated[float, typer.Option(help="Memory of one GPU, in GB.")] = 80
    tflops: Annotated[float | None, typer.Option(help="TFLOP/s that one GPU keeps up; else an assumption.")] = None
    measure: Annotated[bool, typer.Option(help="Measure that rate here, on one block of this shape.")] = False
    dtype: Dtype = "float32"
    device: Device = "auto"


def plan(options: Options) -> Said:
    """What exact scores of a model would cost: heads, memory, operations, and time on 1, 8 and 64 GPUs."""
    if options.measure and options.tflops is not None:
        raise InputError("The rate is said once: give either --tflops or --measure.")
    from fasp_core.model.architectures import positions
    from fasp_core.model.devices import passed_over, pick_device
    from fasp_core.scoring import plan as p

    given = p.read_config(options.config)
    shape = p.shape_of(given)
    if options.measure and (note := passed_over(options.device)) is not None:
        log(note)
    size = window_within(options.window, positions(given))
    rate = (
        p.measured_rate(given, options.dtype, pick_device(options.device), size) if options.measure else options.tflops
    )
    counts = (1, 8, 64) if options.gpus is None else (1, 8, 64, options.gpus)
    asked = p.Asked(
        options.axis,
        options.n_prompts,
        options.tokens,
        size,
        options.dtype,
        counts,
        options.gpu_gb * 1e9,
        rate,
        options.measure,
    )
    document = p.plan(shape, asked)
    return document, lambda: text(document)


def text(d: dict[str, Any]) -> str:
    """The shape, memory, work, and time on each number of GPUs."""
    gpu = f"{d['gpu_bytes'] / 1e9:g} GB"
    room = [["memory of a worker", "weights", "GPUs of " + gpu, "on each"]]
    for dtype, m in d["memory"].items():
        room.append([dtype, _gb(m["weights"]), str(m["gpus_a_worker"]), _gb(m["a_gpu"])])
    work = [["every head ablated", "tokens", "whole passes", "FLOPs", "a token and head"]]
    for name, w in d["work"].items():
        per = f"{w['flops_a_token_and_head'] / 1e9:.3g}e9"
        work.append([WORK[name], f"{w['tokens']:,}", f"{w['passes']:,.0f}", f"{w['flops']:.3g}", per])
    times = [["GPUs", "workers", "time"]]
    for count, t in d["gpus"].items():
        waits = " *" if t["blocks_wait_in_main_memory"] else ""
        times.append([count, str(t["workers"]), duration(t["seconds"]) + waits])
    notes = ["* Blocks that do not fit wait in main memory and are fetched each time that they run."]
    spread = "one model lies on several GPUs: use --device spread" if d["spread"] else "a model lies on one GPU"
    return "\n\n".join(
        [
            f"{d['model_type']}: {d['layers']} layers of {d['heads_a_layer']} heads, {d['heads']:,} in all; "
            f"{d['parameters']:,} parameters",
            table(room),
            table(work),
            "\n".join([table(times), *(notes if any("*" in row[2] for row in times) else [])]),
            f"{d['prompts']} prompts of {d['axis']}, windows of {d['window']:,} tokens, {d['dtype']}: {spread}. "
            f"One GPU keeps up {d['tflops']:.3g} TFLOP/s ({d['rate_is']}).",
            *noted(d),
        ]
    )


def duration(seconds: float) -> str:
    """A time as a person says it, three digits at most."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
