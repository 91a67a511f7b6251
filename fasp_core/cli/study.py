"""The commands `study ...`: how far the numbers can be trusted, as Markdown or one JSON document each.

Settings of a study that are not named are those of its own configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Alpha, Axes, Gamma, Kept, MaxPpl, Model, Parts, Reading, Winsorise, limit
from fasp_core.console import Report
from fasp_core.errors import InputError

FIRST = ("race_ethnicity",)  # the axes of most studies where none is named

ScoredPrompts = Annotated[int, typer.Option(help="Prompts of the stored scores.")]
ScoredTokens = Annotated[int, typer.Option(help="Tokens of the stored perplexity scores.")]
Seed = Annotated[int, typer.Option(help="Of random sets.")]
Tested = Annotated[int | None, typer.Option("--prompts", help="Test prompts of each axis, at least.")]


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
    for name in axis or FIRST:
        plan = study.Plan(name, seed=seed, **_named(prompts=prompts, tokens=tokens, pairs=pairs, strong=strong))
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
    for name in axis or FIRST:
        if name not in axis_names():
            raise InputError(f"The study has no sentence pairs for '{name}': choose one of {', '.join(axis_names())}.")
        plan = study.Plan(name, gamma, alpha, **_named(test=test, items=items))
        if given.known_id is not None:  # whether it is there can be said without the model
            table = scores_of(name, plan.scored_text, given.known_id, given.spec.source, given.store)
            if (entry := study.find(plan, table, given.known_id, given.store)) is not None:
                results.append(study.read(entry, table))
                continue
        results.append(study.run(given.lm, plan, given.store, progress))
    document = {"axes": [{**asdict(r), "outcome": r.outcome} for r in results]}
    return document, lambda: markdown(results)


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """Of the study `transfer`."""

    axis: Axes = None
    reading: Reading = "neutral"
    gamma: Gamma = defaults.GAMMA
    alpha: Alpha = defaults.ALPHA
    prompts: Tested = None
    tokens: Annotated[int | None, typer.Option(help="Of the text for perplexity.")] = None
    scored_tokens: ScoredTokens = defaults.SCORE_TOKENS
    only_correlations: Annotated[bool, typer.Option("--only-correlations", help="Measure nothing; needs no model.")] = (
        False
    )


def transfer(options: TransferOptions, given: Model, progress: Report) -> Said:
    """Do the same heads carry bias on every axis, and does a set chosen on one lower the gaps of others?"""
    from fasp_core.metrics.expected import READINGS
    from fasp_core.studies.transfer import every_axis
    from fasp_core.studies.transfer import transfer as study

    config = every_axis.TransferConfig(
        options.reading, options.gamma, options.alpha, **_named(n_prompts=options.prompts, tokens=options.tokens)
    )
    tables = study.stored_scores(options.axis, given.model_id, given.spec.source, given.store, options.scored_tokens)
    correlated, result = study.correlations(tables, options.reading, options.gamma), None
    if not options.only_correlations:
        sets = every_axis.choose(tables, config)
        measured = every_axis.find(sets, config, given.model_id, given.store)
        result = every_axis.judge(measured or every_axis.run(given.lm, sets, config, given.store, progress))

    def of(own: bool) -> dict[str, str] | None:
        return None if result is None else {r: every_axis.statement(result, r, own=own) for r in READINGS}

    document = {
        "correlations": asdict(correlated),
        "transfer": None if result is None else asdict(result),
        "statement": of(own=False),
        "statement_own": of(own=True),
    }
    return document, lambda: study.markdown(correlated, result)


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
    drawn = _named(prompts=options.prompts, samples=options.samples, length=options.length, n_sets=options.sets)
    drawn |= _named(written=options.written)
    drawn |= {"scored_prompts": options.scored_prompts, "tokens": options.tokens, "seed": options.seed}
    results = [study.run(lm, study.Plan(name, **drawn), given.store, progress) for name in options.axis or FIRST]
    return {"axes": [asdict(result) for result in results]}, lambda: study.markdown(results)


@dataclass(frozen=True, kw_only=True)
class ContextsOptions:
    """Of the study `contexts`."""

    scenarios: Annotated[Path | None, typer.Option(help="A TOML file of your own scenarios and names.")] = None
    method: Annotated[
        list[str] | None,
        typer.Option(help="Such as heads-effect; may be given more than once; else all but weights-effect."),
    ] = None
    answers: Annotated[
        Literal["exact", "sampled"] | None,
        typer.Option(help="Their whole distributions, or samples; else samples where --samples is given."),
    ] = None
    nodes: Annotated[int | None, typer.Option(help="Texts of a name that exact answers run, at most.")] = None
    samples: Annotated[int | None, typer.Option(help="Sampled answers for each name.")] = None
    answer_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None
    names: Annotated[int | None, typer.Option(help="First names of each group, at most; else all.")] = None
    per_context: Annotated[int | None, typer.Option(help="Scenarios of each context, at most; else all.")] = None
    heads: Annotated[float | None, typer.Option(help="Share of heads to remove.")] = None
    neurons: Annotated[float | None, typer.Option(help="Share of neurons to remove.")] = None
    equal_parameters: Annotated[
        bool,
        typer.Option("--equal-parameters", help="Neurons and weights (by effect) with the heads' parameters."),
    ] = False
    tokens: Annotated[int | None, typer.Option(help="Of the text for perplexity.")] = None
    winsorise: Winsorise = 0.0


def contexts(options: ContextsOptions, given: Model, progress: Report) -> Said:
    """Does a pruning that was chosen in one context help in another?

    An instruct model is asked about named people; heads, neurons and weights are chosen on each scenario and context
    and removed, and it is asked again (Ma et al. 2025).
    """
    from fasp_core.studies.answers import exact
    from fasp_core.studies.contexts import audit, choosing, matrix, summary
    from fasp_core.studies.contexts import scenarios as worlds

    if not 0 <= options.winsorise < 0.5:
        raise InputError(f"A share of {options.winsorise:g} cannot be moved inwards: give --winsorise 0 to .49.")
    how = options.answers or ("exact" if options.samples is None else "sampled")
    if how == "sampled" and options.nodes is not None:
        raise InputError("--nodes is of exact answers: leave it out, or take --answers exact.")
    if how == "exact" and options.samples is not None:
        raise InputError("--samples is of sampled answers: leave it out, or take --answers sampled.")
    if options.equal_parameters and options.neurons is not None:
        raise InputError("--equal-parameters sets the share of neurons: leave out --neurons.")
    sizes = choosing.Sizes(**_named(heads=options.heads, neurons=options.neurons))
    config = matrix.MatrixConfig(
        exact=exact.ExactConfig(**_named(nodes=options.nodes)) if how == "exact" else None,
        audit=audit.AuditConfig(**_named(samples=options.samples, tokens=options.answer_tokens)),
        sizes=sizes.of_equal_parameters(given.lm) if options.equal_parameters else sizes,
        names=options.names,
        scenarios=options.per_context,
        **_named(methods=tuple(options.method) if options.method else None, tokens=options.tokens),
    )
    world = worlds.read(options.scenarios)
    found = matrix.run(given.lm, world, config, given.store, progress=progress)
    return summary.document(found, options.winsorise), lambda: summary.markdown(found, options.winsorise)


def divisions(
    given: Model,
    progress: Report,
    axis: Axes = None,
    reading: Reading = "neutral",
    gamma: Gamma = defaults.GAMMA,
    alpha: Alpha = defaults.ALPHA,
    divisions: Annotated[int | None, typer.Option(help="How many divisions into halves.")] = None,
    choose: Annotated[
        Literal["mean", "cautious"],
        typer.Option(help="By scores, or by what a head is worth at least when templates and descriptors are redrawn."),
    ] = "mean",
    scored: Annotated[int | None, typer.Option(help="Validation prompts of the quarter that is seen.")] = None,
    prompts: Annotated[int | None, typer.Option(help="Test prompts of each quarter, at least.")] = None,
    tokens: Annotated[int, typer.Option(help="Of the text for perplexity.")] = defaults.SCORE_TOKENS,
) -> Said:
    """Does a set that was chosen on some sentences about some people hold on new sentences and new people?"""
    from fasp_core.data.text import TextConfig
    from fasp_core.studies.transfer import divisions as study

    results = []
    for name in axis or FIRST:
        named = _named(divisions=divisions, scored=scored, prompts=prompts)
        plan = study.Plan(name, reading, gamma, alpha, text=TextConfig(tokens=tokens), choose=choose, **named)
        stored = None if given.known_id is None else study.find(plan, given.known_id, given.store)
        results.append(stored or study.run(given.lm, plan, given.store, progress))
    document = {"axes": [{**asdict(found), "outcome": found.outcome} for found in results]}
    return document, lambda: "\n".join(map(study.markdown, results))


def settle(
    given: Model,
    progress: Report,
    axis: Axes = None,
    reading: Annotated[
        Literal["neutral", "counted", "neutral direct", "counted direct"],
        typer.Option(help="What the choice minimises; direct: between groups at equal contexts."),
    ] = "neutral direct",
    division: Annotated[int, typer.Option(help="Which division into halves.")] = 0,
    heads: Annotated[int | None, typer.Option(help="Size of the set, at most.")] = None,
    max_ppl: MaxPpl = defaults.MAX_PPL,
    measurements: Annotated[int | None, typer.Option(help="Sets that the search measures.")] = None,
    prompts: Annotated[int | None, typer.Option(help="Test prompts of each quarter, at least.")] = None,
    written: Annotated[int | None, typer.Option(help="Written continuations of each model, at least.")] = None,
    sampled: Annotated[int | None, typer.Option(help="Scored continuations of each model, at least.")] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="A scorer that is asked; may be given more than once.")
    ] = None,
) -> Said:
    """Choose on some sentences about some people; measure what both models write on new ones.

    Hours with the built-in model on two cores; a stopped run goes on.
    """
    from fasp_core.studies.compare import settled as study
    from fasp_core.studies.compare.settled_text import markdown

    limit(max_ppl)
    results = []
    for name in axis or FIRST:
        named = _named(
            heads=heads,
            measurements=measurements,
            prompts=prompts,
            written=written,
            sampled=sampled,
            judges=tuple(judge) if judge else None,
        )
        plan = study.Plan(name, reading, division, max_ppl=max_ppl, **named)
        stored = None if given.known_id is None else study.find(plan, given.known_id, given.store)
        if stored is None or stored.left:
            stored = study.run(given.lm, plan, given.store, progress)
        results.append(stored)
    document = {"axes": [found.as_dict() for found in results]}
    return document, lambda: "\n".join(map(markdown, results))


@dataclass(frozen=True, kw_only=True)
class CostsOptions:
    """Of the study `costs`."""

    axis: Annotated[str, typer.Option(help="Of the stored comparison whose sets are taken.")] = FIRST[0]
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
    from fasp_core.tasks.files import named

    drawn = _named(sets=options.sets, tokens=options.tokens, passages=options.passages, items=options.items)
    drawn |= {} if options.tasks is None else {"tasks": named(options.tasks)}
    plan = study.Plan(options.axis, options.reading, seed=options.seed, **drawn)
    found = None if given.known_id is None else study.find(plan, given.known_id, given.store)
    found = found or study.run(given.lm, plan, given.store, progress)
    return found.as_dict(), lambda: markdown(found)


def ablations(
    given: Model,
    progress: Report,
    axis: str = FIRST[0],
    reading: Reading = "neutral",
    gamma: Gamma = defaults.GAMMA,
    alpha: Alpha = defaults.ALPHA,
    heads: Annotated[str, typer.Option(help="A set that is removed by each way, too, such as L0H3,L2H1-4.")] = "",
    prompts: Tested = None,
    tokens: Annotated[int | None, typer.Option(help="Of test sentences and of test paragraphs.")] = None,
    items: Annotated[int | None, typer.Option(help="Passages of LAMBADA.")] = None,
    scored: ScoredPrompts = defaults.SCORE_PROMPTS,
    scored_tokens: ScoredTokens = defaults.SCORE_TOKENS,
) -> Said:
    """Zero, mean or drawn outputs: by which are heads ranked better, and by which does their removal cost less?"""
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.studies.costs import ablations as study

    if given.ablation != "zero":
        raise InputError("This study takes heads out in every way: leave --ablation out.")
    more = _named(prompts=prompts, tokens=tokens, items=items)
    plan = study.Plan(axis, reading, gamma, alpha, PruneSet.parse(heads), scored, scored_tokens, **more)
    plan.costs.look_up()
    plan.measured.bias.prompts()
    found = study.run(given.lm, plan, given.store, progress)
    return found.as_dict(), lambda: study.markdown(found)


def axes(
    parts: Parts,
    given: Model,
    progress: Report,
    axis: Axes = None,
    reading: Reading = "neutral",
    prompts: Tested = None,
    tokens: Annotated[int | None, typer.Option(help="Of test sentences.")] = None,
    items: Annotated[int | None, typer.Option(help="Passages of LAMBADA.")] = None,
) -> Said:
    """What does one set, or one set of gates, do to the gap of every axis?"""
    from fasp_core.studies.transfer import one_set as study

    found = parts.required()
    chosen = {"axes": tuple(axis)} if axis else {}
    plan = study.Plan(found.parts, reading=reading, **_named(prompts=prompts, tokens=tokens, items=items, **chosen))
    plan.costs.look_up()
    for name in plan.axes:
        plan.bias(name).prompts()
    parts.check(found, given)
    document = study.run(given.lm, plan, given.store, progress).as_dict()
    return document, lambda: study.markdown(document)


STUDIES: tuple[Callable[..., Said], ...] = (
    additivity,
    robustness,
    transfer,
    truth,
    agreement,
    divisions,
    settle,
    contexts,
    costs,
    ablations,
    axes,
)


def _named(**settings: Any) -> dict[str, Any]:
    """What was named; the rest is as the study has it."""
    return {name: value for name, value in settings.items() if value is not None}
