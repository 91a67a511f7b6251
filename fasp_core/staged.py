"""A forward pass that can be resumed from any block.

Ablating a head in layer l changes nothing below l. So a base pass is kept at the input of one block, the ablated
variants run only the blocks from there on, and moving on by one layer costs one block. This is exact: the same
modules see the same numbers. Memory does not grow with the number of layers.

What a block needs beside the hidden states (masks, rotary tables, positions) is recorded from a real pass, so
there is no code per architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fasp_core.models import LanguageModel
from fasp_core.packing import Pack


class Staged:
    """A pack of token rows, held at the input of block `layer`.

    Attributes
    ----------
    layer : the block whose input is held; starts at 0.
    base : [rows, T, D] final hidden states (after the final norm) of the whole, unmasked pass.
    """

    def __init__(self, lm: LanguageModel, inputs: Tensor | Pack) -> None:
        self.lm = lm
        self.layer = 0
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        with lm.lock, self._recording():
            self.base: Tensor = _run(lm, inputs)
        self.hidden = self._first

    @contextmanager
    def _recording(self) -> Iterator[None]:
        def record(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kwargs = dict(kwargs)
            hidden = args[0] if args else kwargs.pop("hidden_states")
            if not self._calls:
                self._first: Tensor = hidden
            self._calls.append((args[1:], kwargs))

        handles = [b.register_forward_pre_hook(record, with_kwargs=True) for b in self.lm.blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _block(self, layer: int, hidden: Tensor) -> Tensor:
        args, kwargs = self._calls[layer]
        out: Any = self.lm.blocks[layer](hidden, *args, **kwargs)
        hidden = out[0] if isinstance(out, tuple) else out  # some blocks return their attention as well
        return hidden

    def advance(self) -> None:
        """Move the base pass on to the next block's input."""
        with self.lm.lock:
            self.hidden = self._block(self.layer, self.hidden)
        self.layer += 1

    def rest(self) -> Tensor:
        """[rows, T, D]: run from the held block to the end, under whatever masks are on."""
        with self.lm.lock:
            hidden = self.hidden
            for layer in range(self.layer, self.lm.n_layers):
                hidden = self._block(layer, hidden)
            for module in self.lm.architecture.tail_modules(self.lm.model):
                hidden = module(hidden)
        return hidden


def _run(lm: LanguageModel, inputs: Tensor | Pack) -> Tensor:
    given = inputs.inputs(lm) if isinstance(inputs, Pack) else {"input_ids": inputs.to(lm.device)}
    out: Tensor = lm.model.base_model(**given, use_cache=False).last_hidden_state
    return out


@torch.no_grad()
def final_hidden(lm: LanguageModel, inputs: Tensor | Pack) -> Tensor:
    """[rows, T, D]: one whole pass, under whatever masks are on."""
    with lm.lock:
        return _run(lm, inputs)
