"""Noise of sampling: the counter-based hash against a generator of its own for each row, side by side.

A generator a row is what common noise was made with before (torch's Mersenne Twister, seeded by a hash of the row's
name), and NumPy's Philox generator is the usual counter-based one; both run on the CPU, one row after the other.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._common import about
from benchmarks._shapes import random_built_in
from fasp_core.forward.noise import gumbel, keys
from fasp_core.forward.sampling import GenerationConfig, sample_ids
from fasp_core.model.language_model import LanguageModel

VOCABULARIES = (49_152, 262_144)


def run(lm: LanguageModel | None = None, rows: int = 16, rounds: int = 5, steps: int = 4) -> dict[str, Any]:
    """Rows of noise a second by each way and vocabulary, and the share of noise in a step of sampling.

    Parameters
    ----------
    lm : default: random weights of the built-in model's shape.
    rows : continuations at once.
    rounds : times that each way runs, in turn; the median counts.
    steps : words of a continuation.
    """
    lm = lm or random_built_in()
    found: dict[str, dict[str, float]] = {}
    for vocab in VOCABULARIES:
        ways: dict[str, Callable[[], Any]] = {
            "hash": lambda vocab=vocab: gumbel(keys(0, ["x"], range(rows), 1)[:, 0], vocab, lm.device),
            "torch_generator": lambda vocab=vocab: _by_generators(rows, vocab).to(lm.device),
            "numpy_philox": lambda vocab=vocab: _by_philox(rows, vocab).to(lm.device),
        }
        seconds = _medians(lm, ways, rounds)
        found[str(vocab)] = {name: rows / s for name, s in seconds.items()}
    share, step_seconds = share_of_noise(lm, rows, steps, rounds)
    first = found[str(VOCABULARIES[0])]
    return {
        "rows_a_second": found,
        "ratio_to_torch_generator": first["hash"] / first["torch_generator"],
        "ratio_to_numpy_philox": first["hash"] / first["numpy_philox"],
        "step_seconds": step_seconds,
        "share_of_step": share,
        "rows": rows,
        **about(lm),
    }


def share_of_noise(lm: LanguageModel, rows: int, steps: int, rounds: int = 3) -> tuple[float, float]:
    """Noise's share of the time of sampling, and the seconds of a step with it."""
    vocab = int(lm.model.get_output_embeddings().weight.shape[0])
    ids = [[1 + i % 7, 2, 3] for i in range(rows)]
    names = [f"prompt {i}" for i in range(rows)]
    ways: dict[str, Callable[[], Any]] = {
        "sampling": lambda: sample_ids(lm, names, GenerationConfig(tokens=steps), ids=ids),
        "noise": lambda: [gumbel(keys(0, names, [0], steps)[:, step], vocab, lm.device) for step in range(steps)],
    }
    seconds = _medians(lm, ways, rounds)
    return seconds["noise"] / seconds["sampling"], seconds["sampling"] / steps


def _medians(lm: LanguageModel, ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, in turn in one run; what is under way on the device is waited for."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            torch.zeros(1, device=lm.device).item()
            if turn:
                taken[name].append(time.perf_counter() - began)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def _seeds(rows: int) -> list[int]:
    digests = (hashlib.sha256(f"0|{row}|x|0".encode()).digest()[:8] for row in range(rows))
    return [int.from_bytes(digest, "little") >> 1 for digest in digests]


def _by_generators(rows: int, vocab: int) -> Tensor:
    drawn = [torch.rand(vocab, generator=torch.Generator().manual_seed(seed)) for seed in _seeds(rows)]
    return -torch.log(-torch.log(torch.stack(drawn) * (1 - 2**-23) + 2**-24))


def _by_philox(rows: int, vocab: int) -> Tensor:
    drawn = [np.random.Generator(np.random.Philox(seed)).random(vocab, dtype=np.float32) for seed in _seeds(rows)]
    return torch.from_numpy(-np.log(-np.log(np.stack(drawn) * np.float32(1 - 2**-23) + np.float32(2**-24))))
