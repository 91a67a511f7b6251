"""The commands `study ...` on how far the numbers can be trusted, as Markdown or one JSON document each.

Settings of a study that are not named are those of its own configuration.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import (
    FIRST_AXES,
    Alpha,
    Axes,
    Gamma,
    Kept,
    Model,
    Reading,
    ScoredPrompts,
    ScoredTokens,
    Tested,
    named,
)
from fasp_core.console import Report
from fasp_core.errors import InputError

Seed = Annotated[int, typer.Option(help="Of random sets.")]


def additivity(
    given: Model,
    progress: Report,
    axis: Axes = None,
    prompts: Annotated[int | None, typer.Option(help="Of the scores' prompts.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Of the scores' text.")] = None,
    pairs: Annotated[int | None, typer.Option(help="Random pairs.")] = None,
    strong: Annotated[int | None, typer.Option(help="Heads of which all pairs are measured.")] = None,
    seed: Seed = 0,
) -> Said:
    """Does the effect of a set of heads equal the sum of its heads' effects?"""
    from fasp_core.studies.additivity import additivity as study

    results = []
    for name in axis or FIRST_AXES:
        plan = study.Plan(name, seed=seed, **named(prompts=prompts, tokens=tokens, pairs=pairs, strong=strong))
        entry = None
        if given.known_id is not None:
            table = study.scores_of(name, plan.scored_text, given.known_id, given.spec.source, given.store)
            entry = study.find(plan, table, given.known_id, given.store)
        results.append(study.run(given.lm, plan, given.store, progress) if entry is None else study.read(entry))
    document = {"axes": [{**asdict(a), "outcome": [q.outcome for q in a.quantities.values()]} for a in results]}
    return document, lambda: study.markdown(results)


def robustness(
    given: Model,
    progress: Report,
    axis: Axes = None,
    gamma: Gamma = defaults.GAMMA,
    alpha: Alpha = defaults.ALPHA,
    test: Annotated[int | None, typer.Option(help="Held-out prompts.")] = None,
    items: Annotated[int | None, typer.Option(help="Sentence pairs of each collection, at most.")] = None,
) -> Said:
    """Do other scorers and measures of bias choose the same heads, and agree on what a set does?"""
    from fasp_core.data.holistic_bias import axis_names
    from fasp_core.studies.additivity.additivity import scores_of
    from fasp_core.studies.robustness import robustness as study
    from fasp_core.studies.robustness.robustness_text import markdown

    results = []
    for name in axis or FIRST_AXES:
        if name not in axis_names():
            raise InputError(f"The study has no sentence pairs for '{name}': choose one of {', '.join(axis_names())}.")
        plan = study.Plan(name, gamma, alpha, **named(test=test, items=items))
        if given.known_id is not None:  # whether it is there can be said without the model
            table = scores_of(name, plan.scored_text, given.known_id, given.spec.source, given.store)
            if (entry := study.find(plan, table, given.known_id, given.store)) is not None:
                results.append(study.read(entry, table))
                continue
        results.append(study.run(given.lm, plan, given.store, progress))
    document = {"axes": [{**asdict(r), "outcome": r.outcome} for r in results]}
    return document, lambda: markdown(results)


def truth(
    given: Kept,
    axis: Axes = None,
    prompts: ScoredPrompts = defaults.SCORE_PROMPTS,
    tokens: ScoredTokens = defaults.SCORE_TOKENS,
) -> Said:
    """How far are first-order, preview and refined scores of the built-in model from exact ones?"""
    from fasp_core.studies.estimators import first_order as study

    results = [study.stored(name, prompts, tokens, given.store) for name in axis or study.AXES]
    return {"axes": [asdict(result) for result in results]}, lambda: study.markdown(results)


@dataclass(frozen=True, kw_only=True)
class AgreementOptions:
    """Of the study `agreement`."""

    axis: Axes = None
    sets: Annotated[int | None, typer.Option(help="Only the first so many sets; the first 12 hold all kinds.")] = None
    prompts: Tested = None
    samples: Annotated[int | None, typer.Option(help="Continuations a prompt.")] = None
    length: Annotated[int | None, typer.Option(help="Longest continuation, in tokens.")] = None
    written: Annotated[int | None, typer.Option(help="Written continuations a prompt; 0: none.")] = None
    scored_prompts: ScoredPrompts = defaults.SCORE_PROMPTS
    tokens: ScoredTokens = defaults.SCORE_TOKENS
    seed: Seed = 0


