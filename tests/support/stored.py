"""An entry of a store with a table, an array and numbers, and whether it is what was stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fasp_core.storage.store import Contents, Entry

CONFIG = {"model": "built-in", "gamma": 0.3, "heads": [[0, 3], [1, 2]]}


def contents() -> Contents:
    return {
        "tables": {"heads": pd.DataFrame({"head": ["L0H0", "L0H1"], "z_ppl": [0.5, -0.25]})},
        "arrays": {"scores": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "meta": {"ppl": 24.1, "versions": {"numpy": np.__version__}},
    }


def equal(entry: Entry) -> bool:
    want = contents()
    return (
        entry.table("heads").equals(want["tables"]["heads"])
        and np.array_equal(entry.arrays["scores"], want["arrays"]["scores"])
        and entry.meta == want["meta"]
        and entry.config == CONFIG
    )


def files_below(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
