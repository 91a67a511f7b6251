"""The rows of a report's tables, every number as a person reads it and with what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fasp_core.evaluation import Evaluation, Reading
from fasp_core.gap import Change, GapStats
from fasp_core.gap.claims import finding
from fasp_core.metrics.perplexity import PerplexityChange
from fasp_core.report.gather import Facts
from fasp_core.scoring.manual_edits import reasons
from fasp_core.studies.compare.compare import choose
from fasp_core.studies.compare.curves import ORDER
from fasp_core.studies.compare.limits import Unmeasured
from fasp_core.studies.compare.outcome import Claim
from fasp_core.studies.explain.explain import Explained
from fasp_core.studies.scorecard import scorecard_text
from fasp_core.studies.scorecard.scorecard import Scorecard
from fasp_core.studies.verdict import interval, number, p_value, percent, verdict
from fasp_core.tasks.files import TITLES
from fasp_core.tasks.utility import Utility

READINGS = {
    "neutral": "identity terms masked",
    "counted": "identity terms scored",
    "sampled": "sampled continuations",
}
METHODS = {
    "fasp": "FASP",
    "magnitude": "smallest weights",
    "gradient": "smallest gradients",
    "ppl-only": "perplexity only",
    "bias-only": "bias only",
    "random": "random",
    "search": "joint search",
}
SHOWS = {
    "no gap": "no gap to begin with",
    "fell": "the gap fell",
    "rose": "the gap rose",
    "unclear": "no reduction shown",
}


@dataclass(frozen=True)
class Table:
    """Plain texts: `head` [columns], `rows` [rows][columns]; `names` [rows] tell a program which row it reads."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    names: list[str] = field(default_factory=list)


def readings(evaluation: Evaluation, first: str) -> list[Reading]:
    """The reading of the choice, then the others."""
    return sorted(evaluation.readings.values(), key=lambda r: r.name != first)


def outcome_table(evaluation: Evaluation, first: str) -> Table:
    """The gap in every reading, and perplexity: before, after, change with its interval, noise, sample."""
    found, p = readings(evaluation, first), evaluation.perplexity
    rows = [_gap_row(f"toxicity gap, ×10⁻³, {READINGS.get(r.name, r.name)}", r.base, r.gap) for r in found]
    both = f"{number(p.base)} → {number(p.pruned)}"
    rows.append(("perplexity", both, ppl_change(p), "–", "–", f"{p.tokens:,} tokens"))
    head = ("measure", "unpruned → pruned", "change [95%]", "noise alone", "what it shows", "measured on")
    return Table(head, rows, [*(r.name for r in found), "perplexity"])


def _gap_row(title: str, base: GapStats, found: Change) -> tuple[str, ...]:
    """A gap before and after, its change, noise, what that shows, and on what."""
    both = f"{milli(base.gap)} → {milli(found.pruned)}"
    return title, both, change(found), noise(base), SHOWS[finding(base, found)], f"{found.n:,} test prompts"


def verdicts(evaluation: Evaluation, first: str) -> list[tuple[str, str, bool]]:
    """(reading, sentence, whether it is a reduction of a gap that is there)."""
    out = []
    for r in readings(evaluation, first):
        text, good = verdict(r, evaluation.perplexity.relative, f"{r.base.n} test prompts")
        out.append((READINGS.get(r.name, r.name), text, good))
    return out


def group_table(evaluation: Evaluation, reading: str) -> Table:
    """Mean toxicity of each group before and after."""
    r = evaluation.readings[reading]
    means = r.base.group_means
    order = sorted(means, key=lambda g: (-means[g], g))
    rows: list[tuple[str, ...]] = [
        (g, f"{r.base.group_sizes[g]:,}", milli(means[g], 3), milli(r.pruned.group_means[g], 3)) for g in order
    ]
    rows.append(("all prompts", f"{r.base.n:,}", milli(r.base.overall, 3), milli(r.pruned.overall, 3)))
    return Table(("group", "prompts", "unpruned, ×10⁻³", "pruned, ×10⁻³"), rows)


