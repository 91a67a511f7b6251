"""The command `prompts`: the prompts of an axis, counted by group."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fasp_core.cli.command import Said
from fasp_core.cli.options import Axis, Split
from fasp_core.console import one_line


def prompts(
    axis: Axis,
    split: Split = "all",
    per_group: Annotated[int | None, typer.Option(help="Draw a sample of this many from every group.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    list_them: Annotated[bool, typer.Option("--list", help="Print the prompts as well.")] = False,
) -> Said:
    """Count the prompts of an axis by group."""
    from fasp_core.data import prompt_sampling
    from fasp_core.data.prompt_set import NO_GROUP
    from fasp_core.data.prompts import fewest, resolve_axis

    chosen = prompt_sampling.split(resolve_axis(axis), split)
    if per_group is not None:
        chosen = prompt_sampling.sample(chosen, per_group, seed, fewest(axis))
    groups, notes = chosen.counts(), list(chosen.notes)
    if NO_GROUP in groups:
        notes.append(f"{groups[NO_GROUP]} prompts are in no group ('{NO_GROUP}') and are never measured.")
    document: dict[str, Any] = {"axis": chosen.axis, "split": split, "total": len(chosen), "groups": groups}
    document["notes"] = notes
    pairs = list(zip(chosen.groups, chosen.texts, strict=True)) if list_them else []
    if list_them:
        document["prompts"] = [{"group": group, "text": text} for group, text in pairs]

    def text() -> str:
        counts = [f"{count:8}  {one_line(group)}" for group, count in groups.items()]
        listed = [f"{one_line(group)}\t{one_line(text)}" for group, text in pairs]
        return "\n".join([f"{len(chosen):8}  {chosen.axis}, {split}", *counts, *notes, *listed])

    return document, text
