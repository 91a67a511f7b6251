"""The study of costs as Markdown."""

from __future__ import annotations

from fasp_core.studies.common import paragraphs, table
from fasp_core.studies.costs.costs import PAIRS, SINGLE, TARGETS, Costs
from fasp_core.tasks.costs import TITLES


def markdown(found: Costs) -> str:
    """What was measured, the correlations by target, and the outcome."""
    all_of = found.foretold()
    by = {(one.costs, one.target): one for one in all_of}
    targets = [target for target in TARGETS if (("perplexity",), target) in by]
    rows = []
    for costs in (*SINGLE, *PAIRS):
        cells = [by[costs, target].rho.text() for target in targets]
        rows.append(" | ".join([" and ".join(costs), *cells, by[costs, "accuracy"].beyond.text()]))
    header = " | ".join(["cost", *(TARGETS[t] for t in targets), "accuracy, beyond perplexity alone"])
    plan, base = found.plan, found.base
    unpruned = ", ".join(f"{task} {base[f'accuracy_{task}']:.1%}" for task in plan.tasks)
    names = "; ".join(f"*{name}*: {title}" for name, title in TITLES.items())
    return paragraphs(
        [
            f"Spearman's rank correlation, over {len(found.sets)} sets of {found.sets['size'].min()} to "
            f"{found.sets['size'].max()} heads, of what a set costs with what it takes from the model on {plan.items} "
            f"items of each task (unpruned: {unpruned}). 95% intervals resample the sets. Costs are nats on "
            f"{plan.tokens:,} tokens of each text and {plan.passages} passages of LAMBADA that no task holds: {names}. "
            "Two costs together are the mean of their ranks.",
            table(header, rows),
            found.outcome(all_of),
        ]
    )
