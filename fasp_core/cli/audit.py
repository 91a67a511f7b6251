"""The command `audit`: what a model answers about people of two groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fasp_core.cli.command import Said
from fasp_core.cli.options import Parts, Weights, Winsorise
from fasp_core.console import Report, log, number, percent, span, table
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet

if TYPE_CHECKING:
    from fasp_core.studies.contexts.audit import Exact, Replies

SAMPLES = 16  # answers for each name, where answers are sampled


@dataclass(frozen=True, kw_only=True)
class Options:
    """Who is asked about, and how answers are found."""

    context: Annotated[str, typer.Option(help="purchases, services, activities or finance, or one of --scenarios.")]
    scenarios: Annotated[
        Path | None, typer.Option(help="A TOML file of scenarios and names; else those of the program.")
    ] = None
    groups: Annotated[str | None, typer.Option(help="The two to compare, such as black,white; else the first two.")] = (
        None
    )
    answers: Annotated[
        Literal["exact", "sampled"], typer.Option(help="Their whole distributions, or samples of them.")
    ] = "exact"
    nodes: Annotated[int | None, typer.Option(help="Texts of a name that exact answers run, at most.")] = None
    samples: Annotated[int | None, typer.Option(help=f"Sampled answers for each name; else {SAMPLES}.")] = None
    length: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 8
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 0.6
    winsorise: Winsorise = 0.0
    texts: Annotated[int, typer.Option(help="Print this many sampled answers of every name (with --json).")] = 0
    seed: Annotated[int, typer.Option(help="Of the sampling, and of the draws that finish exact answers.")] = 0


def audit(options: Options, parts: Parts, given: Weights, progress: Report) -> Said:
    """Ask an instruct model for numbers about named people, and see how far groups are apart."""
    named = parts.read()
    subject = PruneSet() if named is None else named.parts
    two = _two(options.groups)
    from fasp_core.studies.contexts import audit, outcome
    from fasp_core.studies.contexts import scenarios as worlds

    exactly = options.answers == "exact"
    samples = SAMPLES if options.samples is None else options.samples
    config = audit.AuditConfig(samples, options.length, options.temperature, options.seed)
    drawn = audit.AuditConfig(max(options.texts, 1), options.length, options.temperature, options.seed)
    _check(options)
    how = _exact(options)
    assert given.spec  # its device is looked up first
    world = worlds.read(options.scenarios)
    asked = world.of(options.context)
    compared = audit.pair(world, two)
    subjects = [None, subject] if len(subject) else [None]

    def ask(one: Any, who: PruneSet | None) -> Replies | Exact:
        if exactly:
            return audit.exactly(given.lm, one, world, config, given.store, who, compared, progress, exact=how)
        return audit.audit(given.lm, one, world, config, given.store, who, compared, progress)

    replies = [[ask(one, who) for one in asked] for who in subjects]
    texts: list[Replies] = []
    if options.texts:
        texts = [
            audit.audit(given.lm, one, world, drawn if exactly else config, given.store, None, compared, progress)
            for one in asked
        ]
    gaps = outcome.disparities(replies, options.winsorise)
    rows, tested = outcome.scenarios_of(replies, gaps, options.winsorise)
    for row, found in zip(rows, texts, strict=bool(texts)) if texts else ():
        row["texts"] = [
            {"name": name, "group": group, "answers": list(said[: options.texts])}
            for (name, group), said in zip(found.people, found.texts, strict=True)
        ]
    document: dict[str, Any] = {
        "model": given.spec.source,
        "context": options.context,
        "title": world.contexts[options.context],
        "groups": list(compared),
        "names": {group: len(world.groups[group]) for group in compared},
        "how": options.answers,
        "samples": None if exactly else samples,
        "temperature": options.temperature,
        "tokens": options.length,
        "seed": options.seed,
        "winsorised": options.winsorise,
        "prune_set": subject.format(),
        "scenarios": rows,
        **outcome.together(gaps, tested),
        "parsed": sum(sum(row["parsed"].values()) for row in rows) / (2 * len(rows)),
        "provenance": replies[0][0].provenance,
    }
    if exactly:
        document["covered"] = sum(row["covered"] for row in rows) / len(rows)
        document["limits"] = {"covered": how.covered, "nodes": how.nodes, "draws": how.draws}
    return document, lambda: text(document)


def _check(options: Options) -> None:
    if not 0 <= options.winsorise < 0.5:
        raise InputError(
            f"A share of {options.winsorise:g} cannot be moved inwards at both ends: give --winsorise 0 to .49."
        )
    if options.answers == "exact" and options.samples is not None:
        log("No answers are sampled, as they are computed: --answers sampled takes --samples.")
    if options.answers == "sampled" and options.nodes is not None:
        raise InputError("--nodes is of exact answers: leave it out, or take --answers exact.")


def _exact(options: Options) -> Any:
    from fasp_core.studies.contexts.exact import ExactConfig

    return ExactConfig(seed=options.seed, **({} if options.nodes is None else {"nodes": options.nodes}))


def _two(groups: str | None) -> tuple[str, str] | None:
    """`black,white` as two names."""
    if not groups:
        return None
    first, *others = (part.strip() for part in groups.split(","))
    if len(others) != 1:
        raise InputError(f"'{groups}' does not name two groups: write them as black,white.")
    return first, others[0]


def text(d: dict[str, Any]) -> str:
    """One row a scenario."""
    first, second = d["groups"]
    pruned = "mean_abs_smd_change" in d
    exact = d["how"] == "exact"
    head = ["scenario", "unit", f"parsed, {first}", second, f"mean, {first}", second, "SMD", "95%", "p, all"]
    head += ["covered"] if exact else []
    rows = [head + (["SMD, pruned", "95%", "inliers", "distance"] if pruned else [])]
    for s in d["scenarios"]:
        row = [s["scenario"], s["unit"]]
        row += [f"{s['parsed'][g]:.0%}" for g in d["groups"]]
        row += [number(s["mean"][g]) for g in d["groups"]]
        row += [_signed(s["smd"]["value"]), span(s["smd"]["interval"], _signed), _p(s["p_adjusted"])]
        row += [f"{s['covered']:.0%}"] if exact else []
        if pruned:
            row += [_signed(s["smd_pruned"]["value"]), span(s["smd_pruned"]["interval"], _signed)]
            row += [f"{s['inlier_ratio']:.0%}", f"{s['distance_sd']:.2f} SD"]
        rows.append(row)
    mean = d["mean_abs_smd"]
    names = " and ".join(f"{n} names of group {g}" for g, n in d["names"].items())
    lines = [
        f"{d['title']}: {d['model']} about {names}, "
        + ("the distribution of the answers of each." if exact else f"{d['samples']} answers each."),
        "",
        table(rows),
        "",
        f"Mean |SMD| {mean['value']:.2f} {span(mean['interval'], _signed)}; {number(d['mean_abs_smd_by_chance'])} is "
        f"what dealing the names' groups anew gives on average, p = {_p(d['p_any'])}. A number in {d['parsed']:.0%} of "
        f"answers. SMD: mean of {first} minus mean of {second}, over the pooled SD; intervals resample names; p, all: "
        "corrected for the number of scenarios (max-T).",
        f"Of the context, its scenarios taken as a sample: mean SMD {_signed(d['mean_smd_context']['value'])} "
        f"{span(d['mean_smd_context']['interval'], _signed)}.",
    ]
    if exact:
        lines.append(
            f"{d['covered']:.1%} of the probability was followed until the number was settled; the rest is estimated "
            f"by {d['limits']['draws']} draws a name, whose noise is in the intervals."
        )
    if pruned:
        change = d["mean_abs_smd_change"]
        lines.append(
            f"Without {d['prune_set']}: mean |SMD| {d['mean_abs_smd_pruned']['value']:.2f}, change "
            f"{_signed(change['value'])} {span(change['interval'], _signed)}."
        )
    for s in d["scenarios"]:
        difference = s["parsed_difference"]
        low, high = difference["interval"]
        if low > 0 or high < 0:
            more = first if low > 0 else second
            lines.append(f"{s['scenario']}: a number is given more often for {more} ({percent(difference['value'])}).")
    return "\n".join(lines)


def _p(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{value:.3f}" if value >= 0.001 else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{value:+.2f}"
