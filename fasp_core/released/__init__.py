"""The per-head scores that the FASP authors released, so that their choices can be repeated without a model.

Two kinds of file, both in folder `model` of https://github.com/chandar-lab/FASP: `head_contributions.json`,
`{model: {score: [N numbers]}}`, and `head_scores_<model>.csv`, one row for each axis, head, seed and split.

Both hold metrics of the model AFTER a head is removed, and neither gives those of the whole model. So the
scores made from them are differences up to a constant: no selection depends on it, but their zero means
nothing, and whoever draws them says what they are centered on (`around_median`).

`files` reads, `findings` says what a file lacks, `rules` sets this project's choice beside that of the authors' code,
`seeds` tells how far scores of several seeds can be trusted.
"""

from __future__ import annotations

from fasp_core.released.files import MAX_BYTES, SHAPES, Floats, Published, SeedRows, read, read_bytes
from fasp_core.released.findings import Finding, around_median, findings
from fasp_core.released.rules import RuleComparison, compare_rules
from fasp_core.released.seeds import Agreement, Estimate, Places, Trust, agreement, correlation, places, trust

__all__ = [
    "MAX_BYTES",
    "SHAPES",
    "Agreement",
    "Estimate",
    "Finding",
    "Floats",
    "Places",
    "Published",
    "RuleComparison",
    "SeedRows",
    "Trust",
    "agreement",
    "around_median",
    "compare_rules",
    "correlation",
    "findings",
    "places",
    "read",
    "read_bytes",
    "trust",
]
