"""The command `audit`: what a model answers about people of several groups."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fasp_core import defaults
from fasp_core.cli.audit_text import text
from fasp_core.cli.command import Said
from fasp_core.cli.options import Parts, Weights, Winsorise, named
from fasp_core.console import Report, one_line
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.storage.atomic import atomic_write, check_files

if TYPE_CHECKING:
    from fasp_core.studies.answers.exact import ExactConfig
    from fasp_core.studies.contexts.audit import AuditConfig, Exact, Following, Replies
    from fasp_core.studies.contexts.scenarios import Scenario

PLACE = "name another place with --csv or --html"
SAMPLES = 16  # answers for each name, where answers are sampled


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How answers are found and read."""

    answers: Annotated[
        Literal["exact", "sampled"] | None,
        typer.Option(help="Their whole distributions, or samples; else samples where --samples is given."),
    ] = None
    nodes: Annotated[int | None, typer.Option(help="Texts of a name that exact answers run, at most.")] = None
    draws: Annotated[int | None, typer.Option(help="That finish what exact answers leave open of a name.")] = None
    samples: Annotated[int | None, typer.Option(help="Sampled answers for each name.")] = None
    winsorise: Winsorise = defaults.WINSORISE

    @property
    def how(self) -> str:
        """`exact` or `sampled`."""
        return self.answers or ("exact" if self.samples is None else "sampled")

    def limits(self, seed: int = 0) -> ExactConfig | None:
        """Of exact answers; None: they are sampled.

        Raises
        ------
        InputError
            What was given does not belong together.
        """
        from fasp_core.studies.answers.exact import ExactConfig

        if not 0 <= self.winsorise < 0.5:
            raise InputError(
                f"A share of {self.winsorise:g} cannot be moved inwards at both ends: give --winsorise 0 to .49."
            )
        sizes = named(nodes=self.nodes, draws=self.draws)
        if self.how == "sampled":
            if sizes:
                raise InputError(f"--{next(iter(sizes))} is of exact answers: leave it out, or take --answers exact.")
            return None
        if self.samples is not None:
            raise InputError("--samples is of sampled answers: leave it out, or take --answers sampled.")
        return ExactConfig(seed=seed, **sizes)


@dataclass(frozen=True, kw_only=True)
class Options(Answering):
    """Who is asked about, and how."""

    context: Annotated[
        str, typer.Option(help="purchases, services, activities, finance or all, or one of --scenarios.")
    ]
    scenarios: Annotated[
        Path | None, typer.Option(help="A TOML file of scenarios and names; else those of the program.")
    ] = None
    groups: Annotated[
        str | None,
        typer.Option(help="To compare, such as black,white; of more than two all pairs; else the first two."),
    ] = None
    rest: Annotated[bool, typer.Option("--rest", help="Compare each of the groups with all others instead.")] = False
    matched: Annotated[
        bool, typer.Option("--matched", help="The i-th names of both groups are pairs: intervals and tests keep them.")
    ] = False
    length: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 8
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 0.6
    texts: Annotated[int, typer.Option(help="Print this many sampled answers of every name.")] = 0
    seed: Annotated[int, typer.Option(help="Of the sampling, and of the draws that finish exact answers.")] = 0
    beside: Annotated[
        str | None, typer.Option(help="A second model, asked the same: its differences stand beside the first one's.")
    ] = None
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say the smallest difference that would be found, from a few names.")
    ] = False
    csv: Annotated[Path | None, typer.Option(help="Also write the outcome to this CSV file.")] = None
    html: Annotated[Path | None, typer.Option(help="Also write the outcome to this HTML file.")] = None
    fail_above: Annotated[
        float | None,
        typer.Option(
            help="Exit status 1 if mean |SMD| of --model (without the parts, if any) is above this between any two "
            "groups, or a scenario gives none (with --beside: by either model)."
        ),
    ] = None

    @property
    def second(self) -> str:
        """What stands beside the whole model, if anything does."""
        return "pruned" if self.beside is None else "beside"


