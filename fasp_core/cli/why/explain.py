"""The command `explain`: which heads of a set make the change that was measured, and what each costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Model, Parts, Prompts, Reading, Split, Text, Tokens, Toxicity
from fasp_core.console import Report, number, one_line, span, table


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is split, and how finely."""

    reading: Reading = "neutral"
    split: Split = "valid"
    n_prompts: Prompts = defaults.TEST_PROMPTS
    tokens: Tokens = defaults.EXPLAINED_TOKENS
    nodes: Annotated[
        int, typer.Option(help="Places on the way of the gates at which slopes are taken; more are more exact.")
    ] = defaults.NODES


def explain(options: Options, toxicity: Toxicity, text: Text, parts: Parts, given: Model, progress: Report) -> Said:
    """Split a set's measured change of gap and perplexity among its heads, so that the parts sum to it.

    Heads whose part raises the gap beyond noise are left out in turn, and what that gains is measured.
    """
    named = parts.required()
    from fasp_core.studies.explain import explain as study
    from fasp_core.studies.explain.plan import Plan

    assert given.spec  # its device is looked up first
    bias = toxicity.on(options.split, options.n_prompts)
    Plan(named.parts, bias, text.of(options.tokens), options.reading, options.nodes)  # says so before a model is loaded
    parts.check(named, given)
    read = text.fitted(text.of(options.tokens), given.model_id)
    plan = Plan(named.parts, bias, read, options.reading, options.nodes)
    stored = None if given.known_id is None else study.find(plan, given.known_id, given.store)
    document = (stored or study.run(given.lm, plan, given.store, progress)).as_dict()
    return document, lambda: explain_text(document)


def explain_text(d: dict[str, Any]) -> str:
    """The heads, the one that lowers the gap most first; both sums; what leaving heads out gains."""
    gap, nats = d["gap"], d["nats"]
    rows = [["head", "gap, thousandths", "95% interval", "nats a token", "95% interval", ""]]

    def row(name: str, of_gap: float, of_nats: float, ends: tuple[str, str] = ("", ""), more: str = "") -> list[str]:
        return [name, f"{1000 * of_gap:+.3f}", ends[0], f"{of_nats:+.5f}", ends[1], more]

    for head in sorted(d["heads"], key=lambda h: h["gap"]["part"]):
        ends = (
            span([1000 * x for x in head["gap"]["interval"]], _signed),
            span(head["nats"]["interval"], lambda x: _signed(x, 5)),
        )
        spoils = "spoils the set" if head["spoils"] else ""
        rows.append(row(head["head"], head["gap"]["part"], head["nats"]["part"], ends, spoils))
    rows += [
        row("sum of the parts", gap["sum_of_parts"], nats["sum_of_parts"]),
        row("measured change", gap["change"], nats["change"]),
        row("quadrature error", gap["quadrature_error"], nats["quadrature_error"]),
    ]
    lines = [
        f"{d['prompts']:,} {d['split']} prompts of {one_line(d['axis'])} ({d['reading']}), {d['tokens']:,} tokens in "
        f"{d['windows']} windows; gap {number(1000 * gap['base'])} to {number(1000 * gap['pruned'])} thousandths.",
        "",
        table(rows),
        "",
        d["said"],
    ]
    for some in d["without"]:
        low_high = span([1000 * x for x in some["gap_change_interval"]], _signed)
        lines.append(
            f"Without {some['left_out']}: the gap {1000 * some['gap_change']:+.3f} {low_high}, "
            f"{some['nats_change']:+.5f} nats a token, against the whole set."
        )
    lines += [f"Note: {one_line(note)}" for note in d["notes"]]
    return "\n".join(lines)


def _signed(x: float | None, digits: int = 3) -> str:
    return "n/a" if x is None or x != x else f"{x:+.{digits}f}"
