"""torch and pandas, which take a second to import: loaded when they are first used, so that help, choices and the first
maps do without them.

`from fasp_core.lazy import torch, nn, functional, pd` gives these modules once something of them is asked for.
Decorators are used at once, so `no_grad` and `enable_grad` are here as well. Annotations need no module: `Tensor` is
imported for those who check types.

While torch's threads wait for each other they keep their processors busy, with GNU's OpenMP for some milliseconds.
Where there are few processors a browser and the page's own thread need them: there they soon sleep (`GOMP_SPINCOUNT`).
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

FEW = 4  # processors
SPINS = "3000"  # looks of a waiting thread before it sleeps: some tens of microseconds, as long as a small step takes

P = ParamSpec("P")
T = TypeVar("T")

if (os.cpu_count() or 1) <= FEW:
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is loaded

if TYPE_CHECKING:
    import pandas as pd
    import torch as torch
    from torch import nn as nn
    from torch.nn import functional as functional
else:

    class _Lazy:
        """A module, by what imports it."""

        def __init__(self, load: Callable[[], Any]) -> None:
            self._load = load

        def __getattr__(self, name: str) -> Any:
            return getattr(self._load(), name)

    def _pandas() -> Any:
        import pandas

        return pandas

    def _torch() -> Any:
        import torch

        return torch

    pd = _Lazy(_pandas)
    torch = _Lazy(_torch)
    nn = _Lazy(lambda: _torch().nn)
    functional = _Lazy(lambda: _torch().nn.functional)


def no_grad(function: Callable[P, T]) -> Callable[P, T]:
    """torch's decorator of that name: the function runs without gradients."""
    return _decorated("no_grad", function)


def enable_grad(function: Callable[P, T]) -> Callable[P, T]:
    """torch's decorator of that name: the function runs with gradients, whatever its caller does."""
    return _decorated("enable_grad", function)


def _decorated(name: str, function: Callable[P, T]) -> Callable[P, T]:
    if inspect.isgeneratorfunction(function):  # torch leaves what takes its values as it is meanwhile

        @functools.wraps(function)
        def each(*args: P.args, **kwargs: P.kwargs) -> T:
            found: T = getattr(torch, name)()(function)(*args, **kwargs)
            return found

        return each

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with getattr(torch, name)():
            return function(*args, **kwargs)

    return run
