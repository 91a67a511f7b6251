"""Modules that are loaded when something of them is used, and torch's decorators of functions before that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
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
print("torch" in sys.modules, "pandas" in sys.modules)
from fasp_core.lazy import pd, torch
print(torch.ones(2).sum().item(), pd.Series([1, 2]).sum(), "torch" in sys.modules, "pandas" in sys.modules)
"""


def test_no_module_of_the_engine_imports_torch_or_pandas_before_they_are_used() -> None:
    told = subprocess.run([sys.executable, "-c", ALL], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False", "2.0", "3", "True", "True"], told.stderr


MAPS = """
import sys
from fasp_core.data.text import TextConfig
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.loading import known_id
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.entries import find
from fasp_core.storage.store import Store
from fasp_core.studies.additivity import additivity
store, identity, axis = Store("cache"), known_id(ModelSpec()), "race_ethnicity"
table = find(TextConfig(tokens=8192), BiasConfig(axis), identity, "built-in", store)
entry = additivity.find(additivity.Plan(axis), table, identity, store)
print(len(additivity.measured_changes(entry, "neutral")), "torch" in sys.modules, "pandas" in sys.modules)
"""


def test_the_first_maps_do_without_torch_and_pandas() -> None:
    """Scores, and the measured sets by which estimates are corrected."""
    told = subprocess.run([sys.executable, "-c", MAPS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["32", "False", "False"]


@pytest.mark.parametrize(
    ("processors", "set_by_hand", "told"), [(2, "", lazy.SPINS), (4, "", lazy.SPINS), (16, "", "None"), (2, "9", "9")]
)
def test_waiting_threads_sleep_where_processors_are_few(processors: int, set_by_hand: str, told: str) -> None:
    code = f"import os; os.cpu_count = lambda: {processors}\nimport fasp_core.lazy; print(os.getenv('GOMP_SPINCOUNT'))"
    env = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    env |= {"GOMP_SPINCOUNT": set_by_hand} if set_by_hand else {}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == told


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
