"""The command `compare`: methods of choosing heads on both sides of the prompts, and what may be claimed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Axis, MaxPpl, Model, MoreLimits, Reading, Scheduler, TaskItems, items_of
from fasp_core.cli.text import noted
from fasp_core.cli.utility import utility_text
from fasp_core.console import Report, number, percent, share, span, table
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet

if TYPE_CHECKING:
    from fasp_core.studies.compare.compare import Comparison
    from fasp_core.studies.compare.limits import Limits
    from fasp_core.studies.compare.outcome import Claim
    from fasp_core.studies.compare.plan import Candidate

SHOWN = 12  # candidates that the text lists


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared, and what is told of it."""

    axis: Axis
    reading: Reading = "neutral"
    max_ppl: MaxPpl = defaults.MAX_PPL
    within: Annotated[
        bool, typer.Option(help="Choose by the mean gap within templates, not by that over all of them.")
    ] = False
    outcome: Annotated[bool, typer.Option(help="The chosen set on test prompts: what may be claimed of it.")] = False
    written: Annotated[
        bool, typer.Option(help="With --outcome: also what both models go on to write, 20,000 continuations a side.")
    ] = False
    utility: Annotated[
        bool, typer.Option(help=f"With --outcome: also what the set takes from {', '.join(defaults.TASKS)}.")
    ] = False
    items: TaskItems = None
    methods: Annotated[
        str,
        typer.Option(
            help="With --outcome: also the best set of each of these methods side by side on test prompts, such as "
            "gains,hard-concrete,search,fasp,search+repair, or of all. What is not stored is measured."
        ),
    ] = ""
    run: Annotated[bool, typer.Option(help="Measure what is not stored; a stopped run goes on.")] = False
    alphas: Annotated[str, typer.Option(help="Shares of heads to measure too, such as .12,.16; with --run.")] = ""
    scheduler: Scheduler = None


def compare(options: Options, more_limits: MoreLimits, given: Model, progress: Report) -> Said:
    """Compare FASP with the baselines on both sides of the prompts, choose on validation, claim on test.

    Without --run only what is stored is read.
    """
    from fasp_core.data.prompts import resolve_axis
    from fasp_core.data.text import said
    from fasp_core.metrics.meters import left_out
    from fasp_core.studies.compare.compare import choose
    from fasp_core.studies.compare.curves import both_sides
    from fasp_core.studies.compare.limits import Meter

    limits = more_limits.with_ppl(options.max_ppl)
    if limits.beyond_ppl and not options.run:
        raise InputError("Limits beside perplexity have to be measured: add --run.")
    assert given.spec  # its device is looked up first
    resolve_axis(options.axis)
    if options.utility and not options.outcome:
        raise InputError("Tasks are asked of the set that is claimed: add --outcome to --utility.")
    methods = [name.strip() for name in options.methods.split(",") if name.strip()]
    if methods and not options.outcome:
        raise InputError("Methods are compared on test prompts: add --outcome to --methods.")
    if methods and options.within:
        raise InputError("Methods choose by the gap over all templates: leave out --within or --methods.")
    items_of(options.utility or bool(methods), options.items)
    more = _shares(options.alphas)
    if more and not options.run:
        raise InputError("Other shares of heads have to be measured: add --run to --alphas.")
    found = _made(given, options, more, progress) if options.run else _stored(given, options.axis, options.reading)
    fits = Meter(given.lm, limits, "valid", given.store, progress).fits if limits.beyond_ppl else None
    picked = choose(found, options.reading, options.max_ppl, within=options.within, fits=fits)
    if options.outcome:
        claim = _claim(given, options, limits, picked, progress).as_dict() | {"divided": _divided(given, options)}
        if methods:
            claim["methods"] = _methods(given, found, limits, methods, options.items, progress)
        return claim, lambda: outcome_text(claim)
    chosen = None
    if picked is not None:
        chosen = asdict(picked) | {"heads": PruneSet.from_flat(picked.heads, found.n_heads).format()}
    document = {
        "model": given.spec.source,
        "axis": options.axis,
        "reading": options.reading,
        "max_ppl": options.max_ppl,
        **({"limits": limits.as_dict()} if limits.beyond_ppl else {}),
        "within_templates": options.within,
        "plan": asdict(found.plan),
        "prompts": {side: m.rows.n for side, m in found.sides.items()},
        "notes": left_out(*map(found.plan.bias, found.sides)),
        "tokens": {side: m.nll[0].tokens for side, m in found.sides.items()},
        "windows": said(found.plan.text("test"), found.provenance),
        "unpruned": {side: _unpruned(found, side) for side in found.sides},
        "chosen": chosen,
        "candidates": both_sides(found).to_dict("records"),
        "provenance": found.provenance,
    }
    return document, lambda: comparison_text(document)


