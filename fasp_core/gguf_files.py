"""What a GGUF file says of itself, looked at before a loader sees it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fasp_core.errors import InputError
from fasp_core.file_heads import check_start
from fasp_core.model_files import LAYERS, check_config

MAX_PARTS = 5_000_000  # of the header of a GGUF file: a vocabulary of 262,144 tokens has below 2 million
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


def check_name(path: Path) -> None:
    """That a file is a whole model and no part of one, by its name.

    Raises
    ------
    InputError
        It is a part.
    """
    if (part := _PART.search(path.name)) and int(part[2]) > 1:
        raise InputError(
            f"'{path.name}' is part {int(part[1])} of {int(part[2])} of a split GGUF, and parts are not put together "
            "here: merge them with llama.cpp's 'llama-gguf-split --merge' and name the merged file."
        )


def check_gguf(path: Path) -> None:
    """That the header of a GGUF file ends before the file does, and is that of the tensors in it.

    Raises
    ------
    InputError
        It does not, or it is no GGUF file.
    """
    check_start(path)
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
        if not any(key in config for key in LAYERS):  # a default would be taken
            raise ValueError("it does not say how many layers it has")
        check_config(config, path.name, len(found.tensors), sum(int(tensor.n_elements) for tensor in found.tensors))
    except InputError:
        raise
    except Exception as error:  # a reader raises whatever a damaged file makes it stumble over
        raise InputError(
            f"The file '{path.name}' could not be read as a GGUF language model: use a GGUF of a supported "
            f"architecture. ({error or type(error).__name__})"
        ) from error
