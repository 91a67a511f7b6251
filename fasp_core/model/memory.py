"""Memory that is a model's own, and too little of it: how it is told, what is given back, and batches in halves."""

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


def hold(model: Any) -> None:
    """Copy a model's weights into memory of their own, where they lie in main memory.

    Loaders map files: who writes into a file would change the weights of a model that was loaded long before, and who
    cuts it would end the process. One tensor is copied at a time, and tensors that are one stay one.
    """
    own: dict[tuple[Any, ...], Any] = {}

    def copied(tensor: Any) -> Any:
        if tensor.device.type != "cpu":
            return tensor
        place = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        if place not in own:
            own[place] = tensor.clone()
        return own[place]

    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = copied(tensor.data)
    waits = [getattr(getattr(module, "_hf_hook", None), "weights_map", None) for module in model.modules()]
    waiting = {id(one.dataset): one.dataset.state_dict for one in waits if one is not None}  # of a spread model
    for held in waiting.values():
        held.update({name: copied(tensor) for name, tensor in held.items()})
