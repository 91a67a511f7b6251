"""What a GGUF file says of itself, looked at before a loader sees it, and what a loader passes over carried along."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from fasp_core.errors import InputError, first_line
from fasp_core.model.file_heads import check_start
from fasp_core.model.gguf_settings import ROPE_TENSORS, config_of
from fasp_core.model.model_files import LAYERS, check_config, check_loaded
from fasp_core.storage.stamps import unchanged
from fasp_core.storage.store import STALE_SECONDS

MAX_PARTS = 5_000_000  # of the header of a GGUF file: a vocabulary of 262,144 tokens has below 2 million
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_COMPUTED = re.compile(r"(attn_)?rot_embd|rope_freqs\.weight$")  # tables that every loader makes again
_CONVERTING = ".converting-"  # begins the names of unfinished folders
_LONG = 1_000  # of a list in the metadata: longer ones are vocabularies
# ways to split text before merging: those that GPT-2's tokenizer has, and those that also take digits one by one
_GPT2_SPLIT = ("default", "gpt-2", "gpt2", "phi-2", "olmo", "mpt", "jais", "roberta-bpe", "jina-es", "jina-de")
_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")


class Header(NamedTuple):
    """A GGUF file without its weights.

    Attributes
    ----------
    config : settings of the transformers config.
    keys : its metadata, without vocabularies.
    tensors : the names of its tensors.
    """

    config: dict[str, Any]
    keys: dict[str, Any]
    tensors: list[str]


def check_name(path: Path) -> None:
    """That a file is a whole model and no part of one, by its name.

    Raises InputError for a part.
    """
    if (part := _PART.search(path.name)) and int(part[2]) > 1:
        raise InputError(
            f"'{path.name}' is part {int(part[1])} of {int(part[2])} of a split GGUF, and parts are not put together "
            "here: merge them with llama.cpp's 'llama-gguf-split --merge' and name the merged file."
        )


def read_header(path: Path) -> Header:
    """The header of a GGUF file, which ends before the file does and is that of the tensors in it.

    Raises InputError where it does not, and as `config_of`.
    """
    check_start(path)
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    class Bounded(GGUFReader):
        """Where the file has ended the reader finds nothing, takes that for a number, and goes on."""

        parts = 0

        def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            found = super()._get(offset, dtype, count, override_order)
            self.parts += 1
            if len(found) < int(count) or self.parts > MAX_PARTS:
                raise ValueError(
                    "its header goes on behind its end" if len(found) < int(count) else "its header is too long"
                )
            return found

    try:
        found = Bounded(path)
        keys = {name: field.contents() for name, field in found.fields.items() if len(field.data) <= _LONG}
        if int(keys.get("split.count", 1)) > 1:
            raise InputError(
                f"'{path.name}' is a part of a split GGUF, and parts are not put together here: merge them with "
                "llama.cpp's 'llama-gguf-split --merge' and name the merged file."
            )
        if any(tensor.name in ROPE_TENSORS and tensor.n_elements > _LONG for tensor in found.tensors):
            raise ValueError("it holds too many factors of its rotary embeddings")
        tensors = {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).reshape(-1).tolist()
            if tensor.name in ROPE_TENSORS
            else None
            for tensor in found.tensors
        }
        read = load_gguf_checkpoint(str(path))["config"]  # the header alone
        if not any(key in read for key in LAYERS):  # a default would be taken
            raise ValueError("it does not say how many layers it has")
        numbers = sum(int(tensor.n_elements) for tensor in found.tensors)
        check_config(read, path.name, len(found.tensors), numbers)
        config = config_of(read, keys, tensors, path.name)
        check_config(config, path.name, len(found.tensors), numbers)
        return Header(config, keys, list(tensors))
    except InputError:
        raise
    except Exception as error:  # a reader raises whatever a damaged file makes it stumble over
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """What is said of a file that a reader stumbled over."""
    return InputError(
        f"The file '{path.name}' could not be read as a GGUF language model: use a GGUF of a supported architecture. "
        f"({first_line(error)})"
    )


def check_placed(tensors: Iterable[str], config: Any) -> None:
    """That the model of a transformers config has a place for each tensor of the file; loaders pass over others.

    Raises ValueError where it has not.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import TensorProcessor, get_gguf_hf_weights_map

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    placed = get_gguf_hf_weights_map(model, TensorProcessor())
    if left := [
        name for name in tensors if name not in placed and name not in ROPE_TENSORS and not _COMPUTED.search(name)
    ]:
        raise ValueError(f"it holds {min(left)}, for which a model of the type {config.model_type} has no place")


def finish_tokenizer(tokenizer: Any, keys: dict[str, Any], name: str) -> None:
    """What the file says of its tokenizer and transformers passes over.

    Raises
    ------
    InputError
        It splits text in a way that is not known here.
    """
    from tokenizers import Regex, decoders, pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    backend = tokenizer.backend_tokenizer
    kind, arch = keys.get("tokenizer.ggml.model"), keys.get("general.architecture")
    if kind == "gpt2":
        way = keys.get("tokenizer.ggml.pre", "default")
        if way in _DIGITS:
            backend.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
        elif way not in _GPT2_SPLIT and way not in GGUF_PRE_TOKENIZER_SPLITS:
            raise InputError(
                f"The GGUF file '{name}' splits text in the way '{way}' (tokenizer.ggml.pre), which is not known here: "
                "use the model's safetensors and tokenizer.json."
            )
    elif kind == "llama" and arch == "llama" and keys.get("tokenizer.ggml.add_space_prefix") is False:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def ends(keys: dict[str, Any]) -> list[int]:
    """Every token that the file calls an end: of text, of a turn, of a message."""
    found = [keys.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    return list(dict.fromkeys(int(token) for token in found if token is not None))


def _sweep(models: Path) -> None:
    """Remove what a conversion that was killed has left, a day ago or longer."""
    for path in models.glob(f"{_CONVERTING}*"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def convert(path: Path, folder: Path, source_hash: str, finish: bool = True, since: str = "") -> None:
    """The safetensors form of a GGUF file, in float32, with a seal; whole or not at all.

    Raises as `read_header` and `unchanged`.

    Parameters
    ----------
    finish : whether the tokenizer gets what transformers passes over.
    since : the file's `stamp` before it was hashed.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    with unchanged(path, since):
        header = read_header(path)
        try:
            config = AutoConfig.for_model(**header.config)
            check_placed(header.tensors, config)
            loaded, loading = AutoModelForCausalLM.from_pretrained(
                **source, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
            check_loaded(loading)
            tokenizer = AutoTokenizer.from_pretrained(**source)
        except Exception as error:  # a reader raises whatever a damaged file makes it stumble over
            raise unreadable(path, error) from error
        if finish:
            finish_tokenizer(tokenizer, header.keys, path.name)
        settings = loaded.config.to_dict()
        # a model that remembers its quantized origin cannot be saved
        settings.pop("quantization_config", None)
        clean = type(loaded)(type(loaded.config).from_dict(settings))
        clean.load_state_dict(loaded.state_dict())
        if len(stops := ends(header.keys)) > 1:
            clean.generation_config.eos_token_id = stops
    _sweep(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=_CONVERTING, dir=folder.parent))
    try:
        clean.save_pretrained(work, safe_serialization=True)
        tokenizer.save_pretrained(work)
        sizes = {f.name: f.stat().st_size for f in sorted(work.iterdir())}
        seal = {"source": path.name, "source_sha256": source_hash, "files": sizes}
        (work / "source.json").write_text(json.dumps(seal, indent=2))
        shutil.rmtree(folder, ignore_errors=True)  # an unfinished or foreign one
        os.rename(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
