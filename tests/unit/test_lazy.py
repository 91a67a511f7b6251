"""Modules that are loaded when something of them is used, and torch's decorators of functions before that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch as real

from fasp_core import lazy

ROOT = Path(__file__).resolve().parents[2]
# every module of the package, but those that begin a program or belong to a test tool
ALL = """
import pkgutil, sys
import fasp_core
for found in pkgutil.walk_packages(fasp_core.__path__, "fasp_core."):
    if not found.name.endswith(("__main__", "tasks.harness")):
        __import__(found.name)
print("torch" in sys.modules)
from fasp_core.lazy import torch
print(torch.ones(2).sum().item(), "torch" in sys.modules)
"""


def test_no_module_of_the_engine_imports_torch_before_it_is_used() -> None:
    told = subprocess.run([sys.executable, "-c", ALL], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "2.0", "True"], told.stderr


def test_its_names_are_those_of_the_modules() -> None:
    assert lazy.torch.Tensor is real.Tensor
    assert lazy.nn.Linear is real.nn.Linear
    assert lazy.functional.cross_entropy is real.nn.functional.cross_entropy


def test_decorators_are_those_of_torch() -> None:
    @lazy.no_grad
    def without() -> bool:
        """Told."""
        return real.is_grad_enabled()

    @lazy.enable_grad
    def within() -> bool:
        return real.is_grad_enabled()

    @lazy.no_grad
    def each() -> Iterator[bool]:
        yield real.is_grad_enabled()
        yield real.is_grad_enabled()

    assert (without(), without.__doc__, without.__name__) == (False, "Told.", "without")
    with real.no_grad():
        assert within()
    assert real.is_grad_enabled()
    for inside in each():  # who takes what a generator yields keeps his own gradients meanwhile
        assert not inside
        assert real.is_grad_enabled()
