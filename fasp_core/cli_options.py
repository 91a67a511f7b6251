"""Options that several commands share, and what they stand for.

Everything is looked up and checked before a model is loaded. torch takes seconds to import, so it is imported late.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fasp_core.cli_show import log

if TYPE_CHECKING:
    from fasp_core.measures import BiasConfig
    from fasp_core.models import LanguageModel, ModelSpec
    from fasp_core.text import TextConfig

SplitName = Literal["valid", "test", "all"]

Axis = Annotated[str, typer.Option(help="A HolisticBias axis, such as gender_and_sex, or a CSV file (text,group).")]
Cache = Annotated[Path | None, typer.Option(help="Folder of stored results; else FASP_CACHE, else cache/.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, mps, or spread: over all GPUs, and main memory if need be.")
]
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
Scheduler = Annotated[
    str | None,
    typer.Option(envvar="FASP_SCHEDULER", help="Address of a Dask cluster that runs it, such as tcp://10.0.0.5:8786."),
]
Scored = Annotated[
    Literal["continuation", "prompt+continuation"], typer.Option(help="What the scorer reads (sampled measure).")
]
Scorer = Annotated[str, typer.Option(help="offline, or the hub id or folder of a toxicity classifier.")]
Seed = Annotated[int, typer.Option(help="Of the choice of prompts and of sampling.")]
Steps = Annotated[int, typer.Option(help="Positions that are looked at (expected measure); 1 is the next word.")]
Split = Annotated[SplitName, typer.Option(help="valid: to choose on; test: only to measure.")]
Text = Annotated[str, typer.Option(help="For perplexity: bold, wikitext-2 (from the hub) or a text file.")]
Tokens = Annotated[int, typer.Option(help="Tokens of that text.")]
Window = Annotated[int, typer.Option(help="Longest context in that text, in tokens.")]


def spec_of(model: str, dtype: str, device: str) -> ModelSpec:
    """The model that is meant; the device is looked up."""
    from fasp_core.devices import passed_over, pick_device
    from fasp_core.models import ModelSpec

    pick_device(device)
    if (note := passed_over(device)) is not None:
        log(note)
    return ModelSpec(model, dtype, device)


def bias_of(
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


def text_of(source: str, tokens: int, window: int) -> TextConfig:
    """The text for perplexity, looked up."""
    from fasp_core.text import TextConfig, load_text

    config = TextConfig(source, tokens, window, stride=window)
    load_text(source)
    return config


def load_model(spec: ModelSpec, cache: Path | None) -> LanguageModel:
    """Load it, and say so where that takes longer than usual."""
    from fasp_core import models as m

    if spec.source == m.BUILT_IN and not m.built_in_converted(cache):
        log("The built-in model is converted at first use: about half a minute.")
    return m.load(spec, cache)
