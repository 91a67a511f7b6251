"""`python -m benchmarks.check_gpu [--json]`: prints one JSON document, then a table for docs/gpu.md.

Each section runs in a process of its own with a time limit: a GPU that fails in one, by an assertion on the device or
by standing still, does not take the others with it. Exit status 0: all is well; 1: something is not; 2: there is no
GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.__main__ import rounded
from benchmarks._common import say

ROOT = Path(__file__).resolve().parents[2]
NO_GPU = "There is no GPU here that computes: run this on a machine with one (CUDA or MPS)."


def main(arguments: list[str] | None = None) -> int:
    """The command; the exit status."""
    from benchmarks.check_gpu.sections import SECTIONS

    parser = argparse.ArgumentParser("python -m benchmarks.check_gpu", description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cuda, mps; cpu and pretend are for trying the check")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for trying the check")
    parser.add_argument("--json", action="store_true", help="print the JSON document alone")
    parser.add_argument("--in-process", action="store_true", help="one section, here; prints its JSON")
    chosen = parser.parse_args(arguments)
    if chosen.in_process:
        print(json.dumps(rounded(_section(chosen.sections[0], chosen.device, chosen.small))))
        return 0
    device = _gpu() if chosen.device == "auto" else chosen.device
    if device is None:
        print(NO_GPU, file=sys.stderr)
        return 2
    found = {}
    for name in chosen.sections:
        say(f"check_gpu: {name}, {SECTIONS[name][1]} s at most")
        found[name] = _child(name, device, chosen.small, SECTIONS[name][1])
    ok = all(section["ok"] for section in found.values())
    document = {"device": device, "small": chosen.small, "ok": ok, "sections": found}
    print(json.dumps(document))
    if not chosen.json:
        print(f"\n{table(document)}")
    return 0 if ok else 1


def _gpu() -> str | None:
    from fasp_core.model.devices import pick_device

    device = pick_device("auto")
    return None if device.type == "cpu" else device.type


def _section(name: str, device: str, small: bool) -> dict[str, Any]:
    """What a section finds, or its error; what it prints goes to standard error."""
    import torch

    from benchmarks.check_gpu.sections import SECTIONS, Bench

    world: Any = nullcontext()
    if device == "pretend":
        from tests.support import pretend

        world = pretend.rules("cuda")
    with redirect_stdout(sys.stderr), world:
        try:
            found = SECTIONS[name][0](Bench(torch.device(device), small))
        except Exception as error:
            return {"wrong": [f"{type(error).__name__}: {error}"[:500]]}
    return found


def _child(name: str, device: str, small: bool, limit: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.check_gpu", "--in-process", "--device", device, "--sections", name]
    began = time.monotonic()
    try:
        ran = subprocess.run(
            command + ["--small"] * small, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=limit, check=False
        )
        found = json.loads(ran.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        found = {"wrong": [f"was not done within {limit} s"]}
    except (ValueError, IndexError):
        found = {"wrong": [f"the process ended with status {ran.returncode} and said nothing"]}
    return {"ok": not found["wrong"], "seconds": round(time.monotonic() - began, 1), **found}


def table(document: dict[str, Any]) -> str:
    """Markdown: one row a section."""
    sections = document["sections"]
    about = sections.get("environment", {})
    gpu = ", ".join(about.get("gpu", [document["device"]]))
    lines = [
        f"{gpu}: driver {about.get('driver', '?')}, torch {about.get('torch', '?')}, "
        f"transformers {about.get('transformers', '?')}",
        "",
        "| section | well | seconds | found |",
        "|---|---|---|---|",
    ]
    for name, found in sections.items():
        shown = "; ".join(found["wrong"]) or _summary(name, found)
        lines.append(f"| {name} | {'yes' if found['ok'] else '**no**'} | {found['seconds']:g} | {shown} |")
    return "\n".join(lines)


def _summary(name: str, found: dict[str, Any]) -> str:
    if "skipped" in found:
        return f"skipped: {found['skipped']}"
    if name == "environment":
        tf32 = "on" if found["allow_tf32"] else "off"
        return f"float32 products: {found.get('float32_products', 'those of the CPU')}; TF32 {tf32}"
    if name == "kinds":
        largest = max(found["largest_difference"].values(), default=0.0)
        missing = f"; {len(found['cannot_run_here'])} steps cannot run here" * bool(found["cannot_run_here"])
        missing += f"; no time for {', '.join(found['kinds_left_out'])}" * bool(found["kinds_left_out"])
        return (
            f"{found['kinds']} kinds, {len(found['largest_difference'])} steps; largest difference {largest:.2g} of "
            f"{found['tolerance']:g}; other draws in {len(found['other_draws'])}{missing}"
        )
    if name == "resumed":
        return f"largest relative difference {max(found['relative_difference'].values()):.2g}"
    if name == "attention":
        return "; ".join(f"{what}: {kernels.replace('aten::', '')}" for what, kernels in found["kernels"].items())
    if name == "rows":
        parts = []
        for what in ("text", "prompts"):
            one = found[what]
            same = "same bits" if one["equal_bits"] else f"largest difference {one['max_abs_diff']:.2g}"
            times = f"{one['seconds_one_by_one']:.3g} s one by one, {one['seconds_rows']:.3g} s as rows"
            parts.append(f"{what}: {times} ({one['ratio']:.2g} times), {same}")
        return "; ".join(parts)
    if name == "rate":
        return "; ".join(f"{what}: {value:.3g} TFLOP/s" for what, value in found["tflops"].items())
    if name == "memory":
        return "; ".join(f"{r['room_gb']:g} GB: {'well' if r['fits'] else 'refused'}" for r in found["rooms"])
    scorer = found["scorer_share"]
    scored = f"{scorer:.1%}" if isinstance(scorer, float) else scorer
    return f"noise {found['noise_share']:.1%} of sampling, same bits as on the CPU; scorer {scored}"


if __name__ == "__main__":
    sys.exit(main())