def agreement(options: AgreementOptions, given: Kept, progress: Report) -> Said:
    """Do expected, written and sampled toxicity agree on what sets of heads do to the built-in model?"""
    from fasp_core.studies.estimators import agreement as study

    lm = Model(cache=given.cache).lm
    drawn = named(prompts=options.prompts, samples=options.samples, length=options.length, n_sets=options.sets)
    drawn |= named(written=options.written)
    drawn |= {"scored_prompts": options.scored_prompts, "tokens": options.tokens, "seed": options.seed}
    results = [study.run(lm, study.Plan(name, **drawn), given.store, progress) for name in options.axis or FIRST_AXES]
    return {"axes": [asdict(result) for result in results]}, lambda: study.markdown(results)


@dataclass(frozen=True, kw_only=True)
class CostsOptions:
    """Of the study `costs`."""

    axis: Annotated[str, typer.Option(help="Of the stored comparison whose sets are taken.")] = FIRST_AXES[0]
    reading: Reading = "neutral"
    sets: Annotated[int | None, typer.Option(help="How many; what the comparison does not give is random.")] = None
    tokens: Annotated[int | None, typer.Option(help="Of sentences and of paragraphs.")] = None
    passages: Annotated[int | None, typer.Option(help="Of LAMBADA as a cost.")] = None
    tasks: Annotated[str | None, typer.Option(help="The panel, such as lambada,piqa.")] = None
    items: Annotated[int | None, typer.Option(help="Items of each task.")] = None
    seed: Seed = 0


def costs(options: CostsOptions, given: Model, progress: Report) -> Said:
    """Which measure of cost foretells what a set takes from the model on tasks?"""
    from fasp_core.studies.costs import costs as study
    from fasp_core.studies.costs.costs_text import markdown
    from fasp_core.tasks import files

    drawn = named(sets=options.sets, tokens=options.tokens, passages=options.passages, items=options.items)
    drawn |= {} if options.tasks is None else {"tasks": files.named(options.tasks)}
    plan = study.Plan(options.axis, options.reading, seed=options.seed, **drawn)
    found = None if given.known_id is None else study.find(plan, given.known_id, given.store)
    found = found or study.run(given.lm, plan, given.store, progress)
    return found.as_dict(), lambda: markdown(found)


@dataclass(frozen=True, kw_only=True)
class AblationsOptions:
    """Of the study `ablations`."""

    axis: str = FIRST_AXES[0]
    reading: Reading = "neutral"
    gamma: Gamma = defaults.GAMMA
    alpha: Alpha = defaults.ALPHA
    heads: Annotated[str, typer.Option(help="A set that is removed by each way, too, such as L0H3,L2H1-4.")] = ""
    prompts: Tested = None
    tokens: Annotated[int | None, typer.Option(help="Of test sentences and of test paragraphs.")] = None
    items: Annotated[int | None, typer.Option(help="Passages of LAMBADA.")] = None
    scored: ScoredPrompts = defaults.SCORE_PROMPTS
    scored_tokens: ScoredTokens = defaults.SCORE_TOKENS


def ablations(options: AblationsOptions, given: Model, progress: Report) -> Said:
    """Zero, mean or drawn outputs: by which are heads ranked better, and by which does their removal cost less?"""
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.studies.costs import ablations as study

    if given.ablation != "zero":
        raise InputError("This study takes heads out in every way: leave --ablation out.")
    chosen = options.axis, options.reading, options.gamma, options.alpha, PruneSet.parse(options.heads)
    sizes = named(prompts=options.prompts, tokens=options.tokens, items=options.items)
    plan = study.Plan(*chosen, options.scored, options.scored_tokens, **sizes)
    plan.costs.look_up()
    plan.measured.bias.prompts()
    found = study.run(given.lm, plan, given.store, progress)
    return found.as_dict(), lambda: study.markdown(found)


def strengths(given: Model, progress: Report, axis: Axes = None, reading: Reading = "neutral") -> Said:
    """What do stored gains do at strengths 1/4, 1/2, 3/4 and 1?

    Of gains that were learned on an axis those of most steps; measured on the prompts and the text of its scores.
    """
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.scoring.learned.gains import furthest, stored
    from fasp_core.studies import strengths as study

    results = []
    for name in axis or FIRST_AXES:
        found = furthest(stored(given.model_id, name, reading, "gains", given.store))
        if found is None:
            learn = f"python -m fasp_core gains {given.named(name)} --reading {reading}"
            raise InputError(f"There are no gains of {name}: run '{learn}' first.")
        bias = BiasConfig(name)
        known = study.find(found, bias, given.model_id, given.store)
        results.append(known or study.run(given.lm, found, bias, given.store, progress))
    return {"axes": [one.as_dict() for one in results]}, lambda: study.markdown(results)