def _stored(given: Model, axis: str, reading: str) -> Comparison:
    from fasp_core.studies.compare.compare import stored

    found = stored(given.model_id, axis, reading, given.store, given.spec.source)
    if found is None:
        again = f"python -m fasp_core compare {given.named(axis)} --reading {reading} --run"
        raise InputError(f"No comparison of methods on {axis} ({reading}) is stored: run '{again}'.")
    return found


def _made(given: Model, options: Options, alphas: tuple[float, ...], progress: Report) -> Comparison:
    """The stored one, unless it lacks alphas or a search has found sets since."""
    from fasp_core.compute import cluster
    from fasp_core.data.text import SCORE_TEXT
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHAPE
    from fasp_core.scoring import entries
    from fasp_core.studies.compare import compare, searching

    axis, reading, source, store = options.axis, options.reading, given.spec.source, given.store
    found = compare.stored(given.model_id, axis, reading, store, source)
    finished = [f for f in searching.stored(given.model_id, axis, store, reading) if f.heads]
    size = BUILT_IN_SHAPE[0] * BUILT_IN_SHAPE[1] if source == BUILT_IN or not finished else given.lm.size
    searched = [searching.candidate(f, size) for f in finished]
    lacking = set(alphas) - set(found.plan.alphas if found is not None else ())
    if found is not None and not lacking and set(searched) <= set(found.candidates):
        return found
    plan = compare.Plan(axis, reading) if found is None else found.plan
    if lacking:
        plan = replace(plan, alphas=tuple(sorted({*alphas, *(() if found is None else plan.alphas)})))
    if found is not None and not lacking:
        ranked = [c for c in found.candidates if c not in searched]
    else:
        impacts = entries.best(SCORE_TEXT, BiasConfig(axis), given.model_id, source, store)
        if impacts is None:
            raise InputError(
                f"There are no scores to choose heads by: run 'python -m fasp_core score {given.named(axis)} --out "
                "scores' first."
            )
        ranked = plan.candidates(impacts)
    with cluster.connected(options.scheduler) as there:
        workers = cluster.workers_of(there, given.lm)
        return compare.run(given.lm, plan, [*ranked, *searched], store, progress, workers)


def _shares(text: str) -> tuple[float, ...]:
    """`.02,.04` as numbers."""
    try:
        shares = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        shares = (-1.0,)
    if not all(0 < share <= 1 for share in shares):
        raise InputError(f"'{text[:40]}' are no shares of heads: give --alphas .02,.04, each above 0 and at most 1.")
    return shares


def _claim(given: Model, options: Options, limits: Limits, picked: Candidate | None, progress: Report) -> Claim:
    """The claim on the set that validation chooses: the stored one, or with `run` measured."""
    from fasp_core.studies.compare import outcome, wider
    from fasp_core.studies.compare.limits import Meter
    from fasp_core.tasks import files, utility

    axis, reading, max_ppl = options.axis, options.reading, options.max_ppl
    items = items_of(options.utility, options.items if options.utility else None)
    if picked is None:
        raise InputError(
            f"No set within the limits ({limits.text()}) has a smaller validation gap than the unpruned model, so "
            "there is nothing to claim: raise --max-ppl, or the other limits."
        )
    again = (
        f"run 'python -m fasp_core compare {given.named(axis)} --reading {reading} {limits.options()} --outcome "
        f"{'--written ' * options.written}{f'--utility --items {items} ' * options.utility}--run'."
    )
    found = outcome.stored_claim(given.model_id, axis, reading, picked, given.store, given.spec.source)
    if found is None and not options.run:
        raise InputError(f"The set chosen on validation ({picked.title}) was not measured on test prompts: {again}")
    if found is None:
        found = outcome.measure_claim(given.lm, axis, picked, reading, max_ppl, given.store, progress)
    if options.written and not any(m.name == "written" for m in found.measures):
        if not options.run:
            raise InputError(f"What both models write was not measured for {picked.title}: {again}")
        wider.measure(given.lm, picked.heads, wider.Sample(axis), given.store, progress)
        found = outcome.stored_claim(given.model_id, axis, reading, picked, given.store, given.spec.source)
    assert found is not None
    if options.utility and not (found.able is not None and found.able.holds(defaults.TASKS, items)):
        samples = [files.sample(task, items) for task in defaults.TASKS]
        if not options.run:
            raise InputError(f"{items:,} items of each task were not asked of {picked.title}: {again}")
        heads = PruneSet.from_flat(picked.heads, found.n_heads)
        utility.utility(given.lm, heads, samples, 0, items, given.store, progress)
        found = replace(found, able=utility.stored(given.model_id, heads, given.store))
    if not limits.beyond_ppl:
        return found.under(limits)
    return found.under(limits, Meter(given.lm, limits, "test", given.store, progress).spent(picked.heads))


