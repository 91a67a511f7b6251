"""What stands in for a function is called as that function can be: otherwise a test passes where the program fails."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest


class Faithful(pytest.MonkeyPatch):
    """A `MonkeyPatch` whose stand-ins refuse arguments that what they stand for would refuse."""

    def setattr(self, target: Any, name: Any, *value: Any, **how: Any) -> None:  # type: ignore[override]
        real = None if isinstance(target, str) else getattr(target, name, None)
        told = inspect.isroutine(real) and not inspect.isbuiltin(real) and value
        if told and (inspect.isfunction(value[0]) or inspect.ismethod(value[0])):
            value = (_as_called(real, value[0]),)
        super().setattr(target, name, *value, **how)


def _as_called(real: Any, stand_in: Any) -> Any:
    signature = inspect.signature(real)

    @functools.wraps(stand_in)
    def called(*given: Any, **named: Any) -> Any:
        signature.bind(*given, **named)
        return stand_in(*given, **named)

    return called
