"""Passes of a model in a higher precision, without a copy of it: each module's weights are made so while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fasp_core.lazy import nn, torch
from fasp_core.model.passes import double

if TYPE_CHECKING:
    from torch import Tensor

_Own = tuple[dict[str, Any], dict[str, Any]]  # a module's own parameters and buffers


@contextmanager
def computing_in(dtype: torch.dtype, model: nn.Module) -> Iterator[None]:
    """In the `with` block `model` computes in `dtype`, with the numbers that its weights hold.

    A module keeps its device, or comes to the CPU if that has no float64; the inputs are to lie at `place_of`. Never
    more than one module's weights exist twice. Whoever else uses the model meanwhile is given this precision too, so
    hold its lock.
    """
    kept: dict[nn.Module, _Own] = {}

    def begin(module: nn.Module, _args: Any) -> None:
        kept[module] = dict(module._parameters), dict(module._buffers)
        for own, given in zip(_own(module), kept[module], strict=True):
            own.update({name: _converted(t, dtype) for name, t in given.items() if t is not None})

    def end(module: nn.Module, *_: Any) -> None:
        for own, given in zip(_own(module), kept.pop(module), strict=True):
            own.update(given)

    handles: list[Any] = []
    try:
        for module in model.modules():
            if any(True for _ in (*module.parameters(False), *module.buffers(False))):
                handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in list(kept):  # a pass that failed
            end(module)


def _own(module: nn.Module) -> _Own:
    return module._parameters, module._buffers


def place_of(device: torch.device, dtype: torch.dtype) -> torch.device:
    """Where passes in `dtype` run of what lies on a device: there, or on the CPU if it has no float64."""
    return double(torch.empty(0, device=device)).device if dtype == torch.float64 else device


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.to(place_of(tensor.device, dtype))
    return double(tensor) if dtype == torch.float64 else tensor.to(dtype)
