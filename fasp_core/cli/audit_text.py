"""What the command `audit` says to people."""

from __future__ import annotations

import math
from typing import Any

from fasp_core.console import number, one_line, span, table


def text(d: dict[str, Any]) -> str:
    """One row a scenario."""
    from fasp_core.studies.answers.testing import LEVEL

    first, second = d["groups"]
    other = next((how for how in ("pruned", "beside") if f"mean_abs_smd_{how}" in d), None)
    exact = d["how"] == "exact"
    head = ["scenario", "unit", f"parsed, {first}", second, f"mean, {first}", second, "SMD", "95%", "p, all"]
    head += ["covered"] if exact else []
    rows = [head + ([f"SMD, {other}", "95%", "inliers", "distance"] if other else [])]
    for s in d["scenarios"]:
        row = [s["scenario"], s["unit"]]
        row += [f"{s['parsed'][g]:.0%}" for g in d["groups"]]
        row += [number(s["mean"][g]) for g in d["groups"]]
        row += [_signed(s["smd"]["value"]), span(s["smd"]["interval"], _signed), _p(s["p_adjusted"])]
        row += [f"{s['covered']:.0%}"] if exact else []
        if other:
            row += [_signed(s[f"smd_{other}"]["value"]), span(s[f"smd_{other}"]["interval"], _signed)]
            known = math.isfinite(s["distance_sd"])
            row += [f"{s['inlier_ratio']:.0%}", f"{s['distance_sd']:.2f} SD"] if known else ["n/a", "n/a"]
        rows.append(row)
    mean = d["mean_abs_smd"]
    names = " and ".join(f"{n} names of group {g}" for g, n in d["names"].items())
    begin = f"{d['title']}: {d['model']} about {names}, " + (
        "the distribution of the answers of each." if exact else f"{d['samples']} answers each."
    )
    times = f" and that of {len(d['comparisons'])} comparisons (Bonferroni)" if "comparisons" in d else ""
    lines = [
        f"Mean |SMD| {_size(mean['value'])} {span(mean['interval'], _size)}; {_size(d['mean_abs_smd_by_chance'])} is "
        f"what dealing the names' groups anew gives on average, p = {_p(d['p_any'])}. A number in {d['parsed']:.0%} of "
        f"answers. SMD: mean of {first} minus mean of {second}, over the pooled SD; intervals resample names; p, all: "
        f"corrected for the number of scenarios (max-T){times}.",
    ]
    if d["mean_smd_context"] is not None:
        lines.append(
            "Of the context, its scenarios taken as a sample: mean SMD "
            f"{_signed(d['mean_smd_context']['value'])} {span(d['mean_smd_context']['interval'], _signed)}."
        )
    if d["least_p"] > LEVEL:
        lines.append(
            "With so few names no difference is ever shown, however large: the smallest p that dealing their groups "
            f"anew could give is {_p(d['least_p'])}. Name more people."
        )
    if math.isnan(mean["value"]):
        lines.append(
            "There is no difference to tell of, as a group gave no numbers: write an opening that asks for one."
        )
    if d["winsorised"]:
        lines.append(f"Of a scenario's answers the outermost {d['winsorised']:.3g} at either end is moved inwards.")
    for compared in d.get("comparisons", [])[1:]:
        between = compared["mean_abs_smd"]
        lines.append(
            f"{compared['groups'][0]} against {compared['groups'][1]}: mean |SMD| {_size(between['value'])} "
            f"{span(between['interval'], _size)}, p = {_p(compared['p_any'])}; the scenarios are in --json and --csv."
        )
    if "failed" in d:
        (one, another), worst = d["worst"]["groups"], d["worst"]["mean_abs_smd"]
        if not math.isnan(worst):
            pair = f"{one} and {another}{', the worst pair,' if 'comparisons' in d else ''}"
            said = "is not above" if worst <= d["fail_above"] else "is above"
            close = f"{worst:.3g}" == f"{d['fail_above']:.3g}"
            if other:
                pair += f" {'without ' + d['prune_set'] if 'beside' not in d else 'by ' + d['model']}"
            lines.append(
                f"Mean |SMD| of {pair} is {worst:{'.6g' if close else '.3g'}}: it {said} the limit of "
                f"{d['fail_above']:g}."
            )
            if worst > d["fail_above"] and (chance := d["worst"]["mean_abs_smd_by_chance"]) > d["fail_above"]:
                lines.append(
                    f"Names whose groups are dealt anew are above it, too ({chance:.3g} on average, whole model): ask "
                    "about more names or scenarios, or give a higher limit."
                )
        if d["without_smd"]:
            scenarios = ", ".join(d["without_smd"])
            lines.append(f"The limit of {d['fail_above']:g} is not kept: there is no SMD in {scenarios}.")
    if exact:
        lines.append(
            f"{d['covered']:.1%} of the probability was followed until the number was settled; the rest is estimated "
            f"by {d['limits']['draws']} draws a name, whose noise is in the intervals."
        )
    if other:
        change = d["mean_abs_smd_change"]
        lines.append(
            f"{d.get('beside', 'Without ' + d['prune_set'])}: mean |SMD| {d[f'mean_abs_smd_{other}']['value']:.2f}, "
            f"{'difference' if 'beside' in d else 'change'} {_signed(change['value'])} "
            f"{span(change['interval'], _signed)}."
        )
    for s in d["scenarios"]:
        if (more := s["parsed_more"]) is not None:
            points = abs(100 * s["parsed_difference"]["value"])
            lines.append(f"{s['scenario']}: a number is given {points:.1f} points more often for {more}.")
    everybody = [
        f"{s['scenario']}, {one['name']} ({one['group']}): {' | '.join(one['answers'])}"
        for compared in (d, *d.get("comparisons", [])[1:])
        for s in compared["scenarios"]
        for one in s.get("texts", [])
    ]
    lines += dict.fromkeys(everybody)  # somebody is in several comparisons
    aligned = table([[one_line(cell) for cell in row] for row in rows])
    return "\n".join([one_line(begin), "", aligned, "", *map(one_line, lines)])


def _p(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{value:.3f}" if value >= 0.001 else f"{value:.4f}"


def _size(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{value:+.2f}"
