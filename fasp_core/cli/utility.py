"""The command `utility`: what the removal of heads takes from what a model is able to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Model, Parts
from fasp_core.console import Report, number, one_line, percent, span, table
from fasp_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which tasks, and how much of each."""

    tasks: Annotated[
        str,
        typer.Option(
            help="Tasks, such as lambada,piqa: of lambada, hellaswag, piqa, arc_easy, arc_challenge, winogrande, "
            "boolq, openbookqa, sciq, csqa, socialiqa and mmlu (or mmlu_anatomy); or all."
        ),
    ] = ",".join(defaults.TASKS)
    items: Annotated[
        int | None, typer.Option(help=f"Items of each task, drawn at random; {defaults.TASK_ITEMS} unless told.")
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(help="In place of --items: as many of each task as both models answer in so many minutes."),
    ] = None
    seed: Annotated[int, typer.Option(help="Of the draw; more items hold fewer of the same seed.")] = 0


def utility(options: Options, parts: Parts, given: Model, progress: Report) -> Said:
    """Measure what the removal of heads costs on common tasks: multiple choice and last words, by likelihood."""
    found = parts.required()
    from fasp_core.tasks import budget, files
    from fasp_core.tasks import utility as measure

    if options.items is not None and options.minutes is not None:
        raise InputError("Both --items and --minutes say how many items are asked: leave one out.")
    tasks, seed = files.named(options.tasks), options.seed
    items = defaults.TASK_ITEMS if options.items is None else options.items
    for task in tasks:
        files.sample(task, items, seed)  # says so before a model is loaded
    assert given.spec  # its device is looked up first
    parts.check(found, given)
    held = None
    if options.minutes is not None:
        held = budget.within(given.lm, tasks, options.minutes, seed, progress)
        items = held.items
    samples = [files.sample(task, items, seed) for task in tasks]
    result = measure.utility(given.lm, found.parts, samples, seed, items, given.store, progress)
    document = result.as_dict()
    if held is not None:
        document |= {"budget": held.as_dict(), "notes": [held.said, *document["notes"]]}
    return document, lambda: utility_text(document)


def utility_text(document: dict[str, Any]) -> str:
    """Each task before and after, with its interval, and what may be said of it."""
    d = document
    rows = [["task", "items", "chance", "unpruned", "pruned", "points", "95% interval", "McNemar p", "by bytes"]]
    rows[0] += ["nats of the right answer", "95% interval"]
    for name, task in d["tasks"].items():
        by_bytes, nats = task["by_bytes"], task["likelihood"]
        rows.append(
            [
                name,
                f"{task['items']:,}",
                *(_share(task[key]) for key in ("chance", "accuracy_base", "accuracy_pruned")),
                _points(task["points"]),
                span(task["points_interval"], _points),
                number(task["mcnemar_p"]),
                "n/a" if by_bytes is None else _points(by_bytes["points"]),
                f"{nats['change']:+.3f}",
                span(nats["change_interval"]),
            ]
        )
    lines = [f"Removed: {d['heads_removed']} heads, {d['neurons_removed']} neurons", "", table(rows), ""]
    lines += [f"{name}: {task['said']}." for name, task in d["tasks"].items()]
    lines += [f"Note: {one_line(note)}" for note in d["notes"]]
    return "\n".join(lines)


def _share(value: float) -> str:
    return percent(value).lstrip("+")


def _points(value: float | None) -> str:
    return "n/a" if value is None else f"{value + 0.0:+.1f}"
