"""Of the command `search`: joint searches as one document, and as text for people."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.cli.text import noted
from fasp_core.console import Report, number, percent, table
from fasp_core.errors import InputError
from fasp_core.model.tokens import option_of
from fasp_core.scoring.search import SearchConfig

if TYPE_CHECKING:
    from fasp_core.model.language_model import LanguageModel
    from fasp_core.model.spec import ModelSpec


def configs(reading: str, heads: int, max_ppl: float, measurements: int, seeds: int) -> list[SearchConfig]:
    """One search for each seed.

    Raises
    ------
    InputError
        No seeds, no heads, no measurements, or a limit on perplexity that is none.
    """
    if seeds < 1:
        raise InputError("A search needs a seed: give --seeds 1 or more.")
    return [SearchConfig(reading, heads, max_ppl, measurements, seed) for seed in range(seeds)]


def document(
    spec: ModelSpec,
    axis: str,
    searches: Sequence[SearchConfig],
    learn: bool,
    cache: Path | None,
    load: Callable[[ModelSpec, Path | None], LanguageModel],
    progress: Report,
) -> dict[str, Any]:
    """What every search found; what is not stored is searched for.

    Raises
    ------
    InputError
        No scores of this model on this axis, or scores of other prompts than the axis has now.
    """
    from fasp_core.data.prompts import resolve_axis
    from fasp_core.data.text import TextConfig, said
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.metrics.meters import BiasConfig, left_out
    from fasp_core.scoring import entries
    from fasp_core.storage.store import Store
    from fasp_core.studies.compare import searching

    resolve_axis(axis)
    lm, store = load(spec, cache), Store(cache)
    impacts = entries.best(searching.SCORE_TEXT, BiasConfig(axis), lm.id, lm.name, store)
    if impacts is None:
        raise InputError(
            f"There are no scores to begin with: run 'python -m fasp_core score --model {shlex.quote(spec.source)}"
            f"{option_of(spec.bos)} --axis {shlex.quote(axis)} --out scores' first."
        )
    found = [searching.run(lm, impacts, axis, config, store, progress, learn=learn) for config in searches]
    return {
        "model": spec.source,
        "axis": axis,
        "reading": searches[0].reading,
        "max_heads": searches[0].max_heads,
        "max_ppl": searches[0].max_ppl,
        "prompts": len(impacts.bias.codes),
        "notes": left_out(searching.measured_on(axis, impacts)),
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
            f"Joint search for at most {d['max_heads']} heads of {d['model']} and {d['max_ppl']:.0%} more perplexity, "
            f"{d['axis']}, {d['reading']}.",
            f"Unpruned gap {number(d['gap_base'])} on {d['prompts']} validation prompts; perplexity on {d['tokens']:,} "
            f"tokens, in {d['windows']}. These numbers chose the sets: what a set is worth, test prompts say.",
            *noted(d),
            "",
            table(rows),
            "",
            *(f"seed {f['seed']}: {f['heads'] or 'no set within the limits has a smaller gap'}" for f in d["searches"]),
        ]
    )
