"""The command `score`: the impact of every head on perplexity and on the toxicity gap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Model, Prompts, Scheduler, Split, Text, Tokens, Toxicity
from fasp_core.cli.text import scores_text
from fasp_core.console import Report
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.scoring.impact_table import TaskImpacts


@dataclass(frozen=True, kw_only=True)
class Options:
    """How heads are scored, and where the scores go."""

    out: Annotated[Path, typer.Option(help="Folder for scores.parquet, scores.csv and scores.json.")]
    estimator: Annotated[
        Literal["exact", "refined", "two-phase", "first-order", "replay"] | None,
        typer.Option(
            help="exact: every head ablated. refined: only those that a choice may depend on (expected measure). "
            "two-phase: refined on 720 prompts, which correct first-order scores of all. "
            "first-order: by gradients. replay: by importance weights (sampled measure). "
            "If none is named: refined, or exact for the sampled measure."
        ),
    ] = None
    until_reliability: Annotated[
        float | None,
        typer.Option(help="Double the prompts until the ranking of prunable heads is this reliable, such as .95."),
    ] = None
    max_minutes: Annotated[float, typer.Option(help="Begin no further round that would end later than this.")] = 30
    split: Split = "valid"
    n_prompts: Prompts = defaults.SCORE_PROMPTS
    tokens: Tokens = defaults.SCORE_TOKENS
    scheduler: Scheduler = None
    task: Annotated[
        Literal["lambada"] | None,
        typer.Option(help="Also what each head is worth for a task: the likelihood of the last word of passages."),
    ] = None
    task_items: Annotated[int, typer.Option(help="Passages of the task, to first order.")] = defaults.COST_ITEMS
    task_exact: Annotated[int, typer.Option(help="On so many of them every head is really removed, too.")] = 0


def score(options: Options, toxicity: Toxicity, text: Text, given: Model, progress: Report) -> Said:
    """Score every head: what its removal does to perplexity and to the toxicity gap.

    Finished heads are kept in the cache: a run that was stopped goes on where it was.
    """
    from fasp_core.scoring import score_files as files

    files.check_folder(options.out)
    from fasp_core.compute import cluster
    from fasp_core.scoring import entries
    from fasp_core.scoring import score as scoring

    by = options.estimator or (defaults.ESTIMATOR if toxicity.measure == "expected" else "exact")
    scoring.check(by, toxicity.measure)
    if options.task is not None:
        _check_task(options)
    reliability = options.until_reliability
    goal = None if reliability is None else scoring.Goal(reliability, options.max_minutes)
    spec, bias, where = given.spec, toxicity.on(options.split, options.n_prompts), text.of(options.tokens)
    search = impacts = None
    if goal is None and given.known_id is not None:
        impacts = entries.load(text.fitted(where, given.known_id), bias, given.known_id, spec.source, given.store, by)
    if impacts is None:
        with cluster.connected(options.scheduler) as there:
            lm = given.lm
            where, workers = text.fitted(where, lm.id), cluster.workers_of(there, lm)
            if goal is None:
                impacts = scoring.score(lm, where, bias, given.store, progress, by, workers)
            else:
                impacts, search = scoring.score_until(lm, where, bias, given.store, goal, progress, by, workers)
                bias = replace(bias, n_prompts=search.rounds[-1].prompts)
    if options.task is not None:
        impacts = replace(impacts, task=_task(options, given, progress))
    about = files.describe_scores(impacts, bias, text.fitted(where, given.model_id), search)
    document = {**about, "files": files.write_scores(impacts, about, options.out)}
    return document, lambda: scores_text(document)


def _check_task(options: Options) -> None:
    from fasp_core.tasks.last_words import passages

    passages("valid", options.task_items)
    if not 0 <= options.task_exact <= options.task_items:
        raise InputError(
            f"Heads cannot be removed on {options.task_exact} of {options.task_items} passages: give --task-exact 0 to "
            f"{options.task_items}."
        )


def _task(options: Options, given: Model, progress: Report) -> TaskImpacts:
    """What heads are worth for the task; what is stored is not made again."""
    from fasp_core.scoring import task

    sizes = options.task_items, options.task_exact
    known = None if given.known_id is None else task.load_task(given.known_id, given.store, *sizes)
    return known or task.score_task(given.lm, given.store, *sizes, progress)
