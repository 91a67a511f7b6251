"""The commands `study ...` on what carries over: to other axes, new sentences and people, other contexts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from fasp_core import defaults
from fasp_core.cli.audit import Answering
from fasp_core.cli.command import Said
from fasp_core.cli.options import (
    FIRST_AXES,
    Alpha,
    Axes,
    Gamma,
    MaxPpl,
    Model,
    Parts,
    Reading,
    ScoredTokens,
    Tested,
    limit,
    named,
)
from fasp_core.console import Report
from fasp_core.errors import InputError


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
        options.reading, options.gamma, options.alpha, **named(n_prompts=options.prompts, tokens=options.tokens)
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


@dataclass(frozen=True, kw_only=True)
class DivisionsOptions:
    """Of the study `divisions`."""

    axis: Axes = None
    reading: Reading = "neutral"
    gamma: Gamma = defaults.GAMMA
    alpha: Alpha = defaults.ALPHA
    divisions: Annotated[int | None, typer.Option(help="How many divisions into halves.")] = None
    choose: Annotated[
        Literal["mean", "cautious", "gains"],
        typer.Option(
            help="Heads by scores, or by what they are worth at least when templates and descriptors are redrawn; or "
            "learn gains for all heads on the quarter that is seen."
        ),
    ] = "mean"
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of steps that learn gains, as in the command gains.")
    ] = "float32"
    scored: Annotated[int | None, typer.Option(help="Validation prompts of the quarter that is seen.")] = None
    prompts: Annotated[int | None, typer.Option(help="Test prompts of each quarter, at least.")] = None
    tokens: Annotated[int, typer.Option(help="Of the text for perplexity.")] = defaults.SCORE_TOKENS


def divisions(options: DivisionsOptions, given: Model, progress: Report) -> Said:
    """Does a set that was chosen on some sentences about some people hold on new sentences and new people?"""
    from fasp_core.data.text import TextConfig
    from fasp_core.studies.transfer import divisions as study

    results = []
    sizes = named(divisions=options.divisions, scored=options.scored, prompts=options.prompts)
    text = TextConfig(tokens=options.tokens)
    for name in options.axis or FIRST_AXES:
        chosen = name, options.reading, options.gamma, options.alpha
        plan = study.Plan(*chosen, text=text, choose=options.choose, precision=options.precision, **sizes)
        stored = None if given.known_id is None else study.find(plan, given.known_id, given.store)
        results.append(stored or study.run(given.lm, plan, given.store, progress))
    document = {"axes": [{**asdict(found), "outcome": found.outcome} for found in results]}
    return document, lambda: "\n".join(map(study.markdown, results))


@dataclass(frozen=True, kw_only=True)
class SettleOptions:
    """Of the study `settle`."""

    axis: Axes = None
    reading: Annotated[
        Literal["neutral", "counted", "neutral direct", "counted direct"],
        typer.Option(help="What the choice minimises; direct: between groups at equal contexts."),
    ] = "neutral direct"
    division: Annotated[int, typer.Option(help="Which division into halves.")] = 0
    heads: Annotated[int | None, typer.Option(help="Size of the set, at most.")] = None
    max_ppl: MaxPpl = defaults.MAX_PPL
    measurements: Annotated[int | None, typer.Option(help="Sets that the search measures.")] = None
    prompts: Annotated[int | None, typer.Option(help="Test prompts of each quarter, at least.")] = None
    written: Annotated[int | None, typer.Option(help="Written continuations of each model, at least.")] = None
    sampled: Annotated[int | None, typer.Option(help="Scored continuations of each model, at least.")] = None
    judge: Annotated[list[str] | None, typer.Option(help="A scorer that is asked; may be given more than once.")] = None


def settle(options: SettleOptions, given: Model, progress: Report) -> Said:
    """Choose on some sentences about some people; measure what both models write on new ones.

    Hours with the built-in model on two cores; a stopped run goes on.
    """
    from fasp_core.studies.compare import settled as study
    from fasp_core.studies.compare.settled_text import markdown

    limit(options.max_ppl)
    results = []
    sizes = named(
        heads=options.heads,
        measurements=options.measurements,
        prompts=options.prompts,
        written=options.written,
        sampled=options.sampled,
        judges=tuple(options.judge) if options.judge else None,
    )
    for name in options.axis or FIRST_AXES:
        plan = study.Plan(name, options.reading, options.division, max_ppl=options.max_ppl, **sizes)
        stored = None if given.known_id is None else study.find(plan, given.known_id, given.store)
        if stored is None or stored.left:
            stored = study.run(given.lm, plan, given.store, progress)
        results.append(stored)
    document = {"axes": [found.as_dict() for found in results]}
    return document, lambda: "\n".join(map(markdown, results))


@dataclass(frozen=True, kw_only=True)
class ContextsOptions(Answering):
    """Of the study `contexts`."""

    scenarios: Annotated[Path | None, typer.Option(help="A TOML file of your own scenarios and names.")] = None
    method: Annotated[
        list[str] | None,
        typer.Option(help="Such as heads-effect; may be given more than once; else all but those of weights-effect."),
    ] = None
    answer_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None
    names: Annotated[int | None, typer.Option(help="First names of each group, at most; else all.")] = None
    per_context: Annotated[int | None, typer.Option(help="Scenarios of each context, at most; else all.")] = None
    heads: Annotated[float | None, typer.Option(help="Share of heads to remove.")] = None
    neurons: Annotated[float | None, typer.Option(help="Share of neurons to remove.")] = None
    weights: Annotated[float | None, typer.Option(help="Share of weights to remove, by Wanda of each projection.")] = (
        None
    )
    equal_parameters: Annotated[
        bool,
        typer.Option("--equal-parameters", help="Neurons and weights (by effect) with the heads' parameters."),
    ] = False
    halvings: Annotated[
        int, typer.Option(help="Of the names, where a set is tested on the scenario that chose it (exact answers).")
    ] = 1
    by_removal: Annotated[
        int, typer.Option(help="Of each scenario this many heads and neurons go by what their removal does.")
    ] = 0
    tokens: Annotated[int | None, typer.Option(help="Of the text for perplexity.")] = None
    costs: Annotated[
        bool,
        typer.Option("--costs", help="Measure what each set of heads or neurons takes from texts, too."),
    ] = False


def contexts(options: ContextsOptions, given: Model, progress: Report) -> Said:
    """Does a pruning that was chosen in one context help in another?

    An instruct model is asked about named people; heads, neurons and weights are chosen on each scenario and context
    and removed, and it is asked again (Ma et al. 2025).
    """
    from fasp_core.studies.contexts import audit, cells, choosing, costing, matrix, summary
    from fasp_core.studies.contexts import scenarios as worlds

    limits = options.limits()
    for name, share in (("neurons", options.neurons), ("weights", options.weights)):
        if options.equal_parameters and share is not None:
            raise InputError(f"--equal-parameters sets the share of {name}: leave out --{name}.")
    sizes = choosing.Sizes(
        **named(heads=options.heads, neurons=options.neurons, weight_top=options.weights, weight_other=options.weights)
    )
    config = cells.MatrixConfig(
        exact=limits,
        audit=audit.AuditConfig(**named(samples=options.samples, tokens=options.answer_tokens)),
        sizes=sizes.of_equal_parameters(given.lm) if options.equal_parameters else sizes,
        names=options.names,
        scenarios=options.per_context,
        halvings=options.halvings,
        by_removal=options.by_removal,
        **named(methods=tuple(options.method) if options.method else None, tokens=options.tokens),
    )
    if options.costs:
        if all(choosing.kind_of(method) == "weights" for method in config.methods):
            raise InputError("--costs is of heads and neurons: add a method that removes some, or leave it out.")
        costing.CONFIG.look_up()
    world = worlds.read(options.scenarios)
    found = matrix.run(given.lm, world, config, given.store, progress=progress)
    costs = costing.measure(given.lm, found, given.store, progress) if options.costs else None
    return summary.document(found, options.winsorise, costs), lambda: summary.markdown(found, options.winsorise, costs)


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
    plan = study.Plan(found.parts, reading=reading, **named(prompts=prompts, tokens=tokens, items=items, **chosen))
    plan.costs.look_up()
    for name in plan.axes:
        plan.bias(name).prompts()
    parts.check(found, given)
    document = study.run(given.lm, plan, given.store, progress).as_dict()
    return document, lambda: study.markdown(document)