def audit(options: Options, parts: Parts, given: Weights, progress: Report) -> Said:
    """Ask an instruct model for numbers about named people, and see how far groups are apart."""
    pruned = parts.read()
    check_files([path for path in (options.csv, options.html) if path is not None], PLACE)
    subject = PruneSet() if pruned is None else pruned.parts
    if options.beside is not None and len(subject):
        raise InputError("One thing stands beside the whole model: name parts to remove, or a model with --beside.")
    groups = _groups(options.groups)
    from fasp_core.studies.contexts import audit
    from fasp_core.studies.contexts import scenarios as worlds

    config = audit.AuditConfig(
        SAMPLES if options.samples is None else options.samples, options.length, options.temperature, options.seed
    )
    _check(options, groups)
    if options.plan:
        _check_plan(options, parts)
    limits = options.limits(options.seed)
    assert given.spec  # its device is looked up first
    world = worlds.read(options.scenarios)
    asked = world.of(options.context)
    if options.rest and groups is None:
        groups = tuple(world.groups)
    compared = audit.several(world, groups)
    if options.rest and len(compared) == 2:
        raise InputError("Of two groups each one's others are the other group: leave out --rest.")
    pairs = audit.matched(world, compared) if options.matched else None
    if pruned is not None:
        parts.check(pruned, given)
    following = audit.Following(world, config, groups=compared, **named(exact=limits))
    if options.plan:
        return _plan(given, options.context, following, compared, options.winsorise, progress)

    def ask(
        one: Scenario, who: PruneSet | None, drawn: AuditConfig | None = None, model: Weights = given
    ) -> Replies | Exact:
        if options.how == "exact" and drawn is None:
            return audit.exactly(model.lm, one, following, model.store, who, progress)
        return audit.audit(model.lm, one, world, drawn or config, model.store, who, compared, progress)

    replies = [[ask(one, who) for one in asked] for who in ([None, subject] if len(subject) else [None])]
    if options.beside is not None:
        other = replace(given, model=options.beside)
        replies.append([ask(one, None, model=other) for one in asked])
    sides = _comparisons(replies, options)
    found = [_compared(each, options, pairs, len(sides)) for each in sides]
    document: dict[str, Any] = {
        "model": given.spec.source,
        "context": options.context,
        "title": world.title(options.context),
        "groups": found[0]["groups"],
        "names": {group: len(world.groups[group]) for group in compared},
        "how": options.how,
        "samples": config.samples if options.how == "sampled" else None,
        "temperature": options.temperature,
        "tokens": options.length,
        "seed": options.seed,
        "winsorised": options.winsorise,
        "matched": options.matched,
        "prune_set": subject.format(),
        **({} if options.beside is None else {"beside": options.beside}),
        **found[0],
        "provenance": replies[0][0].provenance,
    }
    if limits is not None:
        document["limits"] = {"covered": limits.covered, "nodes": limits.nodes, "draws": limits.draws}
    if len(found) > 1:
        document["comparisons"] = found
    if options.texts:
        drawn = replace(config, samples=options.texts)
        for i, one in enumerate(asked):
            said = ask(one, None, drawn if options.how == "exact" else config)
            for pair in found:
                pair["scenarios"][i]["texts"] = [
                    {"name": name, "group": group, "answers": list(texts[: options.texts])}
                    for (name, group), texts in zip(said.people, said.texts, strict=True)
                    if options.rest or group in pair["groups"]
                ]
    if options.fail_above is not None:
        document |= _judged(found, options.fail_above)
    _write(document, options)
    return document, lambda: text(document)


def _comparisons(subjects: list[list[Replies | Exact]], options: Options) -> list[list[list[Replies | Exact]]]:
    """All pairs of groups, or each against all others: for each the answers of both models."""
    from itertools import combinations

    from fasp_core.studies.contexts.audit import Exact

    one = subjects[0][0]
    if not isinstance(one, Exact) or (len(one.groups) == 2 and not options.rest):
        return [subjects]
    sides: list[tuple[str, str | None]] = (
        [(g, None) for g in one.groups] if options.rest else list(combinations(one.groups, 2))
    )
    return [
        [[r.between(*side) if isinstance(r, Exact) else r for r in replies] for replies in subjects] for side in sides
    ]


def _compared(replies: list[list[Replies | Exact]], options: Options, pairs: Any, comparisons: int) -> dict[str, Any]:
    """What is said of two groups, in one of some comparisons."""
    from fasp_core.studies.contexts import outcome

    gaps = outcome.disparities(replies, options.winsorise, pairs)
    rows, tested = outcome.scenarios_of(replies, gaps, options.winsorise, pairs, options.second, comparisons)
    out = {"groups": list(replies[0][0].groups), "scenarios": rows}
    out |= outcome.together(gaps, tested, options.second, comparisons)
    if len({r.scenario.context for r in replies[0]}) > 1:  # scenarios of several are no sample of one
        out |= {"mean_smd_context": None, "mean_abs_smd_context": None}
    out["parsed"] = sum(sum(row["parsed"].values()) for row in rows) / (2 * len(rows))
    if options.how == "exact":
        out["covered"] = sum(row["covered"] for row in rows) / len(rows)
    return out


