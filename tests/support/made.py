"""A comparison of methods, and a file of scores, from drawn numbers: no model, and nothing behind them but a seed."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from fasp_core.gap import PromptRows
from fasp_core.metrics.perplexity import Nll
from fasp_core.studies.compare.compare import Comparison, Measured
from fasp_core.studies.compare.plan import SEARCH, SIDES, Candidate, Plan, Side

N_LAYERS, N_HEADS = 3, 4
Upload = tuple[str, bytes, str]
READINGS = ("neutral", "counted")
OUTCOME_KEYS = {
    "gamma", "alpha", "method", "measure", "reading", "prompts", "gap_base", "gap_pruned", "reduction_pct",
    "interval_pct", "ppl_base", "ppl_pruned",
}  # fmt: skip


def candidates(rng: np.random.Generator, alphas: tuple[float, ...] = (0.1, 0.2, 0.3)) -> list[Candidate]:
    """FASP at two gammas, two baselines, random heads and a search with three and two seeds; one set of no heads."""

    def drawn(alpha: float) -> tuple[int, ...]:
        k = int(alpha * N_LAYERS * N_HEADS)
        return tuple(sorted(map(int, rng.choice(N_LAYERS * N_HEADS, k, replace=False))))

    found = [Candidate("fasp", g, a, None, drawn(a)) for g in (0.2, 0.5) for a in alphas]
    found += [Candidate(m, None, a, None, drawn(a)) for m in ("magnitude", "bias-only") for a in alphas]
    found += [Candidate("random", None, a, s, drawn(a)) for s in range(3) for a in alphas]
    found += [Candidate(SEARCH, None, 0.2, s, drawn(0.2)) for s in range(2)]
    return [*found, Candidate("magnitude", None, 0.0, None, ())]


def comparison(seed: int = 0, reading: str = "neutral", blocks: int = 12, groups: int = 3) -> Comparison:
    """Perplexity rises by up to 30%; a gap falls or grows by up to its own size."""
    rng = np.random.default_rng(seed)
    chosen = candidates(rng)
    sets = tuple(sorted({c.heads for c in chosen if c.heads}))
    sides: dict[Side, Measured] = {}
    for side in SIDES:
        counts = np.array([64] * 7 + [20])
        base = counts * 3.2 + rng.normal(0, 4, counts.size)
        rises = np.append(0.0, rng.uniform(-0.02, 0.26, len(sets)))
        nll = tuple(Nll(base + r * counts * (1 + rng.normal(0, 0.1, counts.size) * (r != 0)), counts) for r in rises)
        codes, block = np.tile(np.arange(groups), blocks), np.repeat(np.arange(blocks), groups)
        spread = 0.01 * np.append(1.0, rng.uniform(0.0, 2.0, len(sets)))
        own = 0.05 + 0.01 * rng.random(blocks)[block]
        toxicity = own + spread[:, None, None] * codes + rng.normal(0, 0.001, (1 + len(sets), 2, codes.size))
        sides[side] = Measured(nll, PromptRows(toxicity, codes, tuple(f"group {g}" for g in range(groups)), block))
    plan = Plan("axis", reading, gammas=(0.2, 0.5), alphas=(0.1, 0.2, 0.3), seeds=3)
    made: dict[str, Any] = {"seconds": 1.0}
    return Comparison("made-up", N_LAYERS, N_HEADS, plan, READINGS, tuple(chosen), sets, sides, made)


def of_rows(reliability: float, model: str = "distilgpt2", n: int = 72, seeds: tuple[int, ...] = (1, 2, 3)) -> Upload:
    """Scores of which one seed has about this reliability."""
    rng = np.random.default_rng(1)
    true = rng.normal(size=n)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["Group", "Bias", "Model", "Head id", "Seed", "Split", "PPL"])
    for axis in ("gender_and_sex", "age"):
        for seed in seeds:
            noise = rng.normal(size=n)
            for head in range(n):
                bias = 5 + np.sqrt(reliability) * true[head] + np.sqrt(1 - reliability) * noise[head]
                writer.writerow([axis, bias, model, head + 1, seed, "valid", 50 + head])
    return ("head_scores.csv", out.getvalue().encode(), "text/csv")
