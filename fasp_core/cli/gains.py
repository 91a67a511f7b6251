"""The command `gains`: learn a gate for every head instead of removing some."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Axis, Model, Reading
from fasp_core.console import Report, number, percent
from fasp_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """What falls, what it may cost, and for how long gates are learned."""

    axis: Axis
    reading: Reading = "neutral"
    steps: Annotated[int, typer.Option(help="Steps of Adam; about 15 s each with the built-in model.")] = 40
    rate: Annotated[float, typer.Option(help="Of Adam.")] = 0.04
    max_nats: Annotated[float, typer.Option(help="What text may cost for nothing, in nats a token.")] = 0.005
    passages: Annotated[int, typer.Option(help="Of LAMBADA in each step; 0: its last words count nothing.")] = 8
    keep: Annotated[float, typer.Option(help="What the gates' mean squared distance from 1 counts.")] = 0.0
    strength: Annotated[float, typer.Option(help="From 0 (unpruned) to 1 (as learned): gates 1 + s (g - 1).")] = 1.0
    seed: int = 0
    out: Annotated[Path | None, typer.Option(help="File for the set, which --prune-set reads.")] = None


def gains(options: Options, given: Model, progress: Report) -> Said:
    """Learn a gate from 0 to 1.5 for every head, under which the validation gap falls and the model stays able.

    Prints the set, such as L0H3*0.4, which every command takes with --heads, and an export folds into its weights.
    """
    from fasp_core.data.prompts import resolve_axis
    from fasp_core.data.text import TextConfig
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.scoring.gains import GainsConfig, find, learn
    from fasp_core.storage.atomic import atomic_write

    if not 0 <= options.strength <= 1:
        raise InputError(f"A strength is from 0 to 1, not {options.strength:g}.")
    named = ("reading", "steps", "rate", "max_nats", "passages", "keep", "seed")
    config = GainsConfig(**{name: getattr(options, name) for name in named})
    assert given.spec  # its device is looked up first
    resolve_axis(options.axis)
    bias, text = BiasConfig(options.axis), TextConfig(tokens=defaults.SCORE_TOKENS)
    stored = None if given.known_id is None else find(given.known_id, bias, text, config, given.store)
    found = stored or learn(given.lm, bias, text, config, given.store, progress)
    heads = found.at(options.strength)
    document = {**found.as_dict(), "strength": options.strength, "prune_set": heads.format()}
    if options.out is not None:
        atomic_write({options.out: heads.format().encode()})

    def text_of() -> str:
        last = found.losses[-min(10, len(found.losses)) :].mean(0)
        moved = document["moved_by_more_than_a_fifth"]
        return (
            f"Gates of {document['heads']} heads, {moved} of them moved by more than .2 (at most by "
            f"{number(document['largest_move'])}). In the last steps, on what they saw: gap {percent(last[0] - 1)}, "
            f"text {last[1]:+.4f} nats a token, last words {last[2]:+.3f} nats. That was minimised; what it is worth, "
            f"measure on test prompts: evaluate --axis {options.axis} --split test --prune-set FILE.\n\n"
            f"{heads.format()}"
        )

    return document, text_of