def _methods(
    given: Model, found: Comparison, limits: Limits, methods: list[str], items: int | None, progress: Report
) -> dict[str, Any]:
    """The best set of each method, on test prompts; of all methods also why some have none."""
    from fasp_core.studies.compare import front
    from fasp_core.studies.compare.methods import Bench, Sample

    bench = Bench(found, limits, given.model_id, lambda: given.lm, given.store, progress)
    sample = Sample(found.plan.axis, items=items or defaults.COST_ITEMS)
    if methods != [front.EVERY]:
        return bench.beside(methods, sample)
    every = front.measured(bench, sample)
    return every.methods | {name: {"reduction_pct": None, "note": why} for name, why in every.lacking.items()}


def _divided(given: Model, options: Options) -> dict[str, Any] | None:
    """What a set is worth that was chosen on half of the sentences and people, in this reading, if it was measured."""
    from fasp_core.studies.compare import settled

    plan = settled.Plan(options.axis, f"{options.reading} direct", max_ppl=options.max_ppl)
    try:
        found = settled.find(plan, given.model_id, given.store)
    except InputError:  # groups of a single descriptor cannot be divided
        return None
    return None if found is None else found.as_dict()


def _unpruned(comparison: Comparison, side: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"ppl": comparison.sides[side].nll[0].perplexity}
    for reading in comparison.readings:
        gap = comparison.base_gap(side, reading)
        out[reading] = {"gap": gap.gap, "interval": gap.interval, "noise": gap.noise_gap, "noise_p": gap.noise_p}
    return out


def comparison_text(d: dict[str, Any]) -> str:
    """The candidates of lowest validation gap within the limit, on both sides."""
    reading, chosen = d["reading"], d["chosen"]
    inside = [c for c in d["candidates"] if c["ppl_change_valid"] <= d["max_ppl"]]
    inside.sort(key=lambda c: float(c[f"gap_{reading}_valid"]))
    head = ["method", "gamma", "alpha", "heads"]
    for side in d["prompts"]:
        head += [f"ppl, {side}", f"gap {reading}, {side}", "95%"]
    rows = [head]
    for c in inside[:SHOWN]:
        seed = "" if c["seed"] != c["seed"] else f", seed {c['seed']:.0f}"
        row = [c["method"] + seed, "" if c["gamma"] != c["gamma"] else f"{c['gamma']:g}", f"{c['alpha']:g}"]
        row.append(str(c["heads"]))
        for side in d["prompts"]:
            ends = (c[f"low_{reading}_{side}"], c[f"high_{reading}_{side}"])
            row += [percent(c[f"ppl_change_{side}"]), percent(c[f"change_{reading}_{side}"]), span(ends, percent)]
        rows.append(row)
    base = [
        f"unpruned, {side}: gap {number(u[reading]['gap'])} (noise alone {number(u[reading]['noise'])}, p = "
        f"{number(u[reading]['noise_p'])}) on {d['prompts'][side]} prompts; perplexity {number(u['ppl'])} on "
        f"{d['tokens'][side]} tokens, in {d['windows']}"
        for side, u in d["unpruned"].items()
    ]
    picked = "Nothing within the limit lowers the validation gap."
    if chosen is not None:
        gamma = "" if chosen["gamma"] is None else f", gamma {chosen['gamma']:g}"
        picked = f"Chosen on validation: {chosen['method']}{gamma}, alpha {chosen['alpha']:g}: {chosen['heads']}"
    return "\n\n".join(
        [
            f"{d['model']}, axis {d['axis']}, {reading}: {len(d['candidates'])} candidates, {len(inside)} of them with "
            f"perplexity at most {share(d['max_ppl'])} up on validation; the {len(rows) - 1} of lowest validation gap",
            table(rows),
            "\n".join([*base, *noted(d)]),
            f"{picked}\nThe test columns are for looking: what may be claimed is measured with --outcome.",
        ]
    )


