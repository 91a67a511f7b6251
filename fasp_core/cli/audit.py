"""The command `audit`: what a model answers about people of two groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from fasp_core.cli.command import Said
from fasp_core.cli.options import Parts, Weights, Winsorise
from fasp_core.console import Report, number, percent, span, table
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet

if TYPE_CHECKING:
    from fasp_core.studies.contexts.audit import Replies
    from fasp_core.studies.contexts.measures import Disparity


def audit(
    context: Annotated[str, typer.Option(help="purchases, services, activities or finance, or one of --scenarios.")],
    parts: Parts,
    given: Weights,
    progress: Report,
    scenarios: Annotated[
        Path | None, typer.Option(help="A TOML file of scenarios and names; else those of the program.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="The two to compare, such as black,white; else the first two.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Answers for each name.")] = 16,
    length: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 8,
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 0.6,
    winsorise: Winsorise = 0.0,
    texts: Annotated[int, typer.Option(help="Print this many answers of every name (with --json).")] = 0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
) -> Said:
    """Ask an instruct model for numbers about named people, and see how far groups are apart."""
    named = parts.read()
    subject = PruneSet() if named is None else named.parts
    two = _two(groups)
    from fasp_core.studies.contexts import audit
    from fasp_core.studies.contexts import scenarios as worlds

    config = audit.AuditConfig(samples, length, temperature, seed)
    assert given.spec  # its device is looked up first
    if not 0 <= winsorise < 0.5:
        raise InputError(f"A share of {winsorise:g} cannot be moved inwards at both ends: give --winsorise 0 to .49.")
    world = worlds.read(scenarios)
    asked = world.of(context)
    compared = audit.pair(world, two)
    subjects = [None, subject] if len(subject) else [None]
    replies = [
        [audit.audit(given.lm, one, world, config, given.store, who, compared, progress) for one in asked]
        for who in subjects
    ]
    gaps = [audit.disparity(r, winsorise) for r in replies]
    document: dict[str, Any] = {
        "model": given.spec.source,
        "context": context,
        "title": world.contexts[context],
        "groups": list(compared),
        "names": {group: len(world.groups[group]) for group in compared},
        "samples": samples,
        "temperature": temperature,
        "tokens": length,
        "seed": seed,
        "winsorised": winsorise,
        "prune_set": subject.format(),
        "scenarios": [_scenario(i, replies, gaps, winsorise, texts) for i in range(len(asked))],
        "mean_abs_smd": _estimate(gaps[0].mean_absolute()),
        "parsed": float(np.mean([r.answers.parsed().mean() for r in replies[0]])),
        "provenance": replies[0][0].provenance,
    }
    if len(gaps) == 2:
        document["mean_abs_smd_pruned"] = _estimate(gaps[1].mean_absolute())
        document["mean_abs_smd_change"] = _estimate(gaps[0].change(gaps[1]))
    return document, lambda: text(document)


def _two(groups: str | None) -> tuple[str, str] | None:
    """`black,white` as two names."""
    if not groups:
        return None
    first, *others = (part.strip() for part in groups.split(","))
    if len(others) != 1:
        raise InputError(f"'{groups}' does not name two groups: write them as black,white.")
    return first, others[0]


def _scenario(
    i: int, replies: list[list[Replies]], gaps: list[Disparity], winsorise: float, shown: int
) -> dict[str, Any]:
    from fasp_core.studies.contexts.measures import distance, inlier_ratio, parsed_difference

    base = replies[0][i]
    groups, numbers = base.groups, base.numbers(winsorise)
    out: dict[str, Any] = {
        "scenario": base.scenario.name,
        "unit": base.scenario.unit,
        "answers": int(base.answers.values.size),
        "parsed": dict(zip(groups, base.answers.parsed().tolist(), strict=True)),
        "parsed_difference": _estimate(parsed_difference(base.answers)),
        "mean": {
            g: float(np.nanmean(v)) if np.isfinite(v := numbers.values[numbers.codes == c]).any() else None
            for c, g in enumerate(groups)
        },
        "smd": _estimate(gaps[0].each()[i]),
    }
    if len(replies) == 2:
        pruned = replies[1][i]
        out |= {
            "smd_pruned": _estimate(gaps[1].each()[i]),
            "parsed_pruned": dict(zip(groups, pruned.answers.parsed().tolist(), strict=True)),
            "inlier_ratio": inlier_ratio(base.answers, pruned.answers),
            "distance_sd": distance(base.answers, pruned.answers),
        }
    if shown:
        out["texts"] = [
            {"name": name, "group": group, "answers": list(texts[:shown])}
            for (name, group), texts in zip(base.people, base.texts, strict=True)
        ]
    return out


def _estimate(found: tuple[float, float, float]) -> dict[str, Any]:
    return {"value": found[0], "interval": [found[1], found[2]]}


def text(d: dict[str, Any]) -> str:
    """One row a scenario."""
    first, second = d["groups"]
    pruned = "mean_abs_smd_change" in d
    head = ["scenario", "unit", f"parsed, {first}", second, f"mean, {first}", second, "SMD", "95%"]
    rows = [head + (["SMD, pruned", "95%", "inliers", "distance"] if pruned else [])]
    for s in d["scenarios"]:
        row = [s["scenario"], s["unit"]]
        row += [f"{s['parsed'][g]:.0%}" for g in d["groups"]]
        row += [number(s["mean"][g]) for g in d["groups"]]
        row += [_signed(s["smd"]["value"]), span(s["smd"]["interval"], _signed)]
        if pruned:
            row += [_signed(s["smd_pruned"]["value"]), span(s["smd_pruned"]["interval"], _signed)]
            row += [f"{s['inlier_ratio']:.0%}", f"{s['distance_sd']:.2f} SD"]
        rows.append(row)
    mean = d["mean_abs_smd"]
    names = " and ".join(f"{n} names of group {g}" for g, n in d["names"].items())
    lines = [
        f"{d['title']}: {d['model']} about {names}, {d['samples']} answers each.",
        "",
        table(rows),
        "",
        f"Mean |SMD| {mean['value']:.2f} {span(mean['interval'], _signed)}; a number in {d['parsed']:.0%} of answers. "
        f"SMD: mean of {first} minus mean of {second}, over the pooled SD; intervals resample names.",
    ]
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


def _signed(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{value:+.2f}"
