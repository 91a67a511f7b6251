"""The command `scorecard`: one set, every measure, unpruned beside pruned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import typer

from fasp_core.cli.command import Said
from fasp_core.cli.options import Axes, Model, Parts
from fasp_core.console import Report


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and on how much."""

    size: Annotated[
        Literal["small", "usual", "large"],
        typer.Option(help="How much is measured: about 4, 10 or 20 minutes with the built-in model on two free cores."),
    ] = "usual"
    axis: Axes = None
    tasks: Annotated[str, typer.Option(help="Tasks, as of the command utility.")] = ""
    suites: Annotated[str, typer.Option(help="Bias suites, as of the command suites.")] = ""
    prompts: Annotated[int | None, typer.Option(help="Test prompts of each axis, at least.")] = None
    items: Annotated[int | None, typer.Option(help="Items of each task and suite.")] = None
    tokens: Annotated[int | None, typer.Option(help="Of the text for perplexity.")] = None


def scorecard(options: Options, parts: Parts, given: Model, progress: Report) -> Said:
    """What a set makes better, what worse, and what cannot be told: gaps, suites, tasks, texts, size.

    About ten minutes with the built-in model on two free cores; a stopped run goes on.
    """
    found = parts.required()
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.studies.scorecard import scorecard as study
    from fasp_core.studies.scorecard.scorecard_text import markdown
    from fasp_core.suites.suites import named as suites_named
    from fasp_core.tasks.files import named

    asked = {name: getattr(options, name) for name in ("prompts", "items", "tokens")}
    plan = replace(study.SIZES[options.size], **{name: value for name, value in asked.items() if value is not None})
    if options.axis:
        plan = replace(plan, axes=tuple(options.axis))
    for axis in options.axis or ():
        BiasConfig(axis, "test", plan.prompts).prompts()
    if options.tasks:
        plan = replace(plan, tasks=named(options.tasks))
    if options.suites:
        plan = replace(plan, suites=suites_named(options.suites))
    assert given.spec
    parts.check(found, given)
    card = study.run(given.lm, found.parts, plan, given.store, progress)
    return card.as_dict(), lambda: markdown(card)
