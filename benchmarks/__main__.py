"""`python -m benchmarks [NAME ...]`: run benchmarks, all of them by default, and print one JSON object each."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Each module `benchmarks.NAME` has a function `run() -> dict`."""
    known = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))
    names = [name for name in sys.argv[1:] if name != "--json"] or known
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"There is no benchmark {', '.join(unknown)}: choose from {', '.join(known)}.")
    for name in names:
        result = importlib.import_module(f"benchmarks.{name}").run()
        print(json.dumps({"benchmark": name, **result}), flush=True)


if __name__ == "__main__":
    main()
