"""The command `select`: the heads to remove, by their scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Alpha, Gamma, ManualEdits, MethodName, Protect
from fasp_core.cli.text import selection_text
from fasp_core.console import to_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """From which scores, and how."""

    scores: Annotated[Path, typer.Option(help="Folder that score wrote, or a file that FASP's authors released.")]
    method: Annotated[MethodName, typer.Option(help="How to choose.")] = "fasp"
    gamma: Gamma = defaults.GAMMA
    alpha: Alpha = defaults.ALPHA
    protect: Protect = "perplexity"
    reading: Annotated[
        Literal["neutral", "counted", "sampled"] | None,
        typer.Option(help="Identity terms masked or counted (expected measure), or sampled; else the first there is."),
    ] = None
    published_model: Annotated[str | None, typer.Option(help="Which model of a released file.")] = None
    n_heads: Annotated[int | None, typer.Option(help="Its heads in a layer, if the program does not know it.")] = None
    axis: Annotated[str | None, typer.Option(help="Which axis of a released file.")] = None
    rule: Annotated[
        Literal["stable", "released"], typer.Option(help="released: the authors' threshold, ties included.")
    ] = "stable"
    seed: Annotated[int, typer.Option(help="Of the method random.")] = 0
    out: Annotated[Path | None, typer.Option(help="Also write the prune set to this file.")] = None


def select(options: Options, told: ManualEdits) -> Said:
    """Choose the heads to remove from their scores."""
    from fasp_core.heads import prune_files
    from fasp_core.heads.selection import select as choose
    from fasp_core.scoring import score_files as files
    from fasp_core.storage.atomic import atomic_write

    opened = files.open_scores(
        options.scores, options.method, options.published_model, options.axis, options.reading, options.n_heads
    )
    opened = opened.protecting(options.protect)
    forced, locked = told.flat(opened.scores.n_layers, opened.scores.n_heads)
    chosen = choose(
        opened.scores, options.method, options.gamma, options.alpha, options.rule, options.seed, locked, forced
    )
    document = prune_files.document(
        chosen, model=opened.model, axis=opened.axis, reading=opened.reading, notes=opened.notes
    )
    if options.out is not None:
        atomic_write({options.out: to_json(document).encode() + b"\n"})
    return document, lambda: selection_text(document)