def _judged(found: list[dict[str, Any]], limit: float) -> dict[str, Any]:
    """Whether the worst pair of groups is within a limit, and every scenario gave numbers to say so by."""

    def mean(compared: dict[str, Any]) -> float:
        return float(compared.get("mean_abs_smd_pruned", compared["mean_abs_smd"])["value"])

    worst = max(found, key=lambda compared: (math.isnan(mean(compared)), mean(compared)))
    unknown = dict.fromkeys(
        row["scenario"]
        for compared in found
        for row in compared["scenarios"]
        for smd in ([row["smd_pruned"]] if "smd_pruned" in row else [row["smd"], row.get("smd_beside", row["smd"])])
        if not math.isfinite(smd["value"])
    )
    return {
        "fail_above": limit,
        "worst": {
            "groups": worst["groups"],
            "mean_abs_smd": mean(worst),
            "mean_abs_smd_by_chance": worst["mean_abs_smd_by_chance"],
        },
        "without_smd": list(unknown),
        "failed": bool(unknown) or not mean(worst) <= limit,
    }


def _plan(
    given: Weights, context: str, following: Following, compared: tuple[str, ...], winsorise: float, progress: Report
) -> Said:
    """The smallest difference that would be found between two groups, from a few names in one scenario."""
    from fasp_core.studies.answers import power
    from fasp_core.studies.contexts import audit

    if len(compared) > 2:
        raise InputError("--plan is of two groups: name them with --groups, such as black,white.")
    found, pilot = audit.planned(given.lm, context, following, winsorise, given.store, progress)
    document = {
        "model": given.spec.source,
        "context": context,
        "groups": list(compared),
        "names": dict(zip(compared, found.names, strict=True)),
        "scenarios": found.scenarios,
        "pilot": {"scenario": pilot.scenario.name, "names": len(pilot.people), "seconds": pilot.provenance["seconds"]},
        **power.document(found),
    }
    return document, lambda: one_line(power.sentence(found, len(pilot.people), pilot.scenario.name))


def _write(document: dict[str, Any], options: Options) -> None:
    """The files that were asked for."""
    from fasp_core.report import audits

    files = {}
    if options.csv is not None:
        files[options.csv] = audits.csv(document)
    if options.html is not None:
        files[options.html] = audits.page(document, text(document)).encode()
    if files:
        atomic_write(files, PLACE)


def _check(options: Options, groups: tuple[str, ...] | None) -> None:
    if options.fail_above is not None and not options.fail_above >= 0:
        raise InputError(f"--fail-above {options.fail_above:g} is no limit on mean |SMD|: give 0 or more.")
    if options.how == "sampled" and options.plan:
        raise InputError("--plan is of exact answers: leave out --samples and --answers sampled.")
    if options.texts < 0:
        raise InputError(f"--texts {options.texts} is no number of answers: give 0 or more.")
    if options.csv is not None and options.html is not None and options.csv.resolve() == options.html.resolve():
        raise InputError("--csv and --html name the same file: give each its own.")
    for name, path in (("--csv", options.csv), ("--html", options.html)):
        if path is not None and options.scenarios is not None and path.resolve() == options.scenarios.resolve():
            raise InputError(f"{name} names the file of --scenarios, which it would overwrite: {PLACE}.")
    if options.how == "sampled" and (options.rest or len(groups or ()) > 2):
        raise InputError("Sampled answers compare two groups: name two, or take --answers exact.")
    if options.matched and (options.rest or len(groups or ()) > 2):
        raise InputError("Matched names are of two groups: name two, or leave out --matched.")


def _check_plan(options: Options, parts: Parts) -> None:
    """A plan asks a few names of the whole model, and says nothing of the groups: what would be is refused."""
    of_audits = {
        "--heads": parts.heads,
        "--prune-set": parts.prune_set,
        "--beside": options.beside,
        "--rest": options.rest or None,
        "--matched": options.matched or None,
        "--texts": options.texts or None,
        "--csv": options.csv,
        "--html": options.html,
        "--fail-above": options.fail_above,
    }
    given = [name for name, value in of_audits.items() if value is not None]
    if given:
        raise InputError(f"--plan only says what an audit would find: leave out {' and '.join(given)}, or --plan.")


def _groups(groups: str | None) -> tuple[str, ...] | None:
    """`black,white` as names."""
    if not groups:
        return None
    found = tuple(part.strip() for part in groups.split(","))
    if len(found) < 2 or not all(found):
        raise InputError(f"'{groups}' does not name two groups: write them as black,white.")
    return found
