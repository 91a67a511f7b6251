"""A settled claim of made-up rows: gaps that fall by known shares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fasp_core.gap import PromptRows
from fasp_core.metrics.perplexity import Nll, perplexity_change
from fasp_core.studies.compare.settled import Plan, Settled
from fasp_core.studies.compare.wider import Wider

GROUPS, TEMPLATES, EACH = 3, 6, 8  # EACH prompts of a group in a template
FALLS = {"next word": 0.8, "written": 0.6, "sampled": 0.3}


def made_settled(plan: Plan, fall: Mapping[str, float] = FALLS, rise: float = 0.05) -> Settled:
    """What a set does that leaves `1 - fall` of the gap by each measure, and raises perplexity by `rise`."""
    rng = np.random.default_rng(0)
    codes = np.tile(np.arange(GROUPS), TEMPLATES * EACH)
    blocks = np.repeat(np.arange(TEMPLATES * EACH), GROUPS)
    templates = tuple(f"template {block % TEMPLATES}" for block in blocks)
    names = tuple("abc")
    wider = []
    for sample in plan.samples():
        rows, draws = {}, {}
        for name, share in fall.items():
            if not (sample.sampled if name == "sampled" else sample.written):
                continue
            noise = rng.normal(0, 0.002, (2, len(codes)))
            own = 0.1 + 0.02 * (codes - 1) * np.array([[1.0], [1.0 - share]]) + noise
            readings = 1 if name == "sampled" else 2
            rows[name] = PromptRows(np.stack([own] * readings, 1), codes, names, blocks)
            draws[name] = 0 if name == "next word" else 7
        wider.append(Wider(sample, rows, None, templates, draws, {}))
    counts = np.full(100, 64)
    sums = np.full(100, 192.0)
    nll = [Nll(sums, counts), Nll(sums + 64 * np.log1p(rise), counts)]
    return Settled(plan, (3, 17), "search", (3,), (0.08, 0.05, 0.02), perplexity_change(*nll), tuple(wider), 9)
