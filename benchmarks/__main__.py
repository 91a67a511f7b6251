"""`python -m benchmarks [NAME ...] [--json]`: run benchmarks, all of them by default."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
from typing import Any

import benchmarks
from benchmarks._common import Unavailable
from fasp_core.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Each module `benchmarks.NAME` has a function `run` whose parameters all have defaults and which returns a dict.

    Returns
    -------
    0, or 1 if a benchmark could not run here; the others are run all the same.
    """
    known = sorted(
        m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_") and not m.ispkg
    )
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure speed and memory, side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; default: all")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and benchmark")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.names if name not in known]:
        parser.error(f"there is no benchmark {', '.join(unknown)}: choose from {', '.join(known)}")
    failed = 0
    for name in chosen.names or known:
        started = time.perf_counter()
        try:
            result = importlib.import_module(f"benchmarks.{name}").run()
        except (Unavailable, InputError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
            continue
        result = rounded({"benchmark": name, **result, "wall_seconds": time.perf_counter() - started})
        print(json.dumps(result) if chosen.json else table(result), flush=True)
    return failed


def rounded(value: Any) -> Any:
    """Floats with five digits: clocks say no more. A number that is none becomes null, as JSON has no other."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < float("inf") else None
    return value


def table(result: dict[str, Any]) -> str:
    """One line a number; what is nested stands as JSON."""
    width = max(map(len, result))
    shown = {k: json.dumps(v) if isinstance(v, dict | list) else str(v) for k, v in result.items()}
    return "\n".join(f"{key:<{width}}  {value}" for key, value in shown.items()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
