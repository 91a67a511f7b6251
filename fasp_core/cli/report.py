"""The command `report`: one HTML file on one set of heads."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import (
    Alpha,
    Axis,
    Gamma,
    ManualEdits,
    MaxPpl,
    MethodName,
    Model,
    MoreLimits,
    Parts,
    Prompts,
    Protect,
    Reading,
    TaskItems,
    items_of,
)
from fasp_core.cli.text import noted
from fasp_core.console import Report
from fasp_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the report is on."""

    axis: Axis
    out: Annotated[Path, typer.Option(help="The HTML file to write.")]
    reading: Reading = "neutral"
    method: Annotated[
        MethodName | None,
        typer.Option(help="How the set was chosen; fasp if no heads are given. With heads, as changed by hand."),
    ] = None
    gamma: Gamma = defaults.GAMMA
    alpha: Alpha = defaults.ALPHA
    protect: Protect = "perplexity"
    seed: Annotated[int, typer.Option(help="Of the method random.")] = 0
    max_ppl: MaxPpl = defaults.MAX_PPL
    n_prompts: Prompts = defaults.TEST_PROMPTS
    tokens: Annotated[int, typer.Option(help="Tokens of a text that no score was made on.")] = defaults.TEST_TOKENS
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure on test prompts, or tell only what is stored.")
    ] = True
    utility: Annotated[
        bool, typer.Option(help=f"Ask both models {', '.join(defaults.TASKS)} too; what is stored is told anyway.")
    ] = False
    items: TaskItems = None
    scorecard: Annotated[
        bool,
        typer.Option(
            help="Measure what is missing of a scorecard too, about ten minutes; what is stored is told anyway."
        ),
    ] = False


def report(
    options: Options, parts: Parts, told: ManualEdits, more_limits: MoreLimits, given: Model, progress: Report
) -> Said:
    """Write a report on one set of heads: an HTML file that needs no network."""
    named = parts.read()
    from fasp_core.data.text import SCORE_TEXT, TextConfig
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.report import gather, page
    from fasp_core.scoring import entries, manual_edits
    from fasp_core.scoring.score_files import check_folder
    from fasp_core.storage.atomic import atomic_write
    from fasp_core.tasks import files

    assert given.spec  # its device is looked up first
    limits = more_limits.with_ppl(options.max_ppl)
    if options.out.is_dir():
        raise InputError(f"'{options.out}' is a folder: name the file, such as --out {options.out / 'report.html'}.")
    if options.utility and not options.measure:
        raise InputError("Tasks that are asked are measured: leave out --utility or --no-measure.")
    if options.scorecard and not options.measure:
        raise InputError("A scorecard's lines are measured: leave out --scorecard or --no-measure.")
    items = items_of(options.utility, options.items)
    for task in defaults.TASKS if items else ():
        files.sample(task, items)
    check_folder(options.out.absolute().parent)
    BiasConfig(options.axis, split="test", n_prompts=options.n_prompts).prompts()
    TextConfig(tokens=options.tokens)
    bias, source, store = BiasConfig(options.axis), given.spec.source, given.store
    found = (entries.best(text, bias, given.model_id, source, store) for text in (SCORE_TEXT, None))
    table = next((scores for scores in found if scores is not None), None)  # on the usual text, else on any
    if table is None:
        raise InputError(
            f"There are no scores to report: run 'python -m fasp_core score {given.named(options.axis)} --estimator "
            "refined --out scores' first."
        )
    if named is not None:
        parts.check(named, given)
    by_hand = manual_edits.ManualEdits(*told.flat(table.n_layers, table.n_heads))
    asked = gather.Asked(
        given.spec,
        options.axis,
        gather.axis_title(options.axis),
        options.reading,
        PruneSet() if named is None else named.parts,
        options.method or ("fasp" if named is None or len(by_hand) else None),
        options.gamma,
        options.alpha,
        options.seed,
        limits,
        options.n_prompts,
        options.tokens,
        options.measure,
        by_hand,
        items,
        options.protect,
        options.scorecard,
    )
    if named is None:
        asked = replace(asked, parts=PruneSet.of(gather.origin(asked, table).heads))
    facts = gather.gather(asked, table, given.model_id, given.store, lambda: given.lm, progress)
    made = datetime.datetime.now(datetime.UTC)
    atomic_write({options.out: page.html(facts, made).encode()})
    document = {**page.document(facts, made), "file": str(options.out)}
    return document, lambda: text(document)


def text(d: dict[str, Any]) -> str:
    """The verdict, what stands against it, and the file."""
    lines = [d["verdict"] or d["missing"], *d["cautions"]]
    claim = d["claim"]
    lines += [d["unknown"]] if "unknown" in d else []
    if claim is not None:
        lines += [f"Claim of the stored comparison: {claim['sentence']}", *claim["cautions"]]
    lines += [f"{name}: {task['said']}." for name, task in d.get("utility", {"tasks": {}})["tasks"].items()]
    lines += [f"Scorecard: {d['scorecard']['sentence']}"] if "scorecard" in d else []
    lines += noted(d)
    return "\n".join([*lines, f"wrote {d['file']}"])
