"""The command `repair`: what a set leaves of its layers, rescaled so that their attention output changes least."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Model, Parts, Window
from fasp_core.console import Report, percent, table
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.data.text import TextConfig


def repair(
    parts: Parts,
    given: Model,
    progress: Report,
    text: Annotated[str, typer.Option(help="Calibration text: paragraphs, bold, or a text file.")] = "paragraphs",
    tokens: Annotated[int, typer.Option(help="Tokens of it.")] = defaults.COST_TOKENS,
    window: Window = None,
    out: Annotated[Path | None, typer.Option(help="File for the repaired set, which --prune-set reads.")] = None,
) -> Said:
    """Rescale the heads that a set leaves, layer by layer, so that attention outputs change least (least squares).

    Prints the set with gains, such as L0H3,L0H1*1.2, which every command takes, and an export folds into its weights.
    """
    from fasp_core.scoring.repair import products, stored_products
    from fasp_core.scoring.repair import repair as repaired
    from fasp_core.storage.atomic import atomic_write

    found = parts.required()
    config = calibration(text, tokens, window)
    assert given.spec  # its device is looked up first
    parts.check(found, given)
    known = None if given.known_id is None else stored_products(given.known_id, config, given.store)
    if known is None:
        known = products(given.lm, config, given.store, progress)
    done = repaired(found.parts, known)
    if out is not None:
        atomic_write({out: done.prune_set.format().encode()})
    document = {"model": given.spec.source, "before": found.parts.format(), **done.as_dict(), "tokens": tokens}
    return document | {"text": text}, lambda: _text(document)


def calibration(text: str, tokens: int, window: int | None) -> TextConfig:
    """The text that sets are repaired on. InputError for one that claims are made on."""
    from fasp_core.cli.options import Text
    from fasp_core.data.passages import PARAGRAPHS
    from fasp_core.data.text import BOLD
    from fasp_core.studies.compare.plan import HELD_OUT

    if text == PARAGRAPHS["test"] or (text == BOLD and tokens > HELD_OUT):
        raise InputError(
            f"Claims are made on '{PARAGRAPHS['test']}' and on what follows {HELD_OUT:,} tokens of '{BOLD}': repair on "
            f"'{PARAGRAPHS['valid']}', or on less."
        )
    return Text(text=text, window=window).of(tokens)


def _text(d: dict[str, Any]) -> str:
    rows = [["layer", "lost of its attention output", "repaired"]]
    rows += [[str(one["layer"]), percent(one["lost_before"]), percent(one["lost_after"])] for one in d["layers"]]
    idle = ", ".join(map(str, d["idle_layers"]))
    said = [f"Every head of these layers is in the set, so nothing of them was rescaled: {idle}."] if idle else []
    return "\n\n".join(
        [
            f"{d['heads_removed']} heads removed, {d['heads_scaled']} scaled; on {d['tokens']:,} tokens, as a share of "
            "the output's sum of squares:",
            table(rows),
            *said,
            d["prune_set"],
        ]
    )
