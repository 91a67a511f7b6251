"""Every step of the engine by the rules of CUDA and of MPS, to the numbers of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support import pretend
from tests.support.steps import STEPS, Bench, assert_same, small_worlds
from tests.support.tiny import KINDS, tiny_lm

QUICK = {("gpt2", "cuda"), ("gemma3_text", "mps")}
EVERY = [
    pytest.param((kind, rules), marks=[] if (kind, rules) in QUICK else pytest.mark.slow, id=f"{kind}-{rules}")
    for kind in KINDS
    for rules in ("cuda", "mps")
]


class Both(NamedTuple):
    cpu: Bench
    device: Bench


@pytest.fixture(scope="module", params=EVERY)
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """A tiny model on the CPU and on the pretended device."""
    kind, rules = request.param
    folder = tmp_path_factory.mktemp(kind)
    with pretend.rules(rules), small_worlds(folder):
        there = tiny_lm(kind, device=pretend.NAME)
        yield Both(Bench(tiny_lm(kind), folder / "cpu"), Bench(there, folder / "device"))


@pytest.mark.parametrize("step", STEPS)
def test_numbers_are_those_of_the_cpu(both: Both, step: str) -> None:
    assert both.device.lm.device.type == pretend.NAME
    assert_same(STEPS[step](both.device), STEPS[step](both.cpu))
