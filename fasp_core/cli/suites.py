"""The command `suites`: what the removal of heads does to bias suites of the field."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from fasp_core.cli.command import Said
from fasp_core.cli.options import Model, Parts
from fasp_core.console import Report, number, one_line, span, table
from fasp_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which suites, and how much of each."""

    suites: Annotated[
        str,
        typer.Option(
            help="Suites: of bbq, winobias, winogender, crows_pairs, stereoset, stereoset_inter, honest, bold:DOMAIN "
            "(race, gender, religious_ideology, political_ideology, profession); a part alone, such as bbq:Religion; "
            "or all."
        ),
    ] = "bbq,winobias,winogender,crows_pairs,stereoset"
    items: Annotated[int, typer.Option(help="Items of each suite, drawn at random.")] = 300
    seed: Annotated[int, typer.Option(help="Of the draw; more items hold fewer of the same seed.")] = 0
    scorer: Annotated[str, typer.Option(help="Who says what is toxic (honest, bold): offline, or a classifier.")] = (
        "offline"
    )
    label: Annotated[str | None, typer.Option(help="Which label of the scorer is read; else toxicity or toxic.")] = None
    lexicon: Annotated[
        Path | None, typer.Option(help="Hurtful words (honest): HurtLex's table, or a word a line; else the scorer's.")
    ] = None


def suites(options: Options, parts: Parts, given: Model, progress: Report) -> Said:
    """Measure what the removal of heads does to bias suites of the field, both models on the same items."""
    found = parts.required()
    from fasp_core.metrics.continuations import Judge
    from fasp_core.suites import running
    from fasp_core.suites import suites as measure

    names = measure.named(options.suites)
    judged = ("bold",) if options.lexicon is not None else ("honest", "bold")
    read_by = {"scorer": judged, "label": judged, "lexicon": ("honest",)}
    for option in fields(options):
        readers = read_by.get(option.name, ())
        unread = readers and not {name.partition(":")[0] for name in names} & set(readers)
        if unread and getattr(options, option.name) != option.default:
            raise InputError(
                f"Nothing here reads --{option.name}: leave it out, or add {' or '.join(readers)} to --suites."
            )
    samples = [measure.sample(name, options.items, options.seed) for name in names]
    hurtful = None if options.lexicon is None else running.lexicon(options.lexicon)
    assert given.spec  # its device is looked up first
    parts.check(found, given)
    judge = Judge(options.scorer, options.label)
    result = measure.measure(given.lm, found.parts, samples, given.store, judge, hurtful, progress)
    document = result.as_dict()
    return document, lambda: suites_text(document)


def suites_text(document: dict[str, Any]) -> str:
    """Each score before and after, with its interval, and what may be said of it."""
    d = document
    rows = [["score", "items", "clusters", "unpruned", "pruned", "change", "95% interval", "McNemar p", "direction"]]
    for name, suite in d["suites"].items():
        for score in suite["scores"]:
            rows.append(
                [
                    f"{name}: {score['name']}",
                    f"{score['items']:,}",
                    f"{score['clusters']:,}",
                    *(number(score[key]) for key in ("base", "pruned", "change")),
                    span(score["change_interval"]),
                    "n/a" if score["mcnemar_p"] is None else number(score["mcnemar_p"]),
                    score["direction"],
                ]
            )
    lines = [f"Removed: {d['heads_removed']} heads, {d['neurons_removed']} neurons", "", table(rows), ""]
    lines += [one_line(suite["said"]) for suite in d["suites"].values()]
    lines += [f"{d['looked_at']}.", *(f"Note: {one_line(note)}" for note in d["notes"])]
    return "\n".join(lines)
