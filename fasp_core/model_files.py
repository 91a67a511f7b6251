"""What a model's files say of themselves, looked at before anything is built from them.

Loaders believe what a file says. A config of a few bytes can name a billion layers, an index can name files of other
folders, the header of a GGUF file an array that goes on long after the file has ended. So sizes are held against the
weights that are really there, and what a file can point at is looked at, before a loader sees it.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fasp_core.errors import InputError

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
MAX_JSON = 20_000_000  # bytes of a config or an index
MAX_HEADER = 100_000_000  # bytes of a header of tensors: what safetensors itself allows
MAX_PARTS = 5_000_000  # of the header of a GGUF file: a vocabulary of 262,144 tokens has below 2 million
MAX_LAYERS = 1_000
TIMES = 8  # numbers that a model may have for each that its files hold: 4-bit weights lie packed in 32-bit ones
SPARE = 100_000_000  # and beside that, for masks and tables that are computed
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_ATTENTION = (None, "eager", "sdpa", "flex_attention")


def check_folder(folder: Path, weights: Iterable[Path]) -> None:
    """That a folder's config fits the weights beside it, and that its files are its own.

    Raises
    ------
    InputError
        A file cannot be read, is no file, or says what cannot be; the message names it.
    """
    tensors = numbers = 0
    for path in weights:
        found = _shapes(path)
        tensors += len(found)
        numbers += sum(found)
    index = folder / INDEX
    if os.path.lexists(index):
        named = _object(index).get("weight_map")
        if not isinstance(named, dict) or not all(
            isinstance(n, str) and n == os.path.basename(n) for n in named.values()
        ):
            raise InputError(f"'{index}' names files outside its folder: use the model as it was published.")
    check_config(_object(folder / CONFIG), str(folder), tensors, numbers)


def check_config(config: Mapping[str, Any], name: str, tensors: int | None = None, numbers: int | None = None) -> None:
    """That a config, as it is written, asks for no more than there is.

    Parameters
    ----------
    tensors, numbers : how many the weights hold; None where that is not known yet.

    Raises
    ------
    InputError
        More layers than `MAX_LAYERS` or than tensors, a model far larger than its weights, or attention by code from
        elsewhere.
    """
    limit = MAX_LAYERS if tensors is None else min(MAX_LAYERS, tensors)
    kinds = config.get("attention_types")  # GPT-Neo: [[["global", "local"], 12]]
    layers = [config[key] for key in _LAYERS if key in config]
    layers += [pair[-1] for pair in kinds if isinstance(pair, list) and pair] if isinstance(kinds, list) else []
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= limit for n in layers):
        raise InputError(
            f"The config of '{name}' names layers that its weights do not have: use it as it was published."
        )
    if any(config.get(key) not in _ATTENTION for key in ("attn_implementation", "_attn_implementation")):
        raise InputError(f"The config of '{name}' asks for attention by code from elsewhere: remove that line of it.")
    if numbers is not None and (wanted := _wanted(config)) is not None and wanted > TIMES * numbers + SPARE:
        raise InputError(
            f"The config of '{name}' is that of a model of {wanted:,} numbers and its weights hold {numbers:,}: use "
            "both as they were published."
        )


def check_gguf(path: Path) -> None:
    """That the header of a GGUF file ends before the file does, and is that of the tensors in it.

    Raises
    ------
    InputError
        It does not, or it is no GGUF file.
    """
    from gguf import GGUFReader
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
        config = load_gguf_checkpoint(str(path))["config"]  # the header alone
        if not any(key in config for key in _LAYERS):  # a default would be taken
            raise ValueError("it does not say how many layers it has")
        check_config(config, path.name, len(found.tensors), sum(int(tensor.n_elements) for tensor in found.tensors))
    except InputError:
        raise
    except Exception as error:  # a reader raises whatever a damaged file makes it stumble over
        raise InputError(
            f"The file '{path.name}' could not be read as a GGUF language model: use a GGUF of a supported "
            f"architecture. ({error or type(error).__name__})"
        ) from error


def _wanted(config: Mapping[str, Any]) -> int | None:
    """Parameters and tables of the model that a config describes, built without memory; None if it cannot be built."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        settings = {name: value for name, value in config.items() if name not in ("model_type", "quantization_config")}
        built = AutoConfig.for_model(str(config.get("model_type")), **settings)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(built, trust_remote_code=False)
        return sum(int(t.numel()) for held in (model.parameters(), model.buffers()) for t in held)
    except Exception:  # the loader will say what is wrong with it
        return None


def _shapes(path: Path) -> list[int]:
    """Numbers in each tensor of a safetensors file."""
    if not path.is_file():  # also: a pipe, which would never end
        raise InputError(f"'{path}' is no file: give a folder with .safetensors weights.")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER, size):
                raise ValueError("its header goes on behind its end")
            header = json.loads(file.read(length))
        counts = [_count(held["shape"]) for name, held in header.items() if name != "__metadata__"]
        if sum(counts) > 2 * size:  # a number takes half a byte at least
            raise ValueError("it holds fewer numbers than its header says")
        return counts
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): check who may read it.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise InputError(f"'{path}' is no whole safetensors file: download it again. ({error})") from error


def _count(shape: list[int]) -> int:
    count = 1
    for n in shape:
        if not isinstance(n, int) or n < 0:
            raise ValueError("a tensor without a shape")
        count *= n
        if count > 2**50:
            raise ValueError("a tensor larger than any file")
    return count


def _object(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > MAX_JSON:
            raise ValueError(f"no file of at most {MAX_JSON // 1_000_000} MB")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): check who may read it.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is no JSON that can be read: download it again. ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"'{path}' holds no settings: download it again.")
    return found
