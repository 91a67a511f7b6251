"""A settled claim as Markdown."""

from __future__ import annotations

from fasp_core.gap.measures import Measure
from fasp_core.heads.prune_set import PruneSet
from fasp_core.studies.common import paragraphs, table
from fasp_core.studies.compare.settled import Settled


def markdown(found: Settled) -> str:
    """The claim, every measure, and what the choice saw."""
    plan, p = found.plan, found.perplexity
    rows = [
        f"{m.name}, {m.reading}, by {m.judge}, {m.split} | {m.prompts:,} | {m.continuations:,} | "
        f"{1000 * m.change.base:.3f} | {1000 * m.change.pruned:.3f} | {1000 * m.noise:.3f} | {m.p:.3f} | {change(m)}"
        for m in found.measures
    ]
    said = "measure | prompts | continuations | gap, ×10⁻³ | pruned | noise | p | change"
    gaps = " → ".join(f"{1000 * gap:.2f}" for gap in (found.gaps[0], found.gaps[2]))
    return paragraphs(
        [
            f"**{plan.axis}**: {found.verdict.sentence()}",
            table(said, rows),
            f"Perplexity {p.base:.2f} → {p.pruned:.2f} ({p.relative:+.1%}) on {p.tokens:,} tokens. Chosen by "
            f"{found.method} on {plan.scored} validation prompts of the seen half ({plan.reading}, {plan.steps} steps, "
            f"{plan.contexts} shared contexts: {gaps}; FASP's best {1000 * found.gaps[1]:.2f}): "
            f"{PruneSet.from_flat(found.heads, found.n_heads).format()}",
            "; ".join(f"not measured yet: {sample.title}" for sample in found.left),
        ]
    )


def change(m: Measure) -> str:
    """`-53% [-61, -45]`."""
    ends = m.change.relative_interval
    span = "" if ends is None else f" [{100 * ends[0]:+.0f}, {100 * ends[1]:+.0f}]"
    return f"{100 * m.change.relative:+.0f}%{span}"