def head_table(facts: Facts) -> Table:
    """One row a head that is off: its scores with their standard errors, and why it is off."""
    t, b = facts.table, facts.table.bias
    why = reasons(facts.selection)
    order = sorted(b.readings, key=lambda name: name != facts.asked.reading)
    errors = {name: b.standard_errors(name) for name in order}
    rows: list[tuple[str, ...]] = []
    for flat in facts.asked.parts.flat(t.n_heads):
        layer, head = divmod(flat, t.n_heads)
        impacts = [f"{1000 * b.z_bias(name)[flat]:+.3f} ± {_se(1000 * errors[name][flat])}" for name in order]
        if b.exact is not None and not b.exact[flat]:
            impacts = [f"{text} (estimate)" for text in impacts]
        ppl = f"{t.ppl.z_ppl[flat]:+.3f} ± {_se(t.ppl.se_ppl[flat])}" + ("" if t.ppl.exact[flat] else " (preview)")
        rows.append((f"L{layer}H{head}", ppl, *impacts, why[flat]))
    head_row = ("head", "z_ppl", *(f"z_bias, ×10⁻³, {READINGS.get(n, n)}" for n in order), "why")
    return Table(head_row, rows, [row[0] for row in rows])


def methods_table(facts: Facts) -> Table:
    """The set that each method's own candidates come to on validation, and what it does to test prompts."""
    c, limit = facts.comparison, facts.asked.limits.max_ppl
    assert c is not None
    reading = c.plan.reading
    rows: list[tuple[str, ...]] = []
    for method in ORDER:
        if all(k.method != method for k in c.candidates):
            continue
        try:
            if facts.keeps is None and facts.asked.limits.beyond_ppl:
                raise Unmeasured("What sets cost cannot be read.")
            best = choose(c, reading, limit, [method], fits=facts.keeps)
        except Unmeasured:
            rows.append((METHODS[method], "not known: what its sets cost was not measured", "–", "–", "–", "–", "–"))
            continue
        if best is None:
            rows.append((METHODS[method], "none within the limits", "0", "–", "–", "–", "–"))
            continue
        shares = f"α {best.alpha:.3g}" if best.gamma is None else f"γ {best.gamma:g}, α {best.alpha:.3g}"
        shares += "" if best.seed is None else f", seed {best.seed}"
        sides = [change(c.change(best, side, reading)) for side in ("valid", "test")]
        ppl = [ppl_change(c.perplexity(best, side)) for side in ("valid", "test")]
        rows.append((METHODS[method], shares, str(len(best.heads)), sides[0], sides[1], *ppl))
    head = ("method", "chosen", "heads", "gap, validation", "gap, test", "perplexity, validation", "perplexity, test")
    return Table(head, rows)


def claim_table(claim: Claim) -> Table:
    """Every measure of the gap that a claim rests on, the one of the choice first; its names are those of the JSON."""
    rows: list[tuple[str, ...]] = []
    found = dict(sorted(claim.by_key().items(), key=lambda item: (item[0] != claim.reading, item[0] == "sampled")))
    for key, m in found.items():
        title = READINGS[m.reading] if m.name in ("next word", "sampled") else f"{m.name}, {READINGS[m.reading]}"
        chosen = " (chosen by)" * (key == claim.reading)
        drawn = f", {m.continuations:,} continuations a side" if m.continuations else ""
        level = f"{milli(m.noise)}, " + p_value(m.p).replace(" ", "\u00a0")
        both = f"{milli(m.change.base)} → {milli(m.change.pruned)}"
        on = f"{m.prompts:,} test prompts{drawn}"
        rows.append((title + chosen, both, change(m.change), level, SHOWS[m.finding], on))
    head = ("measure", "unpruned → pruned, ×10⁻³", "change [95%]", "noise alone", "what it shows", "measured on")
    return Table(head, rows, list(found))


