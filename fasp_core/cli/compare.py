"""Of the command `compare`: what is stored or made, as one document, and as text for people."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasp_core.cli.text import noted
from fasp_core.console import Report, number, percent, span, table
from fasp_core.errors import InputError
from fasp_core.model.identity import ModelId
from fasp_core.model.tokens import option_of

if TYPE_CHECKING:
    from fasp_core.model.language_model import LanguageModel
    from fasp_core.model.spec import ModelSpec
    from fasp_core.storage.store import Store
    from fasp_core.studies.compare.compare import Candidate, Comparison
    from fasp_core.studies.compare.outcome import Claim

SHOWN = 12  # candidates that the text lists


def document(
    spec: ModelSpec,
    axis: str,
    reading: str,
    max_ppl: float,
    outcome_too: bool,
    run: bool,
    alphas: str,
    cache: Path | None,
    load: Callable[[ModelSpec, Path | None], LanguageModel],
    progress: Report,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """The comparison of an axis, or the claim on what it comes to.

    Parameters
    ----------
    max_ppl : relative rise of perplexity, at most: 0.1 is 10%.
    outcome_too : give the claim on the set that validation chooses, not the comparison.
    run : make what is not stored.
    alphas : shares to compare beside those that are stored, such as ".02,.04"; blank: none.
    load : of the model, called only if something is to be made or the weights are not known without it.
    scheduler : address of a cluster that measures the sets.

    Raises
    ------
    InputError
        A limit or a share that is none, no scores, and without `run` no comparison or claim.
    """
    from fasp_core.data.prompts import resolve_axis
    from fasp_core.data.text import said
    from fasp_core.metrics.meters import left_out
    from fasp_core.model import loading as models
    from fasp_core.storage.store import Store
    from fasp_core.studies.compare import outcome
    from fasp_core.studies.compare.curves import both_sides

    if not 0 < max_ppl < 10:
        raise InputError(f"A rise of perplexity of {max_ppl:g} is no limit: give --max-ppl .1 for at most 10%.")
    resolve_axis(axis)
    more = _shares(alphas)
    if more and not run:
        raise InputError("Other shares of heads have to be measured: add --run to --alphas.")
    store = Store(cache)
    loaded: list[LanguageModel] = []

    def model() -> LanguageModel:
        if not loaded:
            loaded.append(load(spec, cache))
        return loaded[0]

    model_id = models.known_id(spec) or model().id
    comparison = _comparison(spec, model_id, axis, reading, store, run, more, model, progress, scheduler)
    picked = outcome.choose(comparison, reading, max_ppl)
    if not outcome_too:
        return {
            "model": spec.source,
            "axis": axis,
            "reading": reading,
            "max_ppl": max_ppl,
            "plan": asdict(comparison.plan),
            "prompts": {side: len(m.groups) for side, m in comparison.sides.items()},
            "notes": left_out(*map(comparison.plan.bias, comparison.sides)),
            "tokens": {side: m.nll[0].tokens for side, m in comparison.sides.items()},
            "windows": said(comparison.plan.text("test"), comparison.provenance),
            "unpruned": {side: _unpruned(comparison, side) for side in comparison.sides},
            "chosen": None if picked is None else _as_dict(picked, comparison.n_heads),
            "candidates": both_sides(comparison).to_dict("records"),
            "provenance": comparison.provenance,
        }
    if picked is None:
        raise InputError(
            f"No set within {max_ppl:.0%} more perplexity has a smaller validation gap than the unpruned model, so "
            "there is nothing to claim: raise --max-ppl."
        )
    return _claim(spec, model_id, axis, reading, max_ppl, picked, store, run, model, progress).as_dict()


def _comparison(
    spec: ModelSpec,
    model_id: ModelId,
    axis: str,
    reading: str,
    store: Store,
    run: bool,
    alphas: tuple[float, ...],
    model: Callable[[], LanguageModel],
    progress: Report,
    scheduler: str | None,
) -> Comparison:
    """The stored one; with `run` made, and made anew for alphas that it lacks or if a search has found sets since."""
    from fasp_core.compute import cluster
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.scoring import entries
    from fasp_core.studies.compare import compare, searching

    found = compare.stored(model_id, axis, reading, store, spec.source)
    again = f"python -m fasp_core compare {_named(spec, axis)} --reading {reading} --run"
    if not run:
        if found is None:
            raise InputError(f"No comparison of methods on {axis} ({reading}) is stored: run '{again}'.")
        return found
    finished = searching.stored(model_id, axis, store, reading)
    searched = [searching.candidate(f, _size(spec, model)) for f in finished if f.heads]
    lacking = set(alphas) - set(found.plan.alphas if found is not None else ())
    if found is not None and not lacking and set(searched) <= set(found.candidates):
        return found
    plan = compare.Plan(axis, reading) if found is None else found.plan
    if lacking:
        plan = replace(plan, alphas=tuple(sorted({*alphas, *(() if found is None else plan.alphas)})))
    if found is not None and not lacking:
        ranked = [c for c in found.candidates if c not in searched]
    else:
        impacts = entries.best(searching.SCORE_TEXT, BiasConfig(axis), model_id, spec.source, store)
        if impacts is None:
            raise InputError(
                f"There are no scores to choose heads by: run 'python -m fasp_core score {_named(spec, axis)} --out "
                "scores' first."
            )
        ranked = compare.candidates(impacts, plan)
    with cluster.connected(scheduler) as there:
        workers = cluster.workers_of(there, model())
        return compare.run(model(), plan, [*ranked, *searched], store, progress, workers)


def _shares(text: str) -> tuple[float, ...]:
    """`.02,.04` as numbers."""
    try:
        shares = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        shares = (-1.0,)
    if not all(0 < share <= 1 for share in shares):
        raise InputError(f"'{text[:40]}' are no shares of heads: give --alphas .02,.04, each above 0 and at most 1.")
    return shares


def _named(spec: ModelSpec, axis: str) -> str:
    """Model and axis as options of a command."""
    return f"--model {shlex.quote(spec.source)}{option_of(spec.bos)} --axis {shlex.quote(axis)}"


def _size(spec: ModelSpec, model: Callable[[], LanguageModel]) -> int:
    from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHAPE

    layers, heads = BUILT_IN_SHAPE
    return layers * heads if spec.source == BUILT_IN else model().size


def _claim(
    spec: ModelSpec,
    model_id: ModelId,
    axis: str,
    reading: str,
    max_ppl: float,
    picked: Candidate,
    store: Store,
    run: bool,
    model: Callable[[], LanguageModel],
    progress: Report,
) -> Claim:
    from fasp_core.studies.compare import outcome

    found = outcome.stored_claim(model_id, axis, reading, picked, store, spec.source)
    if found is not None:
        return found
    if not run:
        raise InputError(
            f"The set chosen on validation ({picked.title}) was not measured on test prompts: run 'python -m fasp_core "
            f"compare {_named(spec, axis)} --reading {reading} --max-ppl {max_ppl:g} --outcome --run'."
        )
    return outcome.measure_claim(model(), axis, picked, reading, max_ppl, store, progress)


def _as_dict(candidate: Candidate, n_heads: int) -> dict[str, Any]:
    from fasp_core.heads.prune_set import PruneSet

    return asdict(candidate) | {"heads": PruneSet.from_flat(candidate.heads, n_heads).format()}


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
            f"perplexity at most {d['max_ppl']:.0%} up on validation; the {len(rows) - 1} of lowest validation gap",
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
                name + (f" ({m['continuations_a_side']} continuations a side)" if name == "sampled" else ""),
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
        ]
    )
