"""Too little memory: how it is told, what is given back, and batches in halves."""

from __future__ import annotations

import gc
import sys
from typing import Any

from fasp_core.errors import InputError

_TEXTS = (  # of errors that say so in words alone, in lower case
    "out of memory",  # CUDA, MPS
    "not enough memory",  # CPU, on Windows
    "can't allocate memory",  # CPU, elsewhere
    "cublas_status_alloc_failed",
)


class OutOfMemory(InputError):
    """Not even the smallest batch fits into the device's memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def two(items: Any) -> list[Any]:
    """The halves of a sequence, an array or a tensor's rows; itself if it has a single item."""
    middle = len(items) // 2
    return [items[:middle], items[middle:]] if middle else [items]


def free() -> None:
    """Give back what a failed pass has left."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()
