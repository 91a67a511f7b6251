"""Of the command `plan`: what scoring a model would cost, as text for people."""

from __future__ import annotations

from typing import Any

from fasp_core.cli.text import noted
from fasp_core.console import table

WORK = {"z_ppl": "perplexity", "z_bias": "toxicity gap"}


def text(d: dict[str, Any]) -> str:
    """The shape, memory, work, and time on each number of GPUs."""
    gpu = f"{d['gpu_bytes'] / 1e9:g} GB"
    room = [["memory of a worker", "weights", "GPUs of " + gpu, "on each"]]
    for dtype, m in d["memory"].items():
        room.append([dtype, _gb(m["weights"]), str(m["gpus_a_worker"]), _gb(m["a_gpu"])])
    work = [["every head removed", "tokens", "whole passes", "FLOPs", "a token and head"]]
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
