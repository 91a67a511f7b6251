"""The command `export`: a checkpoint that plain transformers loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fasp_core.cli.command import Said
from fasp_core.cli.options import Parts, Weights
from fasp_core.console import Report, one_line, table


def export(
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint: a new one, or an empty one.")],
    parts: Parts,
    given: Weights,
    progress: Report,
) -> Said:
    """Write the model without some heads and neurons, as a checkpoint that plain transformers loads.

    It is as small as it can be without code of its own: what all layers can spare is removed, the rest is zeroed. The
    folder is there only once the checkpoint, loaded back, gives the logits of the masked model.
    """
    found = parts.required()
    from fasp_core.export.writing import check_free, export

    assert given.spec  # its device is looked up first
    check_free(Path(os.path.expanduser(out)))  # before a model is loaded
    parts.check(found, given)
    document = export(given.lm, found.parts, out, progress).as_dict()
    return document, lambda: text(document)


def text(d: dict[str, Any]) -> str:
    """What is gone, what is zeroed and why, what is scaled, sizes before and after, and where it lies."""
    from fasp_core.export.card import changed, compared, sizes, timed, told

    scaled = d["scaled"]

    return "\n".join(
        [
            f"{one_line(d['model'])} {changed(d)}",
            *(
                f"{title}: {told(d[key]['heads'], d[key]['neurons'])}{_named(d[key]['parts'])}"
                for title, key in (("physically gone", "gone"), ("only zeroed", "zeroed"))
            ),
            *(f"  {reason}" for reason in d["reasons"]),
            *([f"scaled: {told(scaled['heads'], 0)}{_named(scaled['parts'])}"] if scaled["heads"] else []),
            "",
            table([["", "before", "after"], *sizes(d)]),
            "",
            timed(d["tokens_per_second"]),
            compared(d["check"]),
            f"wrote {one_line(d['folder'])}",
        ]
    )


def _named(parts: str) -> str:
    if not parts:
        return ""
    return f" ({parts if len(parts) <= 200 else parts[: parts.rindex(',', 0, 200)] + ' ...'})"