def outcome_text(d: dict[str, Any]) -> str:
    """The sentence, what stands against it, and every measure of the gap."""
    rows = [["test prompts", "n", "unpruned", "pruned", "reduction", "95% interval", "noise alone", "p"]]
    for name, m in d["measures"].items():
        ends = m["interval_pct"]
        rows.append(
            [
                name + (f" ({m['continuations']} continuations a side)" if m["continuations"] else ""),
                str(m["prompts"]),
                number(m["gap_base"]),
                number(m["gap_pruned"]),
                f"{m['reduction_pct']:.1f}%",
                "n/a" if ends is None else f"[{ends[0]:.1f}%, {ends[1]:.1f}%]",
                number(m["gap_noise"]),
                number(m["gap_noise_p"]),
            ]
        )
    gamma = "" if d["gamma"] is None else f", gamma {d['gamma']:g}"
    return "\n\n".join(
        [
            "\n".join([d["sentence"], *(f"Warning: {caution}" for caution in d["cautions"]), *noted(d)]),
            table(rows),
            f"{d['model']}, axis {d['axis']}; perplexity {number(d['ppl_base'])} -> {number(d['ppl_pruned'])} on "
            f"{d['tokens']} tokens, in {d['windows']}\n"
            f"{d['method']}{gamma}, alpha {d['alpha']:g}, chosen on {d['chosen_on']}:\n"
            f"{d['heads']}",
            "\n".join(_as_a_whole(d)),
            *([methods_text(d["methods"])] if "methods" in d else []),
            *([utility_text(d["utility"])] if "utility" in d else []),
        ]
    )


def methods_text(methods: dict[str, Any]) -> str:
    """A line a method, all on the same prompts, text and passages."""
    rows = [["method", "heads", "gap", "95%", "within templates", "perplexity", "of paragraphs", "LAMBADA", "95%"]]
    said = []
    for name, m in methods.items():
        if m["reduction_pct"] is None:
            said.append(f"{name}: {m['note']}")
            continue
        within = m.get("within_templates_reduction_pct")
        rows.append(
            [
                name,
                f"{m['heads_removed']} removed, {m['heads_scaled']} scaled",
                f"{-m['reduction_pct']:+.1f}%",
                _ends(m["interval_pct"], "%", -1),
                "n/a" if within is None else f"{-within:+.1f}%",
                f"{m['ppl_change_pct']:+.1f}%",
                f"{m['paragraphs_change_pct']:+.1f}%",
                f"{m['lambada_points']:+.1f} points",
                _ends(m["lambada_interval"], "", 1),
            ]
        )
        said.append(f"{name}: {m['chosen']}, on {m['prompts']:,} test prompts and {m['items']:,} passages")
    return "\n\n".join([table(rows), "\n".join(said)])


def _ends(ends: list[float] | None, unit: str, sign: int) -> str:
    if ends is None:
        return "n/a"
    low, high = sorted(sign * end for end in ends)
    return f"[{low:+.1f}{unit}, {high:+.1f}{unit}]"


def _as_a_whole(d: dict[str, Any]) -> list[str]:
    """The colour of the claim with what is wrong or missing, and that of the set that a half chose."""
    told = [("As a whole", d["claim"])]
    if d["divided"] is not None:
        new = f"Chosen on half of the sentences and people ({d['divided']['heads']}), on new ones"
        told.append((new, d["divided"]["claim"]))
    return [
        f"{what}, by {c['judges'][0]} of {c['judges'][1]} judges: {c['colour']}"
        + "".join(f"; {part}" for part in (*c["wrong"], *c["missing"]))
        for what, c in told
    ]
