"""Made-up results for the page "Check the assumptions", in the form in which real ones are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fasp_core import gap
from fasp_core.model.identity import ModelId
from fasp_core.model.spec import BUILT_IN
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Store
from fasp_core.studies.additivity import additivity
from fasp_core.studies.additivity.additivity import Plan
from fasp_core.studies.robustness import robustness

MADE = {"created": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "command": "made up"}


def add_additivity(store: Store, plan: Plan, table: ImpactTable, weights: ModelId, seed: int = 0) -> None:
    """Sets whose heads interact: nine tenths of the sum, noise of each prompt, and one pair that does far more."""
    rng = np.random.default_rng(seed)
    chosen = additivity.choose(table, plan)
    heads = sorted({head for s in chosen for head in s.heads})
    prompts = plan.bias.prompts()
    codes, groups = gap.group_codes(prompts.groups)
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
        plan.key(table, weights),
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


def add_robustness(store: Store, plan: robustness.Plan, table: ImpactTable, weights: ModelId, seed: int = 0) -> None:
    """Sentiment goes half with toxicity, CrowS-Pairs goes its own way, and sets lower what they were chosen by."""
    rng = np.random.default_rng(seed)
    n_heads, n = table.n_layers * table.n_heads, 90
    z = table.bias.z_bias("neutral")
    unit = (z - z.mean()) / z.std()
    arrays: dict[str, np.ndarray] = {}
    codes = np.arange(n) % 3
    strength = {"first-order": unit, "sentiment": 0.5 * unit + rng.normal(0, 1, n_heads)}
    for source, own in strength.items():
        base = rng.uniform(0.01, 0.02, (1, n)) + 0.005 * codes
        arrays[f"choose_{source}_base"] = base
        arrays[f"choose_{source}_others"] = base - 2e-4 * own[:, None, None] * codes
        arrays[f"choose_{source}_codes"] = codes
    halves = plan.collections()
    for one, _ in halves:
        source, m = robustness.SOURCES[one.source], len(one.items)
        strength[source] = rng.normal(0, 1, n_heads)
        base = rng.normal(0.4, 1, (1, m))
        arrays[f"choose_{source}_base"] = base
        arrays[f"choose_{source}_others"] = base - 0.05 * strength[source][:, None, None]
    sets = robustness.choose(plan, table, robustness._choosing(table, arrays))

    def pull(source: str) -> np.ndarray:
        return np.array([0.0, *(strength[source][list(heads)].sum() for heads in sets.values())])

    strength["toxicity"] = unit
    prompts = plan.toxicity.prompts()
    test, _ = gap.group_codes(prompts.groups)
    for source, readings in (("toxicity", 2), ("sentiment", 1)):
        noise = rng.normal(0, 2e-4, (len(sets) + 1, readings, len(test)))
        level = 1 - 0.04 * pull(source)[:, None, None]
        arrays[f"measured_{source}"] = 0.02 + 1e-3 * test * level + noise
    for _, half in halves:
        source, m = robustness.SOURCES[half.source], len(half.items)
        d = rng.normal(0.4, 1, m) - 0.04 * pull(source)[:, None] + rng.normal(0, 0.05, (len(sets) + 1, m))
        rows = [d, d + 0.2] if source == "crows" else [d, d / 10 - 3, np.full_like(d, -3), np.full_like(d, -4)]
        arrays[f"measured_{source}"] = np.stack(rows, axis=1)
        names = sorted({item.target for item in half.items})
        arrays[f"measured_{source}_targets"] = np.array([names.index(item.target) for item in half.items])
    counts = np.full((len(sets) + 1, 16), 64)
    arrays["measured_counts"] = counts
    arrays["measured_nats"] = counts * (3.2 + 0.05 * np.arange(len(sets) + 1)[:, None] / len(sets))
    arrays["measured_nats"] += rng.normal(0, 1, counts.shape)
    arrays["test_codes"] = test
    arrays["test_blocks"] = np.array(prompts.blocks)
    store.save(
        robustness.KIND,
        plan.key(table, weights),
        label=f"built-in--robustness-{plan.axis}",
        arrays=arrays,
        tables={"sets": pd.DataFrame({"name": list(sets), "heads": [" ".join(map(str, h)) for h in sets.values()]})},
        meta={
            "axis": plan.axis,
            "model": BUILT_IN,
            "n_heads": table.n_heads,
            "gamma": plan.gamma,
            "alpha": plan.alpha,
            "bias_types": {robustness.SOURCES[one.source]: one.bias_type for one, _ in halves},
            "notes": robustness._notes(plan, table),
            "provenance": MADE,
        },
    )
