"""Noise of sampling: a counter-based hash of (seed, prompt, draw, step, word), made where the logits are.

Nothing is drawn in an order, so any part can be made anywhere by itself (Salmon, Moraes, Dror and Shaw, Parallel random
numbers: as easy as 1, 2, 3, SC 2011). The names are hashed once, on the CPU: SHA-256 of seed, draw and prompt begins a
SplitMix64 sequence (Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014), whose number
`step` is the key of a step. On the device each word is mixed with that key in 32-bit integers: two multiplications
between xors of shifted copies, with constants that a search found to have the least bias in how input bits turn output
bits over (C. Wellons, hash-prospector, its `16 21f0aaad 15 d35a2d97 15`).

Uniforms are the same bits on every device: integer arithmetic that wraps around, and float32 operations that IEEE 754
rounds in one way. Gumbel noise is the same up to the rounding of a device's logarithm, which is far below what logits
differ by between devices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2  # part of the keys of sampled results; 1, no part of any, was torch's generator on the CPU
CELLS = {"cpu": 1 << 18}  # values made at once: what a cache holds
MANY = 1 << 24  # elsewhere: 64 MB
_GOLDEN = 0x9E3779B97F4A7C15
_SHIFTS = (16, 15, 15)
_FACTORS = (0x21F0AAAD, 0xD35A2D97 - (1 << 32))  # as signed numbers
_SCALE = (1 - 2**-24) / 2**31  # keeps uniforms below 1


def before(key: Mapping[str, Any]) -> dict[str, Any]:
    """The key that the same experiment had with the noise of version 1.

    What lies there is as good: other draws from the same distributions, both models' with the same noise. It is read
    whole or not at all; rows of two noises are never compared.
    """
    return {name: value for name, value in key.items() if name != "noise"}


def version(key: Mapping[str, Any]) -> int:
    """Of the noise of a stored result."""
    return int(key.get("noise", 1))


def keys(seed: int, prompts: Sequence[str], draws: Sequence[int], steps: int) -> Tensor:
    """[prompts * draws, steps, 2] int32 keys, on the CPU; draws of a prompt stand side by side."""
    names = [f"{seed}|{draw}|{prompt}".encode("utf-8", "surrogatepass") for prompt in prompts for draw in draws]
    begin = np.frombuffer(b"".join(hashlib.sha256(name).digest()[:8] for name in names), dtype="<u8")
    z = begin[:, None] + np.arange(1, steps + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return torch.from_numpy(z.astype("<u8").view("<i4").astype(np.int32).reshape(len(names), steps, 2))


def gumbel(key: Tensor, vocab: int, device: torch.device | str) -> Tensor:
    """[rows, vocab] float32 standard Gumbel noise on `device`, a pure function of each row's key [rows, 2]."""
    where = torch.device(device)
    maker = where if _agrees(where) else torch.device("cpu")
    words = words_of(vocab, maker)
    out = torch.empty((len(key), vocab), device=where)
    size = max(1, CELLS.get(where.type, MANY) // vocab)
    for part, rows in zip(key.to(maker).split(size), out.split(size), strict=True):
        rows.copy_(bits(part, words)).add_(0.5).mul_(-_SCALE)  # minus a uniform
        rows.log1p_().neg_().log_().neg_()  # -log(-log(1 - u)): large noise, which decides, is of small u, the finer
    return out


def words_of(vocab: int, device: torch.device | str) -> Tensor:
    """[vocab] int32: a mixed number for each word."""
    return _mix(torch.arange(vocab, dtype=torch.int32, device=device))


def bits(key: Tensor, words: Tensor) -> Tensor:
    """[rows, words] int32 in [0, 2^31)."""
    return _mix(words ^ key[:, :1], key[:, 1:]).bitwise_and_(0x7FFFFFFF)


def uniforms(key: Tensor, words: Tensor) -> Tensor:
    """[rows, words] float32 in (0, 1): (bits + 1/2) / 2^31, the largest a little below 1."""
    return bits(key, words).float().add_(0.5).mul_(_SCALE)


def _mix(x: Tensor, key: Tensor | None = None) -> Tensor:
    """In place, int32: each bit turns over about half of the others. The key is added half-way."""
    for i, shift in enumerate(_SHIFTS):
        x ^= (x >> shift).bitwise_and_((1 << (32 - shift)) - 1)  # the sign is shifted in, and taken away
        if i < len(_FACTORS):
            x *= _FACTORS[i]
        if i == 0 and key is not None:
            x += key
    return x


@cache
def _agrees(device: torch.device) -> bool:
    """Whether a device makes the CPU's bits. One that does not, as some integer operations of MPS once went through
    float32, gets what the CPU makes."""
    if device.type == "cpu":
        return True
    key = keys(0, ["a", "b"], [0], 2)[:, 1]
    there = uniforms(key.to(device), words_of(4096, device))
    return torch.equal(there.cpu(), uniforms(key, words_of(4096, "cpu")))
