"""Options that several commands share, and what they stand for.

Everything is looked up and checked before a model is loaded. torch takes seconds to import, so it is imported late.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fasp_core.console import log
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.data.text import TextConfig
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.model.identity import ModelId
    from fasp_core.model.language_model import LanguageModel
    from fasp_core.model.spec import ModelSpec

WINDOW = 512  # tokens, where the model takes as many and no other number is named
SplitName = Literal["valid", "test", "all"]

Axis = Annotated[str, typer.Option(help="A HolisticBias axis, such as gender_and_sex, or a CSV file (text,group).")]
Bos = Annotated[
    Literal["auto", "yes", "no"],
    typer.Option(help="A beginning token before prompts and windows of text; auto: as the model's tokenizer does."),
]
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
Model = Annotated[
    str, typer.Option(help="built-in, a hub id (org/name@revision/folder), a local folder or a .gguf file.")
]
Prompts = Annotated[int, typer.Option("--prompts", help="At least this many, the same number from every group.")]
Samples = Annotated[int, typer.Option(help="Continuations a prompt (sampled measure).")]
Scheduler = Annotated[
    str | None,
    typer.Option(envvar="FASP_SCHEDULER", help="Address of a Dask cluster that runs it, such as tcp://10.0.0.5:8786."),
]
Scored = Annotated[
    Literal["continuation", "prompt+continuation"], typer.Option(help="What the scorer reads (sampled measure).")
]
Scorer = Annotated[
    str, typer.Option(help="offline, or a toxicity classifier of the hub (org/name@revision) or folder.")
]
ScorerReading = Annotated[
    Literal["sigmoid", "softmax"] | None,
    typer.Option(help="Labels of the classifier independent (sigmoid) or competing; else as its config says."),
]
Seed = Annotated[int, typer.Option(help="Of the choice of prompts and of sampling.")]
Steps = Annotated[int, typer.Option(help="Positions that are looked at (expected measure); 1 is the next word.")]
Split = Annotated[SplitName, typer.Option(help="valid: to choose on; test: only to measure.")]
Text = Annotated[str, typer.Option(help="For perplexity: bold, wikitext-2 (from the hub) or a text file.")]
Tokens = Annotated[int, typer.Option(help="Tokens of that text.")]
Window = Annotated[
    int | None, typer.Option(help="Tokens of a window of that text; else 512, or as many as the model takes.")
]


def spec_of(model: str, dtype: str, device: str, bos: str = "auto") -> ModelSpec:
    """The model that is meant; the device is looked up."""
    from fasp_core.model.devices import passed_over, pick_device
    from fasp_core.model.spec import ModelSpec

    pick_device(device)
    if (note := passed_over(device)) is not None:
        log(note)
    return ModelSpec(model, dtype, device, bos)


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
    reading: str | None = None,
) -> BiasConfig:
    """The config, its prompts and its scorer looked up before a model is loaded."""
    from fasp_core.forward.sampling import GenerationConfig
    from fasp_core.metrics.meters import BiasConfig, scorer_of

    generation = GenerationConfig(samples, length, seed=seed)
    config = BiasConfig(axis, split, n_prompts, seed, measure, scorer, label, scored, generation, steps, reading)
    config.prompts()
    for note in getattr(scorer_of(config), "notes", ()):
        log(note)
    return config


def text_of(source: str, tokens: int, window: int | None) -> TextConfig:
    """The text for perplexity, looked up; in windows of 512 tokens where no other number is named."""
    from fasp_core.data.text import TextConfig, load_text

    size = WINDOW if window is None else window
    config = TextConfig(source, tokens, size, stride=size)
    load_text(source)
    return config


def fitted(text: TextConfig, window: int | None, model_id: ModelId) -> TextConfig:
    """The text in windows that fit the model. InputError as `window_within`."""
    from fasp_core.data.text import fitting

    window_within(window, model_id.longest, f" after {model_id.bos}" if model_id.begun else "")
    return fitting(text, model_id.longest)


def window_within(window: int | None, longest: int | None, after: str = "") -> int:
    """The window that was named, else 512 tokens or as many as a model takes.

    Raises
    ------
    InputError
        A window was named, and the model does not take so many tokens.
    """
    if window is None or longest is None:
        return window or min(WINDOW, longest or WINDOW)
    if window > longest:
        raise InputError(
            f"Windows of {window:,} tokens do not fit: this model takes at most {longest:,}{after}. Name no more with "
            "--window, or leave it out."
        )
    return window


def load_model(spec: ModelSpec, cache: Path | None) -> LanguageModel:
    """Load it, and say so where that takes longer than usual."""
    from fasp_core.model import loading as m

    if spec.source == m.BUILT_IN and not m.built_in_converted(cache):
        log("The built-in model is converted at first use: about half a minute.")
    lm = m.load(spec, cache)
    for note in lm.notes:
        log(note)
    return lm
