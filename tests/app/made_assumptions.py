"""Made-up results for the page "Check the assumptions", in the form in which real ones are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fasp_core import bias
from fasp_core.experiments import additivity
from fasp_core.experiments.additivity import Plan
from fasp_core.impacts.table import ImpactTable
from fasp_core.models import BUILT_IN
from fasp_core.store import Store

MADE = {"created": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "command": "made up"}


def add_additivity(store: Store, plan: Plan, table: ImpactTable, weights: str, seed: int = 0) -> None:
    """Sets whose heads interact: nine tenths of the sum, noise of each prompt, and one pair that does far more."""
    rng = np.random.default_rng(seed)
    chosen = additivity.choose(table, plan)
    heads = sorted({head for s in chosen for head in s.heads})
    prompts = plan.bias.prompts()
    codes, groups = bias.group_codes(prompts.groups)
    n, blocks = len(codes), 16
    spread = rng.normal(0, 1e-4, (len(heads), 2, len(groups)))
    base = 0.01 + 2e-4 * codes + rng.normal(0, 2e-3, (2, n))
    single = base + spread[:, :, codes] + rng.normal(0, 1e-4, (len(heads), 2, n))
    counts = np.full(blocks, 64.0)
    base_nats = counts * 3.2 + rng.normal(0, 5, blocks)
    nats = (
        base_nats + counts * np.abs(rng.normal(0.01, 0.01, (len(heads), 1))) + rng.normal(0, 0.2, (len(heads), blocks))
    )

    def together(rows: np.ndarray, whole: np.ndarray, own: Sequence[int], noise: float) -> np.ndarray:
        added = (rows[[heads.index(h) for h in own]] - whole).sum(0)
        return np.asarray(whole + 0.9 * added + rng.normal(0, noise, whole.shape))

    toxicity = np.stack([together(single, base, s.heads, 2e-5) for s in chosen])
    set_nats = np.stack([together(nats, base_nats, s.heads, 0.1) for s in chosen])
    planted = next(i for i, s in enumerate(chosen) if s.name == "strong pair")
    toxicity[planted] += 1e-3 * codes
    set_nats[planted] += 3.0
    store.save(
        additivity.KIND,
        plan.key(table, weights, "float32"),
        label=f"built-in--additivity-{plan.axis}",
        arrays={
            "heads": np.array(heads, dtype=np.int32),
            "base": base,
            "single": single,
            "toxicity": toxicity,
            "counts": counts,
            "base_nats": base_nats,
            "single_nats": nats,
            "nats": set_nats,
            "codes": codes,
            "blocks": np.array(prompts.blocks, dtype=np.int32),
        },
        tables={
            "sets": pd.DataFrame(
                {"kind": [s.name for s in chosen], "heads": [" ".join(map(str, s.heads)) for s in chosen]}
            )
        },
        meta={
            "axis": plan.axis,
            "model": BUILT_IN,
            "n_heads": table.n_heads,
            "groups": groups,
            "readings": ["neutral", "counted"],
            "notes": ["The 30% critical heads, which matter most for perplexity, are in no set."],
            "provenance": MADE,
        },
    )
