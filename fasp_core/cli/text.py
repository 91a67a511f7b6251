"""Results as text for people, made from the same documents that --json prints."""

from __future__ import annotations

import math
from typing import Any

from fasp_core.console import number, one_line, percent, span, table


def scores_text(document: dict[str, Any]) -> str:
    """Of `score`: the unpruned model, how far the scores can be trusted, and where they are."""
    d, ppl = document, document["perplexity"]
    rows = [["gap of the unpruned model", "gap", "95% interval", "shuffled groups", "p"]]
    gamma = next(iter(d["reliability"].values()))["prunable"]["gamma"]
    trust = [["rank correlation of two halves of the prompts", "all heads", f"prunable at gamma {gamma:g}"]]
    for reading in d["readings"]:
        gap, both = d["gap"][reading], d["reliability"][reading]
        rows.append(
            [reading, number(gap["gap"]), span(gap["interval"]), number(gap["noise_gap"]), number(gap["noise_p"])]
        )
        trust.append([reading, *(number(both[which]["halves"]) for which in ("all", "prunable"))])
    return "\n\n".join(
        [
            f"{d['model']}, {d['n_layers']} layers of {d['n_heads']} heads, axis {d['axis']}\n"
            f"{d['measure']} toxicity of {d['prompts']} {d['split']} prompts in {len(d['groups'])} groups; "
            f"perplexity {number(ppl['base'])} on {ppl['tokens']} tokens, in {ppl['windows']}",
            table(rows),
            table(trust),
            *_task(d),
            "\n".join([*d["notes"], *(f"wrote {path}" for path in d["files"])]),
        ]
    )


def _task(document: dict[str, Any]) -> list[str]:
    """What heads are worth for a task was made on, if it was asked for."""
    if "task" not in document:
        return []
    t = document["task"]
    return [f"task {t['name']}: {t['said']}; the last word costs the unpruned model {number(t['nats_base'])} nats"]


def selection_text(document: dict[str, Any]) -> str:
    """Of `select`: the heads to remove and why these."""
    d = document
    of = ", ".join(one_line(d[key]) for key in ("model", "axis", "reading") if d[key])
    by = f" (critical by {d['protect']})" if "protect" in d else ""
    how = f"method {d['method']}, gamma {d['gamma']:g}{by}, alpha {d['alpha']:g}, rule {d['rule']}"
    lines = [
        f"{of or 'scores'}: {how}",
        f"{d['critical']} of {d['n_heads']} heads are critical; {d['k']} heads to remove:",
        d["prune_set"] or "none",
        *(f"Note: {note}" for note in d["notes"]),
    ]
    return "\n".join(lines)


def evaluation_text(document: dict[str, Any]) -> str:
    """Of `evaluate`: what the prune set costs and what it buys, each with its interval."""
    d, ppl = document, document["perplexity"]
    nats = ppl["interval_nats"]
    rows = [
        ["", "unpruned", "pruned", "change", "95% interval"],
        [
            "perplexity",
            number(ppl["base"]),
            number(ppl["pruned"]),
            percent(ppl["relative_change"]),
            span([math.expm1(min(x, 700.0)) for x in nats], percent),
        ],
    ]
    verdicts, groups = [], []
    for name, r in d["readings"].items():
        low_high = r["gap_relative_interval"]
        gaps = [number(r["gap_base"]), number(r["gap_pruned"]), percent(r["gap_relative_change"])]
        rows.append([f"toxicity gap, {name}", *gaps, span(low_high, percent)])
        if (within := r.get("within_templates")) is not None:
            inside = [number(within["gap_base"]), number(within["gap_pruned"]), percent(within["gap_relative_change"])]
            ends = span(within["gap_relative_interval"], percent)
            rows.append([f"  within templates, mean of {within['templates']}", *inside, ends])
        for step, found in enumerate(r.get("steps", []), 1):
            rows.append([f"  at word {step}", number(found["gap_base"]), number(found["gap_pruned"]), "", ""])
        rows.append([f"toxicity, {name}", *map(number, r["toxicity"]), "", ""])
        verdicts.append(_verdict(name, r))
        body = [[one_line(g), str(v["n"]), number(v["base"]), number(v["pruned"])] for g, v in r["groups"].items()]
        groups.append(table([[f"toxicity by group, {name}", "prompts", "unpruned", "pruned"], *body]))
    removed = f"{d['heads_removed']} heads ({d['parameters_removed'] / d['parameters']:.1%} of parameters)"
    return "\n\n".join(
        [
            f"{d['provenance']['model']} without {removed}: {d['prune_set'] or 'none'}\n"
            f"axis {d['axis']}, {d['measure']} toxicity of {d['prompts']} {d['split']} prompts ({d['scored']} scored), "
            f"perplexity on {ppl['tokens']} tokens, in {ppl['windows']}",
            table(rows),
            "\n".join(verdicts),
            *_costs(d),
            *_contexts(d),
            *groups,
            *(_pair(c) for c in d.get("continuations", [])),
            *noted(d),
        ]
    )


def _costs(document: dict[str, Any]) -> list[str]:
    """What the set costs beside perplexity, if that was asked for."""
    if "costs" not in document:
        return []
    rows = [["cost", "unpruned", "pruned", "nats", "95% interval", "right, points", "95% interval"]]
    for name, c in document["costs"].items():
        right = c.get("accuracy")
        points = ["", ""]
        if right is not None:
            points = [f"{right['points']:+.1f}", span(right["points_interval"])]
        both = number(c["perplexity_base"]), number(c["perplexity_pruned"])
        rows.append([name, *both, f"{c['change']:+.3f}", span(c["change_interval"]), *points])
    return [table(rows), "\n".join(c["said"] for c in document["costs"].values())]


def _contexts(document: dict[str, Any]) -> list[str]:
    """How many of the shared contexts count, if they are shared."""
    if "contexts" not in document:
        return []
    base, pruned = (document["contexts"][side] for side in ("base", "pruned"))
    body = [[one_line(g), str(n), f"{found:.0f}", f"{pruned[g][0]:.0f}"] for g, (found, n) in base.items()]
    return [table([["effective contexts by group", "contexts", "unpruned", "pruned"], *body])]


def noted(document: dict[str, Any]) -> list[str]:
    """What the prompts leave out, one line each."""
    return [f"Note: {one_line(note)}" for note in document["notes"]]


def _verdict(name: str, r: dict[str, Any]) -> str:
    from fasp_core.gap import claims  # with SciPy, which help does without

    intervals = r["gap_change_interval"], r["gap_relative_interval"]
    found = claims.claimed(r["gap_base_noise_p"], *intervals, r["gap_pruned_noise_p"])
    said = {
        "no gap": "no gap is shown to begin with, so none that pruning could be shown to reduce",
        "fell": "the gap fell",
        "rose": "the gap grew",
        "unclear": "no reduction shown, as the interval of the change holds zero",
    }[found]
    noise, p = number(r["gap_base_noise"]), number(r["gap_base_noise_p"])
    return f"{name}: {said}. Shuffled groups would show a gap of {noise} (p = {p} for the unpruned model's)."


def _pair(row: dict[str, Any]) -> str:
    sides = [
        f"  {label} ({number(row[f'toxicity_{side}'])}): {one_line(row[f'continuation_{side}'])}"
        for label, side in (("unpruned", "base"), ("pruned", "pruned"))
    ]
    return "\n".join([f"{one_line(row['group'])}: {one_line(row['prompt'])}", *sides])
