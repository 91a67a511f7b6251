"""What can go wrong while a model runs: too little memory for a batch, and numbers that are not finite.

A batch that does not fit is halved until it does. Rows do not see each other, so its results stay the same up to what
the size of a batch does to rounding. Numbers are checked after they were reduced, a few a prompt or block of text, so
that a check costs nothing; what is not finite stays so on its way there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fasp_core.errors import InputError

if TYPE_CHECKING:  # seconds to import
    from torch import Tensor

    from fasp_core.model.language_model import LanguageModel
    from fasp_core.model.packing import Pack
from fasp_core.model.memory import OutOfMemory, free, is_out_of_memory

B = TypeVar("B")
R = TypeVar("R")


class NotFinite(InputError):
    """A model gave a number that is infinite or none at all.

    Parameters
    ----------
    said : which model gave it, in what and where.
    mend : what to do.
    removed : the parts that were off, as `PruneSet.format` writes them.
    """

    def __init__(self, said: str, mend: str, removed: str = "") -> None:
        self._said, self._mend, self._removed = said, mend, removed
        shown = removed if len(removed) <= 60 else f"{removed[: removed.rindex(',', 0, 60)]} and others"
        super().__init__(f"{said}{f', with {shown} removed' if removed else ''}: {mend}.")

    def under(self, removed: str) -> NotFinite:
        """The same error, with the parts that were off."""
        return NotFinite(self._said, self._mend, self._removed or removed)


def in_halves(
    lm: LanguageModel, run: Callable[[B], R], batch: B, halves: Callable[[B], Sequence[B]], what: str
) -> list[R]:
    """`[run(batch)]`; where there is no memory for that, the results of its halves, or of theirs, in order.

    Raises `OutOfMemory` where a batch that cannot be divided does not fit either.

    Parameters
    ----------
    halves : of a batch, one after the other; a single one where it cannot be divided.
    what : is in a batch, for the message, such as "a window of text".
    """
    try:
        return [run(batch)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    free()  # behind the except clause: until there the error holds what the failed pass had made
    parts = halves(batch)
    if len(parts) < 2:
        smaller = "" if lm.model.dtype.itemsize < 4 else "load the model in bfloat16, "
        raise OutOfMemory(
            f"There is not enough memory on {lm.device} for even {what}: {smaller}take shorter texts or prompts, a "
            "smaller model or another device."
        )
    return [result for part in parts for result in in_halves(lm, run, part, halves, what)]


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU. Those of one device and precision come together, so that the program waits once."""
    import torch

    found = list(tensors)
    together: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, tensor in enumerate(found):
        if tensor.device.type != "cpu":
            together.setdefault((tensor.device, tensor.dtype), []).append(i)
    for places in together.values():
        flat = torch.cat([found[i].reshape(-1) for i in places]).cpu()
        for i, part in zip(places, flat.split([found[i].numel() for i in places]), strict=True):
            found[i] = part.view(found[i].shape)
    return found


def double(tensor: Tensor) -> Tensor:
    """The tensor in float64, where it is; on the CPU if its device has no float64 (MPS)."""
    try:
        return tensor.double()
    except TypeError:
        return tensor.cpu().double()


def require_finite(lm: LanguageModel, values: Any, what: str, inputs: Tensor | Pack | None = None) -> None:
    """Check numbers that were made with the model.

    Parameters
    ----------
    values : array or numbers.
    what : they are, such as "the NLL of a text".
    inputs : what the model was run on; where a number is not finite, it is run once more to find the block at fault.

    Raises
    ------
    NotFinite
        One of them is infinite or not a number. `masks.masked` adds which heads were off.
    """
    if np.isfinite(values).all():
        return
    dtype = str(lm.model.dtype).removeprefix("torch.")
    mend = "its weights may be damaged, so load it from another source"
    if dtype != "float32":
        mend = "load it in float32 or bfloat16" if dtype == "float16" else "load it in float32"
    where = "" if inputs is None else f", {_place(lm, inputs)}"
    raise NotFinite(f"{lm.name} in {dtype} gave numbers that are not finite in {what}{where}", mend)


def _place(lm: LanguageModel, inputs: Tensor | Pack) -> str:
    """Where in a pass, under whatever masks are on, numbers cease to be finite."""
    import torch

    seen: list[str] = []

    def look(name: str, x: Any) -> None:
        x = x[0] if isinstance(x, tuple) else x
        if not seen and isinstance(x, torch.Tensor) and not bool(torch.isfinite(x).all()):
            seen.append(name)

    given = {"input_ids": inputs.to(lm.device)} if isinstance(inputs, torch.Tensor) else inputs.inputs(lm)
    with torch.no_grad(), lm.lock, suppress(RuntimeError), ExitStack() as hooks:
        first = lm.blocks[0].register_forward_pre_hook(lambda _, args: look("before the first block", args))
        hooks.callback(first.remove)
        for i, block in enumerate(lm.blocks):
            handle = block.register_forward_hook(lambda _, args, out, i=i: look(f"first in block {i}", out))
            hooks.callback(handle.remove)
        look("after the last block", lm.model.base_model(**given, use_cache=False).last_hidden_state)
    return seen[0] if seen else "after the last block"
