"""A forward pass that can be resumed from any block.

Ablating a head in layer l changes nothing below l. So a base pass is kept at the input of one block, the ablated
variants run only the blocks from there on, and moving on by one layer costs one block. This is exact: the same
modules see the same numbers. Memory does not grow with the number of layers.

What a block needs beside the hidden states (masks, rotary tables, positions) is recorded from a real pass, so
there is no code per architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

from fasp_core.lazy import enable_grad, nn, no_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack

if TYPE_CHECKING:
    from torch import Tensor

Visit: TypeAlias = (
    "Callable[[int, Tensor], None]"  # (layer, input of its block), at last (L, final hidden states): [rows, T, D]
)


class RecordedPass:
    """The way of a pack of token rows through the blocks, recorded from a whole pass under whatever masks are on.

    `visit` is called in that pass with the input of each block before it runs, and with the final hidden states.
    """

    def __init__(self, lm: LanguageModel, inputs: Tensor | Pack, visit: Visit) -> None:
        self.lm = lm
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._rows = 0
        self._wider: dict[int, Tensor] = {}  # while repeated rows run: what blocks were given, by its id

        def record(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kwargs = dict(kwargs)
            hidden = args[0] if args else kwargs.pop("hidden_states")
            self._rows = len(hidden)
            visit(len(self._calls), hidden)
            self._calls.append((args[1:], kwargs))

        with lm.lock:
            with ExitStack() as hooks:
                for block in lm.blocks:
                    hooks.callback(block.register_forward_pre_hook(record, with_kwargs=True).remove)
                final = _run(lm, inputs)
            visit(lm.n_layers, final)

    def block(self, layer: int, hidden: Tensor) -> Tensor:
        """[rows, T, D]: one block's output.

        Parameters
        ----------
        hidden : its input, of the recorded rows or of those repeated: all of them, one time after the other.
        """
        args, kwargs = self._calls[layer]
        if (times := len(hidden) // self._rows) > 1:
            args = tuple(self._repeated(x, times) for x in args)
            kwargs = {name: self._repeated(x, times) for name, x in kwargs.items()}
        out: Any = self.lm.blocks[layer](hidden, *args, **kwargs)
        hidden = out[0] if isinstance(out, tuple) else out  # some blocks return their attention as well
        return hidden

    def _repeated(self, given: Any, times: int) -> Any:
        """What a block was given, for repeated rows. What is the same for all rows has a single one, or no rows."""
        if isinstance(given, tuple):
            return tuple(self._repeated(x, times) for x in given)
        if not isinstance(given, torch.Tensor) or given.ndim < 2 or len(given) != self._rows or self._rows == 1:
            return given
        if id(given) not in self._wider:  # blocks share what they are given, and the record keeps it alive
            same = given.stride(0) == 0  # for all rows, as masks mostly are: no copy
            rest = given.shape[1:]
            self._wider[id(given)] = (
                given[:1].expand(times * self._rows, *rest) if same else given.repeat(times, *[1] * len(rest))
            )
        return self._wider[id(given)]

    def resume(self, layer: int, hidden: Tensor, visit: Visit = lambda layer, hidden: None) -> Tensor:
        """[rows, T, D]: from the input of block `layer` to the end, under whatever masks are on."""
        with self.lm.lock:
            try:
                for at in range(layer, self.lm.n_layers):
                    visit(at, hidden)
                    hidden = self.block(at, hidden)
            finally:
                self._wider.clear()
            for module in self.lm.architecture.tail_modules(self.lm.model):
                hidden = module(hidden)
            hidden = hidden.to(self.lm.device)
            visit(self.lm.n_layers, hidden)
        return hidden


class ResumablePass:
    """A pack of token rows, held at the input of block `layer`.

    Attributes
    ----------
    batch : the token rows; a pack's lie on the model's device.
    layer : the block whose input is held.
    base : [rows, T, D] final hidden states (after the final norm) of the whole, unmasked pass.
    """

    def __init__(self, lm: LanguageModel, inputs: Tensor | Pack, layer: int = 0) -> None:
        self.lm = lm
        self.batch = inputs.on(lm.device) if isinstance(inputs, Pack) else inputs
        self.layer = layer
        ends: dict[int, Tensor] = {}

        def visit(at: int, hidden: Tensor) -> None:
            if at in (layer, lm.n_layers):
                ends[at] = hidden

        self._course = RecordedPass(lm, inputs, visit)
        self.hidden, self.base = ends[layer], ends[lm.n_layers]

    def let_go(self) -> None:
        """Free the memory of what is held; no use after that."""
        del self.hidden, self._course

    def advance(self) -> None:
        """Move the base pass on to the next block's input."""
        with self.lm.lock:
            self.hidden = self._course.block(self.layer, self.hidden)
        self.layer += 1

    def resume(self, times: int = 1) -> Tensor:
        """[times * rows, T, D]: run from the held block to the end, under whatever masks are on.

        Parameters
        ----------
        times : how often the rows run, side by side: under gates by row, each time with others.
        """
        return self._course.resume(self.layer, self.hidden if times == 1 else self.hidden.repeat(times, 1, 1))


def _run(lm: LanguageModel, inputs: Tensor | Pack) -> Tensor:
    given = inputs.inputs(lm) if isinstance(inputs, Pack) else {"input_ids": inputs.to(lm.device)}
    out: Tensor = lm.model.base_model(**given, use_cache=False).last_hidden_state
    return out


@enable_grad
def hidden_with_gradient(lm: LanguageModel, inputs: Tensor | Pack) -> Tensor:
    """[rows, T, D] of one whole pass, differentiable in the gates that are on; its graph holds all activations."""
    with lm.lock:
        return _run(lm, inputs)


@no_grad
def final_hidden(lm: LanguageModel, inputs: Tensor | Pack) -> Tensor:
    """[rows, T, D]: one whole pass, under whatever masks are on."""
    with lm.lock:
        return _run(lm, inputs)
