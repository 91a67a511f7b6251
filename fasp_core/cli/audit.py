"""Of the command `audit`: what a model answers about people of two groups, as one document and as text for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.console import Report, number, percent, span, table
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.model.language_model import LanguageModel
    from fasp_core.model.spec import ModelSpec
    from fasp_core.studies.contexts.audit import AuditConfig, Replies
    from fasp_core.studies.contexts.measures import Disparity


def document(
    spec: ModelSpec,
    context: str,
    scenarios_file: Path | None,
    groups: tuple[str, str] | None,
    config: AuditConfig,
    winsorise: float,
    subject: PruneSet,
    shown: int,
    cache: Path | None,
    load: Callable[[ModelSpec, Path | None], LanguageModel],
    progress: Report,
) -> dict[str, Any]:
    """An audit of one context, of the model as it is and, if `subject` holds anything, without those parts.

    Parameters
    ----------
    winsorise : share of the answers at either end that is moved inwards, 0 to below .5.
    shown : answers of each name that are given as text.

    Raises
    ------
    InputError
        No such context or group, a model without a chat template, or a part that is not in the model.
    """
    from fasp_core.storage.store import Store
    from fasp_core.studies.contexts import audit, scenarios

    if not 0 <= winsorise < 0.5:
        raise InputError(f"A share of {winsorise:g} cannot be moved inwards at both ends: give --winsorise 0 to .49.")
    world = scenarios.read(scenarios_file)
    asked = world.of(context)
    compared = audit.pair(world, groups)
    lm, store = load(spec, cache), Store(cache)
    subjects = [None, subject] if len(subject) else [None]
    replies = [
        [audit.audit(lm, one, world, config, store, who, compared, progress) for one in asked] for who in subjects
    ]
    gaps = [audit.disparity(r, winsorise) for r in replies]
    out: dict[str, Any] = {
        "model": spec.source,
        "context": context,
        "title": world.contexts[context],
        "groups": list(compared),
        "names": {group: len(world.groups[group]) for group in compared},
        "samples": config.samples,
        "temperature": config.temperature,
        "tokens": config.tokens,
        "seed": config.seed,
        "winsorised": winsorise,
        "prune_set": subject.format(),
        "scenarios": [_scenario(i, replies, gaps, winsorise, shown) for i in range(len(asked))],
        "mean_abs_smd": _estimate(gaps[0].mean_absolute()),
        "parsed": float(np.mean([r.answers.parsed().mean() for r in replies[0]])),
        "provenance": replies[0][0].provenance,
    }
    if len(gaps) == 2:
        out["mean_abs_smd_pruned"] = _estimate(gaps[1].mean_absolute())
        out["mean_abs_smd_change"] = _estimate(gaps[0].change(gaps[1]))
    return out


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
