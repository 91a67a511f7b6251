"""Noise of sampling: its bits against Python's whole numbers, its values against the distributions they must have.

Everything here is a function of fixed names, so a test that passes once passes always; levels are .001.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fasp_core.forward import noise
from fasp_core.forward.noise import bits, gumbel, keys, uniforms, words_of
from tests.support import pretend

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
LEVEL = 1e-3
V = 49_152


# bits


def splitmix64(state: int) -> Iterator[int]:
    """Steele, Lea and Flood (2014), in whole numbers."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & M64
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
        yield z ^ (z >> 31)


def mixed(x: int, key: int = 0) -> int:
    x ^= x >> 16
    x = (x * 0x21F0AAAD + key) & M32
    x ^= x >> 15
    x = (x * 0xD35A2D97) & M32
    return x ^ (x >> 15)


def by_hand(seed: int, prompt: str, draw: int, step: int, word: int) -> int:
    start = hashlib.sha256(f"{seed}|{draw}|{prompt}".encode()).digest()[:8]
    key = next(itertools.islice(splitmix64(int.from_bytes(start, "little")), step, None))
    return mixed(mixed(word) ^ (key & M32), key >> 32) & 0x7FFFFFFF


def test_the_oracle_is_splitmix64() -> None:
    """The first numbers of the sequence that begins at 1234567, as published with the reference implementation."""
    first = list(itertools.islice(splitmix64(1234567), 3))
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(
    st.integers(-(2**40), 2**40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(0, 500),
    st.integers(0, 63),
    st.lists(st.integers(0, 300_000), min_size=1, max_size=6),
)
@settings(deadline=None, max_examples=60)
def test_bits_are_those_of_whole_numbers(seed: int, prompt: str, draw: int, step: int, words: list[int]) -> None:
    key = keys(seed, [prompt], [draw], step + 1)[:, step]
    found = bits(key, words_of(300_001, "cpu")[words])[0].tolist()
    assert found == [by_hand(seed, prompt, draw, step, word) for word in words]


def test_a_part_is_the_same_in_any_company() -> None:
    whole = keys(3, ["a", "b", "c"], range(4), 6)
    assert whole.shape == (12, 6, 2)
    assert torch.equal(keys(3, ["b"], [2], 5)[0], whole[6, :5])
    noises = gumbel(whole[:, 5], 1000, "cpu")
    for size in (1, 700, 5000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(noise, "CELLS", {"cpu": size})
            assert torch.equal(gumbel(whole[:, 5], 1000, "cpu"), noises)
    assert torch.equal(gumbel(whole[6:7, 5], 300, "cpu")[0], noises[6, :300])


@pytest.mark.parametrize("rules", ["cuda", "mps"])
def test_bits_are_the_same_on_a_device(rules: Any) -> None:
    key = keys(0, ["I met a person"], range(3), 2)
    with pretend.rules(rules):
        there = uniforms(key[:, 1].to(pretend.NAME), words_of(V, pretend.NAME))
        assert there.device.type == pretend.NAME
        assert torch.equal(there.cpu(), uniforms(key[:, 1], words_of(V, "cpu")))
        on_device = key.to(pretend.NAME)
        made = gumbel(on_device[:, 0], V, pretend.NAME)  # the first time on a device its bits are looked at
        with pretend.counting() as seen:
            again = gumbel(on_device[:, 0], V, pretend.NAME)
        assert seen.waited == 0
        assert seen.launched <= 50
        assert torch.equal(again.cpu(), made.cpu())
        assert torch.equal(made.cpu(), gumbel(key[:, 0], V, "cpu"))


def test_a_device_with_other_integers_gets_the_bits_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys(0, ["a"], range(3), 1)[:, 0]
    noise._agrees.cache_clear()
    monkeypatch.setattr(noise, "words_of", lambda vocab, device: torch.arange(vocab, dtype=torch.int32, device=device))
    unmixed = gumbel(key, 500, "cpu")
    monkeypatch.undo()
    right = gumbel(key, 500, "cpu")
    assert not torch.equal(unmixed, right)
    with pretend.rules("cuda"):
        real = noise._mix
        monkeypatch.setattr(
            noise, "_mix", lambda x, key=None: real(x, key) if x.device.type == "cpu" else real(x).add_(1)
        )
        assert torch.equal(gumbel(key.to(pretend.NAME), 500, pretend.NAME).cpu(), right)
    noise._agrees.cache_clear()


# uniforms


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """[rows, V] uniforms of 5 prompts, 4 draws, 3 steps."""
    key = keys(0, [f"prompt {i}" for i in range(5)], range(4), 3).flatten(0, 1)
    return uniforms(key, words_of(V, "cpu")).double().numpy()


def test_uniforms_are_uniform(rows: np.ndarray) -> None:
    assert rows.min() > 0
    assert rows.max() < 1
    assert stats.kstest(rows.ravel()[::7], "uniform").pvalue > LEVEL
    each = [stats.kstest(row, "uniform").pvalue for row in rows]
    assert stats.kstest(each, "uniform").pvalue > LEVEL  # neither worse nor better than chance
    for part in (rows, rows * 2**8 % 1, rows * 2**16 % 1):  # high, middle and low bits
        counts = np.bincount((part * 256).astype(int).ravel(), minlength=256)
        assert stats.chisquare(counts).pvalue > LEVEL


def pairs(rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    by_name = rows.reshape(5, 4, 3, V)
    other = uniforms(keys(1, [f"prompt {i}" for i in range(5)], range(4), 3).flatten(0, 1), words_of(V, "cpu"))
    return {
        "words": (rows[:, :-1], rows[:, 1:]),
        "words a power of two apart": (rows[:, : -(1 << 12)], rows[:, 1 << 12 :]),
        "steps": (by_name[:, :, :-1], by_name[:, :, 1:]),
        "draws": (by_name[:, :-1], by_name[:, 1:]),
        "prompts": (by_name[:-1], by_name[1:]),
        "seeds": (rows, other.double().numpy()),
    }


def test_neighbours_are_independent(rows: np.ndarray) -> None:
    for name, (a, b) in pairs(rows).items():
        a, b = a.ravel(), b.ravel()
        n = a.size
        table = np.bincount((a * 32).astype(int) * 32 + (b * 32).astype(int), minlength=1024)
        assert stats.chisquare(table).pvalue > LEVEL, name
        r = np.corrcoef(a, b)[0, 1] * n**0.5
        assert abs(r) < stats.norm.isf(LEVEL / 2), name
        small = np.corrcoef(np.log(a), np.log(b))[0, 1] * n**0.5  # of the small ones, which become large noise
        assert abs(small) < stats.norm.isf(LEVEL / 2), name


def test_sums_over_rows_are_those_of_independent_ones(rows: np.ndarray) -> None:
    """What a word draws in all rows, and what a row draws in all words, has the variance of independent draws."""
    for axis in (0, 1):
        n, k = rows.shape[1 - axis], rows.shape[axis]
        sums = (rows.mean(axis) - 0.5) * (12 * k) ** 0.5
        ratio = sums.var() * n
        assert LEVEL / 2 < stats.chi2.cdf(ratio, n) < 1 - LEVEL / 2


@pytest.mark.parametrize("what", ["word", "key"])
def test_each_input_bit_turns_half_of_the_output_bits_over(what: str) -> None:
    n = 20_000
    key = keys(0, ["x"], range(n), 1)[:, 0]
    word = torch.arange(n, dtype=torch.int32) * 13 % V
    plain = _single(key, word)
    for bit in range(15 if what == "word" else 31):
        other = _single(key, word ^ (1 << bit)) if what == "word" else _single(key ^ torch.tensor([1 << bit, 0]), word)
        turned = (plain ^ other)[:, None] >> torch.arange(31) & 1
        share = turned.double().mean(0)
        assert float((share - 0.5).abs().max()) < 0.02, bit  # 5.6 standard errors
        assert abs(float(share.mean()) - 0.5) < 0.005, bit


def _single(key: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
    """[n] bits of one word a key."""
    table = noise._mix(word.clone())
    return bits(key.to(torch.int32), table[:, None])[:, 0]


def test_names_that_differ_little_share_nothing() -> None:
    first = keys(0, ["I met a red person"], [0], 2).flatten()
    for other in (keys(1, ["I met a red person"], [0], 2), keys(0, ["I met a red person."], [0], 2)):
        assert not set(first.tolist()) & set(other.flatten().tolist())
    many = keys(0, [f"{i}" for i in range(200)], range(10), 20).flatten(0, 1).numpy()
    assert len(np.unique(many, axis=0)) == len(many)


# Gumbel noise


def test_noise_has_the_gumbel_distribution() -> None:
    key = keys(0, ["a", "b"], range(100), 1)[:, 0]
    found = gumbel(key, 500, "cpu").double().numpy()
    assert np.isfinite(found).all()
    assert stats.kstest(found.ravel(), "gumbel_r").pvalue > LEVEL
    largest = gumbel(key, V, "cpu").amax(1).double().numpy() - np.log(V)
    assert stats.kstest(largest, "gumbel_r").pvalue > LEVEL  # the largest of V is again Gumbel, log V higher


def test_uniforms_at_both_ends_give_finite_noise() -> None:
    ends = torch.tensor([[0, 1, (1 << 31) - 1, (1 << 31) - 2]], dtype=torch.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "bits", lambda key, words: ends)
        found = gumbel(torch.zeros(1, 2, dtype=torch.int32), 4, "cpu")[0].tolist()
        assert 0 < float(uniforms(ends, ends).min()) < float(uniforms(ends, ends).max()) < 1
    assert found[0] == pytest.approx(np.log(2.0**32), rel=1e-6)
    assert found[2] == pytest.approx(-np.log(24 * np.log(2)), rel=1e-6)


def test_choices_follow_the_softmax_and_steps_are_independent() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, -5.0])
    p = logits.double().softmax(0).numpy()
    key = keys(0, [f"{i}" for i in range(200)], range(100), 2)
    chosen = [(logits + gumbel(key[:, step], len(p), "cpu")).argmax(-1).numpy() for step in (0, 1)]
    for step in (0, 1):
        assert stats.chisquare(np.bincount(chosen[step], minlength=len(p)), p * len(key)).pvalue > LEVEL
    table = np.zeros((4, 4))
    np.add.at(table, tuple(np.minimum(c, 3) for c in chosen), 1)
    assert stats.chi2_contingency(table).pvalue > LEVEL
