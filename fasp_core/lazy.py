"""torch, which takes a second to import: loaded when it is first used, so that help, choices and stored results do
without it.

`from fasp_core.lazy import torch, nn, functional` gives the modules of these names once something of them is asked for.
Decorators are used at once, so `no_grad` and `enable_grad` are here as well. Annotations need no module: `Tensor` is
imported for those who check types.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:
    import torch as torch
    from torch import nn as nn
    from torch.nn import functional as functional
else:

    class _Lazy:
        """A module by name."""

        def __init__(self, name: str) -> None:
            self.__name__ = name

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self.__name__), name)

    torch, nn, functional = map(_Lazy, ("torch", "torch.nn", "torch.nn.functional"))


def no_grad(function: Callable[P, T]) -> Callable[P, T]:
    """torch's decorator of that name: the function runs without gradients."""
    return _decorated("no_grad", function)


def enable_grad(function: Callable[P, T]) -> Callable[P, T]:
    """torch's decorator of that name: the function runs with gradients, whatever its caller does."""
    return _decorated("enable_grad", function)


def _decorated(name: str, function: Callable[P, T]) -> Callable[P, T]:
    made: list[Callable[P, T]] = []

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if not made:
            made.append(getattr(torch, name)()(function))
        return made[0](*args, **kwargs)

    return run
