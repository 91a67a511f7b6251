"""The command `search`: joint searches for a set of low gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Axis, MaxPpl, Model, MoreLimits, Reading
from fasp_core.cli.text import noted
from fasp_core.console import Report, number, percent, share, table
from fasp_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is searched for, and how long."""

    axis: Axis
    reading: Reading = "neutral"
    heads: Annotated[int, typer.Option(help="Size of the set, at most.")] = 13
    max_ppl: MaxPpl = defaults.MAX_PPL
    measurements: Annotated[int, typer.Option(help="Sets to measure in each search, besides FASP's.")] = 40
    seeds: Annotated[int, typer.Option(help="How many searches, each with random changes of its own.")] = 5
    within: Annotated[bool, typer.Option(help="For the mean gap within templates, not for that over all of them.")] = (
        False
    )
    learn: Annotated[bool, typer.Option(help="Begin with all that finished searches for as many heads measured.")] = (
        False
    )
    gates: Annotated[bool, typer.Option(help="Begin with the heads that learned gates close most, too.")] = False


def search(options: Options, more_limits: MoreLimits, given: Model, progress: Report) -> Said:
    """Search for the set of least validation gap within limits on its size and on perplexity.

    Every measured set is kept: a stopped search goes on where it was. What was found joins the comparison of methods.
    """
    from fasp_core.data.prompts import resolve_axis
    from fasp_core.data.text import SCORE_TEXT, TextConfig, said
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.metrics.meters import BiasConfig, left_out
    from fasp_core.scoring import entries
    from fasp_core.scoring.search import SearchConfig
    from fasp_core.studies.compare import searching

    if options.seeds < 1:
        raise InputError("A search needs a seed: give --seeds 1 or more.")
    SearchConfig(max_ppl=options.max_ppl)  # refuses a limit that is none
    limits = more_limits.with_ppl(options.max_ppl)
    configs = [
        searching.limited(
            SearchConfig(options.reading, options.heads, options.max_ppl, options.measurements, seed, options.within),
            limits,
        )
        for seed in range(options.seeds)
    ]
    assert given.spec  # its device is looked up first
    resolve_axis(options.axis)
    lm = given.lm
    impacts = entries.best(SCORE_TEXT, BiasConfig(options.axis), lm.id, lm.name, given.store)
    if impacts is None:
        raise InputError(
            f"There are no scores to begin with: run 'python -m fasp_core score {given.named(options.axis)} --out "
            "scores' first."
        )
    prompts = searching.measured_on(options.axis, impacts)
    also = searching.Also(options.learn, options.gates)
    found = [searching.run(lm, impacts, prompts, config, given.store, progress, also=also) for config in configs]
    document = {
        "model": given.spec.source,
        "axis": options.axis,
        "reading": options.reading,
        "max_heads": options.heads,
        "max_ppl": options.max_ppl,
        **({"limits": limits.as_dict()} if limits.beyond_ppl else {}),
        "within_templates": options.within,
        "prompts": len(impacts.bias.codes),
        "notes": left_out(prompts),
        "tokens": searching.TOKENS,
        "windows": said(TextConfig(tokens=searching.TOKENS), {"bos": lm.id.bos, "longest_window": lm.id.longest}),
        "split": "valid",
        "gap_base": found[0].base_gap,
        "searches": [
            {
                "seed": f.config.seed,
                "heads": PruneSet.from_flat(f.heads, lm.n_heads).format(),
                "removed": len(f.heads),
                "gap": f.gap,
                "change": f.gap / f.base_gap - 1 if f.base_gap else None,
                "ppl_change": float(np.expm1(f.nats)),
                "measured": len(f.tried) - f.learned,
                "learned": f.learned,
            }
            for f in found
        ],
    }
    return document, lambda: text(document)


def _other_limits(d: dict[str, Any]) -> str:
    """The limits beside perplexity, if there are any."""
    named = {name.replace("_", " "): most for name, most in d.get("limits", {}).items() if most is not None}
    return "".join(f", {what} at most {most:g}" for what, most in named.items())


def text(d: dict[str, Any]) -> str:
    """One row a seed."""
    rows = [["seed", "removed", "gap", "change", "perplexity", "measured", "learned from"]]
    rows += [
        [
            str(f["seed"]),
            str(f["removed"]),
            number(f["gap"]),
            percent(f["change"]),
            percent(f["ppl_change"]),
            str(f["measured"]),
            str(f["learned"]),
        ]
        for f in d["searches"]
    ]
    return "\n".join(
        [
            f"Joint search for at most {d['max_heads']} heads of {d['model']} and {share(d['max_ppl'])} more "
            f"perplexity, {d['axis']}, {d['reading']}{_other_limits(d)}.",
            f"Unpruned gap {number(d['gap_base'])} on {d['prompts']} validation prompts; perplexity on {d['tokens']:,} "
            f"tokens, in {d['windows']}. These numbers chose the sets: what a set is worth, test prompts say.",
            *noted(d),
            "",
            table(rows),
            "",
            *(f"seed {f['seed']}: {f['heads'] or 'no set within the limits has a smaller gap'}" for f in d["searches"]),
        ]
    )