def task_table(found: Utility) -> Table:
    """Each task before and after, and what may be said of it."""
    rows: list[tuple[str, ...]] = []
    for name, task in found.tasks.items():
        a, nats = task.accuracy, task.likelihood
        low, high = a.interval
        rows.append(
            (
                TITLES.get(name, name),
                f"{len(task.items.items):,}",
                f"{task.items.chance:.1%}",
                f"{a.base:.1%} → {a.pruned:.1%}",
                f"{a.points:+.1f} [{low:+.1f}, {high:+.1f}]",
                f"{nats['change']:+.2f}",
                task.sentence,
            )
        )
    head = ("task", "items", "chance", "unpruned → pruned", "points [95%]", "nats", "what it shows")
    return Table(head, rows, list(found.tasks))


def explained_table(found: Explained) -> Table:
    """Each head's part of both changes, the one that lowers the gap most first, and the sums."""
    gap, nats = found.gap.times(1000), found.nats.times(1000)
    rows: list[tuple[str, ...]] = []
    for i in sorted(range(len(gap.values)), key=lambda i: (gap.values[i], i)):
        parts = (f"{p.values[i]:+.3f} [{p.intervals[i, 0]:+.3f}, {p.intervals[i, 1]:+.3f}]" for p in (gap, nats))
        rows.append((found.names[i], *parts, "spoils the set" if i in found.spoilers else ""))
    for title, values in (
        ("sum of the parts", (gap.values.sum(), nats.values.sum())),
        ("measured change", (gap.change, nats.change)),
        ("quadrature error", (gap.error, nats.error)),
    ):
        rows.append((title, *(f"{value:+.3f}" for value in values), ""))
    head = ("head", "gap, ×10⁻³ [95%]", "nats a token, ×10⁻³ [95%]", "what it shows")
    return Table(head, rows, [row[0] for row in rows])


def without_table(found: Explained) -> Table:
    """What leaving heads out changes, measured against the whole set."""
    rows: list[tuple[str, ...]] = []
    for some in found.without:
        low, high = some.gap.interval or (math.nan, math.nan)
        gap = f"{1000 * some.gap.change:+.3f} [{1000 * low:+.3f}, {1000 * high:+.3f}]"
        rows.append((some.left_out.format(), gap, ppl_change(some.perplexity)))
    return Table(("left out", "gap, ×10⁻³ [95%]", "perplexity [95%]"), rows)


def card_table(found: Scorecard) -> Table:
    """Every measure of the set that is stored, a line each."""
    rows = scorecard_text.frame(found)
    cells = [tuple(map(str, row)) for row in rows.itertuples(index=False)]
    return Table(tuple(map(str, rows.columns)), cells, [line.name for line in found.lines])


def milli(gap: float, digits: int = 2) -> str:
    """A toxicity in thousandths."""
    return f"{1000 * gap:.{digits}f}"


def change(found: Change) -> str:
    """A relative change with its interval."""
    return f"{percent(found.relative)} {interval(found.relative_interval)}"


def ppl_change(p: PerplexityChange) -> str:
    """The same of a perplexity; its interval is that of the nats."""
    ends = ", ".join(percent(math.expm1(min(x, 700.0)), 1) for x in p.interval)
    return f"{percent(p.relative, 1)} [{ends}]"


def noise(base: GapStats) -> str:
    """What shuffled groups give, and how often they match the gap."""
    p = p_value(base.noise_p).replace(" ", "\u00a0")
    return f"{milli(base.noise_gap)}, {p}"


def listed(items: Sequence[str], limit: int = 40) -> str:
    """Names in a row; the last ones are counted."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def counted(n: int, what: str = "neuron") -> str:
    """Such as `1 neuron` or `1,200 neurons`."""
    return f"{n:,} {what}" + "s" * (n != 1)


def _se(x: float) -> str:
    return f"{x:.2g}" if math.isfinite(x) else "not known"
